//===- Attention.cpp - Partial attention over a rank's share of the cache --===//
#include "runtime/Cpu/Kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Attention.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#ifndef HELIX_RUNTIME_CPU_ATTENTION_ONCE
#define HELIX_RUNTIME_CPU_ATTENTION_ONCE
namespace helix::cpu {
namespace {

/// Local tokens of a partial sum: whole pages, about 256 tokens.
uint64_t splitTokens(const KvCache &cache) { return std::max<uint64_t>(1, 256 / cache.block) * cache.block; }

/// The widest vector of any target and the largest row block, for sizes of scratch.
constexpr size_t kWidest = 16, kRowBlock = 4;

size_t scoreStride(const KvCache &cache) { return splitTokens(cache) + kWidest; }
size_t outputStride(const KvCache &cache) { return (size_t(cache.valueDim) + kWidest - 1) / kWidest * kWidest; }

/// Where a query head's result for a token goes in the packed send buffer.
float *sendRow(const AttentionArgs &args, size_t b, size_t t, size_t head) {
  size_t perPeer = args.paddedHeads / args.cache.kvp, peer = head / perPeer;
  size_t sequence = b - args.batchBegin, token = t - args.tokenBegin;
  size_t row = ((peer * args.batchCount + sequence) * args.tokenCount + token) * perPeer + head % perPeer;
  return args.send + row * (size_t(args.cache.valueDim) + 1);
}

void writeEmpty(const AttentionArgs &args, float *row) {
  std::fill_n(row, args.cache.valueDim, 0.0f);
  row[args.cache.valueDim] = -std::numeric_limits<float>::infinity();
}

} // namespace
} // namespace helix::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

static_assert(kLanes <= kWidest && kMaxRows == kRowBlock);

/// One work item: the rows (token, head of the group) of a block of query tokens, and their running partial sums.
struct Item {
  const AttentionArgs &args;
  size_t sequence, kvHead;
  size_t firstToken, tokens;                ///< query tokens that are in use
  size_t group;                             ///< query heads per KV head
  float *scores = nullptr;                  ///< [kRowBlock, scoreStride]
  float *output = nullptr;                  ///< [rows, outputStride], not yet divided by the sum
  float *maxima = nullptr, *sums = nullptr; ///< [rows]
  size_t scoreStride = 0, outputStride = 0;
  uint64_t splitTokens = 0, end = 0; ///< tokens of a split, and those that the last row sees
  size_t lineMask = 0;               ///< one in lineMask + 1 dimensions of a page's keys starts a cache line

  size_t rows() const { return tokens * group; }
  size_t token(size_t row) const { return firstToken + row / group; }
  size_t head(size_t row) const { return kvHead * group + row % group; }
  const float *query(size_t row) const {
    return args.q + ((sequence * args.tokens + token(row)) * args.heads + head(row)) * args.cache.keyDim;
  }
  uint64_t position(size_t row) const { return uint64_t(args.past[sequence]) + token(row); }
  uint64_t localLength(uint64_t length) const {
    return kvLocalLength(length, args.cache.rank, args.cache.block, args.cache.kvp);
  }
  /// Local tokens that lie at positions up to the row's.
  uint64_t visible(size_t row) const { return localLength(position(row) + 1); }
  /// Local tokens that lie before the row's window.
  uint64_t hidden(size_t row) const {
    uint64_t length = position(row) + 1;
    return args.window == 0 || length <= args.window ? 0 : localLength(length - args.window);
  }
};

/// The rows of a register block within one split.
struct Block {
  size_t row;     ///< the first
  uint64_t start; ///< local token at which the split starts
  /// Tokens of the split that each row sees: [from, seen), both ascending, as rows go by query token.
  size_t from[kMaxRows], seen[kMaxRows];
  float rescale[kMaxRows], weight[kMaxRows];
};

/// Scores of R rows against V vectors of tokens. Slots that a row does not see give scores that it does not read. The
/// first row block fetches `value`, the same pages' values: pages are too short for the processor to see what comes
/// next, so values come while keys are used, and the next split's keys while values are.
template <size_t R, size_t V, typename T>
HWY_INLINE void score(const Item &item, const float *const *query, const T *const *key, const T *const *value,
                      const size_t *at, bool fetch) {
  const F32 d;
  const KvCache &cache = item.args.cache;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  for (size_t i = 0; i < cache.keyDim; ++i) {
    if (fetch && (i & item.lineMask) == 0)
      for (size_t v = 0; v < V; ++v)
        prefetch(value[v] + i * cache.block);
    Vec column[V];
    for (size_t v = 0; v < V; ++v)
      column[v] = load(key[v] + i * cache.block);
    for (size_t r = 0; r < R; ++r) {
      Vec element = hn::Set(d, query[r][i]);
      for (size_t v = 0; v < V; ++v)
        sum[r][v] = hn::MulAdd(element, column[v], sum[r][v]);
    }
  }
  // Ascending, so that the lanes past a page's end are overwritten by the next page's.
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      hn::StoreU(hn::Mul(sum[r][v], hn::Set(d, item.args.scale)), d, item.scores + r * item.scoreStride + at[v]);
}

