//===- WeightsTest.cpp - Slicing, rounding and packing at load -------------===//
#include "runtime/Cpu/Weights.h"
#include "Reference.h"
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"

namespace helix::cpu::test {
namespace {

template <typename T> void expectRounding(DType dtype, float x) {
  T rounded;
  fromFloat(x, rounded);
  if (std::isnan(x)) {
    ASSERT_TRUE(std::isnan(decode(dtype, &rounded, 0)));
    return;
  }
  ASSERT_EQ(decode(dtype, &rounded, 0), roundTo(dtype, x)) << x;
  ASSERT_EQ(std::signbit(decode(dtype, &rounded, 0)), std::signbit(x)) << x;
}

TEST(Convert, RoundsToNearestEven) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 300000; ++i) {
    // All exponents, and fractions at, just beside and far from the halfway points.
    uint32_t bits = uint32_t(random());
    if (i % 3 == 1)
      bits &= 0xfffff000;
    if (i % 3 == 2)
      bits = (bits & 0xffff8000) + uint32_t(random() % 3) - 1;
    float x = std::bit_cast<float>(bits);
    expectRounding<Half>(DType::F16, x);
    expectRounding<BFloat>(DType::BF16, x);
    expectRounding<Half>(DType::F16, std::ldexp(std::bit_cast<float>(bits % 0x800000 + 0x3f800000), i % 50 - 30));
  }
  for (float x : {0.0f, 65504.0f, 65519.996f, 65520.0f, 65536.0f, kInfinity, kNaN, 0x1p-24f, 0x1p-25f, 0x1.000002p-25f,
                  0x1p-14f, 0x1.ff8p-15f, 0x1.ffep-15f, 3.4028235e38f, 1e-45f}) {
    expectRounding<Half>(DType::F16, x);
    expectRounding<Half>(DType::F16, -x);
    expectRounding<BFloat>(DType::BF16, x);
    expectRounding<BFloat>(DType::BF16, -x);
  }
}

TEST(Convert, ReadsEvery16BitPattern) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    Half half{uint16_t(bits)};
    BFloat bfloat{uint16_t(bits)};
    double h = decode(DType::F16, &half, 0), b = decode(DType::BF16, &bfloat, 0);
    ASSERT_TRUE(std::isnan(h) ? std::isnan(toFloat(half)) : toFloat(half) == h) << bits;
    ASSERT_TRUE(std::isnan(b) ? std::isnan(toFloat(bfloat)) : toFloat(bfloat) == b) << bits;
    ASSERT_EQ(std::signbit(toFloat(half)), bool(bits >> 15));
    Half back;
    fromFloat(toFloat(half), back);
    ASSERT_TRUE(std::isnan(h) || back.bits == bits);
    // A NaN whose payload lies in the bits that are cut off.
    BFloat cut;
    fromFloat(std::bit_cast<float>(0x7f800001u), cut);
    ASSERT_TRUE(std::isnan(toFloat(cut)));
  }
}

TEST(SplitRange, TakesTheChunk) {
  auto expect = [](Range range, uint64_t begin, uint64_t end) {
    EXPECT_EQ(range.begin, begin);
    EXPECT_EQ(range.end, end);
  };
  expect(splitRange({0, 10}, 4, 0), 0, 4);
  expect(splitRange({0, 10}, 4, 2), 8, 10);
  EXPECT_EQ(splitRange({0, 10}, 4, 3).size(), 0u);
  EXPECT_EQ(splitRange({0, 10}, UINT64_MAX, 5).size(), 0u);
  expect(splitRange({0, 10}, UINT64_MAX, 0), 0, 10);
  expect(splitRange(splitRange({0, 48}, 24, 1), 8, 1), 32, 40);
}

/// Value [row, column] of the local weight, from the definition in Artifact.fbs.
double expectedAt(const WeightPlan &plan, const std::vector<std::byte> &stored, uint64_t row, uint64_t column) {
  const WeightDim &rows = plan.dims[0], &columns = plan.dims[1];
  if (row >= rows.share.end - rows.share.begin || column >= columns.share.end - columns.share.begin)
    return 0;
  uint64_t at = (rows.windowOffset + rows.share.begin + row) * columns.stored + columns.windowOffset +
                columns.share.begin + column;
  return roundTo(plan.dtype, decode(plan.stored, stored.data(), at));
}

