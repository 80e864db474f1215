//===- Arguments.h - The one parameter of each kernel ----------------------===//
//
// Where a kernel's arguments are not those of Kernels.h: lists are held inside, a part of them per launch.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_ARGUMENTS_H
#define HELIX_RUNTIME_CUDA_KERNELS_ARGUMENTS_H

#include "runtime/Cuda/Kernels.h"

namespace helix::cuda {

inline constexpr uint32_t kConcatParts = 16;

struct ConcatArgument {
  struct Part {
    const float *x;
    size_t width, column; ///< the column of y at which it starts
  };
  Part parts[kConcatParts];
  float *y;
  size_t width; ///< of y
};

inline constexpr uint32_t kMergeChunks = 32;

/// Some chunks of a merge, and the rows of y that they give.
struct MergeArgument {
  struct Chunk {
    const float *stacked;
    uint32_t begin, count; ///< sequences, or tokens of each
  };
  Chunk chunks[kMergeChunks];
  uint32_t chunkCount;
  bool alongTokens;
  float *y;
  const float *sinks;
  uint32_t peers, batch, tokens, heads, valueDim;
};

/// Of a block that lists tokens.
inline constexpr uint32_t kDrawThreads = 256;

struct ReduceArgument {
  const float *buffers[kReduceBuffers];
  uint32_t count;
  float *out;
  size_t elements;
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_ARGUMENTS_H
