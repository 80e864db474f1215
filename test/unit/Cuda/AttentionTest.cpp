//===- AttentionTest.cpp - Partial attention against float64 ---------------===//
#include "Machine.h"
#include "test/unit/Cpu/Reference.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;

struct Shape {
  DType dtype = DType::F32;
  uint32_t kvp = 1, block = 16, heads = 2, kvHeads = 1, keyDim = 64, valueDim = 64, tokens = 1;
  std::vector<int32_t> past, qLen; // one per sequence
  float sharpness = 4;             // range of q: how far from uniform the attention is
  float softcap = 0;
  uint32_t window = 0;
  bool slopes = false;
  bool ownScales = false; ///< of codes: each token and head has its own, else these are all's
  float keyScale = 0x1p-6f, valueScale = 3 * 0x1p-8f;

  uint32_t batch() const { return past.size(); }
  int32_t length(size_t b) const { return past[b] + qLen[b]; }
  uint32_t paddedHeads() const { return (heads + kvp - 1) / kvp * kvp; }
  float slope(size_t head) const { return slopes ? std::ldexp(1.0f, -int(head % 8) - 1) : 0; }
  float scale() const { return 1 / std::sqrt(float(keyDim)); }
  bool isCode() const { return cpu::elementBytes(dtype) == 1; }
};

struct Chunk {
  uint32_t batchBegin, batchCount, tokenBegin, tokenCount;
};

/// The ranks of a sharded attention. Cache slots that hold no token are NaN, and pages are scattered.
struct Ranks {
  Shape shape;
  std::vector<std::vector<float>> keys, values; // per sequence [length, kvHeads, dim]
  std::vector<float> q;                         // [batch, tokens, heads, keyDim]
  std::vector<int32_t> table;
  uint64_t pagesPerSlot;
  mutable std::map<const float *, CodedRow> coded; ///< rows that were asked for

