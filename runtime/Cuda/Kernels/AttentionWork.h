//===- AttentionWork.h - A block's share of attention, on the device -------===//
//
// Included by kernels, after Device.h or its emulation.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONWORK_H
#define HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONWORK_H

#include "runtime/Cuda/Kernels/Split.h"

#include <cmath>

namespace helix::cuda {

/// One block's item.
struct Work {
  uint32_t b, part, kvHead, tile;
  Split split;
  uint32_t begin, end; ///< local tokens of the part
};

/// Fills in how many items the chunk's sequences before each have, [batchCount + 1]; all threads call it.
__device__ __forceinline__ void countWork(const AttentionArgument &argument, uint32_t *before) {
  const AttentionArgs &args = argument.args;
  uint32_t perPart = args.cache.heads * argument.tiles;
  for (uint32_t i = threadIdx.x; i < args.batchCount; i += blockDim.x) {
    uint32_t b = args.batchBegin + i;
    before[i + 1] = splitOf(args, args.past[b], args.qLen[b]).parts * perPart;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    uint32_t total = 0;
    for (uint32_t first = 0; first < args.batchCount; first += 32) {
      uint32_t i = first + threadIdx.x, sum = i < args.batchCount ? before[i + 1] : 0;
      for (uint32_t step = 1; step < 32; step *= 2) {
        uint32_t other = shuffle(sum, int(threadIdx.x - step) & 31);
        sum += threadIdx.x >= step ? other : 0;
      }
      sum += total;
      if (i < args.batchCount)
        before[i + 1] = sum;
      total = shuffle(sum, 31);
    }
    if (threadIdx.x == 0)
      before[0] = 0;
  }
  __syncthreads();
}

__device__ __forceinline__ Work workOf(const AttentionArgument &argument, const uint32_t *before, uint32_t item) {
  const AttentionArgs &args = argument.args;
  // The last sequence that starts at or before the item; idle ones start where the next does.
  uint32_t low = 0, high = args.batchCount;
  while (high - low > 1) {
    uint32_t middle = (low + high) / 2;
    (before[middle] <= item ? low : high) = middle;
  }
  Work work;
  item -= before[low];
  work.b = args.batchBegin + low;
  work.split = splitOf(args, args.past[work.b], args.qLen[work.b]);
  work.tile = item % argument.tiles;
  work.kvHead = item / argument.tiles % args.cache.heads;
  work.part = item / argument.tiles / args.cache.heads;
  work.begin = work.split.begin + work.part * work.split.partTokens;
  work.end = work.begin + work.split.partTokens;
  work.end = work.end < work.split.end ? work.end : work.split.end;
  return work;
}

/// A query row of a tile.
struct Row {
  uint32_t token = 0, head = 0;
  uint32_t from = 0, seen = 0; ///< local tokens of the part that it sees
  uint32_t isActive = false;
};

__device__ __forceinline__ Row rowOf(const AttentionArgs &args, const Work &work, uint32_t flat) {
  Row row;
  uint32_t group = groupOf(args);
  row.token = args.tokenBegin + flat / group;
  row.head = work.kvHead * group + flat % group;
  row.isActive = flat < args.tokenCount * group && int64_t(row.token) < args.qLen[work.b];
  if (row.isActive) {
    uint64_t length = uint64_t(args.past[work.b]) + row.token + 1;
    auto within = [&](uint32_t local) { return local < work.begin ? work.begin : local < work.end ? local : work.end; };
    row.seen = within(localLength(args.cache, length));
    row.from = within(localHidden(args, length));
  }
  return row;
}

__device__ __forceinline__ const float *queryOf(const AttentionArgs &args, const Work &work, const Row &row) {
  return args.q + ((size_t(work.b) * args.tokens + row.token) * args.heads + row.head) * args.cache.keyDim;
}

/// What a head's slope adds to the score of a local token, by its distance from the query's position.
__device__ __forceinline__ float slopeTerm(const AttentionArgs &args, const Work &work, const Row &row,
                                           uint32_t local) {
  const KvCache &cache = args.cache;
  int64_t key = (int64_t(local / cache.block) * cache.kvp + cache.rank) * cache.block + local % cache.block;
  return args.slopes[row.head] * float(key - (int64_t(args.past[work.b]) + row.token));
}

/// Where a row's part goes: its outputs, and its log-sum-exp. Of a row that sees nothing the sum is 0.
struct Destination {
  float *output, *lse;

  /// Of dimension d, the weighted sum of values, times `scale`.
  __device__ __forceinline__ void writeOutput(uint32_t d, float weighted, float sum, float scale = 1) const {
    output[d] = sum == 0 ? 0 : weighted / sum * scale;
  }
  /// maximum: of the scores, natural logarithms; sum: of e^(score - maximum).
  __device__ __forceinline__ void writeLse(float maximum, float sum) const {
    *lse = sum == 0 ? -INFINITY : maximum + logf(sum);
  }
};

__device__ __forceinline__ Destination destinationOf(const AttentionArgument &argument, const Work &work,
                                                     const Row &row) {
  const AttentionArgs &args = argument.args;
  if (work.split.parts == 1) {
    float *send = args.send + sendIndex(args, work.b, row.token, row.head);
    return {send, send + args.cache.valueDim};
  }
  size_t index = argument.scratchRow(work.b, row.token, row.head, work.part);
  return {args.scratch + index * args.cache.valueDim,
          args.scratch + argument.scratchRows() * args.cache.valueDim + index};
}

/// e^x with (base of the exponents) -inf - -inf kept out of it.
__device__ __forceinline__ float finiteShift(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONWORK_H
