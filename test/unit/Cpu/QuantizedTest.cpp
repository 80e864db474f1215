//===- QuantizedTest.cpp - Products with and rows of weights of codes ------===//
#include "QuantizedReference.h"
#include "runtime/Cpu/Kernels.h"

namespace helix::cpu::test {
namespace {

void expectProduct(const Stored &stored, Cut rows, Cut columns, size_t count) {
  WeightPlan plan = planOf(stored, WeightUse::Linear, rows, columns);
  std::vector<std::byte> packed = stored.pack(plan);
  size_t k = columns.local, n = rows.local;
  std::vector<float> x = randomFloats(count * k, k), y(count * n, kNaN), solo(n, kNaN);
  LinearQuantizedArgs args{x.data(),
                           packed.data(),
                           stored.format,
                           quantLayout(plan, stored.format).value(),
                           quantShare(plan, stored.format),
                           y.data(),
                           count,
                           k,
                           n};
  // Panels one by one, as threads may take them.
  for (size_t panel = 0; panel < linearItems(n); ++panel)
    linearQuantized(args, panel, panel + 1);
  std::vector<double> expected;
  for (size_t r = 0; r < count; ++r)
    for (size_t c = 0; c < n; ++c) {
      double sum = 0;
      for (size_t i = 0; c < rows.count && i < columns.count; ++i)
        sum += double(x[r * k + i]) * stored.at(rows.window + rows.begin + c, columns.window + columns.begin + i);
      expected.push_back(sum);
    }
  ASSERT_LE(relativeError(y, expected), 2e-6);
  // What is beyond the share is exactly zero.
  for (size_t r = 0; r < count; ++r)
    for (size_t c = rows.count; c < n; ++c)
      ASSERT_EQ(y[r * n + c], 0);
  // A row does not depend on the others.
  args.x = x.data() + (count - 1) * k;
  args.y = solo.data();
  args.rows = 1;
  linearQuantized(args, 0, linearItems(n));
  ASSERT_TRUE(sameBits(solo, {y.end() - ptrdiff_t(n), y.end()}));

  // The same matrix as a table of which ids are the columns.
  std::vector<int64_t> ids = {0, int64_t(n) - 1, -1, int64_t(n), std::numeric_limits<int64_t>::min(), int64_t(n) / 2};
  std::vector<float> table(ids.size() * k, kNaN);
  embeddingQuantized(
      {ids.data(), packed.data(), stored.format, args.layout, args.share, table.data(), ids.size(), n, k, 0, true}, 0,
      ids.size());
  for (size_t r = 0; r < ids.size(); ++r)
    for (size_t i = 0; i < k; ++i) {
      bool held = ids[r] >= 0 && ids[r] < int64_t(rows.count) && i < columns.count;
      double want =
          held ? stored.at(rows.window + rows.begin + uint64_t(ids[r]), columns.window + columns.begin + i) : 0;
      ASSERT_NEAR(table[r * k + i], want, 1e-6 * (1 << stored.format.bits)) << r << " " << i;
    }
}

TEST(Quantized, ProductsMatchFloat64) {
  forEachTarget([] {
    forEachFormat([](QuantFormat format) {
      SCOPED_TRACE(testing::Message() << format.bits << " bits, zero " << int(format.zero) << ", scale "
                                      << int(format.scale) << (format.isSigned ? ", signed" : ""));
      Stored stored(format, 150, 104, format.bits);
      expectProduct(stored, {0, 0, 150, 150}, {0, 0, 104, 104}, 5);
      // A share that starts and ends within blocks, in a window, padded both ways.
      expectProduct(stored, {3, 10, 70, 77}, {5, 20, 37, 41}, 3);
    });
  });
}

TEST(Quantized, ProductsOfFloatsMatchFloat64) {
  forEachFloatFormat([](QuantFormat format) {
    SCOPED_TRACE(testing::Message() << format.bits << " bits, scale " << int(format.scale) << ", rows of a scale "
                                    << format.rowBlock << (format.isPower ? ", powers" : ""));
    Stored stored(format, 150, 104, format.bits);
    expectProduct(stored, {0, 0, 150, 150}, {0, 0, 104, 104}, 5);
    expectProduct(stored, {3, 10, 70, 77}, {5, 20, 37, 41}, 11);
  });
}

/// Every code of each type, and scales of all powers, by the definitions.
TEST(Quantized, FloatsAreWhatTheirBitsSay) {
  for (int code = 0; code < 256; ++code) {
    double want = codeValue(DType::F8E4M3, uint8_t(code));
    if (std::isnan(want))
      EXPECT_TRUE(std::isnan(floatCode(8, uint32_t(code))));
    else
      EXPECT_EQ(floatCode(8, uint32_t(code)), want) << code;
  }
  const float values[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  for (uint32_t code = 0; code < 16; ++code) {
    EXPECT_EQ(floatCode(4, code), values[code]);
    EXPECT_EQ(std::signbit(floatCode(4, code)), code >= 8);
  }
  QuantFormat format{
      .bits = 4, .block = 1, .scale = DType::BF16, .zero = ZeroPoint::Zero, .isFloat = true, .isPower = true};
  Stored stored(format, 1, 256, 1);
  for (int i = 0; i < 256; ++i)
    stored.scales[size_t(i)] = std::byte(i);
  std::fill(stored.codes.begin(), stored.codes.end(), std::byte(0x22)); // ones
  WeightPlan plan = planOf(stored, WeightUse::Table, {0, 0, 1, 1}, {0, 0, 256, 256});
  std::vector<std::byte> packed = stored.pack(plan);
  const int64_t id = 0;
  std::vector<float> y(256);
  embeddingQuantized({&id, packed.data(), format, quantLayout(plan, format).value(), quantShare(plan, format), y.data(),
                      1, 1, 256, 0, false},
                     0, 1);
  for (int i = 0; i < 255; ++i)
    EXPECT_EQ(y[size_t(i)], std::ldexp(1.0, i - 127)) << i;
  EXPECT_TRUE(std::isnan(y[255]));
}

TEST(Quantized, FloatsThatAreNoneHaveNoLayout) {
  Stored stored({8, 16}, 8, 32, 1);
  WeightPlan plan = planOf(stored, WeightUse::Linear, {0, 0, 8, 8}, {0, 0, 32, 32});
  QuantFormat good{
      .bits = 8, .block = 16, .scale = DType::BF16, .zero = ZeroPoint::Zero, .isFloat = true, .isPower = true};
  EXPECT_TRUE(quantLayout(plan, good));
  auto refused = [&](auto change) {
    QuantFormat format = good;
    change(format);
    return !quantLayout(plan, format);
  };
  EXPECT_TRUE(refused([](QuantFormat &it) { it.bits = 2; }));
  EXPECT_TRUE(refused([](QuantFormat &it) { it.zero = ZeroPoint::Middle; }));
  EXPECT_TRUE(refused([](QuantFormat &it) { it.isSigned = true; }));
  EXPECT_TRUE(refused([](QuantFormat &it) { it.scale = DType::F32; }));
  EXPECT_TRUE(refused([](QuantFormat &it) { it.rowBlock = 0; }));
  EXPECT_TRUE(refused([](QuantFormat &it) { it.activations = DType::I8; }));
  // Scales of as many rows as share none are not the file's.
  QuantFormat shared = good;
  shared.rowBlock = 4;
  std::vector<std::byte> packed(quantLayout(plan, shared).value().bytes), codes(8 * 32), scales(2 * 2);
  EXPECT_TRUE(loadQuantized(plan, shared, codes, scales, {}, packed));
  EXPECT_FALSE(loadQuantized(plan, good, codes, scales, {}, packed));
}

TEST(Quantized, SharesOfEverySizeAndPlace) {
  Stored stored({4, 32, DType::F32, ZeroPoint::Packed, false}, 9, 96, 7);
  for (uint64_t begin = 0; begin < 96; begin += 5)
    for (uint64_t count : {uint64_t(1), uint64_t(2), uint64_t(31), uint64_t(33), 96 - begin})
      if (begin + count <= 96)
        expectProduct(stored, {0, 2, 5, 5}, {0, begin, count, count}, 1);
  // Longer than what is packed at a time.
  for (uint32_t bits : {2, 4, 8})
    expectProduct(Stored({bits, 32, DType::F32, ZeroPoint::Packed, false}, 140, 320, bits), {0, 1, 137, 137},
                  {0, 3, 300, 301}, 1);
  // 53248 columns in 64 shards of 832 in blocks of 128: every other shard starts in the middle of one.
  Stored wide({4, 128, DType::F32, ZeroPoint::Middle, false}, 2, 4 * 832, 8);
  for (uint64_t shard = 0; shard < 4; ++shard)
    expectProduct(wide, {0, 0, 2, 2}, {0, shard * 832, 832, 832}, 2);
}

TEST(Quantized, TablesKeepTheirRows) {
  forEachFormat([](QuantFormat format) {
    Stored stored(format, 20, 40, format.bits + 3);
    WeightPlan plan = planOf(stored, WeightUse::Table, {0, 8, 8, 9}, {0, 3, 30, 30});
    std::vector<std::byte> packed = stored.pack(plan);
    std::vector<int64_t> ids = {8, 15, 16, 7, 17, -5};
    std::vector<float> y(ids.size() * 30, kNaN);
    embeddingQuantized({ids.data(), packed.data(), format, quantLayout(plan, format).value(), quantShare(plan, format),
                        y.data(), ids.size(), 9, 30, 8, false},
                       0, ids.size());
    for (size_t r = 0; r < ids.size(); ++r)
      for (size_t i = 0; i < 30; ++i) {
        double want = ids[r] >= 8 && ids[r] < 16 ? stored.at(uint64_t(ids[r]), 3 + i) : 0;
        ASSERT_NEAR(y[r * 30 + i], want, 1e-6 * (1 << format.bits)) << r << " " << i;
      }
  });
}

TEST(Quantized, RefusesWhatIsNoPlan) {
  Stored stored({4, 32, DType::F32, ZeroPoint::Packed, false}, 4, 64, 1);
  WeightPlan good = planOf(stored, WeightUse::Linear, {0, 0, 4, 4}, {0, 0, 64, 64});
  EXPECT_TRUE(quantLayout(good, stored.format));
  auto refused = [&](auto change) {
    WeightPlan plan = good;
    QuantFormat format = stored.format;
    change(plan, format);
    return !quantLayout(plan, format);
  };
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.transposed = false; }));
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.use = WeightUse::Table; }));
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.dtype = DType::F16; }));
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.dims[1].share.end = 65; }));
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.dims[0].local = 3; }));
  EXPECT_TRUE(refused([](WeightPlan &plan, QuantFormat &) { plan.dims[0].local = uint64_t(1) << 60; }));
  EXPECT_TRUE(refused([](WeightPlan &, QuantFormat &format) { format.bits = 3; }));
  EXPECT_TRUE(refused([](WeightPlan &, QuantFormat &format) { format.block = 0; }));
  std::vector<std::byte> packed(quantLayout(good, stored.format)->bytes, std::byte(7)), before = packed;
  EXPECT_FALSE(
      loadQuantized(good, stored.format, std::span(stored.codes).first(8), stored.scales, stored.zeros, packed));
  EXPECT_FALSE(
      loadQuantized(good, stored.format, stored.codes, std::span(stored.scales).first(4), stored.zeros, packed));
  EXPECT_FALSE(loadQuantized(good, stored.format, stored.codes, stored.scales, {}, packed));
  EXPECT_EQ(packed, before);
}

} // namespace
} // namespace helix::cpu::test
