//===- LinearGroupedTest.cpp - Products with experts' weights against float64 -===//
#include "Machine.h"
#include "runtime/Cuda/Kernels/LinearShapes.h"
#include "test/unit/Cpu/QuantizedReference.h"

#include <algorithm>
#include <functional>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;
using cpu::QuantFormat;
using cpu::WeightUse;
using cpu::ZeroPoint;

/// Weights of experts one after another, what lies between and in those of no row NaN where the type has any.
struct Experts {
  size_t k, n;
  uint32_t count;
  std::vector<std::function<double(size_t k, size_t n)>> at; ///< of each
  size_t weightBytes;
  std::vector<std::byte> packed;
};

/// Of numbers.
Experts plainExperts(DType dtype, uint32_t count, size_t k, size_t n) {
  Experts all{k, n, count, {}, (linearBytes(k, n, dtype) + 15) / 16 * 16 + 32, {}};
  all.packed.assign(count * all.weightBytes, std::byte(0xff));
  for (uint32_t e = 0; e < count; ++e) {
    size_t stride = linearStride(k, dtype);
    std::vector<float> rows(n * stride), numbers = randomFloats(n * k, 100 + e);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < k; ++j)
        rows[i * stride + j] = numbers[i * k + j];
    std::vector<std::byte> stored = store(dtype, rows);
    std::copy(stored.begin(), stored.end(), all.packed.begin() + long(e * all.weightBytes));
    all.at.push_back([=](size_t j, size_t i) { return roundTo(dtype, numbers[i * k + j]); });
  }
  return all;
}

/// Of codes.
struct CodedExperts : Experts {
  std::vector<Stored> stored;
  cpu::WeightPlan plan;

  CodedExperts(QuantFormat format, uint32_t count, size_t k, size_t n) : Experts{k, n, count, {}, 0, {}} {
    for (uint32_t e = 0; e < count; ++e)
      stored.emplace_back(format, n, k, 10 * format.bits + e);
    plan = planOf(stored[0], WeightUse::Linear, {0, 0, n, n}, {0, 0, k, k});
    weightBytes = (cpu::quantLayout(plan, format).value().bytes + 63) / 64 * 64;
    packed.assign(count * weightBytes, std::byte(0xff));
    for (uint32_t e = 0; e < count; ++e) {
      std::vector<std::byte> one = stored[e].pack(plan);
      std::copy(one.begin(), one.end(), packed.begin() + long(e * weightBytes));
      at.push_back([this, e](size_t j, size_t i) { return stored[e].at(i, j); });
    }
  }
};

/// Pairs of tokens and experts, by expert.
struct Pairs {
  std::vector<int32_t> experts, tokens;
  size_t tokenCount;
};

/// Each token's `top` experts of those that `allowed` gives, as a router would choose them.
Pairs pairsOf(size_t tokens, size_t top, std::vector<int32_t> allowed, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<int32_t, int32_t>> all;
  for (size_t token = 0; token < tokens; ++token) {
    std::shuffle(allowed.begin(), allowed.end(), random);
    for (size_t i = 0; i < top; ++i)
      all.push_back({allowed[i], int32_t(token)});
  }
  std::sort(all.begin(), all.end());
  Pairs pairs{{}, {}, tokens};
  for (auto [expert, token] : all)
    pairs.experts.push_back(expert), pairs.tokens.push_back(token);
  return pairs;
}

std::vector<int32_t> first(int32_t count) {
  std::vector<int32_t> all;
  for (int32_t i = 0; i < count; ++i)
    all.push_back(i);
  return all;
}

