//===- AttentionTest.cpp - The sharded cache, partial attention, merge -----===//
#include "Reference.h"
#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <numeric>

namespace helix::cpu::test {
namespace {

struct Shape {
  DType dtype = DType::F32;
  uint32_t kvp = 1, block = 16, heads = 2, kvHeads = 1, keyDim = 16, valueDim = 16, tokens = 1;
  std::vector<int32_t> past, qLen; // one per sequence
  float sharpness = 4;             // range of q: how far from uniform the attention is
  float softcap = 0;
  uint32_t window = 0;
  bool slopes = false, sinks = false;

  uint32_t batch() const { return past.size(); }
  int32_t length(size_t b) const { return past[b] + qLen[b]; }
  uint32_t paddedHeads() const { return (heads + kvp - 1) / kvp * kvp; }
  float slope(size_t head) const { return slopes ? std::ldexp(1.0f, -int(head % 8) - 1) : 0; }
  float sink(size_t head) const { return sinks ? 2 - 0.75f * float(head % 5) : -kInfinity; }
  float scale() const { return 1 / std::sqrt(float(keyDim)); }
};

/// All ranks of a sharded attention: every cache starts as NaN, is filled by kvAppend, and pages are scattered.
struct Ranks {
  Shape shape;
  std::vector<std::vector<float>> keys, values; // per sequence [length, kvHeads, dim]
  std::vector<float> q;                         // [batch, tokens, heads, keyDim]
  std::vector<int32_t> table;
  std::vector<float> slopes;
  uint64_t pagesPerSlot;
  std::vector<std::vector<std::byte>> keyAreas, valueAreas;

  /// Sequence b takes its content from seed firstSeed + b.
  explicit Ranks(const Shape &shape, uint64_t firstSeed = 1) : shape(shape) {
    int32_t longest = 1;
    size_t queryRow = size_t(shape.tokens) * shape.heads * shape.keyDim;
    for (size_t b = 0; b < shape.batch(); ++b) {
      longest = std::max(longest, shape.length(b));
      keys.push_back(randomFloats(size_t(shape.length(b)) * shape.kvHeads * shape.keyDim, 10 * (firstSeed + b)));
      values.push_back(
          randomFloats(size_t(shape.length(b)) * shape.kvHeads * shape.valueDim, 10 * (firstSeed + b) + 1));
      std::vector<float> row = randomFloats(queryRow, 10 * (firstSeed + b) + 2, shape.sharpness);
      q.insert(q.end(), row.begin(), row.end());
    }
    uint64_t cycle = uint64_t(shape.block) * shape.kvp;
    pagesPerSlot = (longest + cycle - 1) / cycle + 1; // the last page is never used
    table.resize(pagesPerSlot * shape.batch());
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937_64(5));
    for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
      keyAreas.emplace_back(kvKeyBytes(table.size(), shape.kvHeads, shape.block, shape.keyDim, shape.dtype),
                            std::byte(0xff));
      valueAreas.emplace_back(kvValueBytes(table.size(), shape.kvHeads, shape.block, shape.valueDim, shape.dtype),
                              std::byte(0xff));
    }
  }

  KvCache cache(uint32_t rank) {
    KvCache cache{keyAreas[rank].data(),
                  valueAreas[rank].data(),
                  table.data(),
                  pagesPerSlot,
                  table.size(),
                  shape.block,
                  shape.kvp,
                  rank,
                  shape.kvHeads,
                  shape.keyDim,
                  shape.valueDim,
                  shape.dtype};
    cache.keyTogether = kvKeyTogether(shape.dtype, shape.keyDim);
    return cache;
  }

