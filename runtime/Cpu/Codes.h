//===- Codes.h - Elements of 8 bits, rounding to nearest even --------------===//
//
// For host and device.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_CODES_H
#define HELIX_RUNTIME_CPU_CODES_H

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace helix::cpu {

/// Codes of a KV cache, before their scale. −128 is NaN, so that none is hidden.
struct Int8 {
  int8_t code;
};
/// Four bits of exponent, three of fraction, no infinities, NaN where all of them are set.
struct Fp8 {
  uint8_t bits;
};

/// Two bits of exponent, one of fraction, no infinities and no NaN; the lower four bits: E2M1 of the OCP Microscaling
/// Formats v1.0.
struct Fp4 {
  uint8_t bits;
};

/// The largest magnitudes of codes: what is beyond them saturates.
inline constexpr float kLargestInt8 = 127, kLargestFp8 = 448;

constexpr float toFloat(Int8 x) { return x.code == -128 ? std::numeric_limits<float>::quiet_NaN() : float(x.code); }
constexpr float toFloat(Fp8 x) {
  uint32_t sign = uint32_t(x.bits & 0x80) << 24, magnitude = x.bits & 0x7f;
  if (magnitude == 0x7f)
    return std::numeric_limits<float>::quiet_NaN();
  // As the float of the same fields the value is 2^120 too small, subnormals included.
  float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}
constexpr float toFloat(Fp4 x) {
  // As above, 2^126.
  float value = std::bit_cast<float>(uint32_t(x.bits & 7) << 22) * 0x1p126f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | uint32_t(x.bits & 8) << 28);
}
constexpr void fromFloat(float x, Int8 &out) {
  if (x != x)
    out.code = -128;
  else
    out.code = int8_t(std::nearbyint(std::clamp(x, -kLargestInt8, kLargestInt8)));
}
constexpr void fromFloat(float x, Fp8 &out) {
  uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  uint32_t code;
  if (magnitude > 0x7f800000) {
    code = 0x7f;
  } else if (magnitude >= std::bit_cast<uint32_t>(kLargestFp8)) {
    code = 0x7e;
  } else if (magnitude >= 0x3c800000) { // 2^-6: the smallest normal number
    uint32_t rebased = magnitude - (120u << 23);
    code = (rebased + 0x7ffff + (rebased >> 20 & 1)) >> 20;
  } else {
    // Adding 2^14 puts the code's last subnormal bit (2^-9) at the float's last bit, so that the addition rounds.
    code = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) - std::bit_cast<uint32_t>(0x1p14f);
  }
  out.bits = uint8_t(code | sign);
}

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_CODES_H