/// `count` vectors of tokens, V at a time, the rest in halves of V.
template <size_t R, size_t V, typename T>
HWY_INLINE void scoreVectors(const Item &item, const float *const *query, const T *const *key, const T *const *value,
                             const size_t *at, bool fetch, size_t count) {
  for (; count >= V; count -= V, key += V, value += V, at += V)
    score<R, V>(item, query, key, value, at, fetch);
  if constexpr (V > 1)
    scoreVectors<R, V / 2>(item, query, key, value, at, fetch, count);
}

template <size_t R, typename T> HWY_INLINE void scoreBlock(const Item &item, const Block &block) {
  const KvCache &cache = item.args.cache;
  constexpr size_t vectors = std::min<size_t>(8, kAccumulators / R);
  const float *query[R];
  for (size_t r = 0; r < R; ++r)
    query[r] = item.query(block.row + r);
  const T *key[vectors], *value[vectors];
  bool fetch = block.row == 0;
  size_t at[vectors], count = 0;
  for (size_t token = block.from[0] / cache.block * cache.block, end = block.seen[R - 1]; token < end;
       token += cache.block) {
    uint64_t page = kvPage(cache, item.sequence, block.start + token);
    const T *keys = static_cast<const T *>(cache.key) + kvKeyIndex(cache, page, item.kvHead, 0);
    const T *values = static_cast<const T *>(cache.value) + kvValueIndex(cache, page, item.kvHead, 0);
    for (size_t offset = 0; offset < cache.block && token + offset < end; offset += kLanes) {
      key[count] = keys + offset;
      value[count] = values + offset;
      at[count] = token + offset;
      if (++count == vectors) {
        score<R, vectors>(item, query, key, value, at, fetch);
        count = 0;
      }
    }
  }
  scoreVectors<R, vectors>(item, query, key, value, at, fetch, count);
}

/// What the scale leaves of a row's scores: the cap, then the slope.
HWY_INLINE void adjust(const Item &item, const Block &block, size_t r) {
  const F32 d;
  float *scores = item.scores + r * item.scoreStride;
  if (item.args.softcap != 0) {
    Vec cap = hn::Set(d, item.args.softcap), inverse = hn::Set(d, 1 / item.args.softcap);
    for (size_t i = block.from[r] / kLanes * kLanes; i < block.seen[r]; i += kLanes)
      hn::StoreU(hn::Mul(cap, tangent(hn::Mul(hn::LoadU(d, scores + i), inverse))), d, scores + i);
  }
  if (item.args.slopes) {
    const KvCache &cache = item.args.cache;
    float slope = item.args.slopes[item.head(block.row + r)];
    auto query = int64_t(item.position(block.row + r));
    for (size_t i = block.from[r]; i < block.seen[r]; ++i) {
      uint64_t local = block.start + i;
      auto key = int64_t((local / cache.block * cache.kvp + cache.rank) * cache.block + local % cache.block);
      scores[i] += slope * float(key - query);
    }
  }
}

/// Turns a row's scores into weights e^(score - m), m the largest of the split, and joins m and their sum with the
/// row's running maximum and sum. A score of NaN makes the sum NaN, whatever the maximum does with it.
HWY_INLINE void softmax(const Item &item, Block &block, size_t r) {
  const F32 d;
  float *scores = item.scores + r * item.scoreStride;
  const float lowest = -std::numeric_limits<float>::infinity();
  size_t begin = block.from[r] / kLanes * kLanes, end = (block.seen[r] + kLanes - 1) / kLanes * kLanes;
  std::fill(scores + begin, scores + block.from[r], lowest);
  std::fill(scores + block.seen[r], scores + end, lowest);
  Vec largest = hn::Set(d, lowest);
  for (size_t i = begin; i < end; i += kLanes)
    largest = hn::Max(largest, hn::LoadU(d, scores + i));
  float m = hn::GetLane(hn::MaxOfLanes(d, largest));
  // Scores of -inf alone weigh nothing; they must not become inf - inf.
  Vec base = hn::Set(d, m == lowest ? 0.0f : m), total = hn::Zero(d);
  for (size_t i = begin; i < end; i += kLanes) {
    Vec weight = exponential(hn::Sub(hn::LoadU(d, scores + i), base));
    hn::StoreU(weight, d, scores + i);
    total = hn::Add(total, weight);
  }
  float &maximum = item.maxima[block.row + r], &sum = item.sums[block.row + r];
  float joint = m > maximum ? m : maximum, shift = joint == lowest ? 0.0f : joint;
  block.rescale[r] = std::exp(maximum - shift);
  block.weight[r] = std::exp(m - shift);
  sum = sum * block.rescale[r] + hn::GetLane(hn::SumOfLanes(d, total)) * block.weight[r];
  maximum = joint;
}

