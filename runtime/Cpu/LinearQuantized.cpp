//===- LinearQuantized.cpp - Activations times a weight of codes -----------===//
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/LinearQuantized.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <bit>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Rows of x that share the conversion of a code.
inline constexpr size_t kRowsPerCode = kRegisters == 32 ? 8 : 4;

/// Bytes between the codes that are read and those that are asked for.
inline constexpr size_t kAhead = 4096;

/// Bytes of a panel's row of codes.
template <uint32_t Bits> inline constexpr size_t kRowBytes = kPanelWidth * Bits / 8;

/// Vectors of columns that R rows have accumulators for.
template <size_t R> constexpr size_t vectorsOf() {
  return std::min(kPanelWidth / kLanes, std::bit_floor(kAccumulators / R));
}

/// Codes as numbers, less a zero point that all blocks share.
template <uint32_t Bits> class Numbers {
  static constexpr size_t bytes = kRowBytes<Bits>;
  static_assert(kLanes <= bytes);

public:
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  // Two instructions each. The bytes of 16 columns are loaded four times side by side, without a shuffle. Codes of 2
  // and 4 bits are shifted to the end of their lanes, as the index of the number in a register of 16: it is the lowest
  // four bits, whatever is above. Codes of 8 bits become the last bits of 2^23, from which 2^23 + zero is taken.
  Numbers(float zero, uint32_t bits) {
    const F32 d;
    const hn::RebindToUnsigned<F32> di;
    HWY_ALIGN float numbers[16];
    HWY_ALIGN uint32_t lanes[16], turned[16];
    for (uint32_t i = 0; i < 16; ++i) {
      numbers[i] = float(i & ((1u << Bits) - 1)) - zero;
      lanes[i] = Bits == 8 ? i * (bits / 8) : i / 4 * 8;
      turned[i] = i % 4 * 4 + i / 4;
    }
    table = Bits == 8 ? hn::Set(d, 0x1p23f + zero) : hn::Load(d, numbers);
    place = hn::Load(di, lanes);
    turn.raw = hn::Load(di, turned).raw;
  }

  /// Those of the columns from `column` on, a vector of them, of a panel's row. Of 2 and 4 bits, lane i holds the
  /// number of the column that `inOrder` puts there from lane i of what is in order.
  HWY_INLINE Vec at(const uint8_t *row, size_t column) const {
    const hn::RebindToUnsigned<F32> di;
    auto dwords = hn::LoadDup128(di, reinterpret_cast<const uint32_t *>(row + column % bytes));
    if constexpr (Bits == 8) {
      auto magic = hn::BitCast(di, hn::Set(F32(), 0x1p23f));
      auto code = _mm512_mask_shuffle_epi8(magic.raw, 0x1111111111111111, dwords.raw, place.raw);
      return hn::Sub(hn::BitCast(F32(), decltype(magic){code}), table);
    } else {
      auto index = hn::Shr(dwords, hn::Add(place, hn::Set(di, uint32_t(column / bytes * Bits))));
      return hn::TableLookupLanes(table, hn::Indices512<float>{index.raw});
    }
  }

  /// From the order of `at` to that of columns, and back.
  HWY_INLINE Vec inOrder(Vec numbers) const { return Bits == 8 ? numbers : hn::TableLookupLanes(numbers, turn); }

private:
  Vec table;
  hn::Vec<hn::RebindToUnsigned<F32>> place;
  hn::Indices512<float> turn;
#else
  Numbers(float zero, uint32_t) : middle(hn::Set(F32(), zero)) {}

  /// Those of the columns from `column` on, a vector of them, of a panel's row.
  HWY_INLINE Vec at(const uint8_t *row, size_t column) const {
    const F32 d;
    const hn::RebindToSigned<F32> di;
    const hn::Rebind<uint8_t, F32> d8;
    auto code = hn::PromoteTo(di, hn::LoadU(d8, row + column % bytes));
    if constexpr (Bits != 8)
      code = hn::And(hn::ShiftRightSame(code, int(column / bytes * Bits)), hn::Set(di, (1 << Bits) - 1));
    return hn::Sub(hn::ConvertTo(d, code), middle);
  }

  HWY_INLINE Vec inOrder(Vec numbers) const { return numbers; }

private:
  Vec middle;
#endif
};

/// A vector of the scales' type from index `at` on of those at `from`.
HWY_INLINE Vec blockNumbers(const std::byte *from, DType dtype, size_t at) {
  Vec result = hn::Zero(F32());
  withElement(dtype,
              [&](auto element) HWY_ATTR { result = load(reinterpret_cast<const decltype(element) *>(from) + at); });
  return result;
}

/// Whether blocks have zero points of their own.
constexpr bool hasZeros(ZeroPoint zero) { return zero == ZeroPoint::Packed || zero == ZeroPoint::Real; }

/// The own zero points of the columns from `column` on in the block whose first is `at`.
HWY_INLINE Vec zeroPoint(const LinearQuantizedArgs &args, size_t at) {
  const std::byte *zeros = args.weight + args.layout.zeros;
  if (args.format.zero == ZeroPoint::Packed)
    return Numbers<8>(0, 8).at(reinterpret_cast<const uint8_t *>(zeros) + at, 0);
  return blockNumbers(zeros, args.format.scale, at);
}

