//===- QuantizedPanels-inl.h - The way through a weight of codes, per target ===//
//
// Included once per target by the files whose products have weights of codes.
//
//===-----------------------------------------------------------------------===//
#if defined(HELIX_RUNTIME_CPU_QUANTIZEDPANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef HELIX_RUNTIME_CPU_QUANTIZEDPANELS_INL_H
#undef HELIX_RUNTIME_CPU_QUANTIZEDPANELS_INL_H
#else
#define HELIX_RUNTIME_CPU_QUANTIZEDPANELS_INL_H
#endif

#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"
#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <bit>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Rows of x that share what is made of a code.
inline constexpr size_t kRowsPerCode = kRegisters == 32 ? 8 : 4;

/// Bytes of a panel's row of codes.
template <uint32_t Bits> inline constexpr size_t kRowBytes = kPanelWidth * Bits / 8;

/// Vectors of columns that R rows have accumulators for.
template <size_t R> constexpr size_t vectorsOf() {
  return std::min(kPanelWidth / kLanes, std::bit_floor(kAccumulators / R));
}

/// A vector from index `at` on of the numbers of a type at `from`.
HWY_INLINE Vec blockNumbers(const std::byte *from, DType dtype, size_t at) {
  Vec result = hn::Zero(F32());
  withElement(dtype,
              [&](auto element) HWY_ATTR { result = load(reinterpret_cast<const decltype(element) *>(from) + at); });
  return result;
}

/// Rows of x, one block's rows of a panel, and the panel's columns.
struct Tile {
  size_t row;           ///< the first of x
  size_t start, depth;  ///< elements of k, counted from the share's start
  size_t block;         ///< number of the block
  const uint8_t *codes; ///< the block's first row
  size_t at;            ///< index of the block's first scale
  float *totals;        ///< [R, kPanelWidth]
};

/// Asks for four rows of codes and a vector's scales that are needed a little later, so that memory is read on while
/// the kernel computes. To be called from the first pass over a block alone.
template <uint32_t Bits> HWY_INLINE void fetchCodes(const uint8_t *row) {
  constexpr size_t ahead = 4096;
  for (size_t byte = 0; byte < 4 * kRowBytes<Bits>; byte += 64)
    prefetch(row + ahead + byte);
}
HWY_INLINE void fetchScales(const LinearQuantizedArgs &args, size_t at) {
  constexpr size_t blocksAhead = 4;
  prefetch(args.weight + args.layout.scales + (at + blocksAhead * kPanelWidth) * elementBytes(args.format.scale));
}

/// `kernel.add<R, V>(tile, column)` adds a block's products of R rows to the totals of V vectors of columns from
/// `column` on. Rows are taken from `row` on in register blocks of R, the rest in halves of it.
template <size_t R, typename Kernel>
HWY_INLINE void rowBlocks(const LinearQuantizedArgs &args, const Kernel &kernel, size_t panel, size_t row) {
  constexpr size_t vectors = vectorsOf<R>();
  HWY_ALIGN float totals[R * kPanelWidth];
  const size_t rowBytes = kPanelWidth * args.format.bits / 8;
  const auto *codes = reinterpret_cast<const uint8_t *>(args.weight) + panel * args.k * rowBytes;
  size_t columns = std::min(kPanelWidth, args.n - panel * kPanelWidth);
  for (; row + R <= args.rows; row += R) {
    std::fill_n(totals, R * kPanelWidth, 0.0f);
    size_t block = 0;
    for (size_t start = 0; start < args.share.count; ++block) {
      size_t end = std::min<size_t>((block + 1) * args.format.block - args.share.first, args.share.count);
      Tile tile{row,
                start,
                end - start,
                block,
                codes + start * rowBytes,
                (panel * args.layout.blocks + block) * kPanelWidth,
                totals};
      for (size_t column = 0; column < kPanelWidth; column += vectors * kLanes)
        kernel.template add<R, vectors>(tile, column);
      start = end;
    }
    for (size_t r = 0; r < R; ++r)
      std::copy_n(totals + r * kPanelWidth, columns, args.y + (row + r) * args.n + panel * kPanelWidth);
  }
  if constexpr (R > 1)
    rowBlocks<R / 2>(args, kernel, panel, row);
}

template <typename Kernel> HWY_NOINLINE void panels(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  Kernel kernel(args);
  for (size_t panel = begin; panel < end; ++panel)
    rowBlocks<kRowsPerCode>(args, kernel, panel, 0);
}

/// Whether blocks have zero points of their own.
constexpr bool hasZeros(ZeroPoint zero) { return zero == ZeroPoint::Packed || zero == ZeroPoint::Real; }

/// The zero point that all blocks share, of formats that have one.
constexpr uint32_t commonZero(const QuantFormat &format) {
  return format.zero == ZeroPoint::Middle ? 1u << (format.bits - 1) : 0;
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
