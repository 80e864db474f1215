//===- Fragments.h - f32 as two 16-bit numbers for tensor cores, on the device -===//
//
// Included by kernels, after Device.h or its emulation.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H
#define HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H

#include "runtime/Cuda/Kernels/Elements.h"

#include <cmath>
#include <type_traits>

namespace helix::cuda {

template <typename T> __device__ __forceinline__ uint32_t packHigh(float a, float b) {
  T x, y;
  fromFloat(a, x);
  fromFloat(b, y);
  return x.bits | uint32_t(y.bits) << 16;
}

/// What packHigh left over; of infinities and NaN nothing, so that they stay what they are.
template <typename T> __device__ __forceinline__ uint32_t packLow(float a, float b, uint32_t high) {
  auto rest = [](float x, uint32_t bits) {
    float left = x - toFloat(T{uint16_t(bits)});
    return fabsf(left) < INFINITY ? left : 0.0f;
  };
  return packHigh<T>(rest(a, high & 0xffff), rest(b, high >> 16));
}

/// The power of two at or below a row's largest magnitude, by which rows are divided before they become T; 1 if T has
/// the exponents of f32, or if the row has nothing in f32's normal range.
template <typename T> __device__ __forceinline__ float rowPower(float largest) {
  if constexpr (std::is_same_v<T, BFloat>)
    return 1;
  else
    // Within what has an inverse that is normal, too.
    return largest >= 0x1p-100f && largest < 0x1p100f ? bitsToFloat(floatToBits(largest) & 0x7f800000) : 1;
}

/// Whether either half of the word is an infinity or a NaN.
template <typename T> __device__ __forceinline__ bool isNonFinite(uint32_t word) {
  constexpr uint32_t exponent = std::is_same_v<T, BFloat> ? 0x7f80 : 0x7c00;
  return (word & exponent) == exponent || (word >> 16 & exponent) == exponent;
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H
