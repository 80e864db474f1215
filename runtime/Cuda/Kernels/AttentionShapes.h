//===- AttentionShapes.h - Sizes that attention's launches and kernels share -===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONSHAPES_H
#define HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONSHAPES_H

#include "runtime/Cuda/Kernels/Split.h"

namespace helix::cuda {

/// The kernel of any shape: query rows of a tile, threads of a block, blocks that a multiprocessor has registers for.
inline constexpr uint32_t kAnyRows = 8, kAnyThreads = 128, kAnyBlocks = 8;

/// Floats beside those of rows: scores, and for each row its maximum, sum, factor and five words of a Row.
constexpr uint32_t anySharedBytes(uint32_t keyDim, uint32_t valueDim, uint32_t batch) {
  return (batch + 1 + kAnyRows * (keyDim + valueDim + kPartUnit + 3 + 5)) * 4;
}

/// The combination of parts: threads along the value's dimensions, and shares of the parts.
inline constexpr uint32_t kFinishThreads = 128, kFinishShares = 4;

/// The tensor-core kernel: query rows of a tile; warps of a block, each with every fourth run of kGroupTokens tokens;
/// blocks that a multiprocessor has registers for.
inline constexpr uint32_t kTensorRows = 16, kTensorWarps = 4, kGroupTokens = 16, kTensorBlocks = 2;

/// Runs of tokens that a warp has under way or in use.
constexpr uint32_t tensorStages(uint32_t dim) { return dim <= 128 ? 3 : 2; }

/// Bytes of a run's keys, [dim][16], in a cache of elements of so many bytes.
constexpr uint32_t tensorKeyBytes(uint32_t dim, uint32_t element) { return dim * kGroupTokens * element; }

/// Bytes from a token of a run's values, [16][dim], to the next: an odd multiple of 16, so that eight rows, 16 bytes
/// each, lie in different banks. Codes are read in rows 0, 1, 4, 5, 8, 9, …, so the latter eight are 32 bytes further.
constexpr uint32_t tensorValueStride(uint32_t dim, uint32_t element) { return (dim * element / 16 | 1) * 16; }
constexpr uint32_t tensorValueOffset(uint32_t dim, uint32_t element, uint32_t token) {
  return token * tensorValueStride(dim, element) + (element == 1 ? token / 8 * 32 : 0);
}
constexpr uint32_t tensorValueBytes(uint32_t dim, uint32_t element) {
  return tensorValueOffset(dim, element, kGroupTokens);
}

/// Bytes of a run's scales, of keys and of values, if it has codes.
constexpr uint32_t tensorScaleBytes(uint32_t element) {
  return element == 1 ? 2 * kGroupTokens * uint32_t(sizeof(float)) : 0;
}

constexpr uint32_t tensorStageBytes(uint32_t dim, uint32_t element) {
  return tensorKeyBytes(dim, element) + tensorValueBytes(dim, element) + tensorScaleBytes(element);
}

/// Queries as fragments: for each 16 dimensions and lane, the high and the low halves of four registers.
constexpr uint32_t tensorQueryBytes(uint32_t dim) { return dim / 16 * 32 * 32; }

/// Weights of a run for each warp, [16][16], and each warp's maxima and sums.
inline constexpr uint32_t kTensorWeightBytes = kTensorRows * kGroupTokens * 4;
inline constexpr uint32_t kTensorRowBytes = kTensorRows * 2 * 4;

constexpr uint32_t tensorSharedBytes(uint32_t dim, uint32_t element, uint32_t batch) {
  uint32_t counts = ((batch + 1) * 4 + 127) / 128 * 128;
  uint32_t perWarp = tensorStages(dim) * tensorStageBytes(dim, element) + kTensorWeightBytes + kTensorRowBytes;
  return counts + tensorQueryBytes(dim) + kTensorWarps * perWarp;
}

/// The kernel of latents, keys and values of so many dimensions: tiles of kTensorRows, runs of kGroupTokens tokens that
/// all warps share, blocks that a multiprocessor has registers for.
inline constexpr uint32_t kLatentKeyDim = 576, kLatentValueDim = 512;
inline constexpr uint32_t kLatentWarps = 8, kLatentStages = 3, kLatentBlocks = 2;
inline constexpr uint32_t kLatentStageBytes = tensorKeyBytes(kLatentKeyDim, 2) + tensorValueBytes(kLatentValueDim, 2);

/// Beside stages each warp's sums of a run's scores, and the weights; of a row, a factor and a power.
constexpr uint32_t latentSharedBytes(uint32_t batch) {
  uint32_t counts = ((batch + 1) * 4 + 127) / 128 * 128;
  return counts + kLatentStages * kLatentStageBytes + (kLatentWarps + 1) * kTensorWeightBytes + kTensorRows * 2 * 4;
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONSHAPES_H
