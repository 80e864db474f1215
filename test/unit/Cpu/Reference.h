//===- Reference.h - What the CPU kernel tests compare with ----------------===//
#ifndef HELIX_TEST_UNIT_CPU_REFERENCE_H
#define HELIX_TEST_UNIT_CPU_REFERENCE_H

#include "runtime/Cpu/KvLayout.h"

#include "hwy/highway.h"
#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <vector>

namespace helix::cpu::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr DType kDTypes[] = {DType::F32, DType::F16, DType::BF16};

/// Runs `body` once for every instruction set that was compiled and this machine has.
template <typename Body> void forEachTarget(Body body) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

/// Fraction bits, smallest exponent and largest finite exponent of a type's normal numbers.
struct Format {
  int fraction, smallest, largest;
};
inline Format formatOf(DType dtype) {
  return dtype == DType::F16    ? Format{10, -14, 15}
         : dtype == DType::BF16 ? Format{7, -126, 127}
                                : Format{23, -126, 127};
}

/// The nearest value of the type, ties to even, by arithmetic in double.
inline double roundTo(DType dtype, double x) {
  if (x == 0 || !std::isfinite(x))
    return x;
  Format format = formatOf(dtype);
  int unit = std::max(std::ilogb(x), format.smallest) - format.fraction;
  double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  return std::ilogb(rounded) > format.largest ? std::copysign(INFINITY, x) : rounded;
}

/// The bits of a value that the type has.
inline uint32_t encode(DType dtype, double x) {
  Format format = formatOf(dtype);
  int bits = dtype == DType::F32 ? 32 : 16;
  uint32_t sign = uint32_t(std::signbit(x)) << (bits - 1);
  uint32_t exponents = uint32_t(format.largest + 1 - format.smallest + 1) << format.fraction;
  if (std::isnan(x))
    return sign | exponents | 1u << (format.fraction - 1);
  if (std::isinf(x))
    return sign | exponents;
  if (x == 0)
    return sign;
  int exponent = std::max(std::ilogb(x), format.smallest);
  auto fraction = uint32_t(std::ldexp(std::fabs(x), format.fraction - exponent));
  return sign | ((uint32_t(exponent - format.smallest) << format.fraction) + fraction);
}

/// The value of an element in memory.
inline double decode(DType dtype, const void *data, size_t index) {
  Format format = formatOf(dtype);
  uint32_t bits = 0;
  size_t bytes = elementBytes(dtype);
  std::memcpy(&bits, static_cast<const char *>(data) + index * bytes, bytes);
  bool negative = bits >> (8 * bytes - 1);
  bits &= (1u << (8 * bytes - 1)) - 1;
  int exponent = int(bits >> format.fraction);
  double fraction = std::ldexp(double(bits & ((1u << format.fraction) - 1)), -format.fraction);
  double value;
  if (exponent == format.largest - format.smallest + 2)
    value = fraction == 0 ? INFINITY : NAN;
  else
    value = exponent == 0 ? std::ldexp(fraction, format.smallest)
                          : std::ldexp(1 + fraction, exponent - 1 + format.smallest);
  return negative ? -value : value;
}

/// Row-major bytes of values in the type, rounded.
inline std::vector<std::byte> store(DType dtype, const std::vector<float> &values) {
  size_t bytes = elementBytes(dtype);
  std::vector<std::byte> data(values.size() * bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits = encode(dtype, roundTo(dtype, values[i]));
    std::memcpy(data.data() + i * bytes, &bits, bytes);
  }
  return data;
}

inline constexpr DType kCodes[] = {DType::I8, DType::F8E4M3};

/// What a code means before its scale, by the formats' definitions.
inline double codeValue(DType dtype, uint8_t bits) {
  if (dtype == DType::I8)
    return bits == 0x80 ? NAN : double(int8_t(bits));
  int exponent = bits >> 3 & 15, fraction = bits & 7;
  double value = exponent == 15 && fraction == 7 ? NAN
                 : exponent == 0                 ? std::ldexp(fraction, -9)
                                                 : std::ldexp(8 + fraction, exponent - 10);
  return bits & 0x80 ? -value : value;
}

/// The code nearest to x, the even one of two, by a search of all of them; what is beyond the largest saturates.
inline uint8_t nearestCode(DType dtype, double x) {
  if (std::isnan(x))
    return dtype == DType::I8 ? 0x80 : std::signbit(x) ? 0xff : 0x7f;
  double largest = dtype == DType::I8 ? 127 : 448;
  x = std::clamp(x, -largest, largest);
  int best = -1;
  for (int bits = 0; bits < 256; ++bits) {
    double value = codeValue(dtype, uint8_t(bits));
    if (std::isnan(value) || (dtype == DType::F8E4M3 && std::signbit(value) != std::signbit(x)))
      continue;
    double distance = std::fabs(value - x);
    double known = best < 0 ? INFINITY : std::fabs(codeValue(dtype, uint8_t(best)) - x);
    if (distance < known || (distance == known && (bits & 1) == 0))
      best = bits;
  }
  return uint8_t(best);
}

/// A row of a cache of codes: its scale and what it is kept as.
struct CodedRow {
  float scale;
  std::vector<uint8_t> codes;
  std::vector<double> numbers;
};

/// A row x through codes and back, by the definition, with the scale that all share or one of its own in f32.
inline CodedRow throughCodes(DType dtype, const float *x, size_t dim, std::optional<float> shared) {
  CodedRow row{shared.value_or(0), {}, {}};
  if (!shared) {
    for (size_t i = 0; i < dim; ++i)
      row.scale = std::isnan(x[i]) || std::isnan(row.scale) ? kNaN : std::max(row.scale, std::fabs(x[i]));
    row.scale /= dtype == DType::I8 ? 127 : 448;
  }
  for (size_t i = 0; i < dim; ++i) {
    row.codes.push_back(nearestCode(dtype, row.scale == 0 ? 0 : x[i] / row.scale));
    row.numbers.push_back(codeValue(dtype, row.codes.back()) * row.scale);
  }
  return row;
}

inline std::vector<float> randomFloats(size_t count, uint64_t seed, float range = 1) {
  std::mt19937_64 bits(seed);
  std::vector<float> values(count);
  for (float &value : values)
    value = range * (float(bits() >> 40) * 0x1p-23f - 1);
  return values;
}

/// Whether two buffers hold the same bits.
inline bool sameBits(const std::vector<float> &a, const std::vector<float> &b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// The largest difference over the largest reference.
inline double relativeError(const std::vector<float> &ours, const std::vector<double> &reference) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    if (!(std::fabs(ours[i] - reference[i]) <= difference))
      difference = std::fabs(ours[i] - reference[i]);
    largest = std::max(largest, std::fabs(reference[i]));
  }
  return largest == 0 ? difference : difference / largest;
}

} // namespace helix::cpu::test

#endif // HELIX_TEST_UNIT_CPU_REFERENCE_H
