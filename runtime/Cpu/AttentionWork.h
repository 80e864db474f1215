//===- AttentionWork.h - How partial attention is cut into work ------------===//
#ifndef HELIX_RUNTIME_CPU_ATTENTIONWORK_H
#define HELIX_RUNTIME_CPU_ATTENTIONWORK_H

#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <limits>

namespace helix::cpu {

/// Local tokens of a partial sum: as many whole pages as 128 tokens hold, or a part of one.
inline constexpr uint64_t kSplitTokens = 128;
constexpr uint64_t splitTokens(const KvCache &cache) {
  return cache.block > kSplitTokens ? kSplitTokens : kSplitTokens / cache.block * cache.block;
}

inline uint64_t segmentTokens(const KvCache &cache) { return 16 * splitTokens(cache); }

/// The widest vector of any target and the largest row block, for sizes of scratch.
inline constexpr size_t kWidest = 16, kRowBlock = 8;

/// Floats between two rows' scores: a vector may end past the split.
inline constexpr size_t kScoreStride = kSplitTokens + kWidest;

inline size_t outputStride(const KvCache &cache) { return (size_t(cache.valueDim) + kWidest - 1) / kWidest * kWidest; }

/// Rows of a work item: (token, head of the group).
inline size_t itemRows(const AttentionArgs &args) {
  return size_t(attentionQueryBlock(args)) * (args.heads / args.cache.heads);
}

/// Floats of a state of `rows` rows, in whole cache lines: threads write neighbours.
inline size_t stateFloats(const AttentionArgs &args) {
  return (itemRows(args) * (outputStride(args.cache) + 2) + 15) / 16 * 16;
}

/// Local tokens that query tokens [first, first + used) of a sequence see between them, and their segments.
struct Seen {
  uint64_t begin = 0, end = 0;
  uint64_t segment = 0, segments = 1; ///< the first, and how many; one if there are no tokens
};

inline Seen seenBy(const AttentionArgs &args, size_t sequence, size_t first, size_t used) {
  if (used == 0)
    return {};
  const KvCache &cache = args.cache;
  auto local = [&](uint64_t length) { return kvLocalLength(length, cache.rank, cache.block, cache.kvp); };
  uint64_t oldest = uint64_t(args.past[sequence]) + first + 1, segment = segmentTokens(cache);
  Seen seen;
  seen.begin = args.window == 0 || oldest <= args.window ? 0 : local(oldest - args.window);
  seen.end = local(oldest + used - 1);
  seen.segment = seen.begin / segment;
  seen.segments = std::max<uint64_t>(1, (seen.end + segment - 1) / segment - seen.segment);
  return seen;
}

/// The query tokens of a work item that are in use.
inline size_t usedTokens(const AttentionArgs &args, size_t sequence, size_t first, size_t last) {
  return size_t(std::clamp<int64_t>(args.qLen[sequence], int64_t(first), int64_t(last))) - first;
}

/// The same of a sequence, where its query tokens are one item.
inline Seen seenBy(const AttentionArgs &args, size_t sequence) {
  return seenBy(args, sequence, args.tokenBegin,
                usedTokens(args, sequence, args.tokenBegin, size_t(args.tokenBegin) + args.tokenCount));
}

/// Segments that a sequence can have.
inline uint64_t mostSegments(const AttentionArgs &args) {
  uint64_t tokens = args.cache.pagesPerSlot * args.cache.block, segment = segmentTokens(args.cache);
  if (args.window != 0) // where it starts within a segment and a page is any place
    tokens = std::min(tokens, args.window + args.tokenCount + segment + args.cache.block);
  return (tokens + segment - 1) / segment + 1;
}

/// Partials start with a counter per (sequence, KV head) of the segments that are done, in whole cache lines.
inline size_t counterFloats(const AttentionArgs &args) {
  return (size_t(args.batchCount) * args.cache.heads + 15) / 16 * 16;
}

/// Where a query head's result for a token goes in the packed send buffer.
inline float *sendRow(const AttentionArgs &args, size_t b, size_t t, size_t head) {
  size_t perPeer = args.paddedHeads / args.cache.kvp, peer = head / perPeer;
  size_t sequence = b - args.batchBegin, token = t - args.tokenBegin;
  size_t row = ((peer * args.batchCount + sequence) * args.tokenCount + token) * perPeer + head % perPeer;
  return args.send + row * (size_t(args.cache.valueDim) + 1);
}

inline void writeEmpty(const AttentionArgs &args, float *row) {
  std::fill_n(row, args.cache.valueDim, 0.0f);
  row[args.cache.valueDim] = -std::numeric_limits<float>::infinity();
}

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_ATTENTIONWORK_H
