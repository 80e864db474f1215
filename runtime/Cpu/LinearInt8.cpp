//===- LinearInt8.cpp - Activations of 8 bits times a weight of codes ------===//
#include "runtime/Cpu/VnniTargets.h"

#include "runtime/Cpu/Quantized.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/LinearInt8.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// Highway 1.0 looks for AVX512_VNNI before it takes this target, and forgets to compile for it.
#undef HWY_TARGET_STR
#define HWY_TARGET_STR                                                                                                 \
  HWY_TARGET_STR_AVX3 ",vpclmulqdq,avx512vbmi,avx512vbmi2,vaes,avxvnni,avx512vnni,avx512bitalg,avx512vpopcntdq"
#endif

#include "runtime/Cpu/QuantizedPanels-inl.h"

#include <cstring>

#ifndef HELIX_RUNTIME_CPU_LINEARINT8
#define HELIX_RUNTIME_CPU_LINEARINT8
namespace helix::cpu {

/// A rounded row: codes [blocks][stride], a block's filled up with zeros, then its scales, f32, and the sums of its
/// codes, i32, [blocks] each. It has room for the share of any rank.
struct RoundedRow {
  static constexpr size_t kStride = 16; ///< that of codes is a multiple of it
  size_t blocks, stride, bytes;

  explicit RoundedRow(const LinearQuantizedArgs &args) {
    blocks = args.layout.blocks;
    size_t longest = std::min<size_t>(args.format.block, args.k);
    stride = (longest + kStride - 1) / kStride * kStride;
    bytes = (blocks * (stride + sizeof(float) + sizeof(int32_t)) + 63) / 64 * 64;
  }
  int8_t *codes(std::byte *row) const { return reinterpret_cast<int8_t *>(row); }
  float *scales(std::byte *row) const { return reinterpret_cast<float *>(row + blocks * stride); }
  int32_t *sums(std::byte *row) const { return reinterpret_cast<int32_t *>(scales(row) + blocks); }
};

} // namespace helix::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using Ints = hn::Vec<I32>;

/// A vector of the first elements of `count`, zeros behind the last. (A masked load may read behind them.)
HWY_INLINE Vec firstOf(const float *x, size_t count) {
  if (count >= kLanes)
    return load(x);
  HWY_ALIGN float padded[kLanes] = {};
  std::copy_n(x, count, padded);
  return hn::Load(F32(), padded);
}

/// Rounds `count` elements; the codes that fill up the last vector are zeros.
HWY_INLINE void roundBlock(const float *x, size_t count, int8_t *codes, float &scale, int32_t &sum) {
  const F32 d;
  const I32 di;
  const hn::Rebind<int8_t, F32> d8;
  // Times zero an infinity is a NaN, which no comparison hides.
  Vec largest = hn::Zero(d), nothing = hn::Zero(d);
  for (size_t i = 0; i < count; i += kLanes) {
    Vec some = firstOf(x + i, count - i);
    largest = hn::Max(largest, hn::Abs(some));
    nothing = hn::MulAdd(some, hn::Zero(d), nothing);
  }
  float step = hn::GetLane(hn::MaxOfLanes(d, largest)) / 127;
  scale = step + hn::GetLane(hn::SumOfLanes(d, nothing));
  Vec divisor = hn::Set(d, step > 0 ? step : 1.0f), bound = hn::Set(d, 127.0f);
  Ints total = hn::Zero(di);
  for (size_t i = 0; i < count; i += kLanes) {
    Vec steps = hn::Div(firstOf(x + i, count - i), divisor);
    Ints code = hn::NearestInt(hn::Max(hn::Min(steps, bound), hn::Neg(bound)));
    total = hn::Add(total, code);
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
  }
  sum = hn::GetLane(hn::SumOfLanes(di, total));
}

void roundRange(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  const RoundedRow layout(args);
  for (size_t row = begin; row < end; ++row) {
    std::byte *to = args.rounded + row * layout.bytes;
    for (size_t block = 0, start = 0; start < args.share.count; ++block) {
      size_t stop = std::min<size_t>((block + 1) * args.format.block - args.share.first, args.share.count);
      roundBlock(args.x + row * args.k + start, stop - start, layout.codes(to) + block * layout.stride,
                 layout.scales(to)[block], layout.sums(to)[block]);
      start = stop;
    }
  }
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL

/// Elements of k whose codes share a lane.
inline constexpr size_t kTogether = 4;

/// A panel's codes, four rows of them: a lane has those of a column.
template <uint32_t Bits> class Codes {
public:
  Codes() {
    HWY_ALIGN uint8_t bytes[64];
    for (size_t i = 0; i < 64; ++i)
      bytes[i] = uint8_t(i % 4 * 16 + i / 4);
    turn = _mm512_load_si512(bytes);
  }

  HWY_INLINE Ints at(const uint8_t *row, size_t column) const {
    constexpr size_t bytes = kRowBytes<Bits>;
    auto line = [&](size_t i) HWY_ATTR {
      return _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + i * bytes + column % bytes));
    };
    __m512i four = _mm512_castsi128_si512(line(0));
    four = _mm512_inserti32x4(four, line(1), 1);
    four = _mm512_inserti32x4(four, line(2), 2);
    four = _mm512_inserti32x4(four, line(3), 3);
    four = _mm512_permutexvar_epi8(turn, four);
    if constexpr (Bits == 8)
      return Ints{four};
    auto shifted = hn::ShiftRightSame(Ints{four}, int(column / bytes * Bits));
    return hn::And(shifted, hn::Set(I32(), ((1 << Bits) - 1) * 0x01010101));
  }