TEST(LoadWeight, SlicesRoundsAndPacks) {
  for (DType from : kDTypes)
    for (DType to : kDTypes)
      for (WeightUse use : {WeightUse::Table, WeightUse::Linear}) {
        WeightPlan plan;
        plan.stored = from;
        plan.dtype = to;
        plan.use = use;
        plan.rank = 2;
        plan.dims[0] = {37, 5, splitRange({0, 30}, 16, 1), 16}; // 14 rows and 2 of zeros
        plan.dims[1] = {301, 7, splitRange(splitRange({0, 290}, 150, 1), 75, 0), 80};
        std::vector<std::byte> stored = store(from, randomFloats(37 * 301, 5));
        // A file's bytes need not be aligned.
        std::vector<std::byte> shifted(stored.size() + 1);
        std::copy(stored.begin(), stored.end(), shifted.begin() + 1);
        std::vector<std::byte> packed(packedBytes(plan).value(), std::byte(0xff));
        ASSERT_EQ(packed.size(), 16 * (use == WeightUse::Linear ? 128u : 80u) * elementBytes(to));
        ASSERT_TRUE(loadWeight(plan, std::span(shifted).subspan(1), packed));
        for (uint64_t row = 0; row < 16; ++row)
          for (uint64_t column = 0; column < (use == WeightUse::Linear ? 128 : 80); ++column) {
            uint64_t at = use == WeightUse::Linear ? (column / 64 * 16 + row) * 64 + column % 64 : row * 80 + column;
            ASSERT_EQ(decode(to, packed.data(), at), column < 80 ? expectedAt(plan, stored, row, column) : 0)
                << row << " " << column;
          }
      }
}

/// The transpose of what the test above takes, in panels.
TEST(LoadWeight, Transposes) {
  for (DType from : kDTypes)
    for (DType to : kDTypes) {
      WeightPlan plan;
      plan.stored = from;
      plan.dtype = to;
      plan.use = WeightUse::Linear;
      plan.rank = 2;
      plan.dims[0] = {301, 7, splitRange(splitRange({0, 290}, 150, 1), 75, 0), 80}; // 75 columns and 5 of zeros
      plan.dims[1] = {187, 5, splitRange({0, 180}, 96, 1), 90}; // 84 rows and 6 of zeros
      plan.transposed = true;
      std::vector<std::byte> stored = store(from, randomFloats(187 * 301, 5));
      std::vector<std::byte> packed(packedBytes(plan).value(), std::byte(0xff));
      ASSERT_EQ(packed.size(), 90 * 128u * elementBytes(to));
      ASSERT_TRUE(loadWeight(plan, stored, packed));
      for (uint64_t row = 0; row < 90; ++row)
        for (uint64_t column = 0; column < 128; ++column)
          ASSERT_EQ(decode(to, packed.data(), (column / 64 * 90 + row) * 64 + column % 64),
                    column < 80 ? expectedAt(plan, stored, column, row) : 0)
              << row << " " << column;
    }
}

/// A share that begins and ends within a piece, of columns in pieces of 6 every 14 and rows in pieces of 4 every 7.
TEST(LoadWeight, TakesPieces) {
  auto storedAt = [](uint64_t index, uint64_t offset, uint64_t run, uint64_t stride) {
    return offset + index / run * stride + index % run;
  };
  for (WeightUse use : {WeightUse::Table, WeightUse::Linear})
    for (bool transposed : {false, true}) {
      if (transposed && use != WeightUse::Linear)
        continue;
      WeightPlan plan;
      plan.use = use;
      plan.rank = 2;
      plan.transposed = transposed;
      WeightDim rows = {40, 3, {2, 17}, 16, 4, 7}, columns = {301, 5, {70, 125}, 60, 6, 14};
      plan.dims[0] = transposed ? columns : rows;
      plan.dims[1] = transposed ? rows : columns;
      std::vector<float> values = randomFloats(40 * 301, 6);
      std::vector<std::byte> packed(packedBytes(plan).value(), std::byte(0xff));
      ASSERT_TRUE(loadWeight(plan, store(DType::F32, values), packed));
      for (uint64_t row = 0; row < 16; ++row)
        for (uint64_t column = 0; column < 60; ++column) {
          uint64_t at = use == WeightUse::Linear ? row * 64 + column : row * 60 + column;
          uint64_t r = storedAt(2 + row, 3, 4, 7), c = storedAt(70 + column, 5, 6, 14);
          double expected = row < 15 && column < 55 ? values[transposed ? c * 40 + r : r * 301 + c] : 0;
          ASSERT_EQ(decode(DType::F32, packed.data(), at), expected) << row << " " << column;
        }
    }
}