/// Rows of x, one block's rows of a panel, and the panel's columns.
struct Tile {
  const float *x;       ///< the first row, at the block's start
  const uint8_t *codes; ///< the block's first row
  size_t depth;         ///< elements of the block
  size_t at;            ///< index of the block's first scale
  float *totals;        ///< [R, kPanelWidth]
};

/// totals += scale * sum over the block of x (code - zero), for V vectors of columns from `column` on. What a lane adds
/// up does not depend on R or V.
template <uint32_t Bits, bool OwnZeros, size_t R, size_t V>
HWY_INLINE void blockColumns(const LinearQuantizedArgs &args, const Numbers<Bits> &numbers, const Tile &tile,
                             size_t column) {
  const F32 d;
  Vec sum[R][V], zero[V];
  for (size_t v = 0; v < V; ++v) {
    if constexpr (OwnZeros)
      zero[v] = numbers.inOrder(zeroPoint(args, tile.at + column + v * kLanes));
    for (size_t r = 0; r < R; ++r)
      sum[r][v] = hn::Zero(d);
  }
  auto step = [&](size_t i) HWY_ATTR {
    const uint8_t *row = tile.codes + i * kRowBytes<Bits>;
    Vec number[V];
    for (size_t v = 0; v < V; ++v) {
      number[v] = numbers.at(row, column + v * kLanes);
      if constexpr (OwnZeros)
        number[v] = hn::Sub(number[v], zero[v]);
    }
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(d, tile.x[r * args.k + i]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, number[v], sum[r][v]);
    }
  };
  size_t i = 0;
  for (; i + 4 <= tile.depth; i += 4) {
    for (size_t byte = 0; column == 0 && byte < 4 * kRowBytes<Bits>; byte += 64)
      prefetch(tile.codes + i * kRowBytes<Bits> + byte + kAhead);
    for (size_t j = 0; j < 4; ++j)
      step(i + j);
  }
  for (; i < tile.depth; ++i)
    step(i);
  const std::byte *scales = args.weight + args.layout.scales;
  for (size_t v = 0; v < V; ++v) {
    prefetch(scales + (tile.at + 4 * kPanelWidth + column + v * kLanes) * elementBytes(args.format.scale));
    Vec scale = blockNumbers(args.weight + args.layout.scales, args.format.scale, tile.at + column + v * kLanes);
    for (size_t r = 0; r < R; ++r) {
      float *total = tile.totals + r * kPanelWidth + column + v * kLanes;
      hn::Store(hn::MulAdd(numbers.inOrder(sum[r][v]), scale, hn::Load(d, total)), d, total);
    }
  }
}

/// Rows from `row` on in register blocks of R, the rest in halves of it.
template <uint32_t Bits, bool OwnZeros, size_t R>
HWY_INLINE void rowBlocks(const LinearQuantizedArgs &args, const Numbers<Bits> &numbers, size_t panel, size_t row) {
  constexpr size_t vectors = vectorsOf<R>();
  HWY_ALIGN float totals[R * kPanelWidth];
  const auto *codes = reinterpret_cast<const uint8_t *>(args.weight) + panel * args.k * kRowBytes<Bits>;
  size_t columns = std::min(kPanelWidth, args.n - panel * kPanelWidth);
  for (; row + R <= args.rows; row += R) {
    std::fill_n(totals, R * kPanelWidth, 0.0f);
    size_t block = 0;
    for (size_t start = 0; start < args.share.count; ++block) {
      size_t end = std::min<size_t>((block + 1) * args.format.block - args.share.first, args.share.count);
      Tile tile{args.x + row * args.k + start, codes + start * kRowBytes<Bits>, end - start,
                (panel * args.layout.blocks + block) * kPanelWidth, totals};
      for (size_t column = 0; column < kPanelWidth; column += vectors * kLanes)
        blockColumns<Bits, OwnZeros, R, vectors>(args, numbers, tile, column);
      start = end;
    }
    for (size_t r = 0; r < R; ++r)
      std::copy_n(totals + r * kPanelWidth, columns, args.y + (row + r) * args.n + panel * kPanelWidth);
  }
  if constexpr (R > 1)
    rowBlocks<Bits, OwnZeros, R / 2>(args, numbers, panel, row);
}

template <uint32_t Bits, bool OwnZeros>
HWY_NOINLINE void panels(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  Numbers<Bits> numbers(args.format.zero == ZeroPoint::Middle ? float(1u << (Bits - 1)) : 0, args.format.bits);
  for (size_t panel = begin; panel < end; ++panel)
    rowBlocks<Bits, OwnZeros, kRowsPerCode>(args, numbers, panel, 0);
}

template <uint32_t Bits> void panels(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (hasZeros(args.format.zero))
    panels<Bits, true>(args, begin, end);
  else
    panels<Bits, false>(args, begin, end);
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
  HWY_DYNAMIC_DISPATCH(linearQuantizedRange)(args, begin, end);
}

} // namespace helix::cpu
#endif
