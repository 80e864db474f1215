//===- LinearQuantized.cpp - Activations times a weight of codes -----------===//
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/LinearQuantized.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// The codes of the columns from `column` on, a vector of them, of a panel's row.
template <uint32_t Bits> HWY_INLINE Vec codes(const uint8_t *row, size_t column) {
  constexpr size_t bytes = kPanelWidth * Bits / 8;
  static_assert(kLanes <= bytes);
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<uint8_t, F32> d8;
  auto wide = hn::PromoteTo(di, hn::LoadU(d8, row + column % bytes));
  if constexpr (Bits == 8)
    return hn::ConvertTo(d, wide);
  auto code = hn::And(hn::ShiftRightSame(wide, int(column / bytes * Bits)), hn::Set(di, (1 << Bits) - 1));
  return hn::ConvertTo(d, code);
}

/// The zero points of the columns from `column` on in the block whose first is `at`.
template <typename Scale> HWY_INLINE Vec zeroPoint(const LinearQuantizedArgs &args, size_t at) {
  const F32 d;
  const std::byte *zeros = args.weight + args.layout.zeros;
  switch (args.format.zero) {
  case ZeroPoint::Middle:
    return hn::Set(d, float(1u << (args.format.bits - 1)));
  case ZeroPoint::Zero:
    return hn::Zero(d);
  case ZeroPoint::Packed:
    return codes<8>(reinterpret_cast<const uint8_t *>(zeros) + at, 0);
  case ZeroPoint::Real:
    return load(reinterpret_cast<const Scale *>(zeros) + at);
  }
  return hn::Zero(d);
}

/// Rows of x, one block's rows of a panel, and the panel's columns.
struct Tile {
  const float *x;          ///< the first row, at the block's start
  const uint8_t *codes;    ///< the block's first row
  size_t depth;            ///< elements of the block
  size_t at;               ///< index of the block's first scale
  float *sums;             ///< [R, kPanelWidth]
};

/// sums = scale * sum over the block of x (code - zero), for V vectors of columns from `column` on. What a lane adds up
/// does not depend on R or V.
template <uint32_t Bits, size_t R, size_t V, typename Scale>
HWY_INLINE void blockColumns(const LinearQuantizedArgs &args, const Tile &tile, size_t column) {
  const F32 d;
  Vec sum[R][V], zero[V];
  for (size_t v = 0; v < V; ++v) {
    zero[v] = zeroPoint<Scale>(args, tile.at + column + v * kLanes);
    for (size_t r = 0; r < R; ++r)
      sum[r][v] = hn::Zero(d);
  }
  const uint8_t *row = tile.codes;
  for (size_t i = 0; i < tile.depth; ++i, row += kPanelWidth * Bits / 8) {
    Vec number[V];
    for (size_t v = 0; v < V; ++v)
      number[v] = hn::Sub(codes<Bits>(row, column + v * kLanes), zero[v]);
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(d, tile.x[r * args.k + i]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, number[v], sum[r][v]);
    }
  }
  const auto *scales = reinterpret_cast<const Scale *>(args.weight + args.layout.scales) + tile.at + column;
  for (size_t v = 0; v < V; ++v) {
    Vec scale = load(scales + v * kLanes);
    for (size_t r = 0; r < R; ++r)
      hn::StoreU(hn::Mul(sum[r][v], scale), d, tile.sums + r * kPanelWidth + column + v * kLanes);
  }
}

/// Rows from `row` on in register blocks of R, the rest in halves of it.
template <uint32_t Bits, size_t R, typename Scale>
HWY_INLINE void rowBlocks(const LinearQuantizedArgs &args, size_t panel, size_t row) {
  constexpr size_t vectors = std::min(kAccumulators / R, kPanelWidth / kLanes);
  HWY_ALIGN float sums[R * kPanelWidth];
  const auto *codes = reinterpret_cast<const uint8_t *>(args.weight) + panel * args.k * (kPanelWidth * Bits / 8);
  size_t columns = std::min(kPanelWidth, args.n - panel * kPanelWidth);
  for (; row + R <= args.rows; row += R) {
    float *y = args.y + row * args.n + panel * kPanelWidth;
    size_t block = 0;
    for (size_t start = 0; start < args.share.count; ++block) {
      size_t end = std::min<size_t>((block + 1) * args.format.block - args.share.first, args.share.count);
      Tile tile{args.x + row * args.k + start, codes + start * (kPanelWidth * Bits / 8), end - start,
                (panel * args.layout.blocks + block) * kPanelWidth, sums};
      for (size_t column = 0; column < kPanelWidth; column += vectors * kLanes)
        blockColumns<Bits, R, vectors, Scale>(args, tile, column);
      for (size_t r = 0; r < R; ++r)
        for (size_t c = 0; c < columns; ++c)
          y[r * args.n + c] = start == 0 ? sums[r * kPanelWidth + c] : y[r * args.n + c] + sums[r * kPanelWidth + c];
      start = end;
    }
  }
  if constexpr (R > 1)
    rowBlocks<Bits, R / 2, Scale>(args, panel, row);
}

template <uint32_t Bits> HWY_NOINLINE void panels(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  withElement(args.format.scale, [&](auto element) {
    for (size_t panel = begin; panel < end; ++panel)
      rowBlocks<Bits, kMaxRows, decltype(element)>(args, panel, 0);
  });
}

void linearQuantizedRange(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (args.format.bits == 2)
    panels<2>(args, begin, end);
  else if (args.format.bits == 4)
    panels<4>(args, begin, end);
  else
    panels<8>(args, begin, end);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(linearQuantizedRange);

void linearQuantized(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (args.format.isFloat)
    return linearFloatCodes(args, begin, end);
  HWY_DYNAMIC_DISPATCH(linearQuantizedRange)(args, begin, end);
}

} // namespace helix::cpu
#endif
