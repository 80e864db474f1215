//===- OpsTest.cpp - Products, norms, rope and reductions ---------------------===//
#include "test/unit/Interpreter/Testing.h"

#include "llvm/Support/FormatVariadic.h"

#include <complex>

using namespace helix;
using namespace helix::test;

namespace {

std::mt19937_64 generator(7);

TEST(Ops, RmsNorm) {
  Program program(R"(func.func @f(%x: tensor<2x3x5xf32>, %s: tensor<5xf32>) -> tensor<2x3x5xf32> {
    %y = helix.rms_norm %x, %s {epsilon = 0.25 : f64} : tensor<2x3x5xf32>, tensor<5xf32>
    return %y : tensor<2x3x5xf32> })");
  Tensor x = randomTensor({2, 3, 5}, generator), scale = randomTensor({5}, generator), expected = x;
  for (int row = 0; row < 6; ++row)
    for (int i = 0; i < 5; ++i) {
      long double squares = 0;
      for (int j = 0; j < 5; ++j)
        squares += std::pow(static_cast<long double>(x.values[row * 5 + j]), 2);
      expected.values[row * 5 + i] = scale.values[i] * x.values[row * 5 + i] / std::sqrt(squares / 5 + 0.25L);
    }
  expectNear(program.run({x, scale}), expected, 1e-14);
}

/// Pairs as complex numbers, turned by the angle of their position; 6 of 8 elements turn.
void checkRope(bool interleaved) {
  Program program(std::string(R"(
    func.func @f(%x: tensor<2x3x2x8xf32>, %c: tensor<6x3xf32>, %s: tensor<6x3xf32>, %p: tensor<2xi32>)
        -> tensor<2x3x2x8xf32> {
      %y = helix.rope %x, %c, %s, %p )") +
                  (interleaved ? "{interleaved}" : "") + R"( : tensor<2x3x2x8xf32>, tensor<6x3xf32>, tensor<2xi32>
      return %y : tensor<2x3x2x8xf32> })");
  Tensor x = randomTensor({2, 3, 2, 8}, generator), cos({6, 3}), sin({6, 3}), past({2}, {1, 4});
  auto angle = [](int position, int i) { return 0.3 * position / (i + 1); };
  for (int p = 0; p < 6; ++p)
    for (int i = 0; i < 3; ++i) {
      *cos.at({p, i}) = std::cos(angle(p, i));
      *sin.at({p, i}) = std::sin(angle(p, i));
    }
  Tensor expected = x;
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < 3; ++t)
      for (int h = 0; h < 2; ++h)
        for (int i = 0; i < 3; ++i) {
          int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + 3;
          // Sequence 1 is at positions 4, 5 and 6; the last is past the table and takes its end.
          int position = std::min(static_cast<int>(past.values[b]) + t, 5);
          std::complex<double> pair(*x.at({b, t, h, first}), *x.at({b, t, h, second}));
          pair *= std::polar(1., angle(position, i));
          *expected.at({b, t, h, first}) = pair.real();
          *expected.at({b, t, h, second}) = pair.imag();
        }
  expectNear(program.run({x, cos, sin, past}), expected, 1e-14);
}

TEST(Ops, RopeOfHalves) { checkRope(false); }
TEST(Ops, RopeInterleaved) { checkRope(true); }

TEST(Ops, EmbeddingWhole) {
  Program program(R"(func.func @f(%i: tensor<2x2xi64>, %t: tensor<5x3xf32>) -> tensor<2x2x3xf32> {
    %y = helix.embedding %i, %t : (tensor<2x2xi64>, tensor<5x3xf32>) -> tensor<2x2x3xf32>
    return %y : tensor<2x2x3xf32> })");
  Tensor table = randomTensor({5, 3}, generator), expected({2, 2, 3});
  int ids[] = {4, 0, 2, 4};
  for (int i = 0; i < 4; ++i)
    for (int d = 0; d < 3; ++d)
      expected.values[i * 3 + d] = table.values[ids[i] * 3 + d];
  expectNear(program.run({Tensor({2, 2}, {4, 0, 2, 4}), table}), expected, 0);
}