  /// Sequence b takes its content from seed firstSeed + b.
  explicit Ranks(const Shape &shape, uint64_t firstSeed = 1) : shape(shape) {
    int32_t longest = 1;
    for (size_t b = 0; b < shape.batch(); ++b) {
      longest = std::max(longest, shape.length(b));
      size_t tokens = size_t(shape.length(b)) * shape.kvHeads;
      keys.push_back(randomFloats(tokens * shape.keyDim, 10 * (firstSeed + b)));
      values.push_back(randomFloats(tokens * shape.valueDim, 10 * (firstSeed + b) + 1));
      std::vector<float> row =
          randomFloats(size_t(shape.tokens) * shape.heads * shape.keyDim, 10 * (firstSeed + b) + 2, shape.sharpness);
      q.insert(q.end(), row.begin(), row.end());
    }
    uint64_t cycle = uint64_t(shape.block) * shape.kvp;
    pagesPerSlot = (longest + cycle - 1) / cycle + 1; // the last page is never used
    table.resize(pagesPerSlot * shape.batch());
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937_64(5));
  }

  /// The codes of a key or value.
  const CodedRow &codesOf(const float *row, bool isKey) const {
    auto found = coded.find(row);
    if (found == coded.end()) {
      std::optional<float> shared;
      if (!shape.ownScales)
        shared = isKey ? shape.keyScale : shape.valueScale;
      found = coded.emplace(row, throughCodes(shape.dtype, row, isKey ? shape.keyDim : shape.valueDim, shared)).first;
    }
    return found->second;
  }

  /// What the cache holds of element i of a key or value.
  double kept(const float *row, size_t i, bool isKey) const {
    return shape.isCode() ? codesOf(row, isKey).numbers[i] : roundTo(shape.dtype, row[i]);
  }

  struct Areas {
    std::vector<std::byte> keys, values;
    std::vector<float> keyScales, valueScales;
  };

  /// The cache of a rank: keys [head][page][dim][offset], values [head][page][offset][dim], scales
  /// [head][page][offset].
  Areas cacheOf(uint32_t rank) const {
    size_t bytes = cpu::elementBytes(shape.dtype), slots = table.size() * shape.kvHeads * shape.block;
    auto nan = std::byte(shape.dtype == DType::I8 ? 0x80 : 0xff);
    std::vector<std::byte> keyArea(slots * shape.keyDim * bytes + cpu::kKvSlackBytes, nan);
    std::vector<std::byte> valueArea(slots * shape.valueDim * bytes + cpu::kKvSlackBytes, nan);
    std::vector<float> keyScales(shape.ownScales ? slots : 0, kNaN), valueScales = keyScales;
    auto put = [&](std::vector<std::byte> &area, size_t index, const float *row, size_t i, bool isKey) {
      uint32_t bits = shape.isCode() ? codesOf(row, isKey).codes[i] : encode(shape.dtype, roundTo(shape.dtype, row[i]));
      std::memcpy(area.data() + index * bytes, &bits, bytes);
    };
    for (size_t b = 0; b < shape.batch(); ++b)
      for (int32_t p = 0; p < shape.length(b); ++p) {
        if (p / shape.block % shape.kvp != rank)
          continue;
        size_t page = table[b * pagesPerSlot + p / shape.block / shape.kvp], offset = p % shape.block;
        for (size_t head = 0; head < shape.kvHeads; ++head) {
          size_t row = head * table.size() + page, token = p * shape.kvHeads + head;
          const float *key = keys[b].data() + token * shape.keyDim, *value = values[b].data() + token * shape.valueDim;
          for (size_t i = 0; i < shape.keyDim; ++i)
            put(keyArea, (row * shape.keyDim + i) * shape.block + offset, key, i, true);
          for (size_t i = 0; i < shape.valueDim; ++i)
            put(valueArea, (row * shape.block + offset) * shape.valueDim + i, value, i, false);
          if (shape.ownScales) {
            keyScales[row * shape.block + offset] = codesOf(key, true).scale;
            valueScales[row * shape.block + offset] = codesOf(value, false).scale;
          }
        }
      }
    return {keyArea, valueArea, keyScales, valueScales};
  }

  /// The packed send buffer of a chunk, by default of all.
  std::vector<float> attend(uint32_t rank, std::optional<Chunk> chunk = {}) const {
    if (!chunk)
      chunk = Chunk{0, shape.batch(), 0, shape.tokens};
    Areas areas = cacheOf(rank);
    Buffer<std::byte> deviceKeys(areas.keys), deviceValues(areas.values);
    Buffer<float> deviceKeyScales(areas.keyScales), deviceValueScales(areas.valueScales);
    Buffer<float> deviceQ(q);
    Buffer<int32_t> devicePast(shape.past), deviceQLen(shape.qLen), deviceTable(table);
    std::vector<float> slopes;
    for (size_t head = 0; head < shape.heads; ++head)
      slopes.push_back(shape.slope(head));
    Buffer<float> deviceSlopes(slopes);
    Buffer<float> send(size_t(chunk->batchCount) * chunk->tokenCount * shape.paddedHeads() * (shape.valueDim + 1));
    AttentionArgs args;
    args.q = deviceQ.data();
    args.past = devicePast.data();
    args.qLen = deviceQLen.data();
    args.cache = {deviceKeys.data(), deviceValues.data(), deviceTable.data(), pagesPerSlot,
                  table.size(),      shape.block,         shape.kvp,          rank,
                  shape.kvHeads,     shape.keyDim,        shape.valueDim,     shape.dtype};
    if (shape.ownScales)
      args.cache.keyScales = deviceKeyScales.data(), args.cache.valueScales = deviceValueScales.data();
    else if (shape.isCode())
      args.cache.keyScale = shape.keyScale, args.cache.valueScale = shape.valueScale;
    args.send = send.data();
    args.tokens = shape.tokens;
    args.batchBegin = chunk->batchBegin, args.batchCount = chunk->batchCount;
    args.tokenBegin = chunk->tokenBegin, args.tokenCount = chunk->tokenCount;
    args.heads = shape.heads, args.paddedHeads = shape.paddedHeads();
    args.scale = shape.scale(), args.softcap = shape.softcap, args.window = shape.window;
    args.slopes = shape.slopes ? deviceSlopes.data() : nullptr;
    Buffer<std::byte> scratch(attentionScratchBytes(args));
    args.scratch = reinterpret_cast<float *>(scratch.data());
    machine().launch(args);
    return send.read();
  }

  size_t sendIndex(size_t b, size_t t, size_t head) const {
    size_t perPeer = shape.paddedHeads() / shape.kvp;
    return (((head / perPeer * shape.batch() + b) * shape.tokens + t) * perPeer + head % perPeer) *
           (shape.valueDim + 1);
  }

  /// o and lse in f64 of one query head over the tokens of `rank`.
  std::vector<double> expected(size_t b, size_t t, size_t head, uint32_t rank) const {
    std::vector<double> result(shape.valueDim + 1, 0), weights;
    std::vector<int32_t> positions;
    double largest = -INFINITY, sum = 0;
    size_t kvHead = head / (shape.heads / shape.kvHeads);
    if (head < shape.heads && int32_t(t) < shape.qLen[b])
      for (int32_t p = 0, at = shape.past[b] + int32_t(t); p <= at; ++p)
        if ((shape.window == 0 || at - p < int32_t(shape.window)) && p / shape.block % shape.kvp == rank) {
          double score = 0;
          const float *query = q.data() + ((b * shape.tokens + t) * shape.heads + head) * shape.keyDim;
          const float *key = keys[b].data() + (p * shape.kvHeads + kvHead) * shape.keyDim;
          for (size_t i = 0; i < shape.keyDim; ++i)
            score += query[i] * kept(key, i, true);
          positions.push_back(p);
          score *= shape.scale();
          if (shape.softcap != 0)
            score = shape.softcap * std::tanh(score / shape.softcap);
          weights.push_back(score + double(shape.slope(head)) * (p - at));
          largest = std::max(largest, weights.back());
        }
    for (size_t i = 0; i < positions.size(); ++i) {
      double weight = std::exp(weights[i] - largest);
      const float *value = values[b].data() + (positions[i] * shape.kvHeads + kvHead) * shape.valueDim;
      for (size_t j = 0; j < shape.valueDim; ++j)
        result[j] += weight * kept(value, j, false);
      sum += weight;
    }
    for (size_t j = 0; j < shape.valueDim && sum > 0; ++j)
      result[j] /= sum;
    result[shape.valueDim] = sum > 0 ? largest + std::log(sum) : -INFINITY;
    return result;
  }

  void check() const {
    // What is left of f32 queries as two 16-bit numbers; far inside 8e-4 and 1.2e-4.
    double tolerance = shape.dtype == DType::F32 ? 1e-5 : shape.dtype == DType::BF16 ? 6e-5 : 2e-5;
    for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
      std::vector<float> send = attend(rank);
      for (size_t b = 0; b < shape.batch(); ++b)
        for (size_t t = 0; t < shape.tokens; ++t)
          for (size_t head = 0; head < shape.paddedHeads(); ++head) {
            std::vector<double> reference = expected(b, t, head, rank);
            const float *ours = send.data() + sendIndex(b, t, head);
            double lse = reference[shape.valueDim], largest = 1;
            for (size_t i = 0; i < shape.valueDim; ++i)
              largest = std::max(largest, std::fabs(reference[i]));
            for (size_t i = 0; i < shape.valueDim; ++i)
              if (lse == -INFINITY)
                ASSERT_EQ(ours[i], 0) << describe(rank, b, t, head);
              else
                ASSERT_NEAR(ours[i], reference[i], tolerance * largest) << i << describe(rank, b, t, head);
            if (lse == -INFINITY)
              ASSERT_EQ(ours[shape.valueDim], -kInfinity) << describe(rank, b, t, head);
            else
              ASSERT_NEAR(ours[shape.valueDim], lse, tolerance * std::max(1.0, std::fabs(lse)))
                  << describe(rank, b, t, head);
          }
    }
  }

  std::string describe(uint32_t rank, size_t b, size_t t, size_t head) const {
    return " dtype " + std::to_string(int(shape.dtype)) + " kvp " + std::to_string(shape.kvp) + " block " +
           std::to_string(shape.block) + " dim " + std::to_string(shape.keyDim) + " window " +
           std::to_string(shape.window) + " rank " + std::to_string(rank) + " past " + std::to_string(shape.past[b]) +
           " token " + std::to_string(t) + " head " + std::to_string(head);
  }
};