/// Joins the weighted values of a split with the running output, for V vectors of the value's dimensions from `from`
/// on.
template <size_t R, size_t V, typename T> HWY_INLINE void values(const Item &item, const Block &block, size_t from) {
  const F32 d;
  const KvCache &cache = item.args.cache;
  const float *weight = item.scores;
  size_t stride = item.scoreStride;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  const size_t none = block.from[R - 1], all = block.seen[0], end = block.seen[R - 1];
  for (size_t first = block.from[0] / cache.block * cache.block; first < end; first += cache.block) {
    uint64_t page = kvPage(cache, item.sequence, block.start + first);
    const T *value = static_cast<const T *>(cache.value) + kvValueIndex(cache, page, item.kvHead, 0) + from;
    // The keys that the next split needs in this page's place.
    const T *next = nullptr;
    if (block.row == 0 && from == 0 && block.start + first + item.splitTokens < item.end)
      next = static_cast<const T *>(cache.key) +
             kvKeyIndex(cache, kvPage(cache, item.sequence, block.start + first + item.splitTokens), item.kvHead, 0);
    size_t token = first, pageEnd = std::min<size_t>(first + cache.block, end);
    // Tokens that only some rows see, at either end; a weight of 0 would let their NaN through to the others.
    auto some = [&](size_t until) {
      for (; token < until; ++token, value += cache.valueDim)
        for (size_t r = 0; r < R; ++r)
          if (token >= block.from[r] && token < block.seen[r])
            for (size_t v = 0; v < V; ++v)
              sum[r][v] = hn::MulAdd(hn::Set(d, weight[r * stride + token]), load(value + v * kLanes), sum[r][v]);
    };
    some(std::min(pageEnd, none));
    for (size_t common = std::min(pageEnd, all); token < common; ++token, value += cache.valueDim) {
      if (next)
        for (size_t line = 0; line < cache.keyDim; line += 64 / sizeof(T))
          prefetch(next + (token - first) * cache.keyDim + line);
      Vec row[V];
      for (size_t v = 0; v < V; ++v)
        row[v] = load(value + v * kLanes);
      for (size_t r = 0; r < R; ++r) {
        Vec factor = hn::Set(d, weight[r * stride + token]);
        for (size_t v = 0; v < V; ++v)
          sum[r][v] = hn::MulAdd(factor, row[v], sum[r][v]);
      }
    }
    some(pageEnd);
  }
  for (size_t r = 0; r < R; ++r) {
    if (block.from[r] == block.seen[r])
      continue;
    float *output = item.output + (block.row + r) * item.outputStride + from;
    Vec rescale = hn::Set(d, block.rescale[r]), join = hn::Set(d, block.weight[r]);
    for (size_t v = 0; v < V; ++v) {
      Vec before = hn::Mul(hn::LoadU(d, output + v * kLanes), rescale);
      hn::StoreU(hn::MulAdd(sum[r][v], join, before), d, output + v * kLanes);
    }
  }
}

/// All dimensions from `from` on, V vectors at a time, the rest in halves of V.
template <size_t R, size_t V, typename T>
HWY_INLINE void valueVectors(const Item &item, const Block &block, size_t from) {
  size_t end = (item.args.cache.valueDim + kLanes - 1) / kLanes * kLanes;
  for (; from + V * kLanes <= end; from += V * kLanes)
    values<R, V, T>(item, block, from);
  if constexpr (V > 1)
    valueVectors<R, V / 2, T>(item, block, from);
}

