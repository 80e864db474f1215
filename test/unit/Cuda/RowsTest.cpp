//===- RowsTest.cpp - Token rows, appends, merges and reductions -----------===//
#include "Machine.h"
#include "test/unit/Cpu/Reference.h"

#include <algorithm>
#include <numeric>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;

/// Bytes of an allocation of the machine with values in the type.
Buffer<std::byte> storeOn(DType dtype, const std::vector<float> &values) {
  return Buffer<std::byte>(store(dtype, values));
}

TEST(CudaRows, EmbeddingGathersAndRefusesForeignIds) {
  const size_t vocabulary = 5, hidden = 300, stride = 304;
  std::vector<float> table = randomFloats(vocabulary * stride, 1);
  std::vector<int64_t> ids = {10, 14, 9, 15, -1, INT64_MAX, INT64_MIN, 12};
  for (DType dtype : kDTypes) {
    Buffer<std::byte> device = storeOn(dtype, table);
    Buffer<int64_t> deviceIds(ids);
    Buffer<float> y(ids.size() * hidden);
    machine().launch(
        EmbeddingArgs{deviceIds.data(), device.data(), dtype, y.data(), ids.size(), vocabulary, hidden, stride, 10});
    std::vector<float> ours = y.read();
    for (size_t row = 0; row < ids.size(); ++row)
      for (size_t i = 0; i < hidden; ++i) {
        bool held = ids[row] >= 10 && ids[row] < 15;
        ASSERT_EQ(ours[row * hidden + i], held ? roundTo(dtype, table[(ids[row] - 10) * stride + i]) : 0) << row;
      }
  }
}

TEST(CudaRows, LastTokenTakesTheLastInUse) {
  const size_t batch = 4, tokens = 3, hidden = 270;
  std::vector<float> x = randomFloats(batch * tokens * hidden, 2);
  std::vector<int32_t> qLen = {3, 0, 1, 2};
  Buffer<float> deviceX(x), y(batch * hidden), kept(std::vector<float>(batch * hidden, 5));
  Buffer<int32_t> deviceQLen(qLen);
  machine().launch(cpu::LastTokenArgs{deviceX.data(), deviceQLen.data(), y.data(), batch, tokens, hidden});
  machine().launch(KeepLogitsArgs{deviceX.data(), deviceQLen.data(), kept.data(), batch, tokens, hidden});
  std::vector<float> last = y.read(), logits = kept.read();
  for (size_t b = 0; b < batch; ++b)
    for (size_t i = 0; i < hidden; ++i) {
      float expected = qLen[b] == 0 ? 0 : x[(b * tokens + qLen[b] - 1) * hidden + i];
      ASSERT_EQ(last[b * hidden + i], expected);
      ASSERT_EQ(logits[b * hidden + i], qLen[b] == 0 ? 5 : expected);
    }
}

TEST(CudaRows, ConcatSetsPartsSideBySide) {
  // More parts than one launch takes.
  const size_t rows = 3;
  std::vector<std::vector<float>> values;
  std::vector<Buffer<float>> buffers;
  std::vector<cpu::ConcatPart> parts;
  size_t width = 0;
  for (size_t i = 0; i < 35; ++i) {
    values.push_back(randomFloats(rows * (1 + i * 9), i));
    buffers.emplace_back(values.back());
    parts.push_back({buffers.back().data(), 1 + i * 9});
    width += parts.back().width;
  }
  Buffer<float> y(rows * width);
  machine().launch(cpu::ConcatArgs{parts, y.data(), rows});
  std::vector<float> expected;
  for (size_t row = 0; row < rows; ++row)
    for (size_t i = 0; i < parts.size(); ++i)
      expected.insert(expected.end(), values[i].begin() + row * parts[i].width,
                      values[i].begin() + (row + 1) * parts[i].width);
  EXPECT_EQ(y.read(), expected);
}