TEST(CudaAttention, MatchesFloat64ForEveryHeadSizeAndType) {
  for (DType dtype : kDTypes)
    for (uint32_t dim : {64u, 80u, 96u, 128u, 256u, 17u})
      Ranks({dtype, 2, 16, 6, 2, dim, dim, 1, {70, 37}, {1, 1}}).check();
  Ranks({DType::BF16, 2, 16, 6, 2, 192, 128, 2, {70, 37}, {1, 2}}).check();
  Ranks({DType::F32, 1, 16, 3, 3, 1, 1, 2, {70, 37}, {1, 2}}).check();
}

/// Latents: one KV head and up to 128 query heads.
TEST(CudaAttention, MatchesFloat64ForLatents) {
  Ranks({DType::F32, 1, 16, 8, 1, 576, 512, 1, {70}, {1}}).check();
  Ranks({DType::F16, 1, 16, 16, 1, 576, 512, 1, {300, 0, 31}, {1, 1, 0}}).check(); // two parts
  Ranks({DType::BF16, 2, 16, 20, 1, 576, 512, 1, {70, 5}, {1, 1}}).check();
  Ranks({DType::BF16, 1, 32, 128, 1, 576, 512, 1, {40}, {1}}).check();
  Shape shape{DType::F16, 1, 16, 12, 1, 576, 512, 3, {47, 14}, {3, 2}, 4, 0, 9};
  Ranks(shape).check();
  shape.softcap = 1.5f, shape.slopes = true;
  Ranks(shape).check();
}