  /// Appends positions [from[b], to[b]) of every sequence on every rank, as one call.
  void append(const std::vector<int32_t> &from, const std::vector<int32_t> &to) {
    int32_t tokens = 1;
    std::vector<int32_t> count;
    for (size_t b = 0; b < shape.batch(); ++b) {
      count.push_back(to[b] - from[b]);
      tokens = std::max(tokens, count.back());
    }
    size_t keyRow = size_t(shape.kvHeads) * shape.keyDim, valueRow = size_t(shape.kvHeads) * shape.valueDim;
    std::vector<float> key(shape.batch() * tokens * keyRow, kNaN), value(shape.batch() * tokens * valueRow, kNaN);
    for (size_t b = 0; b < shape.batch(); ++b) {
      std::copy_n(keys[b].data() + from[b] * keyRow, count[b] * keyRow, key.data() + b * tokens * keyRow);
      std::copy_n(values[b].data() + from[b] * valueRow, count[b] * valueRow, value.data() + b * tokens * valueRow);
    }
    for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
      KvAppendArgs args{key.data(),  value.data(),  from.data(),     count.data(),
                        cache(rank), shape.batch(), uint32_t(tokens)};
      kvAppend(args, kvAppendItems(args) / 2, kvAppendItems(args));
      kvAppend(args, 0, kvAppendItems(args) / 2);
    }
  }

  Ranks &fill() {
    std::vector<int32_t> total;
    for (size_t b = 0; b < shape.batch(); ++b)
      total.push_back(shape.length(b));
    append(std::vector<int32_t>(shape.batch(), 0), shape.past);
    append(shape.past, total);
    return *this;
  }

  AttentionArgs args(uint32_t rank, std::vector<float> &send) {
    send.assign(size_t(shape.batch()) * shape.tokens * shape.paddedHeads() * (shape.valueDim + 1), 33.0f);
    slopes.clear();
    for (size_t head = 0; head < shape.heads; ++head)
      slopes.push_back(shape.slope(head));
    return {q.data(),
            shape.past.data(),
            shape.qLen.data(),
            cache(rank),
            send.data(),
            shape.tokens,
            0,
            shape.batch(),
            0,
            shape.tokens,
            shape.heads,
            shape.paddedHeads(),
            shape.scale(),
            shape.softcap,
            shape.window,
            shape.slopes ? slopes.data() : nullptr,
            nullptr};
  }

  std::vector<float> attend(uint32_t rank) {
    std::vector<float> send;
    AttentionArgs attention = args(rank, send);
    std::vector<float> scratch(attentionScratch(attention), kNaN);
    partialAttention(attention, 0, attentionItems(attention), scratch.data());
    return send;
  }

  size_t sendIndex(size_t b, size_t t, size_t head) const {
    size_t perPeer = shape.paddedHeads() / shape.kvp;
    return (((head / perPeer * shape.batch() + b) * shape.tokens + t) * perPeer + head % perPeer) *
           (shape.valueDim + 1);
  }

  /// o and lse in f64 of one query head over the tokens of `rank`, or of all ranks for rank = kvp.
  std::vector<double> expected(size_t b, size_t t, size_t head, uint32_t rank) const {
    std::vector<double> result(shape.valueDim + 1, 0), weights;
    std::vector<int32_t> positions;
    double largest = -INFINITY, sum = 0;
    size_t kvHead = head / (shape.heads / shape.kvHeads);
    if (head < shape.heads && int32_t(t) < shape.qLen[b])
      for (int32_t p = 0, at = shape.past[b] + int32_t(t); p <= at; ++p)
        if ((shape.window == 0 || at - p < int32_t(shape.window)) &&
            (rank == shape.kvp || p / shape.block % shape.kvp == rank)) {
          double score = 0;
          const float *query = q.data() + ((b * shape.tokens + t) * shape.heads + head) * shape.keyDim;
          const float *key = keys[b].data() + (p * shape.kvHeads + kvHead) * shape.keyDim;
          for (size_t i = 0; i < shape.keyDim; ++i)
            score += query[i] * roundTo(shape.dtype, key[i]);
          positions.push_back(p);
          score *= shape.scale();
          if (shape.softcap != 0)
            score = shape.softcap * std::tanh(score / shape.softcap);
          weights.push_back(score + double(shape.slope(head)) * (p - at));
          largest = std::max(largest, weights.back());
        }
    // The whole has the sink; it gives no value.
    if (rank == shape.kvp && head < shape.heads && !positions.empty()) {
      largest = std::max(largest, double(shape.sink(head)));
      sum = std::exp(shape.sink(head) - largest);
    }
    for (size_t i = 0; i < positions.size(); ++i) {
      double weight = std::exp(weights[i] - largest);
      const float *value = values[b].data() + (positions[i] * shape.kvHeads + kvHead) * shape.valueDim;
      for (size_t j = 0; j < shape.valueDim; ++j)
        result[j] += weight * roundTo(shape.dtype, value[j]);
      sum += weight;
    }
    for (size_t j = 0; j < shape.valueDim && sum > 0; ++j)
      result[j] /= sum;
    result[shape.valueDim] = sum > 0 ? largest + std::log(sum) : -INFINITY;
    return result;
  }

  /// Partials of all ranks, the all-to-all, the merge, against f64.
  void check() {
    std::vector<std::vector<float>> sent;
    size_t width = shape.valueDim;
    for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
      sent.push_back(attend(rank));
      for (size_t b = 0; b < shape.batch(); ++b)
        for (size_t t = 0; t < shape.tokens; ++t)
          for (size_t head = 0; head < shape.paddedHeads(); ++head)
            compare(sent[rank].data() + sendIndex(b, t, head), expected(b, t, head, rank), width + 1);
      if (::testing::Test::HasFatalFailure())
        return;
    }
    uint32_t perPeer = shape.paddedHeads() / shape.kvp;
    size_t rows = size_t(shape.batch()) * shape.tokens, chunk = rows * perPeer * (width + 1);
    for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
      std::vector<float> stacked, y(rows * perPeer * width, kNaN);
      for (uint32_t peer = 0; peer < shape.kvp; ++peer)
        stacked.insert(stacked.end(), sent[peer].begin() + rank * chunk, sent[peer].begin() + (rank + 1) * chunk);
      MergeChunk whole{stacked.data(), shape.batch()};
      std::vector<float> sinks;
      for (size_t head = 0; head < perPeer; ++head)
        sinks.push_back(shape.sink(rank * perPeer + head));
      MergeArgs args{{&whole, 1}, false,          y.data(),
                     shape.kvp,   shape.batch(),  shape.tokens,
                     perPeer,     shape.valueDim, shape.sinks ? sinks.data() : nullptr};
      mergeAttention(args, 0, mergeItems(args));
      for (size_t row = 0; row < rows; ++row)
        for (size_t head = 0; head < perPeer; ++head)
          compare(y.data() + (row * perPeer + head) * width,
                  expected(row / shape.tokens, row % shape.tokens, rank * perPeer + head, shape.kvp), width);
    }
  }

  void compare(const float *ours, const std::vector<double> &reference, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (std::isinf(reference[i]))
        ASSERT_EQ(ours[i], -kInfinity) << describe();
      else if (reference[shape.valueDim] == -INFINITY)
        ASSERT_EQ(ours[i], 0.0f) << describe();
      else
        ASSERT_NEAR(ours[i], reference[i], 4e-6 * std::max(1.0, std::fabs(reference[i]))) << i << describe();
    }
  }

  std::string describe() const {
    return " dtype " + std::to_string(int(shape.dtype)) + " kvp " + std::to_string(shape.kvp) + " block " +
           std::to_string(shape.block) + " heads " + std::to_string(shape.heads) + "/" + std::to_string(shape.kvHeads) +
           " dims " + std::to_string(shape.keyDim) + " " + std::to_string(shape.valueDim);
  }
};

