//===- LinearInt8Test.cpp - Products of codes with activations of 8 bits ---===//
#include "runtime/Cpu/VnniTargets.h"

#include "QuantizedReference.h"

#include "lib/Artifact/Format.h"
#include "runtime/Cpu/Kernels.h"

namespace helix::cpu::test {
namespace {

/// What the elements of a row that meet one block are rounded to.
struct Rounded {
  double scale = 0;
  std::vector<int64_t> codes;
};

Rounded rounded(const float *x, size_t count) {
  Rounded result;
  float largest = 0;
  for (size_t i = 0; i < count; ++i)
    largest = std::max(largest, std::fabs(x[i]));
  float scale = largest / 127;
  for (size_t i = 0; i < count; ++i)
    result.codes.push_back(scale > 0 ? std::lrint(std::clamp(x[i] / scale, -127.0f, 127.0f)) : 0);
  result.scale = scale;
  return result;
}

struct Product {
  std::vector<std::byte> weight, rows;
  std::vector<float> y;
  LinearQuantizedArgs args;

  Product(const Stored &stored, Cut rows, Cut columns, const std::vector<float> &x) {
    WeightPlan plan = planOf(stored, WeightUse::Linear, rows, columns);
    weight = stored.pack(plan);
    args.x = x.data();
    args.weight = weight.data();
    args.format = stored.format;
    args.layout = quantLayout(plan, stored.format).value();
    args.share = quantShare(plan, stored.format);
    args.rows = x.size() / columns.local;
    args.k = columns.local;
    args.n = rows.local;
    y.assign(args.rows * args.n, kNaN);
    args.y = y.data();
  }