TEST(CudaAttention, LatentsShowNaNInWhatTheySeeOnly) {
  for (bool inKey : {true, false}) {
    Ranks ranks({DType::BF16, 1, 16, 4, 1, 576, 512, 4, {19}, {4}});
    (inKey ? ranks.keys[0][22 * 576 + 5] : ranks.values[0][22 * 512 + 305]) = kNaN;
    std::vector<float> send = ranks.attend(0);
    for (size_t t = 0; t < 4; ++t) {
      std::vector<double> reference = ranks.expected(0, t, 1, 0);
      for (size_t i = 0; i < 513; ++i) {
        float ours = send[ranks.sendIndex(0, t, 1) + i];
        if (t == 3 && (inKey || i == 305))
          ASSERT_TRUE(std::isnan(ours)) << inKey << " " << t << " " << i;
        else
          ASSERT_NEAR(ours, reference[i], 2e-4) << inKey << " " << t << " " << i;
      }
    }
  }
}

template <typename Body> void forEachCode(Body body) {
  for (DType dtype : kCodes)
    for (bool ownScales : {false, true}) {
      SCOPED_TRACE(testing::Message() << (dtype == DType::I8 ? "int8" : "fp8") << (ownScales ? ", own scales" : ""));
      body(dtype, ownScales);
    }
}

TEST(CudaAttention, MatchesFloat64ForCodes) {
  forEachCode([](DType dtype, bool ownScales) {
    auto check = [&](Shape shape) {
      shape.dtype = dtype, shape.ownScales = ownScales;
      Ranks(shape).check();
    };
    for (uint32_t dim : {64u, 80u, 96u, 128u, 256u, 17u})
      check({DType::I8, 2, 16, 6, 2, dim, dim, 1, {70, 37}, {1, 1}});
    check({DType::I8, 2, 16, 6, 2, 48, 32, 2, {70, 37}, {1, 2}});
    check({DType::I8, 3, 8, 6, 2, 64, 64, 2, {70, 37}, {1, 2}});   // pages too short for tensor cores
    check({DType::I8, 1, 48, 32, 1, 64, 64, 3, {700, 0}, {1, 3}}); // parts, two tiles
    for (uint32_t dim : {64u, 16u})
      for (uint32_t window : {17u, 270u}) {
        Shape shape{DType::I8, 2, 16, 4, 2, dim, dim, 7, {2, 0, 600, 13}, {7, 7, 5, 0}, 4, 0, window};
        check(shape);
        shape.softcap = 1.5f, shape.slopes = true;
        check(shape);
      }
  });
}

