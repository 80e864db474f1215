//===- LinearQuantizedTest.cpp - Weights of codes against float64 ----------===//
#include "Machine.h"
#include "runtime/Cuda/Kernels/LinearShapes.h"
#include "test/unit/Cpu/QuantizedReference.h"

#include <algorithm>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;
using cpu::QuantFormat;
using cpu::WeightPlan;
using cpu::WeightUse;
using cpu::ZeroPoint;

/// A weight on the device.
struct Held {
  const Stored &stored;
  Cut rows, columns; ///< of the stored tensor: n and k
  WeightPlan plan;
  Buffer<std::byte> packed;

  Held(const Stored &stored, Cut rows, Cut columns)
      : stored(stored), rows(rows), columns(columns), plan(planOf(stored, WeightUse::Linear, rows, columns)),
        packed(stored.pack(plan)) {}

  double at(size_t k, size_t n) const {
    return n < rows.count && k < columns.count
               ? stored.at(rows.window + rows.begin + n, columns.window + columns.begin + k)
               : 0;
  }
  LinearQuantizedArgs args(size_t count) const {
    LinearQuantizedArgs args;
    args.weight = packed.data();
    args.format = stored.format;
    args.layout = cpu::quantLayout(plan, stored.format).value();
    args.share = cpu::quantShare(plan, stored.format);
    args.rows = count, args.k = columns.local, args.n = rows.local;
    return args;
  }
  std::vector<float> product(const std::vector<float> &x, size_t count, size_t shift = 0) const {
    std::vector<float> shifted(shift, kNaN);
    shifted.insert(shifted.end(), x.begin(), x.end());
    LinearQuantizedArgs all = args(count);
    Buffer<float> deviceX(shifted), y(count * all.n);
    Buffer<std::byte> scratch(linearScratchBytes(all));
    all.x = deviceX.data() + shift, all.y = y.data(), all.scratch = scratch.data();
    machine().launch(all);
    return y.read();
  }
};

void check(const Stored &stored, Cut rows, Cut columns, size_t count, size_t shift = 0) {
  SCOPED_TRACE(testing::Message() << stored.format.bits << " bits, block " << stored.format.block << ", zero "
                                  << int(stored.format.zero) << ", scale " << int(stored.format.scale) << ", k "
                                  << columns.local << ", n " << rows.local << ", rows " << count);
  Held weight(stored, rows, columns);
  size_t k = columns.local, n = rows.local;
  std::vector<float> x = randomFloats(count * k, k + count, 3), ours = weight.product(x, count, shift);
  std::vector<double> expected(count * n, 0);
  for (size_t j = 0; j < k; ++j)
    for (size_t i = 0; i < n; ++i)
      for (double w = weight.at(j, i), r = 0; r < double(count); ++r)
        expected[size_t(r) * n + i] += double(x[size_t(r) * k + j]) * w;
  ASSERT_LT(relativeError(ours, expected), machine().sumError());
  for (size_t r = 0; r < count; ++r)
    for (size_t i = rows.count; i < n; ++i)
      ASSERT_EQ(ours[r * n + i], 0);
}

TEST(CudaLinearQuantized, MatchesFloat64ForEveryFormat) {
  forEachFormat([](QuantFormat format) {
    Stored stored(format, 150, 104, format.bits);
    check(stored, {0, 0, 150, 150}, {0, 0, 104, 104}, 5);
    // A share that starts and ends within blocks, in a window, padded both ways.
    check(stored, {3, 10, 70, 77}, {5, 20, 37, 41}, 3);
  });
}

TEST(CudaLinearQuantized, MatchesFloat64ForFloats) {
  forEachFloatFormat([](QuantFormat format) {
    Stored stored(format, 150, 104, format.bits);
    check(stored, {0, 0, 150, 150}, {0, 0, 104, 104}, 5);
    check(stored, {3, 10, 70, 77}, {5, 20, 37, 41}, 11);
  });
}