TEST(KvAppend, HasOneWriterPerTokenOverTwoCycles) {
  for (auto [dtype, dims] : {std::pair<DType, uint32_t>{DType::F32, 5},
                             {DType::F32, 6},
                             {DType::F16, 6},
                             {DType::BF16, 5},
                             {DType::BF16, 6}})
    for (uint32_t kvp : {1u, 2u, 3u, 5u, 8u}) {
      Shape shape{dtype, kvp, 4, 4, 2, dims, 3, 1, {int32_t(8 * kvp) + 1, 0, 3}, {2, 0, 4}};
      Ranks ranks(shape);
      std::vector<std::vector<std::byte>> before = ranks.keyAreas;
      std::vector<int32_t> at(3, 0);
      // One token at a time for the first sequence, all at once for the third.
      for (int32_t p = 0; p < shape.length(0); ++p) {
        std::vector<int32_t> next = {p + 1, 0, shape.length(2)};
        ranks.append(at, next);
        size_t changed = 0;
        for (uint32_t rank = 0; rank < kvp; ++rank)
          changed += before[rank] != ranks.keyAreas[rank];
        if (p > 0)
          ASSERT_EQ(changed, 1u) << "writers of position " << p;
        before = ranks.keyAreas;
        at = next;
      }
      // Every slot of every rank: the token that belongs there, or the poison.
      for (uint32_t rank = 0; rank < kvp; ++rank) {
        KvCache cache = ranks.cache(rank);
        std::vector<std::byte> keys(ranks.keyAreas[rank].size(), std::byte(0xff)),
            values(ranks.valueAreas[rank].size(), std::byte(0xff));
        for (size_t b : {0, 2})
          for (int32_t p = 0, local = 0; p < shape.length(b); ++p) {
            if (p / 4 % kvp != rank)
              continue;
            size_t page = ranks.table[b * ranks.pagesPerSlot + local / 4], pages = ranks.table.size();
            for (size_t head = 0; head < 2; ++head) {
              size_t bytes = elementBytes(dtype);
              // Two dimensions of bf16 lie together if there are no odd ones.
              size_t together = dtype == DType::BF16 && dims == 6 ? 2 : 1;
              for (size_t i = 0; i < dims; ++i) {
                uint32_t bits = encode(dtype, roundTo(dtype, ranks.keys[b][(p * 2 + head) * dims + i]));
                size_t row = ((head * pages + page) * dims + i / together * together) * 4;
                std::memcpy(keys.data() + (row + local % 4 * together + i % together) * bytes, &bits, bytes);
              }
              for (size_t i = 0; i < 3; ++i) {
                uint32_t bits = encode(dtype, roundTo(dtype, ranks.values[b][(p * 2 + head) * 3 + i]));
                std::memcpy(values.data() + (((head * pages + page) * 4 + local % 4) * 3 + i) * bytes, &bits, bytes);
              }
            }
            ++local;
          }
        ASSERT_EQ(keys, ranks.keyAreas[rank]) << cache.rank;
        ASSERT_EQ(values, ranks.valueAreas[rank]) << cache.rank;
      }
    }
}

