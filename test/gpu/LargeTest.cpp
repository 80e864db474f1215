//===- LargeTest.cpp - Addresses beyond 32 bits ----------------------------===//
//
// What only a GPU has the memory and time for (CudaHuge), and the same code on little (CudaFar), which the emulated
// driver runs. Memory starts as NaN; only what a kernel may read is written, so that a wrong address shows.
//
//===-----------------------------------------------------------------------===//
#include "GpuMachine.h"
#include "test/unit/Cpu/Reference.h"

#include <numeric>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;

constexpr uint64_t kFourGiB = uint64_t(1) << 32;

/// Skips the test unless the GPU has so much memory and some for the rest.
#define HELIX_NEED(bytes)                                                                                              \
  if (gpuMachine().freeBytes() < (bytes) + (uint64_t(1) << 30))                                                        \
  GTEST_SKIP() << "the GPU has too little free memory"

constexpr uint32_t kBlock = 16, kDim = 128;

/// A page of keys or values as kvFill leaves it, which is the same for every page and head: numbers of a short cycle.
std::vector<float> filledPage() {
  std::vector<float> page(kBlock * kDim);
  for (size_t i = 0; i < page.size(); ++i)
    page[i] = float(int(i * 5 % 64) * 37 % 64 - 32) / 64;
  return page;
}

/// The sums of a softmax over tokens, in double.
struct Softmax {
  double largest = -INFINITY, sum = 0;
  std::vector<double> out = std::vector<double>(kDim, 0);

  void add(double score, double count, const float *value) {
    double newLargest = std::max(largest, score), scale = std::exp(largest - newLargest);
    double weight = count * std::exp(score - newLargest);
    largest = newLargest;
    sum = sum * scale + weight;
    for (uint32_t d = 0; d < kDim; ++d)
      out[d] = out[d] * scale + weight * value[d];
  }
};

/// One query token against `tokens` tokens that rank 1 of 2 holds. All pages are alike but the first, one in the middle
/// and the last; those that are unowned or unused, and the rest of the last, are NaN.
void checkContext(DType dtype, uint32_t heads, uint32_t kvHeads, uint32_t tokens) {
  const uint32_t kvp = 2, rank = 1;
  const uint64_t used = (tokens + kBlock - 1) / kBlock, pages = used + 3, bytes = cpu::elementBytes(dtype);
  // In reverse, so that the first tokens lie at the end.
  std::vector<int32_t> table(pages);
  std::iota(table.rbegin(), table.rend(), 0);
  Buffer<int32_t> deviceTable(table);
  Buffer<std::byte> keys(cpu::kvKeyBytes(pages, kvHeads, kBlock, kDim, dtype));
  Buffer<std::byte> values(cpu::kvValueBytes(pages, kvHeads, kBlock, kDim, dtype));
  KvCache cache{keys.data(), values.data(), deviceTable.data(), pages, pages, kBlock, kvp, rank, kvHeads, kDim,
                kDim,        dtype};
  // Where the last token that the rank holds is among all.
  uint64_t last = ((tokens - 1) / kBlock * kvp + rank) * kBlock + (tokens - 1) % kBlock;
  machine().launch(KvFillArgs{cache, 0, last + 1});

  const uint64_t marked[] = {0, used / 2, used - 1};
  std::vector<std::vector<float>> markedKeys, markedValues; // [page of marked][head], a page each
  for (uint64_t page : marked)
    for (uint32_t head = 0; head < kvHeads; ++head) {
      uint64_t seed = 2 * (page * kvHeads + head);
      std::vector<float> key = randomFloats(kBlock * kDim, seed), value = randomFloats(kBlock * kDim, seed + 1);
      for (uint32_t j = 0; j < kBlock; ++j)
        for (uint32_t d = 0; d < kDim && page * kBlock + j >= tokens; ++d)
          key[d * kBlock + j] = value[j * kDim + d] = kNaN;
      auto put = [&](Buffer<std::byte> &area, uint64_t index, std::vector<float> &numbers) {
        std::vector<std::byte> stored = store(dtype, numbers);
        machine().upload(area.data() + index * bytes, stored.data(), stored.size());
        for (float &x : numbers)
          x = float(roundTo(dtype, x));
      };
      put(keys, cpu::kvKeyIndex(cache, table[page], head, 0), key);
      put(values, cpu::kvValueIndex(cache, table[page], head, 0), value);
      markedKeys.push_back(key), markedValues.push_back(value);
    }

  std::vector<float> query = randomFloats(heads * kDim, 3);
  Buffer<float> q(query), send(heads * (kDim + 1));
  Buffer<int32_t> past(std::vector<int32_t>{int32_t(last)}), qLen(std::vector<int32_t>{1});
  AttentionArgs args;
  args.q = q.data(), args.past = past.data(), args.qLen = qLen.data(), args.cache = cache, args.send = send.data();
  args.tokens = args.tokenCount = args.batchCount = 1, args.heads = args.paddedHeads = heads;
  args.scale = 0.25f;
  Buffer<std::byte> scratch(attentionScratchBytes(args));
  args.scratch = reinterpret_cast<float *>(scratch.data());
  machine().launch(args);

  std::vector<float> ours = send.read(), plain = filledPage();
  for (uint32_t head = 0; head < heads; ++head) {
    Softmax expected;
    auto add = [&](const std::vector<float> &key, const std::vector<float> &value, double count, uint64_t page) {
      for (uint32_t j = 0; j < kBlock && page * kBlock + j < tokens; ++j) {
        double score = 0;
        for (uint32_t d = 0; d < kDim; ++d)
          score += double(query[head * kDim + d]) * key[d * kBlock + j] * args.scale;
        expected.add(score, count, &value[j * kDim]);
      }
    };
    add(plain, plain, double(used - std::size(marked)), 0);
    for (size_t i = 0; i < std::size(marked); ++i) {
      size_t at = i * kvHeads + head / (heads / kvHeads);
      add(markedKeys[at], markedValues[at], 1, marked[i]);
    }
    const float *out = ours.data() + size_t(head) * (kDim + 1);
    for (uint32_t d = 0; d < kDim; ++d)
      ASSERT_NEAR(out[d], expected.out[d] / expected.sum, 1e-4) << "head " << head << " element " << d;
    double lse = expected.largest + std::log(expected.sum);
    ASSERT_NEAR(out[kDim], lse, 1.2e-4 * std::max(1.0, std::fabs(lse))) << "head " << head;
  }
}

