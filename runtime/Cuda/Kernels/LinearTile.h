//===- LinearTile.h - A block's rows, and the last step of its product, on the device -===//
//
// Included by kernels, after Device.h or its emulation.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_LINEARTILE_H
#define HELIX_RUNTIME_CUDA_KERNELS_LINEARTILE_H

#include "runtime/Cuda/Kernels/LinearShapes.h"

namespace helix::cuda {

/// The rows [row, endRow) of y that a block computes, and the weight that they are with; null if that is no expert's.
struct RowTile {
  const std::byte *weight;
  size_t row, endRow;
  const int32_t *xRows;

  /// The row of x that row `of` of the tile is of; null past its end.
  __device__ __forceinline__ const float *xRow(const float *x, size_t k, uint32_t of) const {
    size_t at = row + of;
    return at >= endRow ? nullptr : x + (xRows ? size_t(xRows[at]) : at) * k;
  }
};

/// Block blockIdx.x's tile of `rows` rows, or an empty one. Of groups, it is that of row blockIdx.x if a tile starts
/// there: at every `rows`th row of an expert. All lanes of a warp.
template <bool isGrouped, uint32_t rows, typename Argument>
__device__ __forceinline__ RowTile rowTileOf(const Argument &argument) {
  const auto *weight = static_cast<const std::byte *>(static_cast<const void *>(argument.args.weight));
  const size_t count = argument.args.rows;
  if constexpr (!isGrouped) {
    size_t row = size_t(blockIdx.x) * rows;
    return {weight, row, row + rows < count ? row + rows : count, nullptr};
  }
  const LinearGroups &groups = argument.groups;
  const size_t row = blockIdx.x;
  const int32_t expert = groups.experts[row];
  // Rows of the expert before this one.
  uint32_t before = 0, own = 0;
  for (size_t i = threadIdx.x % 32; i < row; i += 32)
    before += groups.experts[i] == expert;
  for (int mask = 16; mask != 0; mask /= 2)
    before += shuffle(before, int(threadIdx.x % 32) ^ mask);
#pragma unroll
  for (uint32_t i = 0; i < rows; ++i)
    own += row + i < count && groups.experts[row + i] == expert;
  bool isExpert = expert >= 0 && uint32_t(expert) < groups.count;
  return {isExpert ? weight + size_t(expert) * groups.weightBytes : nullptr, row, before % rows == 0 ? row + own : row,
          groups.xRows};
}

/// Where a block's tile lies in the product, and what of it there is.
struct LinearTile {
  float *out; ///< [_, n]
  size_t row, endRow, column, n;
};

/// Adds up the warps' tiles, shared [warp][rows][columns], in the order of warps. All threads of the block, after a
/// barrier.
template <uint32_t rows, uint32_t columns> __device__ __forceinline__ void sumWarps(const LinearTile &tile) {
  const auto *shared = reinterpret_cast<const float *>(sharedMemory());
  for (uint32_t i = threadIdx.x; i < rows * columns; i += kLinearWarps * 32) {
    size_t r = tile.row + i / columns, c = tile.column + i % columns;
    float sum = 0;
#pragma unroll
    for (uint32_t w = 0; w < kLinearWarps; ++w)
      sum += shared[w * rows * columns + i];
    if (r < tile.endRow && c < tile.n)
      tile.out[r * tile.n + c] = sum;
  }
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_LINEARTILE_H
