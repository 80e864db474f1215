//===- LinearTest.cpp - Products with packed weights -----------------------===//
#include "Reference.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Weights.h"

namespace helix::cpu::test {
namespace {

std::vector<std::byte> packLinear(DType dtype, const std::vector<std::byte> &stored, size_t k, size_t n) {
  WeightPlan plan;
  plan.stored = plan.dtype = dtype;
  plan.use = WeightUse::Linear;
  plan.rank = 2;
  plan.dims[0] = {k, 0, {0, k}, k};
  plan.dims[1] = {n, 0, {0, n}, n};
  std::vector<std::byte> packed(packedBytes(plan).value());
  EXPECT_TRUE(loadWeight(plan, stored, packed));
  return packed;
}

/// A matrix, its packed form, activations and their product in f64.
struct Product {
  size_t rows, k, n;
  DType dtype;
  std::vector<float> x;
  std::vector<std::byte> packed;
  std::vector<double> expected;

  Product(size_t rows, size_t k, size_t n, DType dtype) : rows(rows), k(k), n(n), dtype(dtype) {
    x = randomFloats(rows * k, rows * 1000 + k);
    std::vector<std::byte> stored = store(dtype, randomFloats(k * n, n * 1000 + k));
    packed = packLinear(dtype, stored, k, n);
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < n; ++c) {
        double sum = 0;
        for (size_t i = 0; i < k; ++i)
          sum += double(x[r * k + i]) * decode(dtype, stored.data(), i * n + c);
        expected.push_back(sum);
      }
  }
  LinearArgs args(std::vector<float> &y) const { return {x.data(), packed.data(), dtype, y.data(), rows, k, n}; }
  std::vector<float> run() const {
    std::vector<float> y(rows * n, kNaN);
    linear(args(y), 0, linearItems(n));
    return y;
  }
};

TEST(Linear, MatchesFloat64) {
  forEachTarget([] {
    for (DType dtype : kDTypes) {
      for (size_t rows = 1; rows <= 17; ++rows) {
        Product product(rows, 100 + 37 * rows, 61 + 5 * rows, dtype);
        ASSERT_LE(relativeError(product.run(), product.expected), 1e-6) << rows;
      }
      for (auto [k, n] : {std::pair<size_t, size_t>{1, 1}, {1, 64}, {255, 63}, {256, 65}, {257, 128}, {1000, 3}}) {
        Product product(3, k, n, dtype);
        ASSERT_LE(relativeError(product.run(), product.expected), 1e-6) << k << " " << n;
      }
    }
  });
}

TEST(Linear, GivesARowTheSameBitsInEveryBatch) {
  forEachTarget([] {
    for (DType dtype : kDTypes) {
      Product product(17, 300, 130, dtype);
      std::vector<float> all = product.run();
      for (size_t rows = 1; rows <= 17; ++rows)
        for (size_t first : {size_t(0), 17 - rows}) {
          std::vector<float> y(rows * product.n);
          LinearArgs args = product.args(y);
          args.x += first * product.k;
          args.rows = rows;
          linear(args, 0, linearItems(product.n));
          ASSERT_EQ(0, std::memcmp(y.data(), all.data() + first * product.n, y.size() * sizeof(float))) << rows;
        }
    }
  });
}

TEST(Linear, GivesTheSameBitsHoweverPanelsAreDealt) {
  forEachTarget([] {
    Product product(5, 300, 200, DType::BF16);
    std::vector<float> whole = product.run(), parts(whole.size(), kNaN);
    for (size_t panel = linearItems(product.n); panel-- > 0;)
      linear(product.args(parts), panel, panel + 1);
    EXPECT_TRUE(sameBits(whole, parts));
  });
}

TEST(Linear, OfNothingIsZero) {
  std::vector<float> y(2 * 3, kNaN);
  linear({nullptr, nullptr, DType::F32, y.data(), 2, 0, 3}, 0, 1);
  EXPECT_TRUE(sameBits(y, std::vector<float>(6, 0.0f)));
}

TEST(Linear, ShowsNaN) {
  forEachTarget([] {
    for (DType dtype : kDTypes) {
      std::vector<float> weight(70 * 70, 1.0f), x(70, 1.0f), y(70);
      weight[69 * 70 + 66] = kNaN;
      weight[3 * 70 + 5] = kInfinity;
      std::vector<std::byte> packed = packLinear(dtype, store(dtype, weight), 70, 70);
      linear({x.data(), packed.data(), dtype, y.data(), 1, 70, 70}, 0, 2);
      for (size_t i = 0; i < 70; ++i) {
        ASSERT_EQ(std::isnan(y[i]), i == 66);
        ASSERT_EQ(y[i] == kInfinity, i == 5);
      }
    }
  });
}

} // namespace
} // namespace helix::cpu::test
