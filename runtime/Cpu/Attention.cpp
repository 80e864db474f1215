//===- Attention.cpp - Partial attention over a rank's share of the cache --===//
//
// A sequence's local tokens are cut into splits of about 256, whose partial sums join a running state in order, and
// every 8 splits into segments, whose states join in order. Where there are not enough query tokens to keep threads
// busy, segments are the work items: each leaves its state in shared memory, and whoever ends the last one joins them.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/Cpu/Attention.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#ifndef HELIX_RUNTIME_CPU_ATTENTION_ONCE
#define HELIX_RUNTIME_CPU_ATTENTION_ONCE
namespace helix::cpu {
namespace {

/// Local tokens of a partial sum: whole pages, about 256 tokens.
uint64_t splitTokens(const KvCache &cache) { return std::max<uint64_t>(1, 256 / cache.block) * cache.block; }

uint64_t segmentTokens(const KvCache &cache) { return 8 * splitTokens(cache); }

/// The widest vector of any target and the largest row block, for sizes of scratch.
constexpr size_t kWidest = 16, kRowBlock = 8;

size_t scoreStride(const KvCache &cache) { return splitTokens(cache) + kWidest; }
size_t outputStride(const KvCache &cache) { return (size_t(cache.valueDim) + kWidest - 1) / kWidest * kWidest; }

/// Rows of a work item: (token, head of the group).
size_t itemRows(const AttentionArgs &args) {
  return size_t(attentionQueryBlock(args)) * (args.heads / args.cache.heads);
}

/// Floats of a state of `rows` rows, in whole cache lines: threads write neighbours.
size_t stateFloats(const AttentionArgs &args) {
  return (itemRows(args) * (outputStride(args.cache) + 2) + 15) / 16 * 16;
}

/// Local tokens that query tokens [first, first + used) of a sequence see between them, and their segments.
struct Seen {
  uint64_t begin = 0, end = 0;
  uint64_t segment = 0, segments = 1; ///< the first, and how many; one if there are no tokens
};

Seen seenBy(const AttentionArgs &args, size_t sequence, size_t first, size_t used) {
  if (used == 0)
    return {};
  const KvCache &cache = args.cache;
  auto local = [&](uint64_t length) { return kvLocalLength(length, cache.rank, cache.block, cache.kvp); };
  uint64_t oldest = uint64_t(args.past[sequence]) + first + 1, segment = segmentTokens(cache);
  Seen seen;
  seen.begin = args.window == 0 || oldest <= args.window ? 0 : local(oldest - args.window);
  seen.end = local(oldest + used - 1);
  seen.segment = seen.begin / segment;
  seen.segments = std::max<uint64_t>(1, (seen.end + segment - 1) / segment - seen.segment);
  return seen;
}

/// The query tokens of a work item that are in use.
size_t usedTokens(const AttentionArgs &args, size_t sequence, size_t first, size_t last) {
  return size_t(std::clamp<int64_t>(args.qLen[sequence], int64_t(first), int64_t(last))) - first;
}

/// The same of a sequence, where its query tokens are one item.
Seen seenBy(const AttentionArgs &args, size_t sequence) {
  return seenBy(args, sequence, args.tokenBegin,
                usedTokens(args, sequence, args.tokenBegin, size_t(args.tokenBegin) + args.tokenCount));
}

/// Segments that a sequence can have.
uint64_t mostSegments(const AttentionArgs &args) {
  uint64_t tokens = args.cache.pagesPerSlot * args.cache.block, segment = segmentTokens(args.cache);
  if (args.window != 0) // where it starts within a segment and a page is any place
    tokens = std::min(tokens, args.window + args.tokenCount + segment + args.cache.block);
  return (tokens + segment - 1) / segment + 1;
}

/// Partials start with a counter per (sequence, KV head) of the segments that are done, in whole cache lines.
size_t counterFloats(const AttentionArgs &args) { return (size_t(args.batchCount) * args.cache.heads + 15) / 16 * 16; }

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

/// Rows that share a load. More would leave too few accumulators for the vectors that each meets.
inline constexpr size_t kTileRows = kRegisters == 32 ? 8 : 4;

static_assert(kLanes <= kWidest && kTileRows <= kRowBlock);

/// Vectors that R rows have accumulators for.
template <size_t R> constexpr size_t vectorsOf() { return std::min<size_t>(8, kAccumulators / R); }

/// Sums of rows over some tokens. A row that has seen none has the maximum -inf and the sum 0.
struct State {
  float *output = nullptr;                  ///< [rows, outputStride], not yet divided by the sum
  float *maxima = nullptr, *sums = nullptr; ///< [rows]
};

/// One work item: the rows (token, head of the group) of a block of query tokens, and their running state.
struct Item {
  const AttentionArgs &args;
  size_t sequence, kvHead;
  size_t firstToken, tokens; ///< query tokens that are in use
  size_t group;              ///< query heads per KV head
  float *scores = nullptr;   ///< [kRowBlock, scoreStride]
  State state;
  size_t scoreStride = 0, outputStride = 0;
  uint64_t splitTokens = 0;
  Seen seen;
  float scale = 1; ///< of scores, with the keys' if they share one

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
  size_t from[kTileRows], seen[kTileRows];
  float rescale[kTileRows], weight[kTileRows];
};

/// Scores of R rows against V vectors of tokens. Slots that a row does not see give scores that it does not read.
/// Fetches `value`, the same pages' values, as it goes: pages are too short for the processor to see what comes next,
/// so values come while keys are used, and the next split's keys while values are.
template <size_t R, size_t V, typename T>
HWY_INLINE void score(const Item &item, const float *const *query, const T *const *key, const T *const *value,
                      const size_t *at) {
  const F32 d;
  const KvCache &cache = item.args.cache;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  const size_t dims = cache.keyDim, block = cache.block;
  for (size_t i = 0, page = 0; page < V; ++page) {
    // One page of values after the other, in the order of their bytes.
    const T *next = value[page];
    for (size_t end = (page + 1) * dims / V; i < end; ++i, next += V * block) {
      for (size_t line = 0; line < V * kLanes; line += 64 / sizeof(T))
        prefetch(next + line);
      Vec column[V];
      for (size_t v = 0; v < V; ++v)
        column[v] = load(key[v] + i * block);
      for (size_t r = 0; r < R; ++r) {
        Vec element = hn::Set(d, query[r][i]);
        for (size_t v = 0; v < V; ++v)
          sum[r][v] = hn::MulAdd(element, column[v], sum[r][v]);
      }
    }
  }
  // Ascending, so that the lanes past a page's end are overwritten by the next page's.
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      hn::StoreU(hn::Mul(sum[r][v], hn::Set(d, item.scale)), d, item.scores + r * item.scoreStride + at[v]);
}

/// `count` vectors of tokens, V at a time, the rest in halves of V.
template <size_t R, size_t V, typename T>
HWY_INLINE void scoreVectors(const Item &item, const float *const *query, const T *const *key, const T *const *value,
                             const size_t *at, size_t count) {
  for (; count >= V; count -= V, key += V, value += V, at += V)
    score<R, V>(item, query, key, value, at);
  if constexpr (V > 1)
    scoreVectors<R, V / 2>(item, query, key, value, at, count);
}

template <size_t R, typename T> HWY_INLINE void scoreBlock(const Item &item, const Block &block) {
  const KvCache &cache = item.args.cache;
  constexpr size_t vectors = vectorsOf<R>();
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
      // Other row blocks find the values fetched: they ask for what they have.
      value[count] = fetch ? values + offset : keys + offset;
      at[count] = token + offset;
      if (++count == vectors) {
        score<R, vectors>(item, query, key, value, at);
        count = 0;
      }
    }
  }
  scoreVectors<R, vectors>(item, query, key, value, at, count);
}

