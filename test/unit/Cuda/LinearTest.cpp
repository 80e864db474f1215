//===- LinearTest.cpp - Products against float64 ---------------------------===//
#include "Machine.h"
#include "runtime/Cuda/Kernels/LinearShapes.h"
#include "test/unit/Cpu/Reference.h"

#include <algorithm>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;

/// A weight [k, n] as it lies on the device: [n][stride], padded with zeros.
std::vector<std::byte> packed(DType dtype, const std::vector<float> &weight, size_t k, size_t n) {
  size_t stride = linearStride(k, dtype);
  std::vector<float> rows(n * stride);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < k; ++j)
      rows[i * stride + j] = weight[j * n + i];
  return store(dtype, rows);
}

/// `shift` floats before x, so that its rows are not aligned.
std::vector<float> product(DType dtype, const std::vector<float> &x, const std::vector<float> &weight, size_t rows,
                           size_t k, size_t n, size_t shift = 0) {
  std::vector<float> shifted(shift, kNaN);
  shifted.insert(shifted.end(), x.begin(), x.end());
  Buffer<float> deviceX(shifted), y(rows * n);
  Buffer<std::byte> deviceWeight(packed(dtype, weight, k, n));
  LinearArgs args{deviceX.data() + shift, deviceWeight.data(), dtype, y.data(), nullptr, rows, k, n};
  Buffer<std::byte> scratch(linearScratchBytes(args));
  args.scratch = scratch.data();
  machine().launch(args);
  return y.read();
}

void check(DType dtype, size_t rows, size_t k, size_t n, size_t shift = 0) {
  std::vector<float> x = randomFloats(rows * k, 1, 3), weight = randomFloats(k * n, 2);
  std::vector<float> ours = product(dtype, x, weight, rows, k, n, shift);
  std::vector<double> expected(rows * n, 0);
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < k; ++j)
      for (size_t i = 0; i < n; ++i)
        expected[r * n + i] += double(x[r * k + j]) * roundTo(dtype, weight[j * n + i]);
  EXPECT_LT(relativeError(ours, expected), machine().sumError())
      << "dtype " << int(dtype) << " rows " << rows << " k " << k << " n " << n;
}

TEST(CudaLinear, MatchesFloat64ForEveryShape) {
  for (DType dtype : kDTypes)
    for (size_t rows : {1u, 2u, 7u, 8u, 9u, 16u, 19u})
      for (auto [k, n] : {std::pair<size_t, size_t>{1, 1}, {64, 16}, {45, 37}, {33, 100}, {72, 17}})
        check(dtype, rows, k, n);
}

TEST(CudaLinear, MatchesFloat64WhereRowsAreNotAligned) {
  for (DType dtype : kDTypes)
    for (size_t shift : {1u, 2u})
      check(dtype, 3, 256, 20, shift);
}

TEST(CudaLinear, MatchesFloat64WhenSlicedAlongK) {
  // Two and three slices of at least 1024.
  for (DType dtype : {DType::F16, DType::BF16}) {
    EXPECT_EQ(linearShape(3, 2060, 20, dtype).slices, 2u);
    check(dtype, 3, 2060, 20);
    EXPECT_EQ(linearShape(3, 3100, 5, dtype).slices, 3u);
    check(dtype, 9, 3100, 5);
  }
}

TEST(CudaLinear, MatchesFloat64WhenWide) {
  for (DType dtype : {DType::F16, DType::BF16})
    for (size_t rows : {1u, 9u})
      check(dtype, rows, 32, 8200);
}

TEST(CudaLinear, GivesARowTheSameBitsAloneAndAmongOthers) {
  const size_t k = 300, n = 40;
  for (DType dtype : kDTypes) {
    std::vector<float> x = randomFloats(11 * k, 3), weight = randomFloats(k * n, 4);
    std::vector<float> all = product(dtype, x, weight, 11, k, n);
    for (size_t row : {0u, 5u, 10u}) {
      std::vector<float> one(x.begin() + row * k, x.begin() + (row + 1) * k);
      EXPECT_TRUE(sameBits(product(dtype, one, weight, 1, k, n),
                           std::vector<float>(all.begin() + row * n, all.begin() + (row + 1) * n)));
    }
  }
}

TEST(CudaLinear, ShowsNaNInItsRowOnly) {
  const size_t k = 100, n = 20;
  for (DType dtype : kDTypes) {
    std::vector<float> x = randomFloats(3 * k, 5), weight = randomFloats(k * n, 6);
    x[k + 99] = kNaN;
    std::vector<float> y = product(dtype, x, weight, 3, k, n);
    for (size_t i = 0; i < 3 * n; ++i)
      EXPECT_EQ(std::isnan(y[i]), i / n == 1);
    x[k + 99] = kInfinity;
    y = product(dtype, x, weight, 3, k, n);
    for (size_t i = 0; i < 3 * n; ++i)
      EXPECT_EQ(std::isinf(y[i]), i / n == 1);
  }
}

TEST(CudaLinear, LaunchesCoverEveryColumnOnce) {
  for (DType dtype : kDTypes)
    for (size_t rows : {1u, 16u, 17u, 2048u})
      for (size_t n : {1u, 832u, 1024u, 4096u, 14336u, 128256u, 262144u})
        for (size_t k : {64u, 4096u, 16384u}) {
          LinearShape shape = linearShape(rows, k, n, dtype);
          std::vector<Launch> all = launches(LinearArgs{nullptr, nullptr, dtype, nullptr, nullptr, rows, k, n}, {});
          ASSERT_EQ(all.size(), shape.slices == 1 ? 1u : 2u);
          const std::array<uint32_t, 3> &grid = all[0].grid;
          EXPECT_LE(grid[1], 65535u);
          EXPECT_GE(size_t(grid[0]) * shape.rows, rows);
          EXPECT_LT((size_t(grid[0]) - 1) * shape.rows, rows);
          EXPECT_GE(size_t(grid[1]) * shape.columns, n);
          EXPECT_LT((size_t(grid[1]) - 1) * shape.columns, n);
          EXPECT_EQ(grid[2], shape.slices);
          // Each slice has runs of its own.
          size_t runs = (k + kLinearRun - 1) / kLinearRun, perSlice = (runs + shape.slices - 1) / shape.slices;
          EXPECT_LT((shape.slices - 1) * perSlice, runs);
          // Products of a shard: enough blocks for a GPU, or as many as k allows.
          if (dtype != DType::F32 && n >= 832 && k >= 4096)
            EXPECT_GE(grid[1] * grid[2], 64u) << n << " " << k;
        }
}

} // namespace
} // namespace helix::cuda::test
