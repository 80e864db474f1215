//===- KvCodesTest.cpp - Caches of int8 and fp8-e4m3 -----------------------===//
#include "Reference.h"
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"

#include <numeric>

namespace helix::cpu::test {
namespace {

template <typename T> uint8_t bitsOf(float x) {
  T code;
  fromFloat(x, code);
  return std::bit_cast<uint8_t>(code);
}

uint8_t coded(DType dtype, float x) { return dtype == DType::I8 ? bitsOf<Int8>(x) : bitsOf<Fp8>(x); }

TEST(KvCodes, AreTheNearest) {
  std::mt19937_64 random(3);
  for (DType dtype : kCodes) {
    auto expect = [&](float x) { ASSERT_EQ(coded(dtype, x), nearestCode(dtype, x)) << x; };
    for (int bits = 0; bits < 256; ++bits) {
      double value = codeValue(dtype, uint8_t(bits));
      float read = dtype == DType::I8 ? toFloat(Int8{int8_t(bits)}) : toFloat(Fp8{uint8_t(bits)});
      ASSERT_TRUE(std::isnan(value) ? std::isnan(read) : value == read) << bits;
      if (std::isnan(value))
        continue;
      // The code itself, halfway to the next one, and just beside that.
      expect(float(value));
      float half = float((value + codeValue(dtype, nearestCode(dtype, value + 1e-9 + std::fabs(value) / 9))) / 2);
      for (float x : {half, std::nextafter(half, kInfinity), std::nextafter(half, -kInfinity)})
        expect(x);
    }
    for (float x : {0.5f,   1.5f,   2.5f,   -0.5f,  126.5f,   127.49f,   127.5f,  1e9f,      kInfinity, kNaN, 448.0f,
                    463.9f, 464.0f, 465.0f, 480.0f, 0x1p-10f, 0x1.8p-9f, 0x1p-6f, 0x1.fp-7f, 1e-30f,    0.0f}) {
      expect(x);
      expect(-x);
    }
    for (int i = 0; i < 20000; ++i)
      expect(std::ldexp(float(random() >> 40) * 0x1p-24f, int(random() % 24) - 14));
  }
}

/// One slot on `kvp` ranks, every cache with its areas full of NaN.
struct Cache {
  static constexpr uint32_t heads = 2, keyDim = 20, valueDim = 12, block = 4;
  DType dtype;
  bool perToken;
  uint32_t kvp;
  size_t tokens;
  std::vector<float> key, value; // [tokens, heads, dim]
  std::vector<int32_t> table;
  std::vector<std::vector<std::byte>> keys, values;
  std::vector<std::vector<float>> keyScales, valueScales;

  Cache(DType dtype, bool perToken, uint32_t kvp, size_t tokens)
      : dtype(dtype), perToken(perToken), kvp(kvp), tokens(tokens) {
    key = randomFloats(tokens * heads * keyDim, 1, 3);
    value = randomFloats(tokens * heads * valueDim, 2, 3);
    table.resize((tokens + block * kvp - 1) / (block * kvp) + 1);
    std::iota(table.rbegin(), table.rend(), 0);
    for (uint32_t rank = 0; rank < kvp; ++rank) {
      keys.emplace_back(kvKeyBytes(table.size(), heads, block, keyDim, dtype), std::byte(0x7f));
      values.emplace_back(kvValueBytes(table.size(), heads, block, valueDim, dtype), std::byte(0x7f));
      keyScales.emplace_back(table.size() * heads * block, kNaN);
      valueScales.emplace_back(table.size() * heads * block, kNaN);
    }
  }

  float keyScale() const { return perToken ? 1 : 0x1p-6f; }
  float valueScale() const { return perToken ? 1 : 3 * 0x1p-7f; }