TEST(CudaRows, PackTransposesAndPads) {
  for (DType dtype : {DType::F32, DType::BF16})
    for (bool transposed : {false, true})
      for (auto [k, n] : {std::pair<size_t, size_t>{1, 1}, {45, 70}, {64, 33}}) {
        std::vector<float> weight = randomFloats(k * n, 3);
        Buffer<std::byte> from = storeOn(dtype, weight), to(linearBytes(k, n, dtype));
        machine().launch(PackArgs{from.data(), to.data(), dtype, transposed, k, n});
        std::vector<std::byte> packed = to.read();
        size_t stride = linearStride(k, dtype);
        for (size_t i = 0; i < n; ++i)
          for (size_t j = 0; j < stride; ++j)
            ASSERT_EQ(decode(dtype, packed.data(), i * stride + j),
                      j >= k ? 0 : roundTo(dtype, weight[transposed ? i * k + j : j * n + i]))
                << i << " " << j;
      }
}

/// The parts of x [rows, k] and the powers of its rows.
struct SplitRows {
  std::vector<std::byte> parts;
  std::vector<float> powers;

  SplitRows(DType dtype, uint32_t parts, const std::vector<float> &x, size_t rows, size_t k) : powers(rows, 1) {
    Buffer<float> from(x), devicePowers(rows);
    Buffer<std::byte> to(parts * rows * linearStride(k, dtype) * 2);
    machine().launch(SplitRowsArgs{from.data(), to.data(), dtype, parts, devicePowers.data(), rows, k});
    this->parts = to.read();
    if (dtype == DType::F16)
      powers = devicePowers.read();
  }
};

TEST(CudaRows, OnePartIsTheNearestNumber) {
  std::vector<float> x = randomFloats(1000, 4, 100);
  x.insert(x.end(), {0.0f, -0.0f, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1e30f, kInfinity, 0x1p-20f, -3});
  EXPECT_EQ(SplitRows(DType::BF16, 1, x, 1, x.size()).parts, store(DType::BF16, x));
  x.resize(1000);
  SplitRows half(DType::F16, 1, x, 1, x.size());
  EXPECT_EQ(half.powers[0], 0x1p-8f); // the largest is below 128
  for (float &value : x)
    value *= 0x1p8f;
  EXPECT_EQ(half.parts, store(DType::F16, x));
}

TEST(CudaRows, PartsAddUpToTheRow) {
  const size_t rows = 5, k = 301;
  std::vector<float> x = randomFloats(rows * k, 7, 3);
  for (size_t i = 0; i < k; ++i) { // rows of very different size, and one of zeros
    x[k + i] *= 0x1p100f;
    x[2 * k + i] *= std::ldexp(1.0f, -int(i % 90));
    x[3 * k + i] = 0;
    x[4 * k + i] *= 0x1p-80f;
  }
  for (auto [dtype, parts] : {std::pair(DType::BF16, 3u), {DType::F16, 2u}}) {
    SplitRows split(dtype, parts, x, rows, k);
    size_t stride = linearStride(k, dtype);
    for (size_t row = 0; row < rows; ++row) {
      double largest = 0;
      for (size_t i = 0; i < k; ++i)
        largest = std::max(largest, std::fabs(double(x[row * k + i])));
      for (size_t i = 0; i < stride; ++i) {
        double sum = 0, want = i < k ? double(x[row * k + i]) : 0;
        for (uint32_t part = 0; part < parts; ++part)
          sum += decode(dtype, split.parts.data(), (part * rows + row) * stride + i) * split.powers[row];
        if (dtype == DType::BF16)
          ASSERT_EQ(sum, want) << row << " " << i;
        else
          ASSERT_NEAR(sum, want, std::max(std::fabs(want) * 0x1p-22, largest * 0x1p-38)) << row << " " << i;
      }
    }
  }
}