/// Scales that span what f16 cannot, and zero among them.
TEST(CudaAttention, MatchesFloat64ForUnlikeScales) {
  for (DType dtype : kCodes)
    for (uint32_t dim : {64u, 24u}) {
      Shape shape{dtype, 1, 16, 4, 1, dim, dim, 2, {330}, {2}};
      shape.ownScales = true;
      Ranks ranks(shape);
      for (size_t p = 0; p < 332; ++p)
        for (size_t i = 0; i < dim; ++i) {
          ranks.values[0][p * dim + i] *= p % 5 == 0 ? 0 : std::ldexp(1.0f, int(p % 7) * 6 - 30);
          // Keys that are as long as before, and one in seven that nearly all weight goes to.
          ranks.keys[0][p * dim + i] *= p % 7 == 3 ? 1 : 0x1p-20f;
        }
      ranks.check();
      // All values very small: nothing is lost against them.
      for (float &value : ranks.values[0])
        value *= 0x1p-60f;
      ranks.coded.clear();
      std::vector<float> send = ranks.attend(0);
      std::vector<double> expected = ranks.expected(0, 1, 2, 0);
      double largest = 0;
      for (size_t i = 0; i < dim; ++i)
        largest = std::max(largest, std::fabs(expected[i]));
      for (size_t i = 0; i < dim; ++i)
        ASSERT_NEAR(send[ranks.sendIndex(0, 1, 2) + i], expected[i], 2e-5 * largest);
    }
}

TEST(CudaAttention, MatchesFloat64ForEveryHeadCount) {
  for (auto [heads, kvHeads] : {std::pair<uint32_t, uint32_t>{1, 1}, {3, 1}, {9, 3}, {15, 1}, {32, 2}, {34, 2}})
    for (uint32_t kvp : {1u, 4u}) {
      Ranks({DType::F16, kvp, 16, heads, kvHeads, 64, 64, 2, {90, 5}, {2, 1}}).check();
      Ranks({DType::F16, kvp, 4, heads, kvHeads, 16, 16, 2, {20, 5}, {2, 1}}).check();
    }
}

TEST(CudaAttention, MatchesFloat64ForEveryLength) {
  for (DType dtype : {DType::F32, DType::BF16}) {
    // Around block edges of two cycles, empty and shorter than kvp among them; one idle sequence.
    for (uint32_t kvp : {1u, 3u}) {
      Shape shape{dtype, kvp, 16, 4, 2, 64, 64, 1, {}, {}};
      for (int32_t edge = 0; edge <= int32_t(32 * kvp); edge += 16)
        for (int32_t length = std::max(0, edge - 1); length <= edge + 1; ++length) {
          shape.past.push_back(length);
          shape.qLen.push_back(length != 17);
        }
      Ranks(shape).check();
    }
    // Around the edges of parts, and many of them.
    for (int32_t length : {255, 256, 257, 512, 513, 1100})
      Ranks({dtype, 1, 16, 2, 1, 64, 64, 1, {length - 1}, {1}}).check();
  }
  for (uint32_t block : {1u, 3u, 24u, 32u, 48u, 304u})
    Ranks({DType::F16, 2, block, 4, 2, 64, 64, 3, {700, 0, 33}, {1, 2, 3}}).check();
}

TEST(CudaAttention, MatchesFloat64ForQueriesThatStraddleBlocks) {
  for (DType dtype : kDTypes) {
    Ranks({dtype, 2, 16, 6, 3, 64, 64, 7, {2, 0, 13, 255, 6}, {7, 7, 5, 7, 0}}).check();
    Ranks({dtype, 1, 16, 4, 1, 64, 64, 50, {3, 0, 240}, {50, 33, 17}}).check();
  }
  // One part only, however long.
  Ranks({DType::BF16, 1, 16, 2, 1, 64, 64, 130, {300}, {130}}).check();
}