TEST(KvFill, MakesFiniteTokensWhereTheyBelong) {
  for (DType dtype : kDTypes) {
    Ranks ranks({dtype, 3, 4, 4, 2, 5, 3, 1, {30, 25, 9}, {0, 0, 0}});
    for (uint32_t rank = 0; rank < 3; ++rank) {
      kvFill(ranks.cache(rank), 1, 22);
      // 22 tokens in blocks of 4 over 3 ranks: 8, 8 and 6, that is two pages each.
      std::vector<bool> filled(ranks.table.size());
      filled[ranks.table[ranks.pagesPerSlot]] = filled[ranks.table[ranks.pagesPerSlot + 1]] = true;
      bool different = false;
      for (size_t page = 0; page < 2 * filled.size(); ++page) // of either head
        for (size_t i = 0; i < 4 * 5; ++i) {
          double key = decode(dtype, ranks.keyAreas[rank].data(), page * 20 + i);
          double value = i < 12 ? decode(dtype, ranks.valueAreas[rank].data(), page * 12 + i) : key;
          ASSERT_EQ(std::abs(key) <= 0.5 && std::abs(value) <= 0.5, bool(filled[page % filled.size()]))
              << page << " " << i;
          different |= filled[page % filled.size()] && key != 0;
        }
      EXPECT_TRUE(different);
    }
  }
}

TEST(Attention, MatchesFloat64ForEveryHeadSizeAndType) {
  forEachTarget([] {
    for (DType dtype : kDTypes)
      for (uint32_t dim : {16u, 64u, 80u, 96u, 128u, 256u, 17u})
        Ranks({dtype, 2, 16, 6, 2, dim, dim, 1, {70, 37}, {1, 1}}).fill().check();
    Ranks({DType::BF16, 2, 16, 6, 2, 192, 128, 2, {70, 37}, {1, 2}}).fill().check();
    Ranks({DType::F32, 1, 16, 3, 3, 1, 1, 2, {70, 37}, {1, 2}}).fill().check();
  });
}