TEST(LoadWeight, KeepsVectorsAsTheyAre) {
  WeightPlan plan;
  plan.stored = DType::BF16;
  plan.use = WeightUse::Vector;
  plan.rank = 1;
  plan.dims[0] = {9, 1, {2, 7}, 6};
  std::vector<float> values = {1, 2, 3, kInfinity, kNaN, -6, 7, 8, 9};
  std::vector<std::byte> packed(packedBytes(plan).value());
  ASSERT_EQ(packed.size(), 24u);
  ASSERT_TRUE(loadWeight(plan, store(DType::BF16, values), packed));
  EXPECT_EQ(decode(DType::F32, packed.data(), 0), INFINITY);
  EXPECT_TRUE(std::isnan(decode(DType::F32, packed.data(), 1)));
  EXPECT_EQ(decode(DType::F32, packed.data(), 2), -6);
  EXPECT_EQ(decode(DType::F32, packed.data(), 4), 8);
  EXPECT_EQ(decode(DType::F32, packed.data(), 5), 0);
}

TEST(LoadWeight, RefusesWhatDoesNotFit) {
  WeightPlan good;
  good.rank = 2;
  good.use = WeightUse::Linear;
  good.dims[0] = {8, 2, {0, 6}, 6};
  good.dims[1] = {8, 0, {0, 8}, 8};
  ASSERT_EQ(packedBytes(good), 6 * 64 * 4u);
  std::vector<std::byte> stored(8 * 8 * 4), packed(6 * 64 * 4);
  EXPECT_TRUE(loadWeight(good, stored, packed));
  EXPECT_FALSE(loadWeight(good, std::span(stored).first(255), packed));
  EXPECT_FALSE(loadWeight(good, stored, std::span(packed).first(100)));
  auto refuse = [&](auto change) {
    WeightPlan plan = good;
    change(plan);
    EXPECT_FALSE(packedBytes(plan));
    EXPECT_FALSE(loadWeight(plan, stored, packed));
  };
  refuse([](WeightPlan &plan) { plan.rank = 1; });
  refuse([](WeightPlan &plan) { plan.rank = 3; });
  refuse([](WeightPlan &plan) { plan.use = WeightUse::Table, plan.transposed = true; });
  refuse([](WeightPlan &plan) { plan.dims[0].windowOffset = 3; });
  refuse([](WeightPlan &plan) { plan.dims[0].windowOffset = UINT64_MAX; });
  refuse([](WeightPlan &plan) { plan.dims[1].share = {0, 9}; });
  refuse([](WeightPlan &plan) { plan.dims[1].stride = 1; });
  refuse([](WeightPlan &plan) { plan.dims[1].run = 4, plan.dims[1].stride = 3; });
  refuse([](WeightPlan &plan) { plan.dims[1].run = 4, plan.dims[1].stride = 5; });
  refuse([](WeightPlan &plan) { plan.dims[1].run = 1, plan.dims[1].stride = UINT64_MAX / 2; });
  refuse([](WeightPlan &plan) { plan.dims[1].share = {5, 4}; });
  refuse([](WeightPlan &plan) { plan.dims[0].local = 5; });
  refuse([](WeightPlan &plan) { plan.dims[1].local = UINT64_MAX; });
  refuse([](WeightPlan &plan) { plan.dims[1].local = uint64_t(1) << 61; });
  refuse([](WeightPlan &plan) { plan.dtype = DType(3); });
  refuse([](WeightPlan &plan) { plan.stored = DType(9); });
  refuse([](WeightPlan &plan) { plan.use = WeightUse::Vector, plan.dtype = DType::F16; });
  WeightPlan huge = good;
  huge.dims[0].stored = uint64_t(1) << 62;
  EXPECT_FALSE(loadWeight(huge, stored, packed));
}

} // namespace
} // namespace helix::cpu::test
