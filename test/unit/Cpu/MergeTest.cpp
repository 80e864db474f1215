//===- MergeTest.cpp - Merging partial attention, ordered sums -------------===//
#include "Reference.h"
#include "runtime/Cpu/Kernels.h"

#include <algorithm>

namespace helix::cpu::test {
namespace {

/// Merges peers of one row and one head; each peer is o and then lse.
std::vector<float> merge(const std::vector<std::vector<float>> &peers) {
  std::vector<float> stacked;
  for (const std::vector<float> &peer : peers)
    stacked.insert(stacked.end(), peer.begin(), peer.end());
  uint32_t width = peers[0].size() - 1;
  std::vector<float> y(width, 77.0f);
  MergeChunk whole{stacked.data(), 1};
  mergeAttention({{&whole, 1}, false, y.data(), uint32_t(peers.size()), 1, 1, 1, width}, 0, 1);
  return y;
}

using Row = std::vector<float>;

TEST(Merge, OfOnePeerIsTheIdentity) {
  Row o = {1.0f / 3, -0.0f, 3e-39f, -7e30f};
  for (float lse : {-1e30f, -100.0f, 0.0f, 0.7f, 88.0f, 1e30f}) {
    Row peer = o;
    peer.push_back(lse);
    EXPECT_TRUE(sameBits(merge({peer}), o)) << lse;
    Row nothing = {0, 0, 0, 0, -kInfinity};
    EXPECT_TRUE(sameBits(merge({nothing, peer, nothing}), o)) << lse;
    // What an empty peer holds beside its lse does not matter.
    Row poisoned = {kNaN, kNaN, kNaN, kNaN, -kInfinity};
    EXPECT_TRUE(sameBits(merge({poisoned, peer}), o)) << lse;
  }
}

TEST(Merge, AveragesEqualPeers) {
  EXPECT_EQ(merge({{1, 2, 5.5f}, {3, -4, 5.5f}}), (Row{2, -1}));
  EXPECT_EQ(merge({{1, 2, -100}, {3, -4, -100}}), (Row{2, -1}));
}

TEST(Merge, WeighsDistantPeers) {
  Row y = merge({{1, 1e30f, -100}, {3, 4, 0}});
  EXPECT_EQ(y[0], 3.0f); // e^-100 is below half a unit of the last place
  EXPECT_FLOAT_EQ(y[1], float(4 + 1e30 * std::exp(-100.0)));
}

TEST(Merge, OfEmptyPeersIsZero) { EXPECT_TRUE(sameBits(merge({{9, 9, -kInfinity}, {kNaN, 9, -kInfinity}}), {0, 0})); }

TEST(Merge, ShowsNaN) {
  Row y = merge({{1, kNaN, 2}, {3, 4, 1}});
  EXPECT_TRUE(!std::isnan(y[0]) && std::isnan(y[1]));
  for (int peer : {0, 1}) {
    std::vector<Row> peers = {{1, 2, 2}, {3, 4, 1}};
    peers[peer][2] = kNaN;
    y = merge(peers);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
  }
  EXPECT_TRUE(std::isnan(merge({{1, kNaN}, {1, kNaN}})[0]));
  EXPECT_TRUE(std::isnan(merge({{1, kNaN}, {1, -kInfinity}})[0]));
  EXPECT_TRUE(std::isnan(merge({{1, kInfinity}, {1, 0}})[0]));
}

TEST(Merge, MatchesFloat64InAnyOrder) {
  for (uint32_t peers : {1, 2, 3, 5, 8, 256}) {
    size_t rows = 6, width = 7;
    uint32_t heads = 3;
    std::vector<float> stacked = randomFloats(peers * rows * heads * (width + 1), peers);
    for (size_t i = width; i < stacked.size(); i += width + 1)
      stacked[i] = i % 11 == 0 ? -kInfinity : stacked[i] * 20;
    for (bool reversed : {false, true}) {
      if (reversed)
        for (uint32_t a = 0, b = peers - 1; a < b; ++a, --b)
          std::swap_ranges(stacked.begin() + a * rows * heads * (width + 1),
                           stacked.begin() + (a + 1) * rows * heads * (width + 1),
                           stacked.begin() + b * rows * heads * (width + 1));
      MergeChunk whole{stacked.data(), uint32_t(rows)};
      MergeArgs args{{&whole, 1}, false, nullptr, peers, uint32_t(rows), 1, heads, uint32_t(width)};
      std::vector<double> expected;
      for (size_t item = 0; item < rows * heads; ++item)
        for (size_t i = 0; i < width; ++i) {
          double above = 0, below = 0;
          for (size_t peer = 0; peer < peers; ++peer) {
            const float *o = stacked.data() + (peer * rows * heads + item) * (width + 1);
            above += std::exp(double(o[width])) * o[i];
            below += std::exp(double(o[width]));
          }
          expected.push_back(below == 0 ? 0 : above / below);
        }
      std::vector<float> y(rows * heads * width, kNaN), parts = y;
      args.y = y.data();
      mergeAttention(args, 0, mergeItems(args));
      EXPECT_LE(relativeError(y, expected), 1e-6) << peers;
      args.y = parts.data();
      for (size_t item = mergeItems(args); item-- > 0;)
        mergeAttention(args, item, item + 1);
      EXPECT_TRUE(sameBits(y, parts));
    }
  }
}

/// Cuts `all` at random.
std::vector<uint32_t> randomChunks(uint32_t all, std::mt19937_64 &random) {
  std::vector<uint32_t> chunks;
  for (uint32_t count; all != 0; all -= count)
    chunks.push_back(count = 1 + uint32_t(random() % all));
  return chunks;
}

TEST(Merge, OfChunksIsThatOfTheWhole) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    uint32_t peers = 1 + random() % 4, batch = 1 + random() % 6, tokens = 1 + random() % 7, heads = 1 + random() % 3;
    size_t row = heads * 6, rows = size_t(batch) * tokens;
    std::vector<float> stacked = randomFloats(peers * rows * row, uint64_t(round));
    MergeChunk whole{stacked.data(), batch};
    std::vector<float> expected(rows * heads * 5, kNaN), y = expected;
    MergeArgs args{{&whole, 1}, false, expected.data(), peers, batch, tokens, heads, 5};
    mergeAttention(args, 0, mergeItems(args));
    for (bool alongTokens : {false, true}) {
      std::vector<std::vector<float>> parts;
      std::vector<MergeChunk> chunks;
      uint32_t from = 0;
      for (uint32_t count : randomChunks(alongTokens ? tokens : batch, random)) {
        std::vector<float> &part = parts.emplace_back();
        for (uint32_t p = 0; p < peers; ++p)
          for (uint32_t b = 0; b < batch; ++b)
            for (uint32_t t = 0; t < tokens; ++t)
              if (uint32_t at = alongTokens ? t : b; at >= from && at < from + count) {
                const float *source = stacked.data() + ((p * batch + b) * tokens + t) * row;
                part.insert(part.end(), source, source + row);
              }
        chunks.push_back({part.data(), count});
        from += count;
      }
      std::fill(y.begin(), y.end(), kNaN);
      args.chunks = chunks;
      args.alongTokens = alongTokens;
      args.y = y.data();
      size_t middle = random() % (mergeItems(args) + 1);
      mergeAttention(args, middle, mergeItems(args));
      mergeAttention(args, 0, middle);
      ASSERT_TRUE(sameBits(y, expected)) << round << (alongTokens ? " tokens" : " batch");
    }
  }
}

