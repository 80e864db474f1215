//===- LinearTile.h - The last step of a block's product, on the device ----===//
//
// Included by kernels, after Device.h or its emulation.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_LINEARTILE_H
#define HELIX_RUNTIME_CUDA_KERNELS_LINEARTILE_H

#include "runtime/Cuda/Kernels/LinearShapes.h"

namespace helix::cuda {

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