/// Rows from `row` on in register blocks of R, the rest in halves of R. What a row computes does not depend on R.
template <size_t R, typename T> HWY_INLINE void split(const Item &item, size_t row, uint64_t start) {
  for (; row + R <= item.rows(); row += R) {
    Block block;
    block.row = row;
    block.start = start;
    for (size_t r = 0; r < R; ++r) {
      auto within = [&](uint64_t local) { return local <= start ? 0 : std::min(local - start, item.splitTokens); };
      block.seen[r] = within(item.visible(row + r));
      block.from[r] = std::min<size_t>(within(item.hidden(row + r)), block.seen[r]);
    }
    // Rows are in order: the first sees the oldest token, the last the newest.
    bool isSeen = false;
    for (size_t r = 0; r < R; ++r)
      isSeen |= block.from[r] != block.seen[r];
    if (!isSeen)
      continue;
    scoreBlock<R, T>(item, block);
    for (size_t r = 0; r < R; ++r)
      if (block.from[r] != block.seen[r]) {
        adjust(item, block, r);
        softmax(item, block, r);
      }
    valueVectors<R, std::min<size_t>(8, kAccumulators / R), T>(item, block, 0);
  }
  if constexpr (R > 1)
    split<R / 2, T>(item, row, start);
}

template <typename T> HWY_NOINLINE void attend(const Item &item) {
  const KvCache &cache = item.args.cache;
  const float lowest = -std::numeric_limits<float>::infinity();
  std::fill_n(item.output, item.rows() * item.outputStride, 0.0f);
  std::fill_n(item.maxima, item.rows(), lowest);
  std::fill_n(item.sums, item.rows(), 0.0f);
  // Splits count from the sequence's start, whatever the window; those before it have nothing to do.
  uint64_t oldest = item.end == 0 ? 0 : item.hidden(0) / item.splitTokens * item.splitTokens;
  for (uint64_t start = oldest; start < item.end; start += item.splitTokens)
    split<kMaxRows, T>(item, 0, start);
  for (size_t row = 0; row < item.rows(); ++row) {
    float *to = sendRow(item.args, item.sequence, item.token(row), item.head(row));
    float sum = item.sums[row];
    if (sum == 0) {
      writeEmpty(item.args, to);
      continue;
    }
    const float *output = item.output + row * item.outputStride;
    for (size_t i = 0; i < cache.valueDim; ++i)
      to[i] = output[i] / sum;
    to[cache.valueDim] = static_cast<float>(item.maxima[row] + std::log(static_cast<double>(sum)));
  }
}

void attendItem(const Item &item) {
  withElement(item.args.cache.dtype, [&](auto element) { attend<decltype(element)>(item); });
}

void attentionRange(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  const KvCache &cache = args.cache;
  size_t queryBlock = attentionQueryBlock(args), group = args.heads / cache.heads, rows = queryBlock * group;
  size_t blocks = (args.tokenCount + queryBlock - 1) / queryBlock, tokenEnd = size_t(args.tokenBegin) + args.tokenCount;
  for (size_t index = begin; index < end; ++index) {
    size_t sequence = args.batchBegin + index / blocks / cache.heads, kvHead = index / blocks % cache.heads;
    size_t first = args.tokenBegin + index % blocks * queryBlock, last = std::min(first + queryBlock, tokenEnd);
    size_t used = std::clamp<int64_t>(args.qLen[sequence], first, last) - first;
    Item item{args, sequence, kvHead, first, used, group};
    item.scoreStride = scoreStride(cache);
    item.outputStride = outputStride(cache);
    item.scores = scratch;
    item.output = item.scores + kRowBlock * item.scoreStride;
    item.maxima = item.output + rows * item.outputStride;
    item.sums = item.maxima + rows;
    item.splitTokens = splitTokens(cache);
    item.end = used == 0 ? 0 : item.visible(item.rows() - 1);
    item.lineMask = std::max<size_t>(1, 64 / std::bit_floor(cache.block * elementBytes(cache.dtype))) - 1;
    attendItem(item);
    for (size_t t = first + used; t < last; ++t)
      for (size_t head = kvHead * group; head < (kvHead + 1) * group; ++head)
        writeEmpty(args, sendRow(args, sequence, t, head));
    // Padding belongs to the last KV head's items.
    for (size_t t = first; t < last && kvHead + 1 == cache.heads; ++t)
      for (size_t head = args.heads; head < args.paddedHeads; ++head)
        writeEmpty(args, sendRow(args, sequence, t, head));
  }
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

size_t attentionItems(const AttentionArgs &args) {
  size_t block = attentionQueryBlock(args);
  return args.batchCount * size_t(args.cache.heads) * ((args.tokenCount + block - 1) / block);
}

size_t attentionScratch(const AttentionArgs &args) {
  size_t rows = size_t(attentionQueryBlock(args)) * (args.heads / args.cache.heads);
  return kRowBlock * scoreStride(args.cache) + rows * (outputStride(args.cache) + 2);
}

void partialAttention(const AttentionArgs &args, size_t begin, size_t end, float *scratch) {
  HWY_DYNAMIC_DISPATCH(attentionRange)(args, begin, end, scratch);
}

} // namespace helix::cpu
#endif