TEST(Attention, MatchesFloat64ForEveryHeadCount) {
  forEachTarget([] {
    for (auto [heads, kvHeads] : {std::pair<uint32_t, uint32_t>{1, 1},
                                  {3, 1},
                                  {3, 3},
                                  {9, 3},
                                  {63, 9},
                                  {63, 1},
                                  {126, 2},
                                  {126, 126},
                                  {128, 1}})
      for (uint32_t kvp : {1u, 5u, 8u})
        Ranks({DType::F16, kvp, 4, heads, kvHeads, 16, 16, 2, {20, 5}, {2, 1}}).fill().check();
  });
}

TEST(Attention, MatchesFloat64ForEveryLength) {
  forEachTarget([] {
    for (uint32_t kvp : {1u, 2u, 3u, 5u, 8u}) {
      // Around every block edge of two cycles, empty and shorter than kvp among them; one idle sequence.
      Shape shape{DType::BF16, kvp, 4, 4, 2, 16, 16, 1, {}, {}};
      for (int32_t length = 0; length <= int32_t(8 * kvp) + 1; ++length) {
        shape.past.push_back(length);
        shape.qLen.push_back(length != 2);
      }
      Ranks(shape).fill().check();
    }
    // Around the edges of partial sums: 128 local tokens each.
    for (int32_t length : {127, 128, 129, 255, 256, 257, 511, 512, 513, 1100})
      Ranks({DType::F32, 1, 16, 2, 1, 16, 16, 1, {length - 1}, {1}}).fill().check();
    for (uint32_t block : {1u, 3u, 5u, 24u, 300u})
      Ranks({DType::F16, 2, block, 4, 2, 16, 16, 3, {700, 0, 33}, {1, 2, 3}}).fill().check();
  });
}

TEST(Attention, MatchesFloat64ForQueriesThatStraddleBlocks) {
  forEachTarget([] {
    for (uint32_t kvp : {1u, 2u, 3u})
      for (DType dtype : kDTypes) {
        Ranks({dtype, kvp, 4, 6, 3, 16, 16, 7, {2, 0, 13, 255, 6}, {7, 7, 5, 7, 0}}).fill().check();
        Ranks({dtype, kvp, 16, 4, 1, 16, 24, 50, {3, 0, 240}, {50, 33, 17}}).fill().check();
      }
  });
}

TEST(Attention, MatchesFloat64WhenScoresAreLarge) {
  forEachTarget([] {
    Shape shape{DType::F32, 2, 16, 4, 2, 64, 64, 1, {600}, {1}};
    shape.sharpness = 400;
    Ranks(shape).fill().check();
  });
}

TEST(Attention, MatchesFloat64WithCapsSlopesAndSinks) {
  forEachTarget([] {
    for (uint32_t kvp : {1u, 2u, 3u})
      for (uint32_t tokens : {1u, 7u}) {
        Shape shape{DType::F32, kvp, 4, 6, 3, 16, 16, tokens, {2, 0, 300, 13}, {1, 1, 1, 0}};
        if (tokens > 1)
          shape.qLen = {7, 7, 5, 0};
        shape.softcap = 1.5f; // well below the largest score
        Ranks(shape).fill().check();
        shape.sinks = true;
        Ranks(shape).fill().check();
        shape.slopes = true;
        Ranks(shape).fill().check();
        shape.softcap = 0;
        Ranks(shape).fill().check();
      }
  });
}

