//===- Vector-inl.h - Loads with conversion and the exponential, per target ===//
//
// Included once per target by files that compile through hwy/foreach_target.h.
//
//===-----------------------------------------------------------------------===//
#if defined(HELIX_RUNTIME_CPU_VECTOR_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef HELIX_RUNTIME_CPU_VECTOR_INL_H
#undef HELIX_RUNTIME_CPU_VECTOR_INL_H
#else
#define HELIX_RUNTIME_CPU_VECTOR_INL_H
#endif

#include "runtime/Cpu/Convert.h"

#include "hwy/highway.h"

#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// At most 64 bytes, which kKvSlackBytes and kPanelWidth count on.
using F32 = hn::CappedTag<float, 16>;
using Vec = hn::Vec<F32>;

inline constexpr size_t kLanes = hn::MaxLanes(F32());

/// Vector registers of the target.
inline constexpr size_t kRegisters = HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3) ? 32 : 16;

/// Vectors that a loop keeps as accumulators, and rows that share a load. More rows would leave fewer vectors per row,
/// and so shorter runs of memory.
inline constexpr size_t kAccumulators = kRegisters / 2;
inline constexpr size_t kMaxRows = 4;

/// Asks for a line of memory in the second-level cache; any address will do.
HWY_INLINE void prefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

HWY_INLINE Vec load(const float *p) { return hn::LoadU(F32(), p); }

HWY_INLINE Vec load(const BFloat *p) {
  const F32 d;
  const hn::Rebind<uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t *>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

HWY_INLINE Vec load(const Half *p) {
  const F32 d;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t *>(p)));
#else
  // As toFloat(Half); Highway's own emulation knows neither infinity nor NaN.
  const hn::Rebind<uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t *>(p)));
  auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffu));
  auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
  auto value = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f));
  auto special = hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(d32, 0x7bffu)), hn::Set(d32, 0x7f800000u));
  return hn::BitCast(d, hn::Or(hn::Or(hn::BitCast(d32, value), special), sign));
#endif
}

HWY_INLINE Vec load(const Int8 *p) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<int8_t, F32> d8;
  auto code = hn::PromoteTo(di, hn::LoadU(d8, reinterpret_cast<const int8_t *>(p)));
  auto nan = hn::RebindMask(d, hn::Eq(code, hn::Set(di, -128)));
  return hn::IfThenElse(nan, hn::NaN(d), hn::ConvertTo(d, code));
}

HWY_INLINE Vec load(const Fp8 *p) {
  const F32 d;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  // An f16 with an exponent and mantissa of the same bits is 2^-8 of it. Below, the f32 of the smallest would be
  // subnormal, and a processor takes over a hundred cycles to multiply such.
  const hn::Rebind<uint16_t, F32> d16;
  const hn::Rebind<uint8_t, F32> d8;
  const hn::Rebind<hwy::float16_t, F32> dHalf;
  auto bits = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t *>(p)));
  auto magnitude = hn::And(bits, hn::Set(d16, 0x7f));
  auto sign = hn::ShiftLeft<8>(hn::And(bits, hn::Set(d16, 0x80)));
  auto nan = hn::Eq(magnitude, hn::Set(d16, 0x7f));
  auto half = hn::Or(hn::IfThenElse(nan, hn::Set(d16, 0x7e00), hn::ShiftLeft<7>(magnitude)), sign);
  return hn::Mul(hn::PromoteTo(d, hn::BitCast(dHalf, half)), hn::Set(d, 256.0f));
#else
  // As toFloat(Fp8).
  const hn::RebindToUnsigned<F32> d32;
  const hn::Rebind<uint8_t, F32> d8;
  auto bits = hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t *>(p)));
  auto magnitude = hn::And(bits, hn::Set(d32, 0x7fu));
  auto sign = hn::ShiftLeft<24>(hn::And(bits, hn::Set(d32, 0x80u)));
  auto value = hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(magnitude)), hn::Set(d, 0x1p120f));
  auto nan = hn::RebindMask(d, hn::Eq(magnitude, hn::Set(d32, 0x7fu)));
  return hn::IfThenElse(nan, hn::NaN(d), hn::BitCast(d, hn::Or(hn::BitCast(d32, value), sign)));
