//===- LinearFloatCodes.cpp - Activations times a weight of floats of few bits -===//
//
// Codes are looked up in a table of what they mean. What a GPU's kernels are compared with; not tuned.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"

#include <algorithm>
#include <array>

namespace helix::cpu {
namespace {

/// Rows of x that share what the codes of a panel's row mean.
constexpr size_t kRows = 8;

template <uint32_t bits> std::array<float, 256> table() {
  std::array<float, 256> numbers;
  for (uint32_t code = 0; code < 256; ++code)
    numbers[code] = floatCode(bits, code & ((1u << bits) - 1));
  return numbers;
}

/// The columns of a panel for rows [row, row + count) of x, totals [kRows, kPanelWidth].
template <uint32_t bits, typename Scale>
void multiply(const LinearQuantizedArgs &args, size_t panel, size_t row, size_t count, float (*totals)[kPanelWidth]) {
  constexpr size_t bytes = kPanelWidth * bits / 8;
  static const std::array<float, 256> numbers = table<bits>();
  const auto *codes = reinterpret_cast<const uint8_t *>(args.weight) + panel * args.k * bytes;
  const auto *scales = reinterpret_cast<const Scale *>(args.weight + args.layout.scales);
  size_t at = panel * args.layout.blocks * kPanelWidth;
  for (size_t start = 0, block = 0; start < args.share.count; ++block, at += kPanelWidth) {
    size_t end = std::min<size_t>((block + 1) * args.format.block - args.share.first, args.share.count);
    float sums[kRows][kPanelWidth] = {}, weights[kPanelWidth];
    for (size_t i = start; i < end; ++i) {
      for (size_t c = 0; c < kPanelWidth; ++c)
        weights[c] = numbers[codes[i * bytes + c % bytes] >> c / bytes * bits & ((1u << bits) - 1)];
      for (size_t r = 0; r < count; ++r)
        for (size_t c = 0; c < kPanelWidth; ++c)
          sums[r][c] += args.x[(row + r) * args.k + i] * weights[c];
    }
    for (size_t r = 0; r < count; ++r)
      for (size_t c = 0; c < kPanelWidth; ++c)
        totals[r][c] += toFloat(scales[at + c]) * sums[r][c];
    start = end;
  }
}

} // namespace

void linearFloatCodes(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  withElement(args.format.scale, [&](auto element) {
    using Scale = decltype(element);
    for (size_t panel = begin; panel < end; ++panel)
      for (size_t row = 0; row < args.rows; row += kRows) {
        float totals[kRows][kPanelWidth] = {};
        size_t count = std::min(kRows, args.rows - row), columns = std::min(kPanelWidth, args.n - panel * kPanelWidth);
        if (args.format.bits == 8)
          multiply<8, Scale>(args, panel, row, count, totals);
        else
          multiply<4, Scale>(args, panel, row, count, totals);
        for (size_t r = 0; r < count; ++r)
          std::copy_n(totals[r], columns, args.y + (row + r) * args.n + panel * kPanelWidth);
      }
  });
}

} // namespace helix::cpu
