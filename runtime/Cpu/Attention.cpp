//===- Attention.cpp - Partial attention over a rank's share of the cache --===//
//
// A sequence's local tokens are cut into splits of about 128, whose partial sums join a running state in order, and
// every 16 splits into segments, whose states join in order. Where there are not enough query tokens to keep threads
// busy, segments are the work items: each leaves its state in shared memory, and whoever ends the last one joins them.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Attention.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/AttentionSplit-inl.h"

#include <atomic>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

State stateAt(const Item &item, float *from) {
  size_t rows = itemRows(item.args);
  float *maxima = from + rows * item.outputStride;
  return {from, maxima, maxima + rows};
}

bool isEmpty(const State &state, size_t row) { return state.sums[row] == 0 && state.maxima[row] == kLowest; }

/// `state` becomes that of its tokens and, after them, those of `later`.
void join(const Item &item, const State &state, const State &later) {
  const F32 d;
  for (size_t row = 0; row < item.rows(); ++row) {
    float *output = state.output + row * item.outputStride, *other = later.output + row * item.outputStride;
    if (isEmpty(later, row))
      continue;
    if (isEmpty(state, row)) {
      std::copy_n(other, item.outputStride, output);
      state.maxima[row] = later.maxima[row];
      state.sums[row] = later.sums[row];
      continue;
    }
    float rescale, weight;
    joinMaxima<1>(state.maxima + row, later.maxima + row, &rescale, &weight);
    state.sums[row] = state.sums[row] * rescale + later.sums[row] * weight;
    for (size_t i = 0; i < item.outputStride; i += kLanes)
      hn::StoreU(hn::MulAdd(hn::LoadU(d, other + i), hn::Set(d, weight),
                            hn::Mul(hn::LoadU(d, output + i), hn::Set(d, rescale))),
                 d, output + i);
  }
}

/// The state of one segment; D dimensions of keys lie together.
template <typename T, size_t D> HWY_NOINLINE void attend(const Item &item, uint64_t segment) {
  std::fill_n(item.state.output, item.rows() * item.outputStride, 0.0f);
  std::fill_n(item.state.maxima, item.rows(), kLowest);
  std::fill_n(item.state.sums, item.rows(), 0.0f);
  packQueries(item);
  // Splits count from the sequence's start, whatever the window; those before it have nothing to do.
  uint64_t tokens = segmentTokens(item.args.cache), oldest = item.seen.begin / item.splitTokens * item.splitTokens;
  uint64_t start = std::max(segment * tokens, oldest), end = std::min((segment + 1) * tokens, item.seen.end);
  Runs buffers[2], *runs = buffers, *next = buffers + 1;
  findRuns(item, start, *runs);
  for (; start < end; start += item.splitTokens, std::swap(runs, next)) {
    findRuns(item, start + item.splitTokens, *next);
    split<T, D>(item, start, *runs, *next);
  }
}

void attendSegment(const Item &item, uint64_t segment) {
  withCacheElement(item.args.cache.dtype, [&](auto element) {
    using T = decltype(element);
    if constexpr (std::is_same_v<T, BFloat>)
      if (item.args.cache.keyTogether == 2)
        return attend<T, 2>(item, segment);
    attend<T, 1>(item, segment);
  });
}

/// The results of an item's rows, of its query tokens that are not in use up to `last`, and of padding heads.
void finish(const Item &item, size_t last) {
  const AttentionArgs &args = item.args;
  size_t dims = args.cache.valueDim;
  for (size_t row = 0; row < item.rows(); ++row) {
    float *to = sendRow(args, item.sequence, item.token(row), item.head(row)), sum = item.state.sums[row];
    if (sum == 0) {
      writeEmpty(args, to);
      continue;
    }
    const float *output = item.state.output + row * item.outputStride;
    for (size_t i = 0; i < dims; ++i)
      to[i] = output[i] / sum * args.cache.valueScale;
    to[dims] = static_cast<float>(item.state.maxima[row] + std::log(static_cast<double>(sum)));
  }
  for (size_t t = item.firstToken + item.tokens; t < last; ++t)
    for (size_t head = item.kvHead * item.group; head < (item.kvHead + 1) * item.group; ++head)
      writeEmpty(args, sendRow(args, item.sequence, t, head));
  // Padding belongs to the last KV head's items.
  for (size_t t = item.firstToken; t < last && item.kvHead + 1 == args.cache.heads; ++t)
    for (size_t head = args.heads; head < args.paddedHeads; ++head)
      writeEmpty(args, sendRow(args, item.sequence, t, head));
}

Item itemOf(const AttentionArgs &args, size_t sequence, size_t kvHead, size_t first, size_t last, float *scratch) {
  size_t used = usedTokens(args, sequence, first, last);
  return {args,
          sequence,
          kvHead,
          first,
          used,
          args.heads / args.cache.heads,
          scratch,
          scratch + kRowBlock * kScoreStride,
          {},
          outputStride(args.cache),
          splitTokens(args.cache),
          seenBy(args, sequence, first, used),
          args.scale * args.cache.keyScale};
}