TEST(Attention, MatchesFloat64InEveryWindow) {
  forEachTarget([] {
    // Windows of one token, less and more than a block, a round of blocks, a partial sum, and more than there is; query
    // tokens on both sides of every edge. What lies before the window is NaN.
    for (uint32_t window : {1u, 3u, 4u, 5u, 12u, 13u, 255u, 256u, 257u, 1000u})
      for (uint32_t kvp : {1u, 3u}) {
        Ranks({DType::F32, kvp, 4, 4, 2, 16, 16, 1, {0, 3, 12, 300, 600}, {1, 1, 1, 1, 0}, 4, 0, window})
            .fill()
            .check();
        Ranks({DType::BF16, kvp, 4, 4, 2, 16, 16, 9, {0, 3, 251, 600}, {9, 9, 9, 4}, 4, 2, window, true, true})
            .fill()
            .check();
        Ranks({DType::F16, kvp, 16, 2, 1, 16, 16, 40, {230, 2}, {40, 33}, 4, 0, window}).fill().check();
      }
  });
}

TEST(Attention, ReadsNothingBeforeTheWindow) {
  forEachTarget([] {
    Shape shape{DType::F32, 2, 4, 4, 2, 16, 16, 6, {40, 290}, {6, 6}, 4, 0, 7};
    Ranks clean(shape), poisoned(shape);
    for (size_t b = 0; b < 2; ++b) {
      // The oldest query token sees positions past - 6 … past.
      std::fill_n(poisoned.keys[b].begin(), size_t(shape.past[b] - 6) * 2 * 16, kNaN);
      std::fill_n(poisoned.values[b].begin(), size_t(shape.past[b] - 6) * 2 * 16, kNaN);
    }
    clean.fill();
    poisoned.fill();
    for (uint32_t rank = 0; rank < 2; ++rank)
      ASSERT_TRUE(sameBits(clean.attend(rank), poisoned.attend(rank)));
    // And each query token has a bound of its own: a NaN at the oldest one's first position shows in that row alone.
    poisoned = Ranks(shape);
    std::fill_n(poisoned.values[0].begin() + (40 - 6) * 2 * 16, 2 * 16, kNaN);
    poisoned.fill();
    std::vector<float> send = poisoned.attend(34 / 4 % 2);
    for (size_t t = 0; t < 6; ++t)
      ASSERT_EQ(std::isnan(send[poisoned.sendIndex(0, t, 0)]), t == 0) << t;
  });
}

TEST(Attention, GivesASequenceTheSameBitsAloneAndInABatch) {
  forEachTarget([] {
    for (DType dtype : kDTypes) {
      Shape shape{dtype, 2, 4, 6, 2, 80, 80, 9, {300, 0, 7, 50, 1}, {9, 4, 0, 1, 8}};
      Ranks batch(shape);
      batch.fill();
      for (size_t b = 0; b < shape.batch(); ++b) {
        Shape solo = shape;
        solo.past = {shape.past[b]};
        solo.qLen = {shape.qLen[b]};
        Ranks alone(solo, 1 + b);
        alone.fill();
        for (uint32_t rank = 0; rank < shape.kvp; ++rank) {
          std::vector<float> ours = batch.attend(rank), theirs = alone.attend(rank);
          for (size_t t = 0; t < shape.tokens; ++t)
            for (size_t head = 0; head < shape.heads; ++head)
              ASSERT_EQ(0, std::memcmp(ours.data() + batch.sendIndex(b, t, head),
                                       theirs.data() + alone.sendIndex(0, t, head), sizeof(float) * 81));
        }
      }
    }
  });
}

TEST(Attention, GivesAQueryTokenTheSameBitsInEveryChunk) {
  forEachTarget([] {
    for (uint32_t heads : {2u, 6u, 22u}) {
      Shape shape{DType::BF16, 1, 16, heads, 2, 64, 64, 40, {230}, {40}};
      if (heads == 6)
        shape.softcap = 2, shape.window = 21, shape.slopes = true;
      Ranks chunk(shape);
      std::vector<float> ours = chunk.fill().attend(0);
      for (int32_t t = 0; t < 40; ++t) {
        std::vector<float> send;
        AttentionArgs args = chunk.args(0, send);
        int32_t past = 230 + t, qLen = 1;
        args.q += size_t(t) * heads * 64;
        args.past = &past;
        args.qLen = &qLen;
        args.tokens = args.tokenCount = 1;
        std::vector<float> scratch(attentionScratch(args), kNaN);
        partialAttention(args, 0, attentionItems(args), scratch.data());
        ASSERT_EQ(0, std::memcmp(send.data(), ours.data() + chunk.sendIndex(0, t, 0), sizeof(float) * heads * 65)) << t;
      }
    }
  });
}

