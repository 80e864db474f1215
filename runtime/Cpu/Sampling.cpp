//===- Sampling.cpp - Primitives of sampling over a row of local logits ----===//
#include "runtime/Cpu/Sampling.h"
#include "runtime/Cpu/Noise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Sampling.cpp"
#include "hwy/foreach_target.h"

#include "hwy/contrib/math/math-inl.h"
#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <cmath>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Index of the first logit from `from` on that is not at most `threshold` (so NaN stops too), or `count`.
size_t nextAbove(const float *logits, size_t from, size_t count, float threshold) {
  const F32 d;
  Vec bound = hn::Set(d, threshold);
  while (from + kLanes <= count && hn::AllTrue(d, hn::Le(hn::LoadU(d, logits + from), bound)))
    from += kLanes;
  while (from < count && logits[from] <= threshold)
    ++from;
  return from;
}

/// Sum of e^(scale (x - max)) in f64, to 1 ulp per term; every logit is at most `max` and none is NaN.
double sumExponentials(const float *logits, size_t count, float max, double scale) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> half;
  constexpr size_t lanes = hn::MaxLanes(d);
  auto total = hn::Zero(d), shift = hn::Set(d, max), factor = hn::Set(d, scale);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto x = hn::PromoteTo(d, hn::LoadU(half, logits + i));
    total = hn::Add(total, hn::Exp(d, hn::Mul(hn::Sub(x, shift), factor)));
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < count; ++i)
    sum += std::exp((double(logits[i]) - max) * scale);
  return sum;
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(nextAbove);
HWY_EXPORT(sumExponentials);

bool comesBefore(const Candidate &a, const Candidate &b) {
  bool aNaN = std::isnan(a.value), bNaN = std::isnan(b.value);
  if (aNaN != bNaN)
    return aNaN;
  if (!aNaN && a.value != b.value)
    return a.value > b.value;
  return a.id < b.id;
}

size_t topCandidates(const float *logits, size_t count, int64_t firstId, size_t limit, Candidate *out) {
  limit = std::min(limit, count);
  if (limit == 0)
    return 0;
  // A heap with the last of the kept candidates on top.
  for (size_t i = 0; i < limit; ++i)
    out[i] = {logits[i], firstId + int64_t(i)};
  std::make_heap(out, out + limit, comesBefore);
  for (size_t i = limit;; ++i) {
    // Ids ascend, so an equal value does not displace the one that was there first.
    i = HWY_DYNAMIC_DISPATCH(nextAbove)(logits, i, count, out[0].value);
    if (i == count)
      break;
    Candidate next{logits[i], firstId + int64_t(i)};
    if (!comesBefore(next, out[0]))
      continue;
    std::pop_heap(out, out + limit, comesBefore);
    out[limit - 1] = next;
    std::push_heap(out, out + limit, comesBefore);
  }
  std::sort_heap(out, out + limit, comesBefore);
  return limit;
}

Normalizer normalizer(const float *logits, size_t count, double scale) {
  const float lowest = -std::numeric_limits<float>::infinity();
  float max = lowest;
  // The next logit that is not at most the largest so far, which a NaN never is.
  for (size_t i = 0; (i = HWY_DYNAMIC_DISPATCH(nextAbove)(logits, i, count, max)) < count; ++i) {
    max = logits[i];
    if (std::isnan(max) || max == -lowest)
      return {max, std::numeric_limits<double>::quiet_NaN()};
  }
  if (max == lowest)
    return {lowest, 0};
  return {max, HWY_DYNAMIC_DISPATCH(sumExponentials)(logits, count, max, scale)};
}

Normalizer mergeNormalizers(const Normalizer &a, const Normalizer &b, double scale) {
  if (std::isnan(a.max) || std::isnan(b.max))
    return std::isnan(a.max) ? a : b;
  if (a.sum == 0 || b.sum == 0)
    return a.sum == 0 ? b : a;
  float max = std::max(a.max, b.max);
  return {max, a.sum * std::exp(scale * (double(a.max) - max)) + b.sum * std::exp(scale * (double(b.max) - max))};
}

double logSumExp(const Normalizer &normalizer, double scale) {
  return scale * normalizer.max + std::log(normalizer.sum);
}

double gumbelNoise(uint64_t seed, uint64_t sequence, uint32_t position, uint32_t tokenId) {
  // Half a unit more than 52 bits is exact.
  double u = (double(noiseBits(seed, sequence, position, tokenId)) + 0.5) * 0x1p-52;
  return -std::log(-std::log(u));
}

} // namespace helix::cpu
#endif
