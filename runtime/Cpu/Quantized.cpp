//===- Quantized.cpp - Codes, scales and zero points from the file ---------===//
#include "runtime/Cpu/Quantized.h"
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace helix::cpu {
namespace {

constexpr uint64_t kAlignment = 64;

/// The stored tensor's rows, of one scale list each, and its columns, along which blocks lie.
const WeightDim &rowsOf(const WeightPlan &plan) { return plan.dims[0]; }
const WeightDim &columnsOf(const WeightPlan &plan) { return plan.dims[1]; }

uint64_t zeroBytes(const QuantFormat &format) {
  return format.zero == ZeroPoint::Packed ? 1 : format.zero == ZeroPoint::Real ? elementBytes(format.scale) : 0;
}

bool isPanels(const WeightPlan &plan) { return plan.use == WeightUse::Linear; }

/// Bytes of a row of `count` codes.
uint64_t rowBytes(uint64_t count, uint32_t bits) { return (count * bits + 7) / 8; }

/// Code `index` of a row.
uint8_t codeAt(const uint8_t *row, uint64_t index, uint32_t bits) {
  uint64_t bit = index * bits;
  return uint8_t(row[bit / 8] >> bit % 8 & ((1u << bits) - 1));
}

void setCode(uint8_t *row, uint64_t index, uint32_t bits, uint8_t code) {
  uint64_t bit = index * bits;
  row[bit / 8] = uint8_t(row[bit / 8] | code << bit % 8);
}

/// Where the code of column `lane` of a panel's row lies, as an index for setCode: see QuantLayout.
uint64_t panelIndex(uint64_t lane, uint32_t bits) {
  uint64_t bytes = kPanelWidth * bits / 8;
  return lane % bytes * (8 / bits) + lane / bytes;
}

/// The codes [begin, begin + count) of a row, a byte each.
template <uint32_t Bits> void unpackCodes(const uint8_t *row, uint64_t begin, uint64_t count, uint8_t *to) {
  constexpr uint64_t perByte = 8 / Bits;
  uint64_t i = 0;
  for (; i < count && (begin + i) % perByte != 0; ++i)
    to[i] = codeAt(row, begin + i, Bits);
  const uint8_t *from = row + (begin + i) / perByte;
  for (; i + perByte <= count; i += perByte, ++from)
    for (uint64_t j = 0; j < perByte; ++j)
      to[i + j] = *from >> j * Bits & ((1u << Bits) - 1);
  for (; i < count; ++i)
    to[i] = codeAt(row, begin + i, Bits);
}

/// Packs the codes of up to kPanelWidth stored rows, those of the share from `row` on, into the panel at `to`: tile by
/// tile, so that they are read and its rows written a few lines of memory at a time. The share starts with code `begin`
/// of a stored row.
template <uint32_t Bits>
void packPanel(const WeightPlan &plan, const uint8_t *codes, uint64_t begin, uint8_t flip, uint64_t row, uint8_t *to) {
  const WeightDim &rows = rowsOf(plan), &columns = columnsOf(plan);
  constexpr uint64_t width = kPanelWidth * Bits / 8;
  const uint64_t codeRow = rowBytes(columns.stored, Bits);
  const uint64_t lanes = std::min(kPanelWidth, rows.share.size() - row);
  constexpr uint64_t depth = 128;
  uint8_t lines[kPanelWidth][depth] = {}, flips[kPanelWidth] = {};
  std::fill_n(flips, lanes, flip);
  for (uint64_t start = 0; start < columns.share.size(); start += depth) {
    const uint64_t count = std::min(depth, columns.share.size() - start);
    for (uint64_t lane = 0; lane < lanes; ++lane)
      unpackCodes<Bits>(codes + rows.at(row + lane) * codeRow, begin + start, count, lines[lane]);
    for (uint64_t i = 0; i < count; ++i)
      for (uint64_t byte = 0; byte < width; ++byte) {
        uint8_t packed = 0;
        for (uint64_t lane = byte, shift = 0; lane < kPanelWidth; lane += width, shift += Bits)
          packed = uint8_t(packed | (lines[lane][i] ^ flips[lane]) << shift);
        to[(start + i) * width + byte] = packed;
      }
  }
}

/// The bf16 that an E8M0 is.
uint16_t powerBits(uint8_t power) { return power == 0 ? 0x0040 : power == 255 ? 0x7fc0 : uint16_t(power << 7); }

} // namespace

std::optional<QuantLayout> quantLayout(const WeightPlan &plan, const QuantFormat &format) {
  bool isTable = plan.use == WeightUse::Table && !plan.transposed;
  if (plan.rank != 2 || plan.dtype != DType::F32 || (!isTable && !(isPanels(plan) && plan.transposed)) ||
      (format.bits != 2 && format.bits != 4 && format.bits != 8) || format.block == 0 || format.scale > DType::BF16 ||
      format.zero > ZeroPoint::Real)
    return std::nullopt;
  if (format.rowBlock == 0 || (format.isPower && format.scale != DType::BF16) ||
      (format.isFloat &&
       (format.bits == 2 || format.zero != ZeroPoint::Zero || format.isSigned || format.activations != DType::F32)))
    return std::nullopt;
  for (const WeightDim &dim : plan.dims)
    if (!isConsistent(dim) || dim.local == 0)
      return std::nullopt;
  if (columnsOf(plan).run != 0)
    return std::nullopt;
  QuantLayout layout;
  uint64_t rows = rowsOf(plan).local, columns = columnsOf(plan).local, codes = 0, values = 0;
  constexpr uint64_t limit = uint64_t(1) << 48; // so that nothing below overflows
  if (rows > limit || columns > limit)
    return std::nullopt;
  if (isPanels(plan))
    rows = linearItems(rows) * kPanelWidth;
  layout.blocks = (columns - 1 + format.block - 1) / format.block + 1;
  uint64_t width = isPanels(plan) ? columns * format.bits : rowBytes(columns, format.bits) * 8;
  if (__builtin_mul_overflow(rows, width, &codes) || __builtin_mul_overflow(rows, layout.blocks, &values) ||
      codes / 8 > limit || values > limit)
    return std::nullopt;
  auto aligned = [](uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; };
  layout.scales = aligned(codes / 8);
  layout.zeros = aligned(layout.scales + values * elementBytes(format.scale));
  layout.bytes = layout.zeros + values * zeroBytes(format);
  return layout;
}

QuantShare quantShare(const WeightPlan &plan, const QuantFormat &format) {
  const WeightDim &columns = columnsOf(plan);
  return {(columns.windowOffset + columns.share.begin) % format.block, columns.share.size()};
}

bool loadQuantized(const WeightPlan &plan, const QuantFormat &format, std::span<const std::byte> codes,
                   std::span<const std::byte> scales, std::span<const std::byte> zeros, std::span<std::byte> packed) {
  std::optional<QuantLayout> layout = quantLayout(plan, format);
  if (!layout || layout->bytes != packed.size())
    return false;
  const WeightDim &rows = rowsOf(plan), &columns = columnsOf(plan);
  const uint64_t bits = format.bits, storedBlocks = (columns.stored + format.block - 1) / format.block;
  const uint64_t codeRow = rowBytes(columns.stored, format.bits), scaleBytes = elementBytes(format.scale);
  const uint64_t zeroRow = format.zero == ZeroPoint::Packed ? rowBytes(storedBlocks, format.bits)
                           : format.zero == ZeroPoint::Real ? storedBlocks * scaleBytes
                                                            : 0;
  auto has = [](std::span<const std::byte> span, uint64_t count, uint64_t row) {
    uint64_t bytes;
    return !__builtin_mul_overflow(count, row, &bytes) && span.size() == bytes;
  };
  // Of E8M0, a byte each.
  const uint64_t scaleRow = storedBlocks * (format.isPower ? 1 : scaleBytes);
  const uint64_t scaleRows = (rows.stored - 1) / format.rowBlock + 1;
  if (!has(codes, rows.stored, codeRow) || !has(scales, rows.stored == 0 ? 0 : scaleRows, scaleRow) ||
      !has(zeros, rows.stored, zeroRow))
    return false;
  std::fill(packed.begin(), packed.end(), std::byte(0));

  // Two's complement becomes unsigned, half of the range higher.
  const uint8_t flip = format.isSigned ? uint8_t(1u << (bits - 1)) : 0;
  const bool panels = isPanels(plan);
  const uint64_t begin = columns.windowOffset + columns.share.begin, firstBlock = begin / format.block;
  const uint64_t usedBlocks =
      columns.share.size() == 0 ? 0 : (begin + columns.share.size() - 1) / format.block - firstBlock + 1;
  auto *to = reinterpret_cast<uint8_t *>(packed.data());
  const auto *from = reinterpret_cast<const uint8_t *>(codes.data());
  for (uint64_t row = 0; row < rows.share.size() && !panels; ++row)
    for (uint64_t column = 0; column < columns.share.size(); ++column)
      setCode(to + row * rowBytes(columns.local, format.bits), column, format.bits,
              codeAt(from + rows.at(row) * codeRow, begin + column, format.bits) ^ flip);
  for (uint64_t row = 0; row < rows.share.size() && panels; row += kPanelWidth) {
    auto pack = bits == 2 ? packPanel<2> : bits == 4 ? packPanel<4> : packPanel<8>;
    pack(plan, from, begin, flip, row, to + row / kPanelWidth * columns.local * (kPanelWidth * bits / 8));
  }
  for (uint64_t row = 0; row < rows.share.size(); ++row) {
    const uint64_t stored = rows.at(row), panel = row / kPanelWidth, lane = row % kPanelWidth;
    for (uint64_t block = 0; block < usedBlocks; ++block) {
      const uint64_t source = firstBlock + block;
      const uint64_t at = panels ? (panel * layout->blocks + block) * kPanelWidth + lane : row * layout->blocks + block;
      const std::byte *scale = scales.data() + stored / format.rowBlock * scaleRow;
      if (format.isPower) {
        uint16_t power = powerBits(std::to_integer<uint8_t>(scale[source]));
        std::memcpy(to + layout->scales + at * scaleBytes, &power, scaleBytes);
      } else {
        std::memcpy(to + layout->scales + at * scaleBytes, scale + source * scaleBytes, scaleBytes);
      }
      const auto *zero = reinterpret_cast<const uint8_t *>(zeros.data()) + stored * zeroRow;
      if (format.zero == ZeroPoint::Packed)
        to[layout->zeros + at] = codeAt(zero, source, format.bits) ^ flip;
      if (format.zero == ZeroPoint::Real)
        std::memcpy(to + layout->zeros + at * scaleBytes, zero + source * scaleBytes, scaleBytes);
    }
  }
  return true;
}

void embeddingQuantized(const EmbeddingQuantizedArgs &args, size_t begin, size_t end) {
  const QuantFormat &format = args.format;
  const auto *table = reinterpret_cast<const uint8_t *>(args.table);
  withElement(format.scale, [&](auto element) {
    using Scale = decltype(element);
    const auto *scales = reinterpret_cast<const Scale *>(args.table + args.layout.scales);
    const std::byte *zeros = args.table + args.layout.zeros;
    auto zeroAt = [&](uint64_t at) -> float {
      switch (format.zero) {
      case ZeroPoint::Middle:
        return float(1u << (format.bits - 1));
      case ZeroPoint::Zero:
        return 0;
      case ZeroPoint::Packed:
        return float(std::to_integer<uint8_t>(zeros[at]));
      case ZeroPoint::Real:
        return toFloat(reinterpret_cast<const Scale *>(zeros)[at]);
      }
      return 0;
    };
    for (size_t row = begin; row < end; ++row) {
      float *y = args.y + row * args.hidden;
      // Unsigned, so that one comparison refuses ids on either side, the extremes of int64 included.
      uint64_t local = uint64_t(args.ids[row]) - uint64_t(args.firstId);
      if (local >= args.vocabulary) {
        std::fill_n(y, args.hidden, 0.0f);
        continue;
      }
      uint64_t panel = local / kPanelWidth, lane = local % kPanelWidth;
      std::fill(y + args.share.count, y + args.hidden, 0.0f);
      for (size_t i = 0; i < args.share.count; ++i) {
        uint64_t block = (args.share.first + i) / format.block;
        uint64_t at =
            args.tied ? (panel * args.layout.blocks + block) * kPanelWidth + lane : local * args.layout.blocks + block;
        uint8_t code = args.tied ? codeAt(table + (panel * args.hidden + i) * (kPanelWidth * format.bits / 8),
                                          panelIndex(lane, format.bits), format.bits)
                                 : codeAt(table + local * rowBytes(args.hidden, format.bits), i, format.bits);
        y[i] = (format.isFloat ? floatCode(format.bits, code) : float(code) - zeroAt(at)) * toFloat(scales[at]);
      }
    }
  });
}

} // namespace helix::cpu