private:
  __m512i turn;
};

HWY_INLINE Ints addProducts(Ints codes, Ints x, Ints sum) {
  return Ints{_mm512_dpbusd_epi32(sum.raw, codes.raw, x.raw)};
}

#else

inline constexpr size_t kTogether = 1;

/// A panel's codes, a row of them.
template <uint32_t Bits> class Codes {
public:
  HWY_INLINE Ints at(const uint8_t *row, size_t column) const {
    constexpr size_t bytes = kRowBytes<Bits>;
    const I32 di;
    const hn::Rebind<uint8_t, I32> d8;
    Ints code = hn::PromoteTo(di, hn::LoadU(d8, row + column % bytes));
    if constexpr (Bits == 8)
      return code;
    return hn::And(hn::ShiftRightSame(code, int(column / bytes * Bits)), hn::Set(di, (1 << Bits) - 1));
  }
};

HWY_INLINE Ints addProducts(Ints codes, Ints x, Ints sum) { return hn::Add(sum, hn::Mul(codes, x)); }

#endif

/// The products of a block are summed as integers, so that how does not matter.
template <uint32_t Bits> class IntegerBlocks {
public:
  explicit IntegerBlocks(const LinearQuantizedArgs &args) : args(args), layout(args) {}

  template <size_t R, size_t V> HWY_INLINE void add(const Tile &tile, size_t column) const {
    const F32 d;
    std::byte *rows = args.rounded + tile.row * layout.bytes;
    const int8_t *x = layout.codes(rows) + tile.block * layout.stride;
    Ints sum[R][V];
    for (size_t r = 0; r < R; ++r)
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = start(layout.sums(rows + r * layout.bytes)[tile.block], tile.at + column + v * kLanes);
    size_t i = 0;
    for (; i + 4 <= tile.depth; i += 4) {
      if (column == 0)
        fetchCodes<Bits>(tile.codes + i * kRowBytes<Bits>);
      for (size_t j = 0; j < 4; j += kTogether)
        elements<R, V>(tile.codes + (i + j) * kRowBytes<Bits>, column, x + i + j, sum);
    }
    if (i < tile.depth) {
      // Behind the share may be anything, or nothing.
      uint8_t last[4 * kRowBytes<Bits>] = {};
      std::memcpy(last, tile.codes + i * kRowBytes<Bits>, (tile.depth - i) * kRowBytes<Bits>);
      for (size_t j = 0; j < 4; j += kTogether)
        elements<R, V>(last + j * kRowBytes<Bits>, column, x + i + j, sum);
    }
    for (size_t v = 0; v < V; ++v) {
      size_t at = tile.at + column + v * kLanes;
      fetchScales(args, at);
      Vec scale = blockNumbers(args.weight + args.layout.scales, args.format.scale, at);
      for (size_t r = 0; r < R; ++r) {
        std::byte *row = rows + r * layout.bytes;
        Vec value = hn::ConvertTo(d, sum[r][v]);
        if (args.format.zero == ZeroPoint::Real)
          value = hn::NegMulAdd(blockNumbers(args.weight + args.layout.zeros, args.format.scale, at),
                                hn::Set(d, float(layout.sums(row)[tile.block])), value);
        Vec both = hn::Mul(scale, hn::Set(d, layout.scales(row)[tile.block]));
        float *total = tile.totals + r * kPanelWidth + column + v * kLanes;
        hn::Store(hn::MulAdd(value, both, hn::Load(d, total)), d, total);
      }
    }
  }

private:
  /// What the zero points take off: the sum of the codes of x times them.
  HWY_INLINE Ints start(int32_t sum, size_t at) const {
    const I32 di;
    if (args.format.zero != ZeroPoint::Packed)
      return hn::Set(di, -sum * int32_t(commonZero(args.format)));
    const auto *zeros = reinterpret_cast<const uint8_t *>(args.weight + args.layout.zeros) + at;
    const hn::Rebind<uint8_t, I32> d8;
    return hn::Mul(hn::PromoteTo(di, hn::LoadU(d8, zeros)), hn::Set(di, -sum));
  }

  template <size_t R, size_t V>
  HWY_INLINE void elements(const uint8_t *row, size_t column, const int8_t *x, Ints (&sum)[R][V]) const {
    Ints code[V];
    for (size_t v = 0; v < V; ++v)
      code[v] = codes.at(row, column + v * kLanes);
    for (size_t r = 0; r < R; ++r) {
      int32_t element = x[r * layout.bytes];
      if constexpr (kTogether == 4)
        std::memcpy(&element, x + r * layout.bytes, sizeof(element));
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = addProducts(code[v], hn::Set(I32(), element), sum[r][v]);
    }
  }

  const LinearQuantizedArgs &args;
  RoundedRow layout;
  Codes<Bits> codes;
};

void integerRange(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  if (args.format.bits == 2)
    panels<IntegerBlocks<2>>(args, begin, end);
  else if (args.format.bits == 4)
    panels<IntegerBlocks<4>>(args, begin, end);
  else
    panels<IntegerBlocks<8>>(args, begin, end);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(roundRange);
HWY_EXPORT(integerRange);

size_t roundedBytes(const LinearQuantizedArgs &args) {
  return args.format.activations == DType::I8 ? args.rows * RoundedRow(args).bytes : 0;
}

void roundRows(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  HWY_DYNAMIC_DISPATCH(roundRange)(args, begin, end);
}

void linearInt8(const LinearQuantizedArgs &args, size_t begin, size_t end) {
  HWY_DYNAMIC_DISPATCH(integerRange)(args, begin, end);
}

} // namespace helix::cpu
#endif
