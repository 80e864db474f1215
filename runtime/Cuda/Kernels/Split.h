//===- Split.h - How attention divides its work ----------------------------===//
//
// For host and device. Query rows of one KV head, (token, query head of the group) with the head fastest, are dealt in
// tiles; the tokens that a rank holds of a sequence in parts. A block computes (sequence, part, KV head, tile).
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_SPLIT_H
#define HELIX_RUNTIME_CUDA_KERNELS_SPLIT_H

#include "runtime/Cuda/Kernels.h"

namespace helix::cuda {

/// The fewest tokens of a part but the last, and what parts are multiples of.
inline constexpr uint32_t kPartTokens = 256, kPartUnit = 64;

/// The most parts of a sequence, by the query tokens of the command: what fills a GPU when there is one sequence of one
/// KV head, while partial results stay few beside the cache.
constexpr uint32_t mostParts(uint32_t tokens) { return tokens >= 128 ? 1 : 128 / (tokens == 0 ? 1 : tokens); }

/// The most parts that a sequence can have in this cache.
constexpr uint32_t partCapacity(const cpu::AttentionArgs &args) {
  uint64_t capacity = args.cache.pagesPerSlot * args.cache.block;
  uint64_t parts = (capacity + kPartTokens - 1) / kPartTokens, most = mostParts(args.tokens);
  return uint32_t(parts < 1 ? 1 : parts < most ? parts : most);
}

constexpr uint32_t groupOf(const cpu::AttentionArgs &args) { return args.heads / args.cache.heads; }

/// Tiles of a KV head's query rows in the chunk.
constexpr uint32_t tilesOf(const cpu::AttentionArgs &args, uint32_t tileRows) {
  return (args.tokenCount * groupOf(args) + tileRows - 1) / tileRows;
}

/// Of a sequence's tokens that a rank holds, those in [begin, end), part i from begin + i * partTokens on.
struct Split {
  uint32_t begin = 0, end = 0, partTokens = kPartTokens, parts = 0;
};

/// Local tokens at positions before `length`. Below 2^32.
constexpr uint32_t localLength(const KvCache &cache, uint64_t length) {
  return uint32_t(cpu::kvLocalLength(length, cache.rank, cache.block, cache.kvp));
}

/// Local tokens that the query at position `length - 1` does not see because they lie before its window.
constexpr uint32_t localHidden(const cpu::AttentionArgs &args, uint64_t length) {
  return args.window == 0 || length <= args.window ? 0 : localLength(args.cache, length - args.window);
}

/// Depends on the sequence and the command alone, not on the chunk nor on other sequences.
constexpr Split splitOf(const cpu::AttentionArgs &args, int32_t past, int32_t qLen) {
  Split split;
  if (qLen <= 0)
    return split;
  split.begin = localHidden(args, uint64_t(past) + 1) / kPartUnit * kPartUnit;
  split.end = localLength(args.cache, uint64_t(past) + uint64_t(qLen));
  if (split.end <= split.begin)
    return split;
  uint32_t most = mostParts(args.tokens), tokens = split.end - split.begin;
  uint32_t units = (tokens + most * kPartUnit - 1) / (most * kPartUnit);
  split.partTokens = units * kPartUnit < kPartTokens ? kPartTokens : units * kPartUnit;
  split.parts = (tokens + split.partTokens - 1) / split.partTokens;
  return split;
}

/// Index of a head's result for a token in the packed send buffer, in floats.
constexpr size_t sendIndex(const cpu::AttentionArgs &args, uint32_t b, uint32_t t, uint32_t head) {
  size_t perPeer = args.paddedHeads / args.cache.kvp, peer = head / perPeer;
  size_t row = (peer * args.batchCount + (b - args.batchBegin)) * args.tokenCount + (t - args.tokenBegin);
  return (row * perPeer + head % perPeer) * (size_t(args.cache.valueDim) + 1);
}

/// What the attention kernels take. Scratch holds the parts' outputs, [batchCount, tokenCount, heads, capacity,
/// valueDim], then their log-sum-exps, [batchCount, tokenCount, heads, capacity].
struct AttentionArgument {
  AttentionArgs args;
  uint32_t capacity; ///< of parts
  uint32_t tiles;    ///< of each KV head

  constexpr size_t scratchRow(uint32_t b, uint32_t t, uint32_t head, uint32_t part) const {
    size_t row = size_t(b - args.batchBegin) * args.tokenCount + (t - args.tokenBegin);
    return (row * args.heads + head) * capacity + part;
  }
  constexpr size_t scratchRows() const { return size_t(args.batchCount) * args.tokenCount * args.heads * capacity; }
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_SPLIT_H