TEST(Reduce, AddsInAscendingOrder) {
  // Of 1, 2^-24 and 2^-24 the ascending sum is 1, the other orders differ.
  std::vector<std::vector<float>> values(3, std::vector<float>(3001, 0x1p-24f));
  std::fill(values[0].begin(), values[0].end(), 1.0f);
  values[2][17] = kNaN;
  const float *buffers[] = {values[0].data(), values[1].data(), values[2].data()};
  std::vector<float> out(3001, 5.0f);
  reduceOrdered(out.data(), buffers, 3, 1, 3000);
  EXPECT_EQ(out[0], 5.0f);
  EXPECT_EQ(out[3000], 5.0f);
  for (size_t i = 1; i < 3000; ++i)
    ASSERT_TRUE(i == 17 ? std::isnan(out[i]) : out[i] == 1.0f);
  const float *backwards[] = {values[1].data(), values[1].data(), values[0].data()};
  reduceOrdered(values[0].data(), backwards, 3, 0, 3001);
  EXPECT_EQ(values[0][0], 1 + 0x1p-23f);
  std::vector<float> copy(3001);
  reduceOrdered(copy.data(), buffers, 1, 0, 3001);
  EXPECT_TRUE(sameBits(copy, values[0]));
}

} // namespace
} // namespace helix::cpu::test