/// Five rows over three ranks, two each: every row comes from one rank, and the last rank has one row of padding.
TEST(Ops, EmbeddingShardedOverRanks) {
  Program program(R"(module attributes {helix.mesh = #helix.mesh<tpa = 3, kvp = 1, ep = 1, tpf = 3>} {
    func.func @f(%i: tensor<1x5xi64>, %t: tensor<2x3xf32>) -> tensor<1x5x3xf32> {
      %p = helix.embedding %i, %t : (tensor<1x5xi64>, tensor<2x3xf32>) -> !helix.partial<tensor<1x5x3xf32>, sum, [n]>
      %y = helix.all_reduce %p : <tensor<1x5x3xf32>, sum, [n]> -> tensor<1x5x3xf32>
      return %y : tensor<1x5x3xf32> } })");
  Tensor table = randomTensor({6, 3}, generator);
  RankValues shares;
  for (int rank = 0; rank < 3; ++rank)
    shares.push_back(Tensor({2, 3}, std::vector<double>(table.at({2 * rank}), table.at({2 * rank}) + 6)));
  auto result = program.run({everywhere(Tensor({1, 5}, {3, 0, 4, 2, 1}), 3), shares});
  Tensor expected({1, 5, 3});
  int ids[] = {3, 0, 4, 2, 1};
  for (int t = 0; t < 5; ++t)
    for (int d = 0; d < 3; ++d)
      *expected.at({0, t, d}) = *table.at({ids[t], d});
  for (int rank = 0; rank < 3; ++rank)
    expectNear(*result[0][rank].tensor, expected, 0);
}

Tensor times(const Tensor &x, const Tensor &w) {
  Tensor result({x.shape[0], x.shape[1], w.shape[1]});
  for (int64_t r = 0; r < x.size() / w.shape[0]; ++r)
    for (int64_t n = 0; n < w.shape[1]; ++n) {
      long double sum = 0;
      for (int64_t k = w.shape[0] - 1; k >= 0; --k)
        sum += static_cast<long double>(x.values[r * w.shape[0] + k]) * *w.at({k, n});
      result.values[r * w.shape[1] + n] = sum;
    }
  return result;
}

TEST(Ops, Linear) {
  Program program(R"(func.func @f(%x: tensor<2x3x4xf32>, %w: tensor<4x5xf32>) -> tensor<2x3x5xf32> {
    %y = helix.linear %x, %w : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
    return %y : tensor<2x3x5xf32> })");
  Tensor x = randomTensor({2, 3, 4}, generator), w = randomTensor({4, 5}, generator);
  expectNear(program.run({x, w}), times(x, w), 1e-14);
}

TEST(Ops, LinearWithBiasAndBroadcast) {
  Program program(R"(func.func @f(%x: tensor<1x2x2xf32>, %w: tensor<2x3xf32>, %b: tensor<3xf32>) -> tensor<1x2x3xf32> {
    %y = helix.linear %x, %w, %b : (tensor<1x2x2xf32>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<1x2x3xf32>
    %r = helix.broadcast %b : tensor<3xf32> -> tensor<1x2x3xf32>
    %z = arith.mulf %y, %r : tensor<1x2x3xf32>
    return %z : tensor<1x2x3xf32> })");
  // [[1, 2], [3, 4]] times [[1, 0, 2], [0, 1, 3]], plus and then times [10, 20, 30].
  expectNear(
      program.run({Tensor({1, 2, 2}, {1, 2, 3, 4}), Tensor({2, 3}, {1, 0, 2, 0, 1, 3}), Tensor({3}, {10, 20, 30})}),
      Tensor({1, 2, 3}, {110, 440, 38 * 30, 130, 480, 48 * 30}), 0);
}