/// Items [begin, end) where one is a block of query tokens with all that it sees.
void wholeItems(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  size_t queryBlock = attentionQueryBlock(args), tokenEnd = size_t(args.tokenBegin) + args.tokenCount;
  size_t blocks = (args.tokenCount + queryBlock - 1) / queryBlock, heads = args.cache.heads;
  for (size_t index = begin; index < end; ++index) {
    size_t first = args.tokenBegin + index % blocks * queryBlock, last = std::min(first + queryBlock, tokenEnd);
    Item item = itemOf(args, args.batchBegin + index / blocks / heads, index / blocks % heads, first, last, scratch);
    float *states = item.queries + itemRows(args) * args.cache.keyDim;
    State state = stateAt(item, states), later = stateAt(item, states + stateFloats(args));
    for (uint64_t i = 0; i < item.seen.segments; ++i) {
      item.state = i == 0 ? state : later;
      attendSegment(item, item.seen.segment + i);
      if (i != 0)
        join(item, state, later);
    }
    item.state = state;
    finish(item, last);
  }
}

/// One segment of a sequence and KV head, and the result if it is the last to end.
void segmentItem(const AttentionArgs &args, size_t sequence, size_t kvHead, uint64_t index, float *scratch) {
  size_t last = size_t(args.tokenBegin) + args.tokenCount;
  Item item = itemOf(args, sequence, kvHead, args.tokenBegin, last, scratch);
  size_t pair = (sequence - args.batchBegin) * args.cache.heads + kvHead, size = stateFloats(args);
  float *states = args.partials + counterFloats(args) + pair * mostSegments(args) * size;
  item.state = stateAt(item, states + index * size);
  attendSegment(item, item.seen.segment + index);
  if (item.seen.segments > 1) {
    std::atomic_ref<uint32_t> done(reinterpret_cast<uint32_t *>(args.partials)[pair]);
    if (done.fetch_add(1, std::memory_order_acq_rel) + 1 != item.seen.segments)
      return;
    item.state = stateAt(item, states);
    for (uint64_t i = 1; i < item.seen.segments; ++i)
      join(item, item.state, stateAt(item, states + i * size));
  }
  finish(item, last);
}

/// Items [begin, end) where one is a segment.
void segmentItems(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  size_t at = 0, heads = args.cache.heads;
  for (size_t sequence = args.batchBegin; sequence < args.batchBegin + args.batchCount && at < end; ++sequence) {
    size_t segments = seenBy(args, sequence).segments;
    for (size_t i = std::max(begin, at); i < std::min(end, at + heads * segments); ++i)
      segmentItem(args, sequence, (i - at) / segments, (i - at) % segments, scratch);
    at += heads * segments;
  }
}

void attentionRange(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  if (args.partials)
    segmentItems(args, begin, end, scratch);
  else
    wholeItems(args, begin, end, scratch);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace helix::cpu {

HWY_EXPORT(attentionRange);

uint32_t attentionQueryBlock(const AttentionArgs &args) {
  // About 64 rows: enough to use a key or value many times from cache, few enough that their sums stay there too.
  uint32_t group = args.heads / args.cache.heads;
  return std::max(1u, std::min(args.tokenCount, 64 / group));
}

void beginAttention(const AttentionArgs &args) {
  if (args.partials)
    std::fill_n(reinterpret_cast<uint32_t *>(args.partials), size_t(args.batchCount) * args.cache.heads, 0u);
}

size_t attentionPartials(const AttentionArgs &args) {
  if (args.tokenCount > attentionQueryBlock(args))
    return 0;
  return counterFloats(args) + args.batchCount * size_t(args.cache.heads) * mostSegments(args) * stateFloats(args);
}

size_t attentionItems(const AttentionArgs &args) {
  if (args.partials) {
    size_t segments = 0;
    for (size_t sequence = args.batchBegin; sequence < args.batchBegin + args.batchCount; ++sequence)
      segments += seenBy(args, sequence).segments;
    return segments * args.cache.heads;
  }
  size_t block = attentionQueryBlock(args);
  return args.batchCount * size_t(args.cache.heads) * ((args.tokenCount + block - 1) / block);
}

size_t attentionScratch(const AttentionArgs &args) {
  return kRowBlock * kScoreStride + itemRows(args) * args.cache.keyDim + 2 * stateFloats(args);
}

Range attentionShare(const AttentionArgs &args, size_t part, size_t parts) {
  if (!args.partials) {
    size_t items = attentionItems(args);
    return {items * part / parts, items * (part + 1) / parts};
  }
  // What an item costs beside its tokens, in tokens.
  constexpr uint64_t overhead = 64;
  uint64_t total = 0, heads = args.cache.heads, segment = segmentTokens(args.cache);
  auto weight = [&](const Seen &seen) { return seen.end - seen.begin + overhead; };
  for (size_t sequence = args.batchBegin; sequence < args.batchBegin + args.batchCount; ++sequence)
    total += heads * weight(seenBy(args, sequence));
  // The item whose start is nearest.
  auto itemAt = [&](uint64_t position) {
    uint64_t items = 0;
    for (size_t sequence = args.batchBegin; sequence < args.batchBegin + args.batchCount; ++sequence) {
      Seen seen = seenBy(args, sequence);
      uint64_t each = weight(seen);
      if (position < heads * each)
        return items + position / each * seen.segments +
               std::min(seen.segments, (position % each + segment / 2) / segment);
      position -= heads * each;
      items += heads * seen.segments;
    }
    return items;
  };
  return {itemAt(total * part / parts), itemAt(total * (part + 1) / parts)};
}

void partialAttention(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  HWY_DYNAMIC_DISPATCH(attentionRange)(args, begin, end, scratch);
}

} // namespace helix::cpu
#endif
