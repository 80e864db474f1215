//===- Convert.h - Element types, rounding to nearest even -----------------===//
#ifndef HELIX_RUNTIME_CPU_CONVERT_H
#define HELIX_RUNTIME_CPU_CONVERT_H

#include "runtime/Cpu/Codes.h"
#include "runtime/Cpu/KvLayout.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace helix::cpu {

/// Element types as they lie in memory.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

inline float toFloat(float x) { return x; }
inline float toFloat(BFloat x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }
inline float toFloat(Half x) {
  uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  // As the float of the same fields the value is 2^112 too small, subnormals included; infinity and NaN keep their
  // field.
  float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  uint32_t bits = std::bit_cast<uint32_t>(value) | (magnitude >= 0x7c00 ? 0x7f800000u : 0u);
  return std::bit_cast<float>(bits | sign);
}

inline void fromFloat(float x, float &out) { out = x; }
inline void fromFloat(float x, BFloat &out) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  // A carry out of a NaN's fraction would make it an infinity or a number.
  bool nan = (bits & 0x7fffffff) > 0x7f800000;
  out.bits = nan ? uint16_t(bits >> 16 | 0x40) : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void fromFloat(float x, Half &out) {
  uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00 | (magnitude >> 13 & 0x3ff);
  } else if (magnitude >= 0x477ff000) { // 65520: halfway to 2^16
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) { // 2^-14: the smallest normal half
    uint32_t rebased = magnitude - (112u << 23);
    half = (rebased + 0xfff + (rebased >> 13 & 1)) >> 13;
  } else {
    // Adding 0.5 puts the half's last subnormal bit (2^-24) at the float's last bit, so that the addition rounds.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  }
  out.bits = uint16_t(half | sign);
}

/// Calls `function` with a value of the element type that `dtype` names: one that weights may have.
template <typename Function> inline void withElement(DType dtype, Function function) {
  switch (dtype) {
  case DType::F32:
    return function(float());
  case DType::F16:
    return function(Half());
  case DType::BF16:
    return function(BFloat());
  case DType::I8:
  case DType::F8E4M3:
    return;
  }
}

/// The same for the types that caches may have.
template <typename Function> inline void withCacheElement(DType dtype, Function function) {
  if (dtype == DType::I8)
    return function(Int8());
  if (dtype == DType::F8E4M3)
    return function(Fp8());
  withElement(dtype, function);
}

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_CONVERT_H