/// Multiplies a row's numbers of the split's tokens with their scales: scores of key codes, or weights of value codes.
HWY_INLINE void applyScales(const Item &item, const Block &block, size_t r, const float *scales) {
  const KvCache &cache = item.args.cache;
  float *numbers = item.scores + r * item.scoreStride;
  for (size_t token = block.from[r]; token < block.seen[r];) {
    size_t offset = token % cache.block, end = std::min<size_t>(token - offset + cache.block, block.seen[r]);
    const float *scale = scales + kvScaleIndex(cache, kvPage(cache, item.sequence, block.start + token), item.kvHead);
    for (; token < end; ++token, ++offset)
      numbers[token] *= scale[offset];
  }
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

/// Turns a row's scores into weights e^(score - m), m the largest of the split, which it returns, and sums them. A
/// score of NaN makes the sum NaN, whatever the maximum does with it.
HWY_INLINE float softmax(const Item &item, const Block &block, size_t r, float &sum) {
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
  sum = hn::GetLane(hn::SumOfLanes(d, total));
  return m;
}

/// Factors of what R rows have and of what joins it, given the maxima of both; the first becomes the maximum of all.
template <size_t R> HWY_INLINE void joinMaxima(float *maxima, const float *others, float *rescale, float *weight) {
  const F32 d;
  constexpr size_t stride = (R + kLanes - 1) / kLanes * kLanes;
  const float lowest = -std::numeric_limits<float>::infinity();
  HWY_ALIGN float exponents[2 * stride] = {};
  for (size_t r = 0; r < R; ++r) {
    float joint = others[r] > maxima[r] ? others[r] : maxima[r], shift = joint == lowest ? 0.0f : joint;
    exponents[r] = maxima[r] - shift;
    exponents[stride + r] = others[r] - shift;
    maxima[r] = joint;
  }
  for (size_t i = 0; i < 2 * stride; i += kLanes)
    hn::Store(exponential(hn::Load(d, exponents + i)), d, exponents + i);
  std::copy_n(exponents, R, rescale);
  std::copy_n(exponents + stride, R, weight);
}

/// The weights of R rows, and their running maxima and sums with them.
template <size_t R> HWY_INLINE void weigh(const Item &item, Block &block) {
  const float lowest = -std::numeric_limits<float>::infinity();
  float maxima[R], sums[R];
  for (size_t r = 0; r < R; ++r) {
    maxima[r] = lowest;
    sums[r] = 0;
    if (block.from[r] == block.seen[r])
      continue;
    if (const float *scales = item.args.cache.keyScales)
      applyScales(item, block, r, scales);
    adjust(item, block, r);
    maxima[r] = softmax(item, block, r, sums[r]);
    if (const float *scales = item.args.cache.valueScales)
      applyScales(item, block, r, scales);
  }
  joinMaxima<R>(item.state.maxima + block.row, maxima, block.rescale, block.weight);
  for (size_t r = 0; r < R; ++r)
    if (block.from[r] != block.seen[r])
      item.state.sums[block.row + r] = item.state.sums[block.row + r] * block.rescale[r] + sums[r] * block.weight[r];
}

/// V vectors of elements in the order of loadTwo, and what was made of them in their own order.
template <size_t V, typename T> HWY_INLINE void loadRow(const T *p, Vec (&row)[V]) {
  if constexpr (V == 1)
    row[0] = load(p);
  else
    for (size_t v = 0; v < V; v += 2)
      loadTwo(p + v * kLanes, row[v], row[v + 1]);
}
template <typename T, size_t V> HWY_INLINE void storeRow(const Vec (&row)[V], float *p) {
  if constexpr (V == 1)
    hn::StoreU(row[0], F32(), p);
  else
    for (size_t v = 0; v < V; v += 2)
      storeTwo<T>(row[v], row[v + 1], p + v * kLanes);
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
  const size_t dims = cache.valueDim;
  const size_t none = block.from[R - 1], all = block.seen[0], end = block.seen[R - 1];
  for (size_t first = block.from[0] / cache.block * cache.block; first < end; first += cache.block) {
    uint64_t page = kvPage(cache, item.sequence, block.start + first);
    const T *value = static_cast<const T *>(cache.value) + kvValueIndex(cache, page, item.kvHead, 0) + from;
    // The keys that the next split needs in this page's place, as far from the page's start; else what is here.
    const T *next = value;
    if (block.row == 0 && block.start + first + item.splitTokens < item.seen.end)
      next = static_cast<const T *>(cache.key) + from +
             kvKeyIndex(cache, kvPage(cache, item.sequence, block.start + first + item.splitTokens), item.kvHead, 0);
    size_t token = first, pageEnd = std::min<size_t>(first + cache.block, end);
    // Tokens that only some rows see, at either end; a weight of 0 would let their NaN through to the others.
    auto some = [&](size_t until) {
      for (; token < until; ++token, value += dims)
        for (size_t r = 0; r < R; ++r)
          if (token >= block.from[r] && token < block.seen[r]) {
            Vec row[V], factor = hn::Set(d, weight[r * stride + token]);
            loadRow(value, row);
            for (size_t v = 0; v < V; ++v)
              sum[r][v] = hn::MulAdd(factor, row[v], sum[r][v]);
          }
    };
    some(std::min(pageEnd, none));
    next += (token - first) * dims;
    for (size_t common = std::min(pageEnd, all); token < common; ++token, value += dims, next += dims) {
      for (size_t line = 0; line < V * kLanes; line += 64 / sizeof(T))
        prefetch(next + line);
      Vec row[V];
      loadRow(value, row);
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
    float *output = item.state.output + (block.row + r) * item.outputStride + from;
    Vec rescale = hn::Set(d, block.rescale[r]), join = hn::Set(d, block.weight[r]);
    HWY_ALIGN float sums[V * kLanes];
    storeRow<T>(sum[r], sums);
    for (size_t v = 0; v < V; ++v) {
      Vec before = hn::Mul(hn::LoadU(d, output + v * kLanes), rescale);
      hn::StoreU(hn::MulAdd(hn::Load(d, sums + v * kLanes), join, before), d, output + v * kLanes);
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
    weigh<R>(item, block);
    valueVectors<R, vectorsOf<R>(), T>(item, block, 0);
  }
  if constexpr (R > 1)
    split<R / 2, T>(item, row, start);
}

State stateAt(const Item &item, float *from) {
  size_t rows = itemRows(item.args);
  float *maxima = from + rows * item.outputStride;
  return {from, maxima, maxima + rows};
}

bool isEmpty(const State &state, size_t row) {
  return state.sums[row] == 0 && state.maxima[row] == -std::numeric_limits<float>::infinity();
}

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

/// The state of one segment.
template <typename T> HWY_NOINLINE void attend(const Item &item, uint64_t segment) {
  std::fill_n(item.state.output, item.rows() * item.outputStride, 0.0f);
  std::fill_n(item.state.maxima, item.rows(), -std::numeric_limits<float>::infinity());
  std::fill_n(item.state.sums, item.rows(), 0.0f);
  // Splits count from the sequence's start, whatever the window; those before it have nothing to do.
  uint64_t tokens = segmentTokens(item.args.cache), oldest = item.seen.begin / item.splitTokens * item.splitTokens;
  for (uint64_t start = std::max(segment * tokens, oldest), end = std::min((segment + 1) * tokens, item.seen.end);
       start < end; start += item.splitTokens)
    split<kTileRows, T>(item, 0, start);
}

void attendSegment(const Item &item, uint64_t segment) {
  withCacheElement(item.args.cache.dtype, [&](auto element) { attend<decltype(element)>(item, segment); });
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
          {},
          scoreStride(args.cache),
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
    float *states = scratch + kRowBlock * item.scoreStride;
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
  return kRowBlock * scoreStride(args.cache) + 2 * stateFloats(args);
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
