//===- Merge.cpp - Partials of all ranks to whole values -------------------===//
#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace helix::cpu {

void mergeAttention(const MergeArgs &args, size_t begin, size_t end) {
  const float lowest = -std::numeric_limits<float>::infinity();
  size_t width = args.valueDim, rowSize = args.heads * (width + 1);
  for (size_t item = begin; item < end; ++item) {
    size_t row = item / args.heads, sequence = row / args.tokens, token = row % args.tokens;
    const MergeChunk *chunk = args.chunks.data();
    for (size_t &within = args.alongTokens ? token : sequence; within >= chunk->count; ++chunk)
      within -= chunk->count;
    size_t batch = args.alongTokens ? args.batch : chunk->count, tokens = args.alongTokens ? chunk->count : args.tokens;
    size_t peerStride = batch * tokens * rowSize;
    const float *partial = chunk->stacked + (sequence * tokens + token) * rowSize + item % args.heads * (width + 1);
    float *y = args.y + item * width;
    const float *sink = args.sinks ? args.sinks + item % args.heads : nullptr;
    float largest = sink ? *sink : lowest;
    for (size_t peer = 0; peer < args.peers; ++peer)
      largest = std::max(largest, partial[peer * peerStride + width]); // passes over NaN, which the weights then show
    float sum = 0;
    bool empty = true;
    for (size_t peer = 0; peer < args.peers; ++peer) {
      const float *o = partial + peer * peerStride;
      if (o[width] == lowest)
        continue;
      float weight = std::exp(o[width] - largest);
      // The first is assigned, not added to zero, which would lose the sign of a zero.
      for (size_t i = 0; i < width; ++i)
        y[i] = empty ? weight * o[i] : y[i] + weight * o[i];
      sum += weight;
      empty = false;
    }
    if (sink)
      sum += std::exp(*sink - largest);
    if (empty) {
      std::fill_n(y, width, 0.0f);
      continue;
    }
    for (size_t i = 0; i < width; ++i)
      y[i] /= sum;
  }
}

void reduceOrdered(float *out, const float *const *buffers, size_t count, size_t begin, size_t end) {
  // Short runs, so that the running sum stays in the nearest cache whatever the number of buffers.
  constexpr size_t run = 1024;
  for (size_t start = begin; start < end; start += run) {
    size_t length = std::min(run, end - start);
    float sum[run];
    std::copy_n(buffers[0] + start, length, sum);
    for (size_t buffer = 1; buffer < count; ++buffer) {
      const float *from = buffers[buffer] + start;
      for (size_t i = 0; i < length; ++i)
        sum[i] += from[i];
    }
    std::copy_n(sum, length, out + start);
  }
}

} // namespace helix::cpu
