//===- Linear.cpp - Activations times a packed weight ----------------------===//
//
// A few rows read the weight from memory once, as one stream; many rows read it from cache in blocks, as f32. A row's
// sums are the same in either case: in ascending k, blocks of kDepth.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Linear.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <bit>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Rows of the weight whose products are summed before they join the total: a panel's block stays in cache while the
/// rows of x pass, and the rounding error grows with the number of blocks, not with k.
inline constexpr size_t kDepth = 256;

/// Rows of x that share a load of the weight, when the memory sets the pace and when the arithmetic does.
inline constexpr size_t kStreamRows = kRegisters == 32 ? 8 : 4, kBlockRows = 6;

/// From so many rows on the arithmetic does.
inline constexpr size_t kManyRows = 16;

/// Rows of x that are multiplied before the next panel: with kDepth columns they stay in the second-level cache.
inline constexpr size_t kChunkRows = 768;

/// Bytes between what one pass reads and what it asks for.
inline constexpr size_t kAhead = 4096;

/// Vectors of columns that R rows have accumulators for, an even number.
template <size_t R> constexpr size_t vectorsOf() {
  return std::min(kPanelWidth / kLanes, std::bit_floor((kRegisters == 32 ? 24 : 12) / R));
}

/// out[r][c] = sum over `depth` products for V vectors of columns; the order of the sum does not depend on R or V. Asks
/// for `step` bytes at `next` with each of the products.
template <size_t R, size_t V, typename W>
HWY_INLINE void tile(const float *HWY_RESTRICT x, size_t stride, const W *HWY_RESTRICT weight, size_t depth,
                     float *HWY_RESTRICT out, const std::byte *next, size_t step) {
  const F32 d;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  for (size_t i = 0; i < depth; ++i) {
    for (size_t line = 0; line < step; line += 64)
      prefetch(next + line);
    next += step;
    Vec column[V];
    for (size_t v = 0; v < V; v += 2)
      loadTwo(weight + i * kPanelWidth + v * kLanes, column[v], column[v + 1]);
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(d, x[r * stride + i]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, column[v], sum[r][v]);
    }
  }
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; v += 2)
      storeTwo<W>(sum[r][v], sum[r][v + 1], out + r * kPanelWidth + v * kLanes);
}

/// A block of a panel: kDepth rows of the weight or the rest.
template <typename W> struct Block {
  const W *weight;
  size_t panel, start, depth;
};

/// Adds a block's products of R rows to y, whose first block starts the total.
template <size_t R, typename W>
HWY_INLINE void multiply(const LinearArgs &args, const Block<W> &block, size_t row, bool fetch) {
  constexpr size_t vectors = vectorsOf<R>(), passes = kPanelWidth / (vectors * kLanes);
  HWY_ALIGN float sums[R * kPanelWidth];
  const float *x = args.x + row * args.k + block.start;
  // The bytes that follow are those that come next: of this panel, then of the next. One pass asks for what is a little
  // ahead of it, and so keeps memory and arithmetic busy at once; several share the next block evenly.
  size_t step = fetch ? kPanelWidth * sizeof(W) / passes : 0, ahead = block.depth * kPanelWidth * sizeof(W);
  const auto *next = reinterpret_cast<const std::byte *>(block.weight) + (passes == 1 ? kAhead : ahead);
  for (size_t pass = 0; pass < passes; ++pass)
    tile<R, vectors>(x, args.k, block.weight + pass * vectors * kLanes, block.depth, sums + pass * vectors * kLanes,
                     next + pass * step * block.depth, step);
  size_t column = block.panel * kPanelWidth, columns = std::min(kPanelWidth, args.n - column);
  for (size_t r = 0; r < R; ++r) {
    float *y = args.y + (row + r) * args.n + column;
    const float *sum = sums + r * kPanelWidth;
    for (size_t c = 0; c < columns; ++c)
      y[c] = block.start == 0 ? sum[c] : y[c] + sum[c];
  }
}

/// Rows [row, end) in register blocks of R, the rest in smaller ones.
template <size_t R, typename W>
HWY_INLINE void multiplyRows(const LinearArgs &args, const Block<W> &block, size_t row, size_t end, bool fetch) {
  for (; row + R <= end; row += R, fetch = false)
    multiply<R>(args, block, row, fetch);
  if constexpr (R > 1)
    multiplyRows<std::bit_floor(R - 1)>(args, block, row, end, fetch);
}

template <typename W> Block<W> blockAt(const LinearArgs &args, size_t panel, size_t start) {
  return {static_cast<const W *>(args.weight) + (panel * args.k + start) * kPanelWidth, panel, start,
          std::min(kDepth, args.k - start)};
}

/// Few rows: one pass over the panels' memory.
template <typename W> HWY_NOINLINE void streamPanels(const LinearArgs &args, size_t begin, size_t end) {
  for (size_t panel = begin; panel < end; ++panel)
    for (size_t start = 0; start == 0 || start < args.k; start += kDepth) // once for k = 0: zeros
      multiplyRows<kStreamRows>(args, blockAt<W>(args, panel, start), 0, args.rows, true);
}

/// A block as f32.
template <typename W> HWY_INLINE Block<float> widen(const Block<W> &block, float *to) {
  for (size_t i = 0; i < block.depth * kPanelWidth; i += kLanes)
    hn::Store(load(block.weight + i), F32(), to + i);
  return {to, block.panel, block.start, block.depth};
}
HWY_INLINE Block<float> widen(const Block<float> &block, float *) { return block; }

/// Many rows: all panels with a chunk of x that stays in cache.
template <typename W> HWY_NOINLINE void blockPanels(const LinearArgs &args, size_t begin, size_t end) {
  HWY_ALIGN float wide[std::is_same_v<W, float> ? 1 : kDepth * kPanelWidth];
  for (size_t start = 0; start == 0 || start < args.k; start += kDepth)
    for (size_t row = 0; row < args.rows; row += kChunkRows)
      for (size_t panel = begin; panel < end; ++panel)
        multiplyRows<kBlockRows>(args, widen(blockAt<W>(args, panel, start), wide), row,
                                 std::min(row + kChunkRows, args.rows), false);
}

void linearRange(const LinearArgs &args, size_t begin, size_t end) {
  withElement(args.dtype, [&](auto element) {
    if (args.rows < kManyRows)
      streamPanels<decltype(element)>(args, begin, end);
    else
      blockPanels<decltype(element)>(args, begin, end);
  });
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(linearRange);

void linear(const LinearArgs &args, size_t begin, size_t end) { HWY_DYNAMIC_DISPATCH(linearRange)(args, begin, end); }

} // namespace helix::cpu
#endif
