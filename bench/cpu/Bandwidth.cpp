//===- Bandwidth.cpp - How fast memory can be read -------------------------===//
#include "bench/cpu/Bandwidth.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/cpu/Bandwidth.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace helix::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float readRun(const std::byte *from, size_t lines) {
  const hn::CappedTag<float, 16> d;
  constexpr size_t unrolled = 8;
  const size_t lanes = hn::Lanes(d), perLine = 16 / lanes;
  auto *floats = reinterpret_cast<const float *>(from);
  decltype(hn::Zero(d)) sum[unrolled];
  for (auto &it : sum)
    it = hn::Zero(d);
  size_t vectors = lines * perLine, i = 0;
  for (; i + unrolled <= vectors; i += unrolled) {
    for (size_t line = 0; line < unrolled / perLine; ++line)
      __builtin_prefetch(floats + i * lanes + 16 * line + 1024, 0, 2);
    for (size_t u = 0; u < unrolled; ++u)
      sum[u] = hn::Xor(sum[u], hn::LoadU(d, floats + (i + u) * lanes));
  }
  for (; i < vectors; ++i)
    sum[0] = hn::Xor(sum[0], hn::LoadU(d, floats + i * lanes));
  for (size_t u = 1; u < unrolled; ++u)
    sum[0] = hn::Xor(sum[0], sum[u]);
  return hn::GetLane(hn::SumOfLanes(d, sum[0]));
}

} // namespace helix::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::bench {

HWY_EXPORT(readRun);

float readLines(const std::byte *from, size_t lines) { return HWY_DYNAMIC_DISPATCH(readRun)(from, lines); }

} // namespace helix::bench
#endif
