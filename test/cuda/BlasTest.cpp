//===- BlasTest.cpp - Products of many rows against float64 ----------------===//
//
// On the emulations and, in test/gpu, on a GPU.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/KernelLibrary.h"
#include "runtime/Error.h"
#include "test/unit/Cpu/Reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace helix::cuda {
namespace {

using namespace cpu::test;

template <typename T> HeldMemory upload(const std::vector<T> &values, Stream stream) {
  HeldMemory memory = allocate(values.size() * sizeof(T));
  HELIX_CU(cuMemcpyHtoDAsync_v2, memory.get(), values.data(), values.size() * sizeof(T), stream);
  return memory;
}

/// A product on the emulated GPU.
struct Product {
  Gpu gpu{0};
  std::unique_ptr<KernelLibrary> library;
  HeldStream stream = makeStream();
  std::vector<float> y;
  std::vector<Prepared> steps;

  Product(bool rounds, DType dtype, const std::vector<float> &x, const std::vector<float> &weight, size_t rows,
          size_t k, size_t n)
      : library(std::make_unique<KernelLibrary>(nullptr, gpu, rounds)), y(rows * n) {
    size_t stride = linearStride(k, dtype);
    std::vector<float> turned(n * stride);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < k; ++j)
        turned[i * stride + j] = weight[j * n + i];
    HeldMemory deviceX = upload(x, stream.get()), deviceWeight = upload(store(dtype, turned), stream.get());
    HeldMemory deviceY = allocate(y.size() * sizeof(float));
    LinearArgs args{reinterpret_cast<const float *>(deviceX.get()),
                    reinterpret_cast<const void *>(deviceWeight.get()),
                    dtype,
                    reinterpret_cast<float *>(deviceY.get()),
                    nullptr,
                    rows,
                    k,
                    n};
    HeldMemory scratch = allocate(library->scratchBytes(args));
    args.scratch = reinterpret_cast<void *>(scratch.get());
    steps = library->prepare(args);
    for (const Prepared &step : steps)
      step.launch(stream.get());
    HELIX_CU(cuMemcpyDtoHAsync_v2, y.data(), deviceY.get(), y.size() * sizeof(float), stream.get());
  }
  size_t calls() const {
    return size_t(std::count_if(steps.begin(), steps.end(), [](const Prepared &step) { return step.call != nullptr; }));
  }
};

class CudaBlas : public testing::Test {
protected:
#ifdef HELIX_EMULATED_CUDA
  static constexpr double kSumError = 2e-7;
  void SetUp() override {
    ::setenv("HELIX_LIBCUDA", HELIX_EMULATED_CUDA, 1);
    ::setenv("HELIX_LIBCUBLASLT", HELIX_EMULATED_CUBLASLT_LIBRARY, 1);
  }
  void TearDown() override { ::unsetenv("HELIX_EMULATED_CUBLASLT"); }
#else
  static constexpr double kSumError = 1e-5; ///< as GpuMachine's
  void SetUp() override {
    try {
      Blas();
    } catch (const Error &error) {
      GTEST_SKIP() << error.what();
    }
  }
#endif
};

/// x · weight, x as it is or rounded row by row.
std::vector<double> expectedOf(bool rounds, DType dtype, const std::vector<float> &x, const std::vector<float> &weight,
                               size_t rows, size_t k, size_t n) {
  std::vector<double> y(rows * n, 0);
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < k; ++j) {
      double of = x[r * k + j];
      // Of f16 rows are scaled, so that none of these numbers is subnormal or too large.
      if (rounds && dtype != DType::F32)
        of = std::ldexp(roundTo(dtype, std::ldexp(of, 13)), -13);
      for (size_t i = 0; i < n; ++i)
        y[r * n + i] += of * roundTo(dtype, weight[j * n + i]);
    }
  return y;
}

TEST_F(CudaBlas, MatchesFloat64) {
  for (DType dtype : kDTypes)
    for (bool rounds : {false, true})
      for (auto [rows, k, n] : {std::tuple<size_t, size_t, size_t>{49, 37, 41}, {64, 96, 8}, {130, 8, 3}}) {
        std::vector<float> x = randomFloats(rows * k, rows, 3), weight = randomFloats(k * n, n);
        Product product(rounds, dtype, x, weight, rows, k, n);
        EXPECT_EQ(product.calls(), blasParts(dtype, rounds));
        EXPECT_LT(relativeError(product.y, expectedOf(rounds, dtype, x, weight, rows, k, n)), kSumError)
            << int(dtype) << " " << rounds << " " << rows;
      }
}

TEST_F(CudaBlas, RowsMayBeOfVeryDifferentSize) {
  const size_t rows = 60, k = 40, n = 9;
  for (DType dtype : kDTypes) {
    std::vector<float> x = randomFloats(rows * k, 1), weight = randomFloats(k * n, 2);
    for (size_t i = 0; i < rows * k; ++i)
      x[i] *= std::ldexp(1.0f, int(i / k % 3) * 40 - 40);
    Product product(false, dtype, x, weight, rows, k, n);
    std::vector<double> all = expectedOf(false, dtype, x, weight, rows, k, n);
    for (size_t r = 0; r < rows; ++r) {
      auto rowOf = [&](const auto &values) {
        return std::decay_t<decltype(values)>(values.begin() + long(r * n), values.begin() + long((r + 1) * n));
      };
      EXPECT_LT(relativeError(rowOf(product.y), rowOf(all)), 5 * kSumError) << int(dtype) << " " << r;
    }
  }
}

TEST_F(CudaBlas, WhatIsNotFiniteStaysInItsRow) {
  const size_t rows = 50, k = 20, n = 5;
  for (DType dtype : kDTypes)
    for (float value : {kNaN, kInfinity}) {
      std::vector<float> x = randomFloats(rows * k, 1), weight = randomFloats(k * n, 2);
      x[7 * k + 3] = value;
      std::vector<float> y = Product(false, dtype, x, weight, rows, k, n).y;
      for (size_t i = 0; i < rows * n; ++i)
        EXPECT_EQ(std::isfinite(y[i]), i / n != 7) << int(dtype) << " " << i;
    }
}

TEST_F(CudaBlas, FewRowsAreTheWrittenKernels) {
  for (DType dtype : kDTypes)
    for (bool rounds : {false, true}) {
      size_t most = kSkinnyRows * blasParts(dtype, rounds);
      for (size_t rows : {most, most + 1})
        EXPECT_EQ(Product(rounds, dtype, randomFloats(rows * 8, 1), randomFloats(8 * 4, 2), rows, 8, 4).calls() != 0,
                  rows > most);
    }
}

#ifdef HELIX_EMULATED_CUDA
TEST_F(CudaBlas, WithoutItTheWrittenKernelsDoAll) {
  const size_t rows = 70, k = 40, n = 9;
  std::vector<float> x = randomFloats(rows * k, 1), weight = randomFloats(k * n, 2);
  for (const char *how : {"refuse", "none"}) {
    ::setenv("HELIX_EMULATED_CUBLASLT", how, 1);
    for (DType dtype : kDTypes) {
      Product product(false, dtype, x, weight, rows, k, n);
      EXPECT_EQ(product.calls(), 0u);
      EXPECT_LT(relativeError(product.y, expectedOf(false, dtype, x, weight, rows, k, n)), 1e-6);
      if (std::string(how) == "refuse")
        EXPECT_EQ(product.library->products(),
                  "by the kernels for few: HLX4100: cublasLtCreate returned cublasStatus_t 1");
    }
  }
}
#endif

} // namespace
} // namespace helix::cuda