/// The product; where `gathers`, x has a row per token, else a row per pair.
template <typename Args>
std::vector<float> product(Args args, const Experts &experts, const Pairs &pairs, const std::vector<float> &x,
                           bool gathers) {
  Buffer<float> deviceX(x), y(pairs.experts.size() * experts.n);
  Buffer<std::byte> weights(experts.packed);
  Buffer<int32_t> deviceExperts(pairs.experts), xRows(pairs.tokens);
  args.x = deviceX.data(), args.y = y.data(), args.weight = weights.data();
  args.rows = pairs.experts.size(), args.k = experts.k, args.n = experts.n;
  args.groups = {deviceExperts.data(), gathers ? xRows.data() : nullptr, experts.count, experts.weightBytes};
  Buffer<std::byte> scratch(linearScratchBytes(args));
  args.scratch = scratch.data();
  machine().launch(args);
  return y.read();
}

template <typename Args> void check(const Args &args, const Experts &experts, const Pairs &pairs, bool gathers = true) {
  const size_t rows = pairs.experts.size(), k = experts.k, n = experts.n;
  std::vector<float> x = randomFloats((gathers ? pairs.tokenCount : rows) * k, rows, 3);
  std::vector<float> ours = product(args, experts, pairs, x, gathers);
  std::vector<double> expected(rows * n, 0);
  for (size_t r = 0; r < rows; ++r) {
    if (pairs.experts[r] < 0 || uint32_t(pairs.experts[r]) >= experts.count)
      continue;
    const float *row = x.data() + (gathers ? size_t(pairs.tokens[r]) : r) * k;
    for (size_t j = 0; j < k; ++j)
      for (size_t i = 0; i < n; ++i)
        expected[r * n + i] += double(row[j]) * experts.at[size_t(pairs.experts[r])](j, i);
  }
  ASSERT_LT(relativeError(ours, expected), machine().sumError()) << rows << " rows, k " << k << ", n " << n;
  for (size_t i = 0; i < rows * n; ++i)
    if (expected[i] == 0)
      ASSERT_EQ(ours[i], 0) << i;
}

LinearGroupedArgs plainArgs(DType dtype) {
  LinearGroupedArgs args;
  args.dtype = dtype;
  return args;
}

LinearQuantizedGroupedArgs codedArgs(const CodedExperts &experts) {
  LinearQuantizedGroupedArgs args;
  args.format = experts.stored[0].format;
  args.layout = cpu::quantLayout(experts.plan, args.format).value();
  args.share = cpu::quantShare(experts.plan, args.format);
  return args;
}

/// Routings of up to 16 tokens among seven experts: all of them, uneven, one alone, and pairs of none.
std::vector<Pairs> routings() {
  std::vector<Pairs> all = {pairsOf(1, 1, first(7), 1), pairsOf(1, 3, first(7), 2), pairsOf(16, 4, first(7), 3),
                            pairsOf(9, 2, {1, 5}, 4),   pairsOf(16, 1, {6}, 5),     pairsOf(5, 2, {0, 2, 3, 6}, 6)};
  // Idle tokens: pairs before and after all experts.
  Pairs idle = pairsOf(3, 2, {-1, 0, 4, 7, 9}, 8);
  all.push_back(idle);
  // One expert has 17 rows, its neighbours one each.
  Pairs uneven = pairsOf(17, 1, {3}, 9);
  uneven.experts.insert(uneven.experts.begin(), 2), uneven.tokens.insert(uneven.tokens.begin(), 16);
  uneven.experts.push_back(4), uneven.tokens.push_back(0);
  all.push_back(uneven);
  return all;
}

TEST(CudaLinearGrouped, NumbersMatchFloat64) {
  for (DType dtype : kDTypes) {
    Experts experts = plainExperts(dtype, 7, 45, 37);
    for (const Pairs &pairs : routings())
      for (bool gathers : {false, true})
        check(plainArgs(dtype), experts, pairs, gathers);
  }
}

TEST(CudaLinearGrouped, CodesMatchFloat64) {
  for (uint32_t bits : {2u, 4u, 8u})
    for (ZeroPoint zero : {ZeroPoint::Packed, ZeroPoint::Real}) {
      CodedExperts experts({bits, 32, DType::BF16, zero, false}, 7, 75, 70);
      for (const Pairs &pairs : routings())
        check(codedArgs(experts), experts, pairs);
    }
}