TEST(CudaRows, PartsShowWhatIsNotFinite) {
  for (auto [dtype, parts] : {std::pair(DType::BF16, 3u), {DType::F16, 2u}})
    for (uint32_t bits : {0x7fc00000u, 0x7f800001u, 0x7f800000u, 0xff800000u}) {
      std::vector<float> x = {1, 0, 2};
      std::memcpy(&x[1], &bits, sizeof bits);
      SplitRows split(dtype, parts, x, 1, 3);
      double sums[3] = {};
      for (uint32_t part = 0; part < parts; ++part)
        for (size_t i = 0; i < 3; ++i)
          sums[i] += decode(dtype, split.parts.data(), part * linearStride(3, dtype) + i) * split.powers[0];
      EXPECT_EQ(sums[0], 1);
      EXPECT_EQ(sums[2], 2);
      if (std::isnan(x[1]))
        EXPECT_TRUE(std::isnan(sums[1]));
      else
        EXPECT_EQ(sums[1], x[1]);
    }
}

TEST(CudaRows, RowsAreScaled) {
  Buffer<float> y(std::vector<float>{1, 2, 3, 4, 5, 6}), factors(std::vector<float>{2, 0.5f});
  machine().launch(ScaleRowsArgs{y.data(), factors.data(), 2, 3});
  EXPECT_EQ(y.read(), (std::vector<float>{2, 4, 6, 2, 2.5f, 3}));
}

TEST(CudaRows, AppendWritesEachTokenOnItsOwnerOnly) {
  const uint32_t kvp = 3, block = 4, heads = 2, keyDim = 5, valueDim = 3, batch = 3, tokens = 7, pages = 4;
  std::vector<int32_t> past = {2, 0, 30}, qLen = {7, 0, 5};
  std::vector<int32_t> table(batch * pages);
  std::iota(table.rbegin(), table.rend(), 0);
  std::vector<float> key = randomFloats(batch * tokens * heads * keyDim, 5);
  std::vector<float> value = randomFloats(batch * tokens * heads * valueDim, 6);
  Buffer<int32_t> devicePast(past), deviceQLen(qLen), deviceTable(table);
  Buffer<float> deviceKey(key), deviceValue(value);
  for (DType dtype : kDTypes)
    for (uint32_t rank = 0; rank < kvp; ++rank) {
      Buffer<std::byte> keys(cpu::kvKeyBytes(table.size(), heads, block, keyDim, dtype));
      Buffer<std::byte> values(cpu::kvValueBytes(table.size(), heads, block, valueDim, dtype));
      KvCache cache{keys.data(), values.data(), deviceTable.data(), pages, table.size(), block, kvp, rank,
                    heads,       keyDim,        valueDim,           dtype};
      machine().launch(cpu::KvAppendArgs{deviceKey.data(), deviceValue.data(), devicePast.data(), deviceQLen.data(),
                                         cache, batch, tokens});
      // Every element of the cache in elements of NaN, and those that were appended.
      std::vector<float> expectedKeys(table.size() * heads * block * keyDim, kNaN);
      std::vector<float> expectedValues(table.size() * heads * block * valueDim, kNaN);
      for (uint32_t b = 0; b < batch; ++b)
        for (int32_t t = 0; t < qLen[b]; ++t) {
          uint32_t position = past[b] + t;
          if (position / block % kvp != rank)
            continue;
          size_t page = table[b * pages + position / block / kvp];
          for (uint32_t head = 0; head < heads; ++head) {
            size_t from = (b * tokens + t) * heads + head;
            for (uint32_t i = 0; i < keyDim; ++i)
              expectedKeys[((head * table.size() + page) * keyDim + i) * block + position % block] =
                  key[from * keyDim + i];
            for (uint32_t i = 0; i < valueDim; ++i)
              expectedValues[((head * table.size() + page) * block + position % block) * valueDim + i] =
                  value[from * valueDim + i];
          }
        }
      std::vector<std::byte> ourKeys = keys.read(), ourValues = values.read();
      for (size_t i = 0; i < expectedKeys.size(); ++i) {
        double ours = decode(dtype, ourKeys.data(), i);
        ASSERT_TRUE(ours == roundTo(dtype, expectedKeys[i]) || (std::isnan(ours) && std::isnan(expectedKeys[i]))) << i;
      }
      for (size_t i = 0; i < expectedValues.size(); ++i) {
        double ours = decode(dtype, ourValues.data(), i);
        ASSERT_TRUE(ours == roundTo(dtype, expectedValues[i]) || (std::isnan(ours) && std::isnan(expectedValues[i])))
            << i;
      }
    }
}