/// Every code once, with x of one element.
TEST(CudaLinearQuantized, EveryFloatIsItself) {
  for (uint32_t bits : {4u, 8u}) {
    QuantFormat format{.bits = bits, .block = 32, .scale = DType::F32, .zero = ZeroPoint::Zero, .isFloat = true};
    Stored stored(format, 256, 4, 1);
    for (size_t i = 0; i < stored.codes.size(); ++i)
      stored.codes[i] = bits == 8 ? std::byte(i / 4) : std::byte(i / 2 % 16 * 17);
    stored.scales = store(DType::F32, std::vector<float>(256, 1));
    Held weight(stored, {0, 0, 256, 256}, {0, 0, 4, 4});
    std::vector<float> y = weight.product({0, 0, 1, 0}, 1);
    for (size_t i = 0; i < 256; ++i)
      if (double want = weight.at(2, i); std::isnan(want))
        EXPECT_TRUE(std::isnan(y[i])) << i;
      else
        EXPECT_EQ(y[i], want) << bits << " " << i;
  }
}

TEST(CudaLinearQuantized, MatchesFloat64ForEveryShape) {
  for (uint32_t bits : {2u, 4u, 8u})
    for (uint32_t block : {16u, 32u, 128u, 24u}) {
      Stored stored({bits, block, DType::F16, ZeroPoint::Packed, false}, 70, 300, bits + block);
      for (size_t count : {1u, 8u, 9u, 16u, 19u})
        check(stored, {0, 0, 70, 70}, {0, 0, 300, 300}, count, count % 3);
      for (uint64_t begin : {0u, 1u, 16u, 31u, 130u})
        for (uint64_t length : {1u, 2u, 15u, 33u, 168u})
          check(stored, {0, 0, 3, 3}, {0, begin, length, length}, 2);
    }
}

TEST(CudaLinearQuantized, MatchesFloat64WhenSlicedAlongK) {
  for (ZeroPoint zero : {ZeroPoint::Packed, ZeroPoint::Real}) {
    Stored stored({4, 32, DType::BF16, zero, false}, 65, 3200, 9);
    for (uint64_t k : {2080u, 3136u}) {
      Held weight(stored, {0, 0, 65, 65}, {0, 40, k, k});
      EXPECT_EQ(launches(weight.args(3), {}).size(), 2u);
      check(stored, {0, 0, 65, 65}, {0, 40, k, k}, 3);
    }
  }
}

TEST(CudaLinearQuantized, TakesXWhole) {
  // One product each: codes times a number of 24 bits, rounded once by the scale, which is a power of two here.
  for (uint32_t bits : {2u, 4u, 8u}) {
    Stored stored({bits, 16, DType::F32, ZeroPoint::Zero, false}, 64, 16, bits);
    stored.scales = store(DType::F32, std::vector<float>(64, 0.25f));
    Held weight(stored, {0, 0, 64, 64}, {0, 0, 16, 16});
    std::vector<float> x(16, 0);
    x[5] = 0x1.fffffep-3f;
    std::vector<float> y = weight.product(x, 1);
    for (size_t i = 0; i < 64; ++i)
      EXPECT_NEAR(y[i], double(x[5]) * weight.at(5, i), std::fabs(y[i]) * 0x1p-23) << bits << " " << i;
  }
}

TEST(CudaLinearQuantized, GivesARowTheSameBitsAloneAndAmongOthers) {
  for (uint32_t bits : {2u, 4u, 8u}) {
    Stored stored({bits, 32, DType::F16, ZeroPoint::Real, false}, 100, 2200, bits);
    Held weight(stored, {0, 0, 100, 100}, {0, 3, 2190, 2190});
    std::vector<float> x = randomFloats(11 * 2190, 3), all = weight.product(x, 11);
    for (size_t row : {0u, 5u, 10u}) {
      std::vector<float> one(x.begin() + row * 2190, x.begin() + (row + 1) * 2190);
      EXPECT_TRUE(
          sameBits(weight.product(one, 1), std::vector<float>(all.begin() + row * 100, all.begin() + (row + 1) * 100)));
    }
  }
}