TEST(CudaAttention, MatchesFloat64WhenScoresAreLarge) {
  for (DType dtype : {DType::F32, DType::F16}) {
    Shape shape{dtype, 2, 16, 4, 2, 64, 64, 1, {600}, {1}};
    shape.sharpness = 100;
    Ranks(shape).check();
  }
  // Queries that f16 cannot hold.
  Shape shape{DType::F16, 1, 16, 4, 2, 64, 64, 1, {40}, {1}};
  Ranks large(shape);
  for (std::vector<float> &keys : large.keys)
    for (float &key : keys)
      key *= 0x1p-13f;
  for (float &x : large.q)
    x *= 0x1p18f;
  Ranks(large).check();
}

TEST(CudaAttention, MatchesFloat64WithCapsSlopesAndWindows) {
  for (DType dtype : kDTypes)
    for (uint32_t tokens : {1u, 7u})
      for (uint32_t window : {0u, 1u, 17u, 270u}) {
        Shape shape{dtype, 2, 16, 4, 2, 64, 64, tokens, {2, 0, 600, 13}, {1, 1, 1, 0}, 4, 0, window};
        if (tokens > 1)
          shape.qLen = {7, 7, 5, 0};
        if (window == 17)
          shape.softcap = 1.5f; // well below the largest score
        if (window == 270)
          shape.slopes = true;
        Ranks(shape).check();
        shape.softcap = 1.5f, shape.slopes = window == 0;
        Ranks(shape).check();
      }
}

TEST(CudaAttention, ReadsNothingBeforeTheWindow) {
  for (DType dtype : {DType::F32, DType::BF16}) {
    Shape shape{dtype, 2, 16, 4, 2, 64, 64, 6, {80, 590}, {6, 6}, 4, 0, 7};
    Ranks clean(shape), poisoned(shape);
    for (size_t b = 0; b < 2; ++b) {
      // The oldest query token sees positions past - 6 … past.
      std::fill_n(poisoned.keys[b].begin(), size_t(shape.past[b] - 6) * 2 * 64, kNaN);
      std::fill_n(poisoned.values[b].begin(), size_t(shape.past[b] - 6) * 2 * 64, kNaN);
    }
    for (uint32_t rank = 0; rank < 2; ++rank)
      ASSERT_TRUE(sameBits(clean.attend(rank), poisoned.attend(rank)));
  }
}

TEST(CudaAttention, GivesASequenceTheSameBitsAloneAndInABatch) {
  for (DType dtype : {DType::F32, DType::BF16}) {
    Shape shape{dtype, 2, 16, 4, 2, 80, 80, 9, {600, 0, 7, 50, 1}, {9, 4, 0, 1, 8}};
    Ranks batch(shape);
    for (size_t b = 0; b < shape.batch(); ++b) {
      Shape solo = shape;
      solo.past = {shape.past[b]};
      solo.qLen = {shape.qLen[b]};
      Ranks alone(solo, 1 + b);
      for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
        std::vector<float> ours = batch.attend(rank), theirs = alone.attend(rank);
        for (size_t t = 0; t < shape.tokens; ++t)
          for (size_t head = 0; head < shape.heads; ++head)
            ASSERT_EQ(0, std::memcmp(ours.data() + batch.sendIndex(b, t, head),
                                     theirs.data() + alone.sendIndex(0, t, head), sizeof(float) * 81));
      }
    }
  }
}