#endif
}

/// Two vectors of elements that lie side by side, of bf16 those of even and of odd index: that takes less than to put
/// them in order, which storeTwo does with what was made of them.
template <typename T> HWY_INLINE void loadTwo(const T *p, Vec &first, Vec &second) {
  first = load(p);
  second = load(p + kLanes);
}
HWY_INLINE void loadTwo(const BFloat *p, Vec &even, Vec &odd) {
  const F32 d;
  const hn::RebindToUnsigned<F32> d32;
  auto both = hn::LoadU(d32, reinterpret_cast<const uint32_t *>(p));
  even = hn::BitCast(d, hn::ShiftLeft<16>(both));
  odd = hn::BitCast(d, hn::And(both, hn::Set(d32, 0xffff0000u)));
}

/// Stores what came of loadTwo from elements of type T, in order.
template <typename T> HWY_INLINE void storeTwo(Vec first, Vec second, float *p) {
  const F32 d;
  if constexpr (std::is_same_v<T, BFloat>) {
    hn::StoreInterleaved2(first, second, d, p);
  } else {
    hn::StoreU(first, d, p);
    hn::StoreU(second, d, p + kLanes);
  }
}

/// e^x to 2 ulp over all floats: subnormal results round once, what is below them is 0, e^0 is 1, and NaN stays NaN.
HWY_INLINE Vec exponential(Vec x) {
  const F32 d;
  [[maybe_unused]] const hn::RebindToSigned<F32> di;
  // e^-105 is below half of the smallest subnormal; e^89 overflows.
  Vec clamped = hn::Min(hn::Set(d, 89.0f), hn::Max(hn::Set(d, -105.0f), x));
  // Adding 1.5 · 2^23 rounds to a whole number, with fewer instructions than Round.
  Vec whole = hn::Set(d, 0x1.8p23f);
  Vec n = hn::Sub(hn::MulAdd(clamped, hn::Set(d, 1.44269504f), whole), whole);
  // x - n ln 2 in two steps, of which the first is exact.
  Vec r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  // 1 + r (1 + r q), q of degree 4 with the least largest error on |r| <= ln(2) / 2, which is 3e-9.
  Vec p = hn::Set(d, 0x1.6a2350p-10f);
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.123a6cp-7f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.5558f4p-5f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.555490p-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.fffffcp-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
#if HWY_TARGET <= HWY_AVX3
  // The processor's own 2^n, and its maximum and minimum, which keep the second operand if that is NaN.
  return Vec{_mm512_scalef_ps(p.raw, n.raw)};
#else
  // 2^n as two factors, as neither 2^128 nor 2^-151 is a normal float; the first product is exact.
  auto power = hn::ConvertTo(di, n);
  auto first = hn::ShiftRight<1>(power), second = hn::Sub(power, first);
  auto bias = hn::Set(di, 127);
  p = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(first, bias))));
  p = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(second, bias))));
  return hn::IfThenElse(hn::IsNaN(x), x, p);
#endif
}

/// tanh(x) to 4 ulp; NaN stays NaN.
HWY_INLINE Vec tangent(Vec x) {
  const F32 d;
  Vec magnitude = hn::Abs(x), square = hn::Mul(x, x), one = hn::Set(d, 1.0f);
  // Near zero 1 - 2 / (e^2x + 1) would cancel: the continued fraction x / (1 + x²/(3 + x²/(5 + x²/(7 + x²/9)))), cut
  // there, is off by 1e-9 of the value at 0.625.
  Vec above = hn::MulAdd(square, hn::Add(square, hn::Set(d, 105.0f)), hn::Set(d, 945.0f));
  Vec below = hn::MulAdd(square, hn::MulAdd(square, hn::Set(d, 15.0f), hn::Set(d, 420.0f)), hn::Set(d, 945.0f));
  Vec small = hn::Mul(x, hn::Div(above, below));
  Vec large = hn::Sub(one, hn::Div(hn::Set(d, 2.0f), hn::Add(exponential(hn::Add(magnitude, magnitude)), one)));
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.625f)), small, hn::CopySign(large, x));
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