/// Codes and scales as the formats define them, where a token belongs and nowhere else.
TEST(CudaRows, AppendKeepsTheDefinedCodes) {
  const uint32_t kvp = 2, block = 4, heads = 2, keyDim = 70, valueDim = 33, tokens = 9, pages = 3;
  std::vector<int32_t> past = {2}, qLen = {9}, table = {2, 0, 1};
  std::vector<float> key = randomFloats(tokens * heads * keyDim, 5, 3);
  std::vector<float> value = randomFloats(tokens * heads * valueDim, 6, 3);
  std::fill_n(key.begin(), keyDim, 0.0f);                               // nothing to scale
  std::fill_n(value.begin() + 2 * heads * valueDim, valueDim, -1e-44f); // the scale would be below all floats
  key[3 * heads * keyDim + 69] = 1e30f;                                 // saturates, or makes all others zero
  key[4 * heads * keyDim + 1] = kNaN;
  value[5 * heads * valueDim + 32] = -kInfinity;
  Buffer<int32_t> devicePast(past), deviceQLen(qLen), deviceTable(table);
  Buffer<float> deviceKey(key), deviceValue(value);
  const size_t slots = table.size() * heads * block;
  for (DType dtype : kCodes)
    for (bool ownScales : {false, true})
      for (uint32_t rank = 0; rank < kvp; ++rank) {
        Buffer<std::byte> keys(cpu::kvKeyBytes(pages, heads, block, keyDim, dtype));
        Buffer<std::byte> values(cpu::kvValueBytes(pages, heads, block, valueDim, dtype));
        Buffer<float> keyScales(slots), valueScales(slots);
        KvCache cache{keys.data(), values.data(), deviceTable.data(), pages, table.size(), block, kvp, rank,
                      heads,       keyDim,        valueDim,           dtype};
        if (ownScales)
          cache.keyScales = keyScales.data(), cache.valueScales = valueScales.data();
        else
          cache.keyScale = 0x1p-6f, cache.valueScale = 3 * 0x1p-7f;
        machine().launch(cpu::KvAppendArgs{deviceKey.data(), deviceValue.data(), devicePast.data(), deviceQLen.data(),
                                           cache, 1, tokens});
        std::vector<uint8_t> expectedKeys(slots * keyDim, 0xff), expectedValues(slots * valueDim, 0xff);
        std::vector<float> expectedKeyScales(slots, kNaN), expectedValueScales(slots, kNaN);
        for (uint32_t t = 0; t < tokens; ++t)
          for (uint32_t head = 0; head < heads; ++head) {
            uint32_t position = past[0] + t;
            if (position / block % kvp != rank)
              continue;
            size_t row = head * table.size() + table[position / block / kvp], offset = position % block;
            auto shared = [&](float scale) { return ownScales ? std::nullopt : std::optional(scale); };
            size_t from = t * heads + head;
            CodedRow k = throughCodes(dtype, key.data() + from * keyDim, keyDim, shared(cache.keyScale));
            CodedRow v = throughCodes(dtype, value.data() + from * valueDim, valueDim, shared(cache.valueScale));
            for (uint32_t i = 0; i < keyDim; ++i)
              expectedKeys[(row * keyDim + i) * block + offset] = k.codes[i];
            for (uint32_t i = 0; i < valueDim; ++i)
              expectedValues[(row * block + offset) * valueDim + i] = v.codes[i];
            if (ownScales)
              expectedKeyScales[row * block + offset] = k.scale, expectedValueScales[row * block + offset] = v.scale;
          }
        auto expectCodes = [&](const std::vector<std::byte> &ours, const std::vector<uint8_t> &expected) {
          for (size_t i = 0; i < expected.size(); ++i) {
            auto code = uint8_t(ours[i]);
            ASSERT_TRUE(code == expected[i] ||
                        (std::isnan(codeValue(dtype, code)) && std::isnan(codeValue(dtype, expected[i]))))
                << i;
          }
        };
        expectCodes(keys.read(), expectedKeys);
        expectCodes(values.read(), expectedValues);
        auto expectScales = [&](const std::vector<float> &ours, const std::vector<float> &expected) {
          for (size_t i = 0; i < slots; ++i)
            ASSERT_TRUE(ours[i] == expected[i] || (std::isnan(ours[i]) && std::isnan(expected[i]))) << i;
        };
        expectScales(keyScales.read(), expectedKeyScales);
        expectScales(valueScales.read(), expectedValueScales);
      }
}

