//===- RowsTest.cpp - Embedding, last token, concat --------------------------===//
#include "Reference.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Weights.h"

namespace helix::cpu::test {
namespace {

TEST(Embedding, TakesTheRanksIds) {
  for (DType dtype : kDTypes) {
    size_t hidden = 19;
    std::vector<std::byte> table = store(dtype, randomFloats(10 * hidden, 4));
    std::vector<int64_t> ids = {29, 20, 30, 19, 0, -1, 25, INT64_MIN, INT64_MAX, 20};
    std::vector<float> y(ids.size() * hidden, kNaN);
    EmbeddingArgs args{ids.data(), table.data(), dtype, y.data(), ids.size(), 10, hidden, 20};
    embedding(args, 5, ids.size());
    EXPECT_TRUE(std::isnan(y[0]));
    embedding(args, 0, 5);
    for (size_t row = 0; row < ids.size(); ++row)
      for (size_t i = 0; i < hidden; ++i) {
        bool ours = ids[row] >= 20 && ids[row] < 30;
        ASSERT_EQ(y[row * hidden + i], ours ? decode(dtype, table.data(), (ids[row] - 20) * hidden + i) : 0.0);
      }
  }
}

/// A table of 100 ids that is a product's matrix too: panels of 64 columns, the last one padded.
TEST(Embedding, ReadsColumnsOfATiedMatrix) {
  for (DType dtype : kDTypes) {
    const size_t hidden = 19, vocabulary = 100;
    std::vector<float> values = randomFloats(vocabulary * hidden, 4);
    std::vector<std::byte> stored = store(dtype, values);
    WeightPlan plan;
    plan.stored = plan.dtype = dtype;
    plan.use = WeightUse::Linear;
    plan.rank = 2;
    plan.dims[0] = {vocabulary, 0, {0, vocabulary}, vocabulary};
    plan.dims[1] = {hidden, 0, {0, hidden}, hidden};
    plan.transposed = true;
    std::vector<std::byte> packed(packedBytes(plan).value());
    ASSERT_TRUE(loadWeight(plan, stored, packed));
    std::vector<int64_t> ids = {1000, 1063, 1064, 1099, 1100, 999};
    std::vector<float> y(ids.size() * hidden, kNaN);
    EmbeddingArgs args{ids.data(), packed.data(), dtype, y.data(), ids.size(), vocabulary, hidden, 1000, true};
    embedding(args, 0, ids.size());
    for (size_t row = 0; row < ids.size(); ++row)
      for (size_t i = 0; i < hidden; ++i)
        ASSERT_EQ(y[row * hidden + i], row < 4 ? decode(dtype, stored.data(), (ids[row] - 1000) * hidden + i) : 0.0);
  }
}

TEST(LastToken, TakesTheLastUsedOne) {
  std::vector<float> x = randomFloats(4 * 3 * 5, 8), y(4 * 5, kNaN);
  std::vector<int32_t> qLen = {3, 0, 1, 2};
  lastToken({x.data(), qLen.data(), y.data(), 4, 3, 5}, 0, 4);
  for (size_t b = 0; b < 4; ++b)
    for (size_t i = 0; i < 5; ++i)
      ASSERT_EQ(y[b * 5 + i], qLen[b] == 0 ? 0 : x[(b * 3 + qLen[b] - 1) * 5 + i]);
}

TEST(Concat, SetsPartsSideBySide) {
  std::vector<float> a = randomFloats(4 * 3, 1), b = randomFloats(4 * 1, 2), c = randomFloats(4 * 5, 3);
  const ConcatPart parts[] = {{a.data(), 3}, {b.data(), 1}, {c.data(), 5}};
  std::vector<float> y(5 * 9, kNaN);
  ConcatArgs args{parts, y.data(), 4};
  concat(args, 3, 4);
  EXPECT_TRUE(std::isnan(y[26]));
  concat(args, 0, 3);
  for (size_t row = 0; row < 4; ++row)
    for (size_t i = 0; i < 9; ++i)
      ASSERT_EQ(y[row * 9 + i], i < 3 ? a[row * 3 + i] : i < 4 ? b[row] : c[row * 5 + i - 4]);
  EXPECT_TRUE(std::isnan(y[36]));
}

} // namespace
} // namespace helix::cpu::test
