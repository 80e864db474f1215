//===- QuantizedReference.h - Weights of codes, and what they mean ---------===//
#ifndef HELIX_TEST_UNIT_CPU_QUANTIZEDREFERENCE_H
#define HELIX_TEST_UNIT_CPU_QUANTIZEDREFERENCE_H

#include "runtime/Cpu/Quantized.h"
#include "test/unit/Cpu/Reference.h"

namespace helix::cpu::test {

/// A stored tensor of random codes, as a file has them, and what they mean.
struct Stored {
  QuantFormat format;
  uint64_t rows, columns;
  std::vector<std::byte> codes, scales, zeros;

  Stored(QuantFormat format, uint64_t rows, uint64_t columns, unsigned seed)
      : format(format), rows(rows), columns(columns) {
    std::mt19937_64 random(seed);
    auto fill = [&](std::vector<std::byte> &bytes, uint64_t count) {
      bytes.resize(count);
      for (std::byte &byte : bytes)
        byte = std::byte(random());
    };
    fill(codes, rows * codeRow());
    if (format.isFloat && format.bits == 8)
      for (std::byte &code : codes)
        if ((code & std::byte(0x7f)) == std::byte(0x7f)) // NaN
          code ^= std::byte(1);
    const uint64_t scaleRows = (rows + format.rowBlock - 1) / format.rowBlock;
    std::vector<float> numbers = randomFloats(scaleRows * blocks(), seed + 1);
    for (float &number : numbers)
      number = 0.5f + std::fabs(number);
    scales = store(format.scale, numbers);
    if (format.isPower) {
      fill(scales, scaleRows * blocks());
      for (std::byte &power : scales)
        power = std::byte(124 + std::to_integer<int>(power) % 7);
    }
    if (format.zero == ZeroPoint::Packed)
      fill(zeros, rows * zeroRow());
    if (format.zero == ZeroPoint::Real)
      zeros = store(format.scale, randomFloats(rows * blocks(), seed + 2, float(1 << format.bits)));
  }

  uint64_t blocks() const { return (columns + format.block - 1) / format.block; }
  uint64_t codeRow() const { return (columns * format.bits + 7) / 8; }
  uint64_t zeroRow() const { return (blocks() * format.bits + 7) / 8; }

  /// Bit by bit, so that nothing is shared with the code under test.
  int codeAt(const std::vector<std::byte> &bytes, uint64_t row, uint64_t index) const {
    int code = 0;
    for (unsigned bit = 0; bit < format.bits; ++bit) {
      uint64_t at = index * format.bits + bit;
      code |= (std::to_integer<int>(bytes[row + at / 8]) >> at % 8 & 1) << bit;
    }
    if (format.isFloat)
      return code;
    if (format.isSigned && code >= 1 << (format.bits - 1))
      code -= 1 << format.bits;
    return code;
  }

  /// By the formats' definitions.
  double floatAt(uint64_t row, uint64_t column) const {
    int code = codeAt(codes, row * codeRow(), column);
    if (format.bits == 8)
      return codeValue(DType::F8E4M3, uint8_t(code));
    constexpr double magnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
  }

  double at(uint64_t row, uint64_t column) const {
    uint64_t block = row * blocks() + column / format.block,
             scale = row / format.rowBlock * blocks() + column / format.block;
    if (format.isFloat)
      return floatAt(row, column) * (format.isPower ? std::ldexp(1, std::to_integer<int>(scales[scale]) - 127)
                                                    : decode(format.scale, scales.data(), scale));
    double zero = 0;
    if (format.zero == ZeroPoint::Middle)
      zero = format.isSigned ? 0 : 1 << (format.bits - 1);
    if (format.zero == ZeroPoint::Packed)
      zero = codeAt(zeros, row * zeroRow(), column / format.block);
    if (format.zero == ZeroPoint::Real)
      zero = decode(format.scale, zeros.data(), block);
    return (codeAt(codes, row * codeRow(), column) - zero) * decode(format.scale, scales.data(), block);
  }

  std::vector<std::byte> pack(const WeightPlan &plan) const {
    std::vector<std::byte> packed(quantLayout(plan, format).value().bytes);
    EXPECT_TRUE(loadQuantized(plan, format, codes, scales, zeros, packed));
    return packed;
  }
};

/// A share: `count` of `local` elements from `begin` on of the window at `window`.
struct Cut {
  uint64_t window, begin, count, local;
};

inline WeightPlan planOf(const Stored &stored, WeightUse use, Cut rows, Cut columns) {
  WeightPlan plan;
  plan.use = use;
  plan.rank = 2;
  plan.transposed = use == WeightUse::Linear;
  plan.dims[0] = {stored.rows, rows.window, {rows.begin, rows.begin + rows.count}, rows.local};
  plan.dims[1] = {stored.columns, columns.window, {columns.begin, columns.begin + columns.count}, columns.local};
  return plan;
}

template <typename Body> void forEachFormat(Body body) {
  for (uint32_t bits : {2, 4, 8})
    for (ZeroPoint zero : {ZeroPoint::Middle, ZeroPoint::Zero, ZeroPoint::Packed, ZeroPoint::Real})
      for (DType scale : kDTypes)
        for (bool isSigned : {false, true})
          // Signed codes have no other zero than their own.
          if (!isSigned || zero == ZeroPoint::Middle || zero == ZeroPoint::Packed)
            body(QuantFormat{bits, 16, scale, zero, isSigned});
}

/// Codes that are floats: E4M3 with scales per 128 x 128 as DeepSeek's checkpoints have them, here of fewer rows and
/// columns; MXFP8 and MXFP4; and some between.
template <typename Body> void forEachFloatFormat(Body body) {
  for (uint32_t bits : {4, 8}) {
    for (uint32_t rowBlock : {1, 32})
      for (DType scale : kDTypes)
        body(QuantFormat{
            .bits = bits, .block = 48, .scale = scale, .zero = ZeroPoint::Zero, .isFloat = true, .rowBlock = rowBlock});
    body(QuantFormat{
        .bits = bits, .block = 32, .scale = DType::BF16, .zero = ZeroPoint::Zero, .isFloat = true, .isPower = true});
  }
}

} // namespace helix::cpu::test

#endif // HELIX_TEST_UNIT_CPU_QUANTIZEDREFERENCE_H