TEST(CudaRows, FillTouchesTheSlotsPages) {
  const uint32_t kvp = 2, block = 4, heads = 2, dim = 8, pages = 3;
  std::vector<int32_t> table = {5, 3, 1, 0, 2, 4};
  Buffer<int32_t> deviceTable(table);
  Buffer<std::byte> keys(cpu::kvKeyBytes(6, heads, block, dim, DType::F32));
  Buffer<std::byte> values(cpu::kvValueBytes(6, heads, block, dim, DType::F32));
  KvCache cache{keys.data(), values.data(), deviceTable.data(), pages, table.size(), block, kvp, 1, heads,
                dim,         dim,           DType::F32};
  machine().launch(KvFillArgs{cache, 1, 13}); // rank 1 holds positions 4 … 7 and 12
  std::vector<std::byte> ours = keys.read();
  for (size_t i = 0; i < 6 * heads * block * dim; ++i) {
    size_t page = i / (block * dim) % 6;
    double x = decode(DType::F32, ours.data(), i);
    ASSERT_EQ(std::abs(x) <= 0.5, page == 0 || page == 2) << i;
  }
  // Codes are multiples of 1.
  Buffer<float> keyScales(6 * heads * block), valueScales(6 * heads * block);
  cache.dtype = DType::F8E4M3, cache.keyScales = keyScales.data(), cache.valueScales = valueScales.data();
  machine().launch(KvFillArgs{cache, 1, 13});
  ours = values.read();
  std::vector<float> scales = valueScales.read();
  EXPECT_TRUE(sameBits(keyScales.read(), scales));
  for (size_t i = 0; i < 6 * heads * block; ++i) {
    size_t page = i / block % 6;
    ASSERT_EQ(scales[i] == 1, page == 0 || page == 2) << i;
    if (page == 0 || page == 2)
      for (size_t j = 0; j < dim; ++j)
        ASSERT_LE(std::fabs(codeValue(DType::F8E4M3, uint8_t(ours[i * dim + j]))), 0.5) << i;
  }
}