  KvCache of(uint32_t rank) {
    return {keys[rank].data(),
            values[rank].data(),
            table.data(),
            table.size(),
            table.size(),
            block,
            kvp,
            rank,
            heads,
            keyDim,
            valueDim,
            dtype,
            keyScale(),
            valueScale(),
            perToken ? keyScales[rank].data() : nullptr,
            perToken ? valueScales[rank].data() : nullptr};
  }

  void append() {
    int32_t past = 0, count = int32_t(tokens);
    for (uint32_t rank = 0; rank < kvp; ++rank)
      kvAppend({key.data(), value.data(), &past, &count, of(rank), 1, uint32_t(tokens)}, 0, tokens);
  }

  std::vector<double> kept(const float *x, size_t dim, float shared) const {
    return throughCodes(dtype, x, dim, perToken ? std::nullopt : std::optional(shared)).numbers;
  }
  std::vector<double> keptKey(size_t token, size_t head) const {
    return kept(key.data() + (token * heads + head) * keyDim, keyDim, keyScale());
  }
  std::vector<double> keptValue(size_t token, size_t head) const {
    return kept(value.data() + (token * heads + head) * valueDim, valueDim, valueScale());
  }

  /// Merged attention of the last token, [2 * heads, valueDim], a query of each pair of heads the other's negative.
  std::vector<float> attend(const std::vector<float> &q) {
    const uint32_t queryHeads = 2 * heads, padded = (queryHeads + kvp - 1) / kvp * kvp;
    int32_t past = int32_t(tokens) - 1, one = 1;
    std::vector<std::vector<float>> sends;
    for (uint32_t rank = 0; rank < kvp; ++rank) {
      std::vector<float> &send = sends.emplace_back(size_t(padded) * (valueDim + 1), kNaN);
      AttentionArgs args{q.data(), &past, &one, of(rank), send.data(), 1, 0, 1, 0, 1, queryHeads, padded, 0.25f};
      std::vector<float> scratch(attentionScratch(args), kNaN);
      partialAttention(args, 0, attentionItems(args), scratch.data());
    }
    std::vector<float> result;
    for (uint32_t head = 0; head < queryHeads; ++head) {
      double most = -INFINITY, total = 0;
      std::vector<double> sum(valueDim);
      auto row = [&](uint32_t rank) { return sends[rank].data() + size_t(head) * (valueDim + 1); };
      for (uint32_t rank = 0; rank < kvp; ++rank)
        most = std::max(most, double(row(rank)[valueDim]));
      for (uint32_t rank = 0; rank < kvp; ++rank) {
        double lse = row(rank)[valueDim];
        if (lse == -INFINITY)
          continue;
        double weight = std::exp(lse - most);
        total += weight;
        for (size_t i = 0; i < valueDim; ++i)
          sum[i] += weight * row(rank)[i];
      }
      for (double number : sum)
        result.push_back(float(number / total));
    }
    return result;
  }