TEST(Attention, GivesTheSameBitsHoweverItemsAreDealt) {
  forEachTarget([] {
    Ranks ranks({DType::F16, 2, 4, 12, 3, 48, 48, 70, {300, 0, 7}, {70, 4, 33}});
    std::vector<float> whole = ranks.fill().attend(1), parts;
    AttentionArgs args = ranks.args(1, parts);
    ASSERT_GT(attentionItems(args), 9u);
    for (size_t item = attentionItems(args); item-- > 0;) {
      std::vector<float> scratch(attentionScratch(args), float(item));
      partialAttention(args, item, item + 1, scratch.data());
    }
    EXPECT_TRUE(sameBits(whole, parts));
  });
}

/// Several segments per sequence, dealt to any number of threads, whole or item by item in any order.
TEST(Attention, GivesTheSameBitsInSegments) {
  forEachTarget([] {
    for (DType dtype : kDTypes)
      for (uint32_t window : {0, 2500}) {
        Shape shape{dtype, 2, 16, 12, 3, 32, 48, 2, {9000, 0, 4095, 8190, 40}, {2, 0, 1, 2, 1}};
        shape.window = window;
        Ranks ranks(shape);
        ranks.fill();
        for (uint32_t rank : {0, 1}) {
          std::vector<float> whole = ranks.attend(rank), parts;
          AttentionArgs args = ranks.args(rank, parts);
          std::vector<float> partials(attentionPartials(args) + 1, kNaN);
          partials.back() = 5;
          args.partials = partials.data();
          size_t items = attentionItems(args);
          ASSERT_GT(items, 5u * 3u);
          for (size_t threads : {1, 2, 7, 1000}) {
            std::fill(parts.begin(), parts.end(), 33.0f);
            beginAttention(args);
            size_t next = 0;
            for (size_t part = 0; part < threads; ++part) {
              Range share = attentionShare(args, part, threads);
              ASSERT_EQ(share.begin, next);
              next = share.end;
              std::vector<float> scratch(attentionScratch(args), kNaN);
              partialAttention(args, share.begin, share.end, scratch.data());
            }
            ASSERT_EQ(next, items);
            ASSERT_TRUE(sameBits(whole, parts)) << threads;
          }
          std::fill(parts.begin(), parts.end(), 33.0f);
          beginAttention(args);
          for (size_t item = items; item-- > 0;) {
            std::vector<float> scratch(attentionScratch(args), kNaN);
            partialAttention(args, item, item + 1, scratch.data());
          }
          ASSERT_TRUE(sameBits(whole, parts));
          ASSERT_EQ(partials.back(), 5);
        }
      }
  });
}

TEST(Attention, DealsLongSequencesToAllThreads) {
  Ranks ranks({DType::F32, 1, 16, 4, 1, 8, 8, 1, {30000, 10, 4000}, {1, 1, 1}});
  std::vector<float> send;
  AttentionArgs args = ranks.args(0, send);
  std::vector<float> partials(attentionPartials(args));
  args.partials = partials.data();
  // 15 segments of 2048 tokens, one, and two: the middle of their tokens is after the eighth.
  EXPECT_EQ(attentionItems(args), 18u);
  Range half = attentionShare(args, 0, 2);
  EXPECT_EQ(half.begin, 0u);
  EXPECT_EQ(half.end, 8u);
}