  /// As threads may share it: row by row, then panel by panel.
  const std::vector<float> &run() {
    rows.assign(roundedBytes(args) + 64, std::byte(0x5a));
    args.rounded = rows.data() + 64 - reinterpret_cast<uintptr_t>(rows.data()) % 64;
    for (size_t row = 0; row < args.rows; ++row)
      roundRows(args, row, row + 1);
    for (size_t panel = 0; panel < linearItems(args.n); ++panel)
      linearQuantized(args, panel, panel + 1);
    return y;
  }
};

void expectProduct(const Stored &stored, Cut rows, Cut columns, size_t count) {
  std::vector<float> x = randomFloats(count * columns.local, columns.count);
  Product product(stored, rows, columns, x);
  const std::vector<float> &y = product.run();
  uint64_t first = columns.window + columns.begin, block = stored.format.block;
  std::vector<double> expected(y.size()), magnitude(y.size());
  for (size_t r = 0; r < count; ++r)
    for (uint64_t begin = 0, end; begin < columns.count; begin = end) {
      end = std::min(columns.count, (first + begin) / block * block + block - first);
      Rounded codes = rounded(x.data() + r * columns.local + begin, end - begin);
      for (size_t c = 0; c < rows.count; ++c)
        for (uint64_t i = begin; i < end; ++i) {
          double term =
              codes.scale * double(codes.codes[i - begin]) * stored.at(rows.window + rows.begin + c, first + i);
          expected[r * rows.local + c] += term;
          magnitude[r * rows.local + c] += std::fabs(term);
        }
    }
  // Integers are summed exactly; what rounds is each block's product and the sum of a few of them.
  for (size_t i = 0; i < y.size(); ++i)
    ASSERT_NEAR(y[i], expected[i], 2e-6 * magnitude[i]) << i;
  // A row does not depend on the others.
  std::vector<float> last(x.end() - ptrdiff_t(columns.local), x.end());
  Product solo(stored, rows, columns, last);
  ASSERT_TRUE(sameBits(solo.run(), {y.end() - ptrdiff_t(rows.local), y.end()}));
}

QuantFormat int8(QuantFormat format) {
  format.activations = DType::I8;
  return format;
}

TEST(LinearInt8, EqualsTheSumOfIntegers) {
  forEachTarget([] {
    forEachFormat([](QuantFormat format) {
      SCOPED_TRACE(testing::Message() << format.bits << " bits, zero " << int(format.zero) << ", scale "
                                      << int(format.scale) << (format.isSigned ? ", signed" : ""));
      Stored stored(int8(format), 150, 104, format.bits);
      expectProduct(stored, {0, 0, 150, 150}, {0, 0, 104, 104}, 13);
      // A share that starts and ends within blocks, in a window, padded both ways.
      expectProduct(stored, {3, 10, 70, 77}, {5, 20, 37, 41}, 3);
    });
  });
}

TEST(LinearInt8, SharesOfEverySizeAndPlace) {
  forEachTarget([] {
    Stored stored(int8({4, 32, DType::F32, ZeroPoint::Packed}), 9, 96, 7);
    for (uint64_t begin = 0; begin < 96; begin += 5)
      for (uint64_t count : {uint64_t(1), uint64_t(2), uint64_t(31), uint64_t(33), 96 - begin})
        if (begin + count <= 96)
          expectProduct(stored, {0, 2, 5, 5}, {0, begin, count, count}, 1);
  });
}

/// One block of the greatest length whose products all have the greatest magnitude.
TEST(LinearInt8, SumsDoNotOverflow) {
  forEachTarget([] {
    for (ZeroPoint zero : {ZeroPoint::Zero, ZeroPoint::Middle}) {
      Stored stored(int8({8, artifact::kLongestInt8Block, DType::F32, zero}), 1, artifact::kLongestInt8Block, 1);
      std::fill(stored.codes.begin(), stored.codes.end(), std::byte(255));
      std::vector<float> x(artifact::kLongestInt8Block, -127);
      Product product(stored, {0, 0, 1, 1}, {0, 0, artifact::kLongestInt8Block, artifact::kLongestInt8Block}, x);
      double code = zero == ZeroPoint::Zero ? 255 : 127;
      double expected = -127 * code * artifact::kLongestInt8Block * decode(DType::F32, stored.scales.data(), 0);
      ASSERT_NEAR(product.run()[0] / expected, 1, 1e-6);
    }
  });
}

/// The integer next to x / scale, halves to even; what is nothing or beyond all numbers is no number to round.
TEST(LinearInt8, RoundsToNearestEven) {
  forEachTarget([] {
    constexpr size_t block = 32;
    Stored stored(int8({8, block, DType::F32, ZeroPoint::Middle}), 4, 2 * block, 1);
    // Column c sees element c of the first block alone.
    std::fill(stored.codes.begin(), stored.codes.end(), std::byte(128));
    for (size_t c = 0; c < 4; ++c)
      stored.codes[c * 2 * block + c] = std::byte(129);
    stored.scales = store(DType::F32, std::vector<float>(8, 1));
    auto product = [&](std::vector<float> x) {
      x.resize(2 * block, 1);
      Product product(stored, {0, 0, 4, 4}, {0, 0, 2 * block, 2 * block}, x);
      return product.run();
    };
    // The scale is 1.
    EXPECT_EQ(product({0.5f, 1.5f, 2.5f, 127}), (std::vector<float>{0, 2, 2, 127}));
    EXPECT_EQ(product({-0.5f, -1.5f, -126.5f, -127}), (std::vector<float>{0, -2, -126, -127}));
    EXPECT_EQ(product(std::vector<float>(block)), std::vector<float>(4));
    // A scale of less than the smallest number.
    EXPECT_EQ(product([] {
                std::vector<float> x(block);
                x[0] = 0x1p-149f;
                return x;
              }()),
              std::vector<float>(4));
    for (float x : {kNaN, kInfinity, -kInfinity})
      for (size_t at : {size_t(0), size_t(17), block - 1}) {
        std::vector<float> row(block, 1);
        row[at] = x;
        for (float y : product(row))
          EXPECT_TRUE(std::isnan(y)) << x << " at " << at << " gave " << y;
      }
  });
}

} // namespace
} // namespace helix::cpu::test