TEST(CudaAttention, GivesAChunkTheSameBitsAsTheWhole) {
  std::mt19937_64 random(9);
  for (DType dtype : {DType::F32, DType::F16})
    for (auto [heads, kvHeads, kvp] : {std::tuple<uint32_t, uint32_t, uint32_t>{6, 2, 4}, {5, 1, 1}}) {
      Ranks ranks({dtype, kvp, 16, heads, kvHeads, 64, 64, 37, {600, 0, 7, 50, 1}, {37, 4, 0, 1, 20}, 4, 0, 90});
      size_t perPeer = ranks.shape.paddedHeads() / kvp, row = 65 * perPeer;
      std::vector<float> whole = ranks.attend(kvp - 1);
      for (int round = 0; round < 4; ++round) {
        Chunk chunk;
        chunk.batchBegin = random() % 5, chunk.batchCount = 1 + random() % (5 - chunk.batchBegin);
        chunk.tokenBegin = random() % 37, chunk.tokenCount = 1 + random() % (37 - chunk.tokenBegin);
        std::vector<float> part = ranks.attend(kvp - 1, chunk);
        const float *at = part.data();
        for (uint32_t peer = 0; peer < kvp; ++peer)
          for (uint32_t b = chunk.batchBegin; b < chunk.batchBegin + chunk.batchCount; ++b)
            for (uint32_t t = chunk.tokenBegin; t < chunk.tokenBegin + chunk.tokenCount; ++t, at += row)
              ASSERT_EQ(0, std::memcmp(at, whole.data() + ranks.sendIndex(b, t, peer * perPeer), row * sizeof(float)))
                  << "peer " << peer << " sequence " << b << " token " << t;
      }
    }
}

void expectNaNWhereSeen(DType dtype, bool ownScales) {
  for (bool inKey : {true, false}) {
    // A NaN at position 22 of KV head 1: seen by the query at 22, not by the one before, by heads 2 and 3.
    Ranks ranks({dtype, 1, 16, 4, 2, 64, 64, 4, {19, 30}, {4, 4}});
    ranks.shape.ownScales = ownScales;
    (inKey ? ranks.keys : ranks.values)[0][(22 * 2 + 1) * 64 + 5] = kNaN;
    std::vector<float> send = ranks.attend(0);
    for (size_t b = 0; b < 2; ++b)
      for (size_t t = 0; t < 4; ++t)
        for (size_t head = 0; head < 4; ++head) {
          bool sees = b == 0 && t >= 3 && head >= 2;
          std::vector<double> reference = ranks.expected(b, t, head, 0);
          for (size_t i = 0; i < 65; ++i) {
            float ours = send[ranks.sendIndex(b, t, head) + i];
            // A NaN makes a scale of its own NaN, and so the whole value.
            if (sees && (inKey || i == 5 || (ownScales && i < 64)))
              ASSERT_TRUE(std::isnan(ours)) << inKey << " " << b << " " << t << " " << head << " " << i;
            else
              ASSERT_NEAR(ours, reference[i], 2e-4) << inKey << " " << b << " " << t << " " << head << " " << i;
          }
        }
  }
}

TEST(CudaAttention, ShowsNaNInWhatItSeesOnly) {
  for (DType dtype : kDTypes)
    expectNaNWhereSeen(dtype, false);
  forEachCode(expectNaNWhereSeen);
}

TEST(CudaAttention, GivesMinusInfiniteScoresNoWeight) {
  // All keys of the first 512 tokens are infinite against the query's sign, then finite ones follow. On tensor cores
  // the query's lower half, a zero, makes them NaN.
  Ranks ranks({DType::F32, 1, 16, 1, 1, 64, 64, 1, {559}, {1}});
  std::fill(ranks.q.begin(), ranks.q.end(), 0.0f);
  ranks.q[0] = -1;
  for (size_t p = 0; p < 512; ++p)
    ranks.keys[0][p * 64] = kInfinity;
  std::vector<float> send = ranks.attend(0);
  double above = 0, below = 0;
  for (size_t p = 512; p < 560; ++p) {
    double weight = std::exp(-double(ranks.keys[0][p * 64]) / 8);
    above += weight * ranks.values[0][p * 64];
    below += weight;
  }
  EXPECT_NEAR(send[0], above / below, 1e-5);
  EXPECT_NEAR(send[64], std::log(below), 1e-5);
}

} // namespace
} // namespace helix::cuda::test
