//===- LinearQuantized.cpp - Activations times a weight of codes -----------===//
#include "runtime/Cpu/Quantized.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/LinearQuantized.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/QuantizedPanels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Codes as numbers, less a zero point that all blocks share.
template <uint32_t Bits> class Numbers {
  static constexpr size_t bytes = kRowBytes<Bits>;
  static_assert(kLanes <= bytes);

public:
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  // Two instructions each. The bytes of 16 columns are loaded four times side by side, without a shuffle. Codes of 2
  // and 4 bits are shifted to the end of their lanes, as the index of the number in a register of 16: it is the lowest
  // four bits, whatever is above. Codes of 8 bits become the last bits of 2^23, from which 2^23 + zero is taken.
  Numbers(float zero) {
    const F32 d;
    const hn::RebindToUnsigned<F32> di;
    HWY_ALIGN float numbers[16];
    HWY_ALIGN uint32_t lanes[16], turned[16];
    for (uint32_t i = 0; i < 16; ++i) {
      numbers[i] = float(i & ((1u << Bits) - 1)) - zero;
      lanes[i] = Bits == 8 ? i : i / 4 * 8;
      turned[i] = i % 4 * 4 + i / 4;
    }
    table = Bits == 8 ? hn::Set(d, 0x1p23f + zero) : hn::Load(d, numbers);
    place = hn::Load(di, lanes);
    // The compiler must not know it: it would take the one shuffle of `at` apart into several instructions.
    asm("" : "+v"(place.raw));
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
  Numbers(float zero) : middle(hn::Set(F32(), zero)) {}

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

/// The products of a block are summed as f32 before they are scaled. What a lane adds up does not depend on R or V.
template <uint32_t Bits, bool OwnZeros> class ExactBlocks {
public:
  explicit ExactBlocks(const LinearQuantizedArgs &args) : args(args), numbers(float(commonZero(args.format))) {}

  template <size_t R, size_t V> HWY_INLINE void add(const Tile &tile, size_t column) const {
    const F32 d;
    Vec sum[R][V], zero[V];
    for (size_t v = 0; v < V; ++v) {
      if constexpr (OwnZeros)
        zero[v] = numbers.inOrder(zeroPoint(tile.at + column + v * kLanes));
      for (size_t r = 0; r < R; ++r)
        sum[r][v] = hn::Zero(d);
    }
    size_t i = 0;
    for (; i + 4 <= tile.depth; i += 4) {
      if (column == 0)
        fetchCodes<Bits>(tile.codes + i * kRowBytes<Bits>);
      for (size_t j = 0; j < 4; ++j)
        element<R, V>(tile, column, i + j, zero, sum);
    }
    for (; i < tile.depth; ++i)
      element<R, V>(tile, column, i, zero, sum);
    for (size_t v = 0; v < V; ++v) {
      size_t at = tile.at + column + v * kLanes;
      fetchScales(args, at);
      Vec scale = blockNumbers(args.weight + args.layout.scales, args.format.scale, at);
      for (size_t r = 0; r < R; ++r) {
        float *total = tile.totals + r * kPanelWidth + column + v * kLanes;
        hn::Store(hn::MulAdd(numbers.inOrder(sum[r][v]), scale, hn::Load(d, total)), d, total);
      }
    }
  }

private:
  /// The products with element `i` of the block.
  template <size_t R, size_t V>
  HWY_INLINE void element(const Tile &tile, size_t column, size_t i, const Vec (&zero)[V], Vec (&sum)[R][V]) const {
    const uint8_t *row = tile.codes + i * kRowBytes<Bits>;
    Vec number[V];
    for (size_t v = 0; v < V; ++v) {
      number[v] = numbers.at(row, column + v * kLanes);
      if constexpr (OwnZeros)
        number[v] = hn::Sub(number[v], zero[v]);
    }
    const float *x = args.x + tile.row * args.k + tile.start + i;
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(F32(), x[r * args.k]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, number[v], sum[r][v]);
    }
  }

  /// The own zero points of a vector of columns.
  HWY_INLINE Vec zeroPoint(size_t at) const {
    const std::byte *zeros = args.weight + args.layout.zeros;
    if (args.format.zero == ZeroPoint::Packed)
      return Numbers<8>(0).at(reinterpret_cast<const uint8_t *>(zeros) + at, 0);
    return blockNumbers(zeros, args.format.scale, at);
  }

  const LinearQuantizedArgs &args;
  Numbers<Bits> numbers;
};

template <uint32_t Bits> void exactPanels(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (hasZeros(args.format.zero))
    panels<ExactBlocks<Bits, true>>(args, begin, end);
  else
    panels<ExactBlocks<Bits, false>>(args, begin, end);
}

void linearExact(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (args.format.bits == 2)
    exactPanels<2>(args, begin, end);
  else if (args.format.bits == 4)
    exactPanels<4>(args, begin, end);
  else
    exactPanels<8>(args, begin, end);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(linearExact);

void linearQuantized(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (args.format.isFloat)
    linearFloatCodes(args, begin, end);
  else if (args.format.activations == DType::I8)
    linearInt8(args, begin, end);
  else
    HWY_DYNAMIC_DISPATCH(linearExact)(args, begin, end);
}

} // namespace helix::cpu
#endif