TEST(Ops, Ffn) {
  Program program(R"(
    func.func @f(%x: tensor<2x1x4xf32>, %g: tensor<4x6xf32>, %u: tensor<4x6xf32>, %d: tensor<6x4xf32>)
        -> tensor<2x1x4xf32> {
      %y = helix.ffn %x gate %g up %u down %d {activation = #helix.activation<silu>}
          : (tensor<2x1x4xf32>, tensor<4x6xf32>, tensor<4x6xf32>, tensor<6x4xf32>) -> tensor<2x1x4xf32>
      return %y : tensor<2x1x4xf32> })");
  Tensor x = randomTensor({2, 1, 4}, generator), gate = randomTensor({4, 6}, generator),
         up = randomTensor({4, 6}, generator), down = randomTensor({6, 4}, generator);
  Tensor g = times(x, gate), u = times(x, up);
  for (int i = 0; i < g.size(); ++i)
    // silu(x) = x (1 + tanh(x / 2)) / 2
    g.values[i] = g.values[i] * (1 + std::tanh(g.values[i] / 2)) / 2 * u.values[i];
  expectNear(program.run({x, gate, up, down}), times(g, down), 1e-13);
}

/// Every activation against the integral or identity that defines it, with and without a gate, with biases.
void checkFfn(const char *activation, bool gated, double (*act)(double)) {
  std::string gate = gated ? "gate %g " : "", gateBias = gated ? "gate_bias %gb " : "";
  std::string gateType = gated ? "tensor<4x6xf32>, " : "", gateBiasType = gated ? "tensor<6xf32>, " : "";
  Program program(llvm::formatv(R"(
    func.func @f(%x: tensor<2x1x4xf32>, %g: tensor<4x6xf32>, %u: tensor<4x6xf32>, %d: tensor<6x4xf32>,
                 %gb: tensor<6xf32>, %ub: tensor<6xf32>, %db: tensor<4xf32>) -> tensor<2x1x4xf32> {{
      %y = helix.ffn %x {0}up %u down %d {1}up_bias %ub down_bias %db {{activation = #helix.activation<{2}>}
          : (tensor<2x1x4xf32>, {3}tensor<4x6xf32>, tensor<6x4xf32>, {4}tensor<6xf32>, tensor<4xf32>) -> tensor<2x1x4xf32>
      return %y : tensor<2x1x4xf32> })",
                                gate, gateBias, activation, gateType, gateBiasType)
                      .str());
  Tensor x = randomTensor({2, 1, 4}, generator), g = randomTensor({4, 6}, generator),
         u = randomTensor({4, 6}, generator), d = randomTensor({6, 4}, generator), gb = randomTensor({6}, generator),
         ub = randomTensor({6}, generator), db = randomTensor({4}, generator);
  Tensor up = times(x, u), gates = times(x, g);
  for (int i = 0; i < up.size(); ++i) {
    double uv = up.values[i] + ub.values[i % 6], gv = gates.values[i] + gb.values[i % 6];
    up.values[i] = gated ? act(gv) * uv : act(uv);
  }
  Tensor expected = times(up, d);
  for (int i = 0; i < expected.size(); ++i)
    expected.values[i] += db.values[i % 4];
  expectNear(program.run({x, g, u, d, gb, ub, db}), expected, 1e-9);
}

/// x times the normal distribution's integral up to x, by Simpson's rule.
double geluByIntegral(double x) {
  const int steps = 20000;
  double sum = 0, h = (x + 12) / steps;
  for (int i = 0; i <= steps; ++i) {
    double t = -12 + i * h;
    sum += std::exp(-t * t / 2) * (i == 0 || i == steps ? 1 : i % 2 ? 4 : 2);
  }
  return x * sum * h / 3 / std::sqrt(2 * M_PI);
}

TEST(Ops, FfnOfEveryActivation) {
  for (bool gated : {false, true}) {
    checkFfn("gelu", gated, geluByIntegral);
    // (1 + tanh(a)) / 2 = 1 / (1 + e^-2a)
    checkFfn("gelu_tanh", gated,
             [](double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * std::pow(x, 3)))); });
    checkFfn("relu", gated, [](double x) { return (x + std::abs(x)) / 2; });
    checkFfn("silu", gated, [](double x) { return x * (1 + std::tanh(x / 2)) / 2; });
  }
}