/// Merges of random partials, divided in every way, against float64.
TEST(CudaRows, MergeMatchesFloat64) {
  const uint32_t batch = 5, tokens = 40, heads = 3, valueDim = 70;
  const size_t width = valueDim + 1;
  for (uint32_t peers : {1u, 3u})
    for (bool sinks : {false, true})
      for (bool alongTokens : {false, true}) {
        // [peers, batch, tokens, heads, valueDim + 1]
        std::vector<float> whole = randomFloats(peers * batch * tokens * heads * width, 7, 20);
        size_t peerStride = batch * tokens * heads * width;
        for (size_t row = 0; row < batch * tokens * heads; ++row)
          for (uint32_t peer = 0; peer < peers; ++peer)
            if (row % 7 == peer || row % 7 == 6) { // one empty, or all
              float *partial = whole.data() + peer * peerStride + row * width;
              std::fill_n(partial, valueDim, 0.0f);
              partial[valueDim] = -kInfinity;
            }
        whole[4 * width + 3] = kNaN;        // in a value
        whole[8 * width + valueDim] = kNaN; // in a log-sum-exp
        // More chunks than one launch takes, one of them empty.
        std::vector<uint32_t> counts = alongTokens ? std::vector<uint32_t>(39, 1) : std::vector<uint32_t>{2, 0, 3};
        if (alongTokens)
          counts[7] = 2;
        std::vector<Buffer<float>> stacked;
        std::vector<cpu::MergeChunk> chunks;
        uint32_t first = 0;
        for (uint32_t count : counts) {
          std::vector<float> part;
          for (uint32_t peer = 0; peer < peers; ++peer)
            for (uint32_t b = 0; b < batch; ++b)
              for (uint32_t t = 0; t < tokens; ++t)
                if (uint32_t along = alongTokens ? t : b; along >= first && along < first + count) {
                  const float *row = whole.data() + peer * peerStride + (b * tokens + t) * heads * width;
                  part.insert(part.end(), row, row + heads * width);
                }
          first += count;
          stacked.emplace_back(part);
          chunks.push_back({stacked.back().data(), count});
        }
        std::vector<float> sink = {0.5f, -3, 12};
        Buffer<float> deviceSink(sink), y(batch * tokens * heads * valueDim);
        machine().launch(cpu::MergeArgs{chunks, alongTokens, y.data(), peers, batch, tokens, heads, valueDim,
                                        sinks ? deviceSink.data() : nullptr});
        std::vector<float> ours = y.read();
        for (size_t row = 0; row < batch * tokens * heads; ++row) {
          const float *partial = whole.data() + row * width;
          double largest = sinks ? sink[row % heads] : -INFINITY, sum = 0;
          for (uint32_t peer = 0; peer < peers; ++peer)
            largest = std::max(largest, double(partial[peer * peerStride + valueDim]));
          std::vector<double> expected(valueDim, 0);
          bool isEmpty = true;
          for (uint32_t peer = 0; peer < peers; ++peer) {
            double lse = partial[peer * peerStride + valueDim];
            if (lse == -INFINITY)
              continue;
            isEmpty = false;
            sum += std::exp(lse - largest);
            for (uint32_t i = 0; i < valueDim; ++i)
              expected[i] += std::exp(lse - largest) * partial[peer * peerStride + i];
          }
          sum += sinks ? std::exp(sink[row % heads] - largest) : 0;
          for (uint32_t i = 0; i < valueDim; ++i) {
            double y = isEmpty ? 0 : expected[i] / sum, our = ours[row * valueDim + i];
            if (std::isnan(y))
              ASSERT_TRUE(std::isnan(our)) << row << " " << i;
            else
              ASSERT_NEAR(our, y, 2e-5) << row << " " << i;
          }
        }
      }
}

TEST(CudaRows, ReduceSumsInOrder) {
  // Sums that depend on the order, in more buffers than one launch takes; into the first and into other memory.
  const size_t elements = 700;
  for (size_t count : {1u, 2u, 64u, 65u, 130u})
    for (bool inPlace : {false, true}) {
      std::vector<Buffer<float>> buffers;
      std::vector<const float *> addresses;
      std::vector<float> expected;
      for (size_t i = 0; i < count; ++i) {
        std::vector<float> values = randomFloats(elements, 20 + i, i % 3 == 0 ? 1e4f : 1e-3f);
        for (size_t j = 0; j < elements; ++j)
          if (i == 0)
            expected.push_back(values[j]);
          else
            expected[j] += values[j];
        buffers.emplace_back(values);
        addresses.push_back(buffers.back().data());
      }
      Buffer<float> other(elements);
      const Buffer<float> &out = inPlace ? buffers[0] : other;
      machine().launch(ReduceArgs{out.data(), addresses, elements});
      EXPECT_TRUE(sameBits(out.read(), expected)) << count;
    }
}

} // namespace
} // namespace helix::cuda::test