/// Columns of a weight of which all others are NaN.
void checkColumns(DType dtype, size_t rows, size_t k, size_t n) {
  Buffer<std::byte> weight(linearBytes(k, n, dtype));
  size_t stride = linearStride(k, dtype);
  std::vector<float> x = randomFloats(rows * k, 1);
  std::vector<size_t> columns = {0, 1, n / 2, n - 2, n - 1};
  std::vector<double> expected;
  for (size_t column : columns) {
    std::vector<float> numbers = randomFloats(k, column);
    numbers.resize(stride, 0);
    std::vector<std::byte> stored = store(dtype, numbers);
    machine().upload(weight.data() + column * stored.size(), stored.data(), stored.size());
    for (size_t r = 0; r < rows; ++r) {
      expected.push_back(0);
      for (size_t i = 0; i < k; ++i)
        expected.back() += double(x[r * k + i]) * roundTo(dtype, numbers[i]);
    }
  }
  Buffer<float> deviceX(x), y(rows * n);
  LinearArgs args{deviceX.data(), weight.data(), dtype, y.data(), nullptr, rows, k, n};
  Buffer<std::byte> scratch(linearScratchBytes(args));
  args.scratch = scratch.data();
  machine().launch(args);
  std::vector<float> all = y.read(), ours;
  for (size_t column : columns)
    for (size_t r = 0; r < rows; ++r)
      ours.push_back(all[r * n + column]);
  EXPECT_LT(relativeError(ours, expected), machine().sumError());
  for (size_t r = 0; r < rows; ++r)
    EXPECT_TRUE(std::isnan(all[r * n + 2]) && std::isnan(all[r * n + n - 3]));
}

/// The first and the last row of a table of which all others are NaN, and ids beside it.
void checkTable(DType dtype, size_t vocabulary, size_t hidden) {
  Buffer<std::byte> table(vocabulary * hidden * cpu::elementBytes(dtype));
  std::vector<float> expected;
  for (size_t row : {size_t(0), vocabulary - 1}) {
    std::vector<float> numbers = randomFloats(hidden, row);
    std::vector<std::byte> stored = store(dtype, numbers);
    machine().upload(table.data() + row * stored.size(), stored.data(), stored.size());
    for (float x : numbers)
      expected.push_back(float(roundTo(dtype, x)));
  }
  expected.resize(4 * hidden, 0);
  auto count = int64_t(vocabulary);
  Buffer<int64_t> ids(std::vector<int64_t>{0, count - 1, count, -1});
  Buffer<float> y(4 * hidden);
  machine().launch(EmbeddingArgs{ids.data(), table.data(), dtype, y.data(), 4, vocabulary, hidden, hidden, 0});
  EXPECT_TRUE(sameBits(y.read(), expected));
}

TEST(CudaFar, ContextsOfThousands) {
  for (DType dtype : kDTypes)
    checkContext(dtype, 4, 2, 2051);
}
TEST(CudaFar, ColumnsAmongNaN) {
  for (DType dtype : kDTypes)
    checkColumns(dtype, 3, 72, 900);
}
TEST(CudaFar, RowsAmongNaN) {
  for (DType dtype : kDTypes)
    checkTable(dtype, 300, 70);
}

TEST(CudaHuge, ContextsOfAMillion) {
  for (DType dtype : kDTypes) {
    HELIX_NEED(2 * cpu::kvKeyBytes(1000005 / kBlock + 4, 8, kBlock, kDim, dtype));
    checkContext(dtype, 32, 8, 1000005);
    checkContext(dtype, 8, 8, 1000000);
  }
}
TEST(CudaHuge, ColumnsBeyondFourGiB) {
  for (DType dtype : {DType::F16, DType::BF16}) {
    const size_t k = 8192, n = 270000;
    static_assert(linearBytes(k, n, DType::F16) > kFourGiB);
    HELIX_NEED(linearBytes(k, n, dtype));
    for (size_t rows : {1u, 16u})
      checkColumns(dtype, rows, k, n);
  }
}
TEST(CudaHuge, RowsBeyondFourGiB) {
  const size_t vocabulary = 600000, hidden = 4096;
  static_assert(vocabulary * hidden * 2 > kFourGiB);
  HELIX_NEED(vocabulary * hidden * 2);
  checkTable(DType::F16, vocabulary, hidden);
}

} // namespace
} // namespace helix::cuda::test