TEST(Ops, LayerNorm) {
  Program program(R"(func.func @f(%x: tensor<2x1x5xf32>, %s: tensor<5xf32>, %b: tensor<5xf32>)
      -> (tensor<2x1x5xf32>, tensor<2x1x5xf32>) {
    %y = helix.layer_norm %x, %s, %b {epsilon = 0.25 : f64} : tensor<2x1x5xf32>, tensor<5xf32>, tensor<5xf32>
    %z = helix.layer_norm %x, %s {epsilon = 0.25 : f64} : tensor<2x1x5xf32>, tensor<5xf32>
    return %y, %z : tensor<2x1x5xf32>, tensor<2x1x5xf32> })");
  Tensor x = randomTensor({2, 1, 5}, generator), scale = randomTensor({5}, generator),
         bias = randomTensor({5}, generator);
  Tensor plain = x, shifted = x;
  for (int row = 0; row < 2; ++row) {
    // The variance as E[x^2] - E[x]^2.
    long double sum = 0, squares = 0;
    for (int i = 0; i < 5; ++i) {
      sum += x.values[row * 5 + i];
      squares += static_cast<long double>(x.values[row * 5 + i]) * x.values[row * 5 + i];
    }
    long double mean = sum / 5, variance = squares / 5 - mean * mean;
    for (int i = 0; i < 5; ++i) {
      plain.values[row * 5 + i] = (x.values[row * 5 + i] - mean) / std::sqrt(variance + 0.25L) * scale.values[i];
      shifted.values[row * 5 + i] = plain.values[row * 5 + i] + bias.values[i];
    }
  }
  auto results = program.run(llvm::ArrayRef<RankValues>{everywhere(x, 1), everywhere(scale, 1), everywhere(bias, 1)});
  ASSERT_EQ(results.size(), 2u);
  expectNear(*results[0][0].tensor, shifted, 1e-13);
  expectNear(*results[1][0].tensor, plain, 1e-13);
}

TEST(Ops, PositionEmbedding) {
  Program program(R"(func.func @f(%t: tensor<5x2xf32>, %p: tensor<2xi32>) -> tensor<2x3x2xf32> {
    %y = helix.position_embedding %t, %p : tensor<5x2xf32>, tensor<2xi32> -> tensor<2x3x2xf32>
    return %y : tensor<2x3x2xf32> })");
  Tensor table({5, 2}, {0, 1, 10, 11, 20, 21, 30, 31, 40, 41});
  // Positions 1, 2, 3; and 3, 4 and one past the table, which takes its end.
  expectNear(program.run({table, Tensor({2}, {1, 3})}),
             Tensor({2, 3, 2}, {10, 11, 20, 21, 30, 31, 30, 31, 40, 41, 40, 41}), 0);
}

TEST(Ops, LastTokenOfRaggedBatch) {
  Program program(R"(func.func @f(%x: tensor<3x2x2xf32>, %q: tensor<3xi32>) -> tensor<3x1x2xf32> {
    %y = helix.last_token %x, %q : tensor<3x2x2xf32>, tensor<3xi32> -> tensor<3x1x2xf32>
    return %y : tensor<3x1x2xf32> })");
  Tensor x({3, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  expectNear(program.run({x, Tensor({3}, {2, 0, 1})}), Tensor({3, 1, 2}, {3, 4, 0, 0, 9, 10}), 0);
}

/// ep = 2, tpf = 2: rank = ep_i * 2 + tpf_i.
TEST(Ops, AllReduceOverOneAxis) {
  auto run = [](const char *axes) {
    Program program(llvm::formatv(R"(module attributes {{helix.mesh = #helix.mesh<tpa = 1, kvp = 4, ep = 2, tpf = 2>} {{
      func.func @f(%x: tensor<1x1xf32>, %w: tensor<1x1xf32>) -> tensor<1x1xf32> {{
        %p = helix.linear %x, %w : (tensor<1x1xf32>, tensor<1x1xf32>) -> !helix.partial<tensor<1x1xf32>, sum, [{0}]>
        %y = helix.all_reduce %p : <tensor<1x1xf32>, sum, [{0}]> -> tensor<1x1xf32>
        return %y : tensor<1x1xf32> } })",
                                  axes)
                        .str());
    RankValues x;
    for (double value : {1, 10, 100, 1000})
      x.push_back(Tensor({1, 1}, value));
    auto results = program.run({x, everywhere(Tensor({1, 1}, 1), 4)});
    std::vector<double> sums;
    for (const RankValue &value : results[0])
      sums.push_back(value.tensor->values[0]);
    return sums;
  };
  EXPECT_EQ(run("tpf"), (std::vector<double>{11, 11, 1100, 1100}));
  EXPECT_EQ(run("ep"), (std::vector<double>{101, 1010, 101, 1010}));
  EXPECT_EQ(run("ep, tpf"), (std::vector<double>{1111, 1111, 1111, 1111}));
  EXPECT_EQ(run("n"), (std::vector<double>{1111, 1111, 1111, 1111}));
}