TEST(CudaLinearQuantized, ShowsNaNInItsRowOnly) {
  for (ZeroPoint zero : {ZeroPoint::Middle, ZeroPoint::Real}) {
    Stored stored({4, 16, DType::F32, zero, false}, 20, 100, 3);
    Held weight(stored, {0, 0, 20, 20}, {0, 0, 100, 100});
    std::vector<float> x = randomFloats(3 * 100, 5);
    for (uint32_t bits : {0x7fc00000u, 0x7f800001u, 0x7f800000u}) {
      std::memcpy(&x[100 + 99], &bits, sizeof bits);
      std::vector<float> y = weight.product(x, 3);
      bool isInfinite = bits == 0x7f800000u;
      for (size_t i = 0; i < 3 * 20; ++i) {
        EXPECT_EQ(!std::isfinite(y[i]), i / 20 == 1) << i;
        if (i / 20 == 1 && (!isInfinite || weight.at(99, i % 20) == 0))
          EXPECT_TRUE(std::isnan(y[i])) << i;
        else if (i / 20 == 1 && zero == ZeroPoint::Middle)
          EXPECT_TRUE(std::isinf(y[i])) << i;
      }
    }
  }
}

TEST(CudaLinearQuantized, LaunchesCoverEveryColumnOnce) {
  for (size_t rows : {1u, 16u, 17u, 2048u})
    for (size_t n : {1u, 832u, 4096u, 14336u, 128256u})
      for (size_t k : {64u, 4096u, 16384u}) {
        uint64_t runs = quantRuns({4, 32}, {0, k}).count;
        EXPECT_EQ(runs, k / kQuantRun);
        LinearShape shape = linearQuantizedShape(rows, n, runs);
        LinearQuantizedArgs args;
        args.format = {4, 32}, args.share = {0, k}, args.rows = rows, args.k = k, args.n = n;
        std::vector<Launch> all = launches(args, {});
        ASSERT_EQ(all.size(), shape.slices == 1 ? 1u : 2u);
        const std::array<uint32_t, 3> &grid = all[0].grid;
        EXPECT_LE(grid[1], 65535u);
        EXPECT_GE(size_t(grid[0]) * shape.rows, rows);
        EXPECT_LT((size_t(grid[0]) - 1) * shape.rows, rows);
        EXPECT_EQ(grid[1], (n + 63) / 64);
        uint64_t perSlice = (runs + shape.slices - 1) / shape.slices;
        EXPECT_LT((shape.slices - 1) * perSlice, runs);
      }
}

TEST(CudaLinearQuantized, RowsOfTablesAreWhatTheCodesMean) {
  auto check = [](QuantFormat format) {
    Stored stored(format, 150, 104, format.bits + 3);
    for (bool tied : {false, true}) {
      Cut rows{3, 10, 70, 77}, columns{5, 20, 37, 41};
      WeightPlan plan = planOf(stored, tied ? WeightUse::Linear : WeightUse::Table, rows, columns);
      Buffer<std::byte> table(stored.pack(plan));
      const int64_t first = 77, ids[] = {77, 146, 147, 153, 76, 154, -1, std::numeric_limits<int64_t>::min(), 100};
      Buffer<int64_t> deviceIds(std::vector<int64_t>(std::begin(ids), std::end(ids)));
      Buffer<float> y(std::size(ids) * 41);
      machine().launch(
          cpu::EmbeddingQuantizedArgs{deviceIds.data(), table.data(), format, cpu::quantLayout(plan, format).value(),
                                      cpu::quantShare(plan, format), y.data(), std::size(ids), 77, 41, first, tied});
      std::vector<float> ours = y.read();
      for (size_t r = 0; r < std::size(ids); ++r)
        for (size_t i = 0; i < 41; ++i) {
          bool held = ids[r] >= first && ids[r] < first + 70 && i < 37;
          double want = held ? stored.at(13 + uint64_t(ids[r] - first), 25 + i) : 0;
          ASSERT_NEAR(ours[r * 41 + i], want, 1e-6 * (1 << format.bits)) << tied << " " << r << " " << i;
        }
    }
  };
  forEachFormat(check);
  forEachFloatFormat(check);
}

} // namespace
} // namespace helix::cuda::test
