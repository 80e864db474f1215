//===- LoadRow.h - Rows of activations into registers ----------------------===//
//
// For kernels; include it after Device.h.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_LOADROW_H
#define HELIX_RUNTIME_CUDA_KERNELS_LOADROW_H

#include "runtime/Cuda/Kernels/Elements.h"

namespace helix::cuda {

/// `count` elements of a row of x from `from` on, zeros past its end. `isAligned`: rows start at multiples of 16 bytes.
template <int count>
__device__ __forceinline__ void loadRow(float (&to)[count], const float *row, size_t from, size_t k, bool isAligned) {
  if (isAligned && from + count <= k) {
#pragma unroll
    for (int i = 0; i < count; i += 4) {
      Bits128 four = load128(row + from + i);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        to[i + j] = bitsToFloat(four.word[j]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < count; ++i)
    to[i] = from + i < k ? row[from + i] : 0;
}

/// Whether the rows of x [_, k] do.
__device__ __forceinline__ bool rowsAligned(const float *x, size_t k) {
  return (reinterpret_cast<uintptr_t>(x) | k * sizeof(float)) % 16 == 0;
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_LOADROW_H