TEST(Ops, Elementwise) {
  Program program(R"(func.func @f(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
    %two = arith.constant dense<[2.0, 2.0, 2.0, 2.0]> : tensor<4xf32>
    %c = arith.constant 0.5 : f32
    %half = tensor.splat %c : tensor<4xf32>
    %a = arith.addf %x, %two : tensor<4xf32>
    %b = arith.subf %a, %y : tensor<4xf32>
    %d = arith.mulf %b, %half : tensor<4xf32>
    %e = arith.divf %d, %y : tensor<4xf32>
    %g = arith.negf %e : tensor<4xf32>
    %h = math.exp %g : tensor<4xf32>
    %i = math.sqrt %h : tensor<4xf32>
    %j = math.rsqrt %i : tensor<4xf32>
    %k = math.tanh %j : tensor<4xf32>
    %l = arith.maximumf %k, %x : tensor<4xf32>
    return %l : tensor<4xf32> })");
  Tensor x({4}, {0.5, -1, 3, 0}), y({4}, {1, 2, -4, 0.5}), expected({4});
  for (int i = 0; i < 4; ++i) {
    double e = (x.values[i] + 2 - y.values[i]) / 2 / y.values[i];
    expected.values[i] = std::max(std::tanh(std::exp(e / 4)), x.values[i]);
  }
  expectNear(program.run({x, y}), expected, 1e-15);
}

TEST(Ops, MaximumPassesNaN) {
  Program program(R"(func.func @f(%x: tensor<2xf32>, %y: tensor<2xf32>) -> tensor<2xf32> {
    %m = arith.maximumf %x, %y : tensor<2xf32>
    return %m : tensor<2xf32> })");
  Tensor result = program.run({Tensor({2}, {NAN, 1}), Tensor({2}, {1, NAN})});
  EXPECT_TRUE(std::isnan(result.values[0]) && std::isnan(result.values[1]));
}

TEST(Ops, Shapes) {
  Program program(R"(func.func @f(%x: tensor<2x6xf32>) -> tensor<3x2xf32> {
    %e = tensor.expand_shape %x [[0], [1, 2]] output_shape [2, 3, 2] : tensor<2x6xf32> into tensor<2x3x2xf32>
    %s = tensor.extract_slice %e[1, 0, 1] [1, 3, 1] [1, 1, 1] : tensor<2x3x2xf32> to tensor<3x1xf32>
    %c = tensor.collapse_shape %s [[0, 1]] : tensor<3x1xf32> into tensor<3xf32>
    %t = tensor.expand_shape %c [[0, 1]] output_shape [3, 1] : tensor<3xf32> into tensor<3x1xf32>
    %r = tensor.extract_slice %x[0, 0] [2, 3] [1, 2] : tensor<2x6xf32> to tensor<2x3xf32>
    %d = tensor.collapse_shape %r [[0, 1]] : tensor<2x3xf32> into tensor<6xf32>
    %g = tensor.expand_shape %d [[0, 1]] output_shape [3, 2] : tensor<6xf32> into tensor<3x2xf32>
    %w = arith.constant dense<1.0> : tensor<1x2xf32>
    %h = helix.linear %t, %w : (tensor<3x1xf32>, tensor<1x2xf32>) -> tensor<3x2xf32>
    %o = arith.addf %g, %h : tensor<3x2xf32>
    return %o : tensor<3x2xf32> })");
  Tensor x({2, 6}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  // Odd elements of the second row (7, 9, 11) added to the even ones of both.
  expectNear(program.run({x}), Tensor({3, 2}, {7, 9, 13, 15, 19, 21}), 0);
}

} // namespace
