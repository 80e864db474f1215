//===- Linear.cpp - Activations times a packed weight ----------------------===//
#include "runtime/Cpu/Kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Linear.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Rows of the weight whose products are summed before they join the total: a panel's block stays in cache while the
/// rows of x pass, and the rounding error grows with the number of blocks, not with k.
inline constexpr size_t kDepth = 256;

/// out[r][c] = sum over `depth` products for V vectors of columns; the order of the sum does not depend on R or V.
template <size_t R, size_t V, typename W>
HWY_INLINE void tile(const float *HWY_RESTRICT x, size_t stride, const W *HWY_RESTRICT weight, size_t depth,
                     float *HWY_RESTRICT out, bool fetch) {
  const F32 d;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  for (size_t i = 0; i < depth; ++i) {
    // The first of several passes over a panel leaves gaps, across which the processor does not fetch ahead.
    if (V * kLanes < kPanelWidth && fetch)
      for (size_t c = 0; c < kPanelWidth; c += 64 / sizeof(W))
        prefetch(weight + (i + 16) * kPanelWidth + c);
    Vec column[V];
    for (size_t v = 0; v < V; ++v)
      column[v] = load(weight + i * kPanelWidth + v * kLanes);
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(d, x[r * stride + i]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, column[v], sum[r][v]);
    }
  }
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      hn::StoreU(sum[r][v], d, out + r * kPanelWidth + v * kLanes);
}

/// Adds a block's sums of R rows to y, whose first block starts the total.
template <size_t R, typename W>
HWY_INLINE void block(const float *x, size_t stride, const W *weight, size_t depth, float *y, size_t n, size_t columns,
                      bool first) {
  constexpr size_t vectors = std::min(kAccumulators / R, kPanelWidth / kLanes);
  HWY_ALIGN float sums[R * kPanelWidth];
  for (size_t column = 0; column < kPanelWidth; column += vectors * kLanes)
    tile<R, vectors>(x, stride, weight + column, depth, sums + column, column == 0);
  for (size_t r = 0; r < R; ++r)
    for (size_t c = 0; c < columns; ++c)
      y[r * n + c] = first ? sums[r * kPanelWidth + c] : y[r * n + c] + sums[r * kPanelWidth + c];
}

/// Rows from `row` on in register blocks of R, the rest in halves of it.
template <size_t R, typename W>
HWY_INLINE void rowBlocks(const LinearArgs &args, const W *weight, size_t row, size_t start, size_t depth,
                          size_t column) {
  size_t columns = std::min(kPanelWidth, args.n - column);
  for (; row + R <= args.rows; row += R)
    block<R>(args.x + row * args.k + start, args.k, weight, depth, args.y + row * args.n + column, args.n, columns,
             start == 0);
  if constexpr (R > 1)
    rowBlocks<R / 2>(args, weight, row, start, depth, column);
}

template <typename W> HWY_NOINLINE void panels(const LinearArgs &args, size_t begin, size_t end) {
  for (size_t panel = begin; panel < end; ++panel)
    for (size_t start = 0; start == 0 || start < args.k; start += kDepth) // once for k = 0: zeros
      rowBlocks<kMaxRows>(args, static_cast<const W *>(args.weight) + (panel * args.k + start) * kPanelWidth, 0, start,
                          std::min(kDepth, args.k - start), panel * kPanelWidth);
}

void linearRange(const LinearArgs &args, size_t begin, size_t end) {
  withElement(args.dtype, [&](auto element) { panels<decltype(element)>(args, begin, end); });
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(linearRange);

void linear(const LinearArgs &args, size_t begin, size_t end) { HWY_DYNAMIC_DISPATCH(linearRange)(args, begin, end); }

} // namespace helix::cpu
#endif
