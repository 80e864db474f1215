//===- StatelessTest.cpp - Ops of stateless functions -------------------------===//
#include "test/unit/Interpreter/Testing.h"

#include <cmath>

using namespace helix;
using namespace helix::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Two query heads on one KV head, two queries at positions 1 and 2 of three keys, causal, with a mask on the second
/// head that hides key 0 and lowers key 1: written out by hand.
TEST(DenseAttention, IsTheFormula) {
  Program program(R"(
    func.func @f(%q: tensor<1x2x2x1xf32>, %k: tensor<1x1x3x1xf32>, %v: tensor<1x1x3x1xf32>, %m: tensor<2x1x3xf32>)
        -> tensor<1x2x2x1xf32> {
      %y = helix.dense_attention %q, %k value %v mask %m
          {scale = 0.5 : f64, softcap = 2.0 : f64, offset = 1 : i64, right = 0 : i64}
          : (tensor<1x2x2x1xf32>, tensor<1x1x3x1xf32>, tensor<1x1x3x1xf32>, tensor<2x1x3xf32>) -> tensor<1x2x2x1xf32>
      return %y : tensor<1x2x2x1xf32>
    })");
  std::vector<double> q = {1, -2, 3, 0.5}, k = {1, 2, -1}, v = {10, 20, 40};
  auto e = [&](double query, int key, double bias) { return std::exp(2 * std::tanh(0.5 * query * k[key] / 2) + bias); };
  Tensor y = program.run({Tensor({1, 2, 2, 1}, q), Tensor({1, 1, 3, 1}, k), Tensor({1, 1, 3, 1}, v),
                          Tensor({2, 1, 3}, {0, 0, 0, -kInfinity, -1, 0})});
  auto mean = [&](std::vector<double> weights) {
    double sum = 0, total = 0;
    for (size_t j = 0; j < weights.size(); ++j)
      sum += weights[j] * v[j], total += weights[j];
    return sum / total;
  };
  expectNear(y,
             Tensor({1, 2, 2, 1}, {mean({e(1, 0, 0), e(1, 1, 0)}), mean({e(-2, 0, 0), e(-2, 1, 0), e(-2, 2, 0)}), 20,
                                   mean({0, e(0.5, 1, -1), e(0.5, 2, 0)})}),
             1e-12);
}

TEST(DenseAttention, HidesWhateverIsNotSeen) {
  Program program(R"(
    func.func @f(%q: tensor<2x1x2x1xf32>, %k: tensor<2x1x3x1xf32>, %m: tensor<2x2xi1>, %l: tensor<2xi64>)
        -> tensor<2x1x2x3xf32> {
      %y = helix.dense_attention %q, %k mask %m lengths %l
          {scale = 1.0 : f64, left = 0 : i64, stage = #helix.stage<masked>}
          : (tensor<2x1x2x1xf32>, tensor<2x1x3x1xf32>, tensor<2x2xi1>, tensor<2xi64>) -> tensor<2x1x2x3xf32>
      return %y : tensor<2x1x2x3xf32>
    })");
  double nan = std::nan("");
  // Lengths 2 and 3: queries stand at 0 and 1, and at 1 and 2. They see nothing before; a mask for two keys; key 2 is
  // behind the first length.
  Tensor y = program.run({Tensor({2, 1, 2, 1}, {1, 1, 1, 1}), Tensor({2, 1, 3, 1}, {5, 6, nan, nan, 7, 8}),
                          Tensor({2, 2}, {1, 1, 0, 1}), Tensor({2}, {2, 3})});
  const double hidden = -kInfinity;
  for (auto [i, want] : llvm::enumerate(std::vector<double>{5, 6, hidden, hidden, 6, hidden, //
                                                            hidden, 7, hidden, hidden, hidden, hidden}))
    EXPECT_EQ(y.values[i], want) << i;
}

TEST(Rotate, IsRopeAtGivenPositions) {
  Program program(R"(
    func.func @f(%x: tensor<1x1x2x6xf32>, %c: tensor<3x2xf32>, %s: tensor<3x2xf32>, %p: tensor<1x2xi64>)
        -> tensor<1x1x2x6xf32> {
      %y = helix.rotate %x, %c, %s at %p {interleaved} : tensor<1x1x2x6xf32>, tensor<3x2xf32>, tensor<1x2xi64>
      return %y : tensor<1x1x2x6xf32>
    })");
  Tensor y =
      program.run({Tensor({1, 1, 2, 6}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}), Tensor({3, 2}, {1, 2, 3, 4, 5, 6}),
                   Tensor({3, 2}, {10, 20, 30, 40, 50, 60}), Tensor({1, 2}, {2, 0})});
  expectNear(y,
             Tensor({1, 1, 2, 6}, {1 * 5 - 2 * 50, 2 * 5 + 1 * 50, 3 * 6 - 4 * 60, 4 * 6 + 3 * 60, 5, 6, 7 - 80, 8 + 70,
                                   18 - 200, 20 + 180, 11, 12}),
             0);
}

TEST(Scatter, WrapsAround) {
  Program program(R"(
    func.func @f(%u: tensor<2x2x1xf32>, %c: tensor<2x3x1xf32>, %i: tensor<2xi64>) -> tensor<2x3x1xf32> {
      %y = helix.scatter %u into %c at %i {axis = 1 : i64, circular} : tensor<2x2x1xf32>, tensor<2x3x1xf32>, tensor<2xi64>
      return %y : tensor<2x3x1xf32>
    })");
  Tensor y =
      program.run({Tensor({2, 2, 1}, {1, 2, 3, 4}), Tensor({2, 3, 1}, {10, 11, 12, 13, 14, 15}), Tensor({2}, {2, 4})});
  expectNear(y, Tensor({2, 3, 1}, {2, 11, 1, 13, 3, 4}), 0);
}

TEST(Transpose, MovesDimensions) {
  Program program(R"(
    func.func @f(%x: tensor<2x1x3xf32>) -> tensor<3x2x1xf32> {
      %y = helix.transpose %x, [2, 0, 1] : tensor<2x1x3xf32> -> tensor<3x2x1xf32>
      return %y : tensor<3x2x1xf32>
    })");
  expectNear(program.run({Tensor({2, 1, 3}, {1, 2, 3, 4, 5, 6})}), Tensor({3, 2, 1}, {1, 4, 2, 5, 3, 6}), 0);
}

TEST(RowStatistic, IsMeanAndInverseDeviation) {
  Program mean(R"(
    func.func @f(%x: tensor<1x2x4xf32>) -> tensor<1x2x1xf32> {
      %y = helix.row_statistic <mean> %x {epsilon = 3.0 : f64} : tensor<1x2x4xf32> -> tensor<1x2x1xf32>
      return %y : tensor<1x2x1xf32>
    })");
  Program deviation(R"(
    func.func @f(%x: tensor<1x2x4xf32>) -> tensor<1x2x1xf32> {
      %y = helix.row_statistic <inverse_deviation> %x {epsilon = 3.0 : f64} : tensor<1x2x4xf32> -> tensor<1x2x1xf32>
      return %y : tensor<1x2x1xf32>
    })");
  Tensor x({1, 2, 4}, {1, 3, 1, 3, 5, 5, 5, 5});
  expectNear(mean.run({x}), Tensor({1, 2, 1}, {2, 5}), 1e-15);
  expectNear(deviation.run({x}), Tensor({1, 2, 1}, {0.5, 1 / std::sqrt(3)}), 1e-15);
}

} // namespace