TEST(CudaLinearGrouped, FloatsMatchFloat64) {
  for (uint32_t bits : {4u, 8u}) {
    CodedExperts experts(
        {.bits = bits, .block = 32, .scale = DType::BF16, .zero = ZeroPoint::Zero, .isFloat = true, .isPower = true}, 7,
        75, 70);
    for (const Pairs &pairs : routings())
      check(codedArgs(experts), experts, pairs);
  }
}

TEST(CudaLinearGrouped, MatchesFloat64WhenSlicedAlongKAndWhenWide) {
  Pairs pairs = pairsOf(4, 2, first(3), 3);
  for (DType dtype : {DType::F16, DType::BF16}) {
    EXPECT_EQ(linearShape(3, 2060, 20, dtype).slices, 2u);
    check(plainArgs(dtype), plainExperts(dtype, 3, 2060, 20), pairs);
    check(plainArgs(dtype), plainExperts(dtype, 2, 16, 8200), pairsOf(2, 1, first(2), 1));
  }
  CodedExperts coded({4, 32, DType::F16, ZeroPoint::Middle, false}, 3, 2100, 65);
  LinearQuantizedGroupedArgs args = codedArgs(coded);
  args.rows = 8, args.k = 2100, args.n = 65;
  EXPECT_EQ(launches(args, {}).size(), 2u);
  check(codedArgs(coded), coded, pairs);
}

/// Weights of experts without rows are not read: the bits are the same whatever they hold.
TEST(CudaLinearGrouped, ReadsOnlyTheExpertsHit) {
  Pairs pairs = pairsOf(6, 2, {1, 4}, 7);
  Experts experts = plainExperts(DType::BF16, 6, 70, 33);
  std::vector<float> x = randomFloats(6 * 70, 1), clean = product(plainArgs(DType::BF16), experts, pairs, x, true);
  for (uint32_t e : {0u, 2u, 3u, 5u})
    std::fill_n(experts.packed.begin() + long(e * experts.weightBytes), experts.weightBytes, std::byte(0xff));
  EXPECT_TRUE(sameBits(product(plainArgs(DType::BF16), experts, pairs, x, true), clean));
  for (float value : clean)
    EXPECT_TRUE(std::isfinite(value));
}

/// A pair's row has the bits of the plain product with that expert's weight, whoever else is there.
TEST(CudaLinearGrouped, GivesARowTheBitsOfThePlainProduct) {
  Pairs pairs = pairsOf(16, 4, first(5), 3);
  Experts experts = plainExperts(DType::BF16, 5, 300, 40);
  std::vector<float> x = randomFloats(16 * 300, 3), all = product(plainArgs(DType::BF16), experts, pairs, x, true);
  Buffer<std::byte> weights(experts.packed);
  for (size_t row = 0; row < pairs.experts.size(); row += 7) {
    const float *from = x.data() + size_t(pairs.tokens[row]) * 300;
    Buffer<float> one(std::vector<float>(from, from + 300)), y(40);
    machine().launch(LinearArgs{one.data(), weights.data() + size_t(pairs.experts[row]) * experts.weightBytes,
                                DType::BF16, y.data(), nullptr, 1, 300, 40});
    EXPECT_TRUE(sameBits(y.read(), std::vector<float>(all.begin() + long(row * 40), all.begin() + long(row + 1) * 40)));
  }
}

TEST(CudaLinearGrouped, NoRowsGiveNoLaunch) {
  EXPECT_TRUE(launches(plainArgs(DType::BF16), {}).empty());
  EXPECT_TRUE(launches(LinearQuantizedGroupedArgs(), {}).empty());
}

} // namespace
} // namespace helix::cuda::test
