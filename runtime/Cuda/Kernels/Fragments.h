//===- Fragments.h - What tensor cores take for f32 and for codes, on the device -===//
//
// f32 enters as two 16-bit numbers, codes of 8 bits as f16.
//
// Included by kernels, after Device.h or its emulation.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H
#define HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H

#include "runtime/Cpu/Codes.h"
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

/// The first eight bits of x as an f32, which bf16 holds; x keeps the rest, and three times have taken all of it. Of
/// infinity nothing is left; a NaN stays one.
__device__ __forceinline__ uint32_t takeBFloat(float &x) {
  uint32_t high = floatToBits(x) & 0xffff0000;
  x = fabsf(x) == INFINITY ? 0 : x - bitsToFloat(high);
  return high;
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

/// Whether elements are codes of 8 bits, and what stands for elements on tensor cores.
template <typename T> inline constexpr bool isCode = sizeof(T) == 1;
template <typename T> using OperandOf = std::conditional_t<isCode<T>, Half, T>;

/// A code as f16 is as many times too small: E4M3's fields read as f16's lack the difference of the exponents' biases.
template <typename T> inline constexpr float kWidened = std::is_same_v<T, cpu::Fp8> ? 256.0f : 1.0f;

/// The even and the odd bytes of a word of codes as pairs of f16.
__device__ __forceinline__ void widen(uint32_t word, uint32_t &even, uint32_t &odd, cpu::Fp8) {
  auto pair = [](uint32_t codes) {
    uint32_t magnitude = codes & 0x007f007f, isNaN = (magnitude + 0x00010001) & 0x00800080;
    return (magnitude | isNaN) << 7 | (codes & 0x00800080) << 8; // all exponent bits of NaN
  };
  even = pair(word);
  odd = pair(word >> 8);
}
__device__ __forceinline__ void widen(uint32_t word, uint32_t &even, uint32_t &odd, cpu::Int8) {
  auto pair = [](uint32_t codes) {
    // f16 counts whole numbers from 1024 in its fraction: 1024 + (code + 128) - 1152. What is 0 then, -128, is NaN.
    uint32_t biased = (codes ^ 0x00800080) & 0x00ff00ff, isNaN = (0x01000100 - biased) & 0x01000100;
    return subtractHalves(0x64006400 | biased | isNaN * 0x7f, 0x64806480);
  };
  even = pair(word);
  odd = pair(word >> 8);
}

/// Whether an element of the word is an infinity or a NaN.
template <typename T> __device__ __forceinline__ bool isNonFinite(uint32_t word) {
  if constexpr (isCode<T>) {
    uint32_t even, odd;
    widen(word, even, odd, T());
    return isNonFinite<Half>(even) || isNonFinite<Half>(odd);
  } else {
    constexpr uint32_t exponent = std::is_same_v<T, BFloat> ? 0x7f80 : 0x7c00;
    return (word & exponent) == exponent || (word >> 16 & exponent) == exponent;
  }
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_FRAGMENTS_H