/// Chunks of sequences and tokens at random, over ragged lengths and padded heads, against the rows of the whole.
TEST(Attention, GivesAChunkTheSameBitsAsTheWhole) {
  forEachTarget([] {
    std::mt19937_64 random(9);
    for (DType dtype : kDTypes)
      for (auto [heads, kvHeads, kvp] : {std::tuple<uint32_t, uint32_t, uint32_t>{6, 2, 4}, {22, 1, 3}, {3, 3, 1}}) {
        Ranks ranks({dtype, kvp, 4, heads, kvHeads, 48, 40, 37, {300, 0, 7, 50, 1}, {37, 4, 0, 1, 20}});
        ranks.fill();
        size_t perPeer = ranks.shape.paddedHeads() / kvp;
        for (int round = 0; round < 12; ++round) {
          uint32_t rank = random() % kvp;
          std::vector<float> whole = ranks.attend(rank), part;
          AttentionArgs args = ranks.args(rank, part);
          args.batchBegin = random() % 5, args.batchCount = 1 + random() % (5 - args.batchBegin);
          args.tokenBegin = random() % 37, args.tokenCount = 1 + random() % (37 - args.tokenBegin);
          // One row more, which must not be touched.
          size_t row = 41 * perPeer, rows = size_t(kvp) * args.batchCount * args.tokenCount;
          part.assign((rows + 1) * row, 33.0f);
          args.send = part.data();
          std::vector<float> scratch(attentionScratch(args) + 1, kNaN);
          scratch.back() = 5;
          partialAttention(args, 0, attentionItems(args), scratch.data());
          ASSERT_EQ(scratch.back(), 5);
          const float *at = part.data();
          for (uint32_t peer = 0; peer < kvp; ++peer)
            for (uint32_t b = args.batchBegin; b < args.batchBegin + args.batchCount; ++b)
              for (uint32_t t = args.tokenBegin; t < args.tokenBegin + args.tokenCount; ++t, at += row)
                ASSERT_EQ(0, std::memcmp(at, whole.data() + ranks.sendIndex(b, t, peer * perPeer), row * sizeof(float)))
                    << "peer " << peer << " sequence " << b << " token " << t << ranks.describe();
          for (size_t i = 0; i < row; ++i)
            ASSERT_EQ(at[i], 33.0f);
        }
      }
  });
}

TEST(Attention, ShowsNaNInWhatItSeesOnly) {
  forEachTarget([] {
    for (DType dtype : kDTypes)
      for (bool inKey : {true, false}) {
        // A NaN at position 22 of KV head 1: seen by the query at 22, not by the one before, by heads 2 and 3.
        Shape shape{dtype, 2, 4, 4, 2, 16, 16, 4, {19, 30}, {4, 4}};
        Ranks ranks(shape);
        (inKey ? ranks.keys : ranks.values)[0][(22 * 2 + 1) * 16 + 5] = kNaN;
        ranks.fill();
        for (uint32_t rank = 0; rank < 2; ++rank) {
          std::vector<float> send = ranks.attend(rank);
          for (size_t b = 0; b < 2; ++b)
            for (size_t t = 0; t < 4; ++t)
              for (size_t head = 0; head < 4; ++head)
                for (size_t i = 0; i < 17; ++i) {
                  bool sees = b == 0 && rank == 22 / 4 % 2 && t >= 3 && head >= 2;
                  ASSERT_EQ(std::isnan(send[ranks.sendIndex(b, t, head) + i]), sees && (inKey || i == 5))
                      << inKey << " " << b << " " << t << " " << head << " " << i;
                }
        }
      }
  });
}

TEST(Attention, GivesMinusInfiniteScoresNoWeight) {
  forEachTarget([] {
    // All keys of the first 256 tokens are infinite against the query's sign, then finite ones follow.
    Shape shape{DType::F32, 1, 16, 1, 1, 1, 1, 1, {299}, {1}};
    Ranks ranks(shape);
    ranks.q = {-1.0f};
    std::fill_n(ranks.keys[0].begin(), 256, kInfinity);
    std::vector<float> send = ranks.fill().attend(0);
    double above = 0, below = 0;
    for (size_t p = 256; p < 300; ++p) {
      above += std::exp(-double(ranks.keys[0][p])) * ranks.values[0][p];
      below += std::exp(-double(ranks.keys[0][p]));
    }
    EXPECT_NEAR(send[0], above / below, 1e-6);
    EXPECT_NEAR(send[1], std::log(below), 1e-6);
  });
}

} // namespace
} // namespace helix::cpu::test