  std::vector<double> expected(const std::vector<float> &q) const {
    std::vector<double> result;
    for (size_t head = 0; head < 2 * heads; ++head) {
      std::vector<double> scores, sum(valueDim);
      for (size_t token = 0; token < tokens; ++token) {
        std::vector<double> k = keptKey(token, head / 2);
        double score = 0;
        for (size_t i = 0; i < keyDim; ++i)
          score += double(q[head * keyDim + i]) * k[i];
        scores.push_back(0.25 * score);
      }
      double most = *std::max_element(scores.begin(), scores.end()), total = 0;
      for (size_t token = 0; token < tokens; ++token) {
        double weight = std::exp(scores[token] - most);
        std::vector<double> v = keptValue(token, head / 2);
        for (size_t i = 0; i < valueDim; ++i)
          sum[i] += weight * v[i];
        total += weight;
      }
      for (double number : sum)
        result.push_back(number / total);
    }
    return result;
  }
};

template <typename Body> void forEachCache(Body body) {
  for (DType dtype : kCodes)
    for (bool perToken : {false, true}) {
      SCOPED_TRACE(testing::Message() << (dtype == DType::I8 ? "int8" : "fp8") << (perToken ? ", own scales" : ""));
      body(dtype, perToken);
    }
}

TEST(KvCodes, AppendKeepsTheDefinedCodes) {
  forEachCache([](DType dtype, bool perToken) {
    Cache cache(dtype, perToken, 2, 30);
    std::fill_n(cache.key.begin(), Cache::keyDim, 0.0f);        // nothing to scale
    std::fill_n(cache.value.begin(), Cache::valueDim, -1e-44f); // the scale would be below all floats
    cache.key[3 * Cache::heads * Cache::keyDim] = 1e30f;        // saturates, or makes all others zero
    cache.append();
    for (size_t token = 0; token < cache.tokens; ++token) {
      KvCache at = cache.of(kvOwner(token, Cache::block, 2));
      uint64_t local = kvLocal(token, Cache::block, 2), page = kvPage(at, 0, local), offset = local % Cache::block;
      for (size_t head = 0; head < Cache::heads; ++head) {
        auto expect = [&](const void *area, uint64_t first, uint64_t step, const float *scales, float shared,
                          const std::vector<double> &kept) {
          double scale = scales ? scales[kvScaleIndex(at, page, head) + offset] : shared;
          for (size_t i = 0; i < kept.size(); ++i)
            ASSERT_EQ(codeValue(dtype, static_cast<const uint8_t *>(area)[first + i * step]) * scale, kept[i])
                << token << " " << head << " " << i;
        };
        expect(at.key, kvKeyIndex(at, page, head, offset), Cache::block, at.keyScales, at.keyScale,
               cache.keptKey(token, head));
        expect(at.value, kvValueIndex(at, page, head, offset), 1, at.valueScales, at.valueScale,
               cache.keptValue(token, head));
      }
    }
  });
}

TEST(KvCodes, AttentionReadsWhatTheyMean) {
  forEachCache([](DType dtype, bool perToken) {
    for (size_t tokens : {1, 5, 63, 300}) {
      std::vector<float> q = randomFloats(2 * Cache::heads * Cache::keyDim, 7, 2);
      std::vector<double> expected = Cache(dtype, perToken, 1, tokens).expected(q);
      for (uint32_t kvp : {1, 2, 3})
        forEachTarget([&] {
          Cache cache(dtype, perToken, kvp, tokens);
          cache.append();
          ASSERT_LE(relativeError(cache.attend(q), expected), 2e-6) << kvp << " " << tokens;
        });
    }
  });
}

TEST(KvCodes, NoNaNIsHidden) {
  forEachTarget([] {
    forEachCache([](DType dtype, bool perToken) {
      std::vector<float> q = randomFloats(2 * Cache::heads * Cache::keyDim, 7, 0.1f);
      for (float bad : {kNaN, kInfinity}) {
        // An infinity saturates where all share a scale, and is NaN where it would have to choose one.
        bool shows = std::isnan(bad) || perToken;
        Cache keys(dtype, perToken, 2, 20), values(dtype, perToken, 2, 20);
        keys.key[(13 * Cache::heads + 1) * Cache::keyDim + 2] = bad;
        values.value[(13 * Cache::heads + 1) * Cache::valueDim + 2] = bad;
        keys.append();
        values.append();
        auto isNaN = [](const std::vector<float> &row, size_t head, size_t i) {
          return std::isnan(row[head * Cache::valueDim + i]);
        };
        std::vector<float> ofKeys = keys.attend(q), ofValues = values.attend(q);
        for (size_t head : {0, 1})
          ASSERT_FALSE(isNaN(ofKeys, head, 0) || isNaN(ofValues, head, 2));
        for (size_t head : {2, 3}) {
          ASSERT_EQ(isNaN(ofKeys, head, 0), shows);
          ASSERT_EQ(isNaN(ofValues, head, 2), shows);
        }
      }
    });
  });
}

} // namespace
} // namespace helix::cpu::test
