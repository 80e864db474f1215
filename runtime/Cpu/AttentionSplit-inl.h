//===- AttentionSplit-inl.h - Attention of a few rows over a split, per target ===//
//
// Included once per target by Attention.cpp. A split is some 128 tokens that lie together in a rank's share of the
// cache; a register block is up to eight rows that share every load of it. For each block: scores [rows, tokens], their
// softmax, the weighted values. The scores stay in the first-level cache, the split in the second.
//
//===-----------------------------------------------------------------------===//
#if defined(HELIX_RUNTIME_CPU_ATTENTIONSPLIT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef HELIX_RUNTIME_CPU_ATTENTIONSPLIT_INL_H
#undef HELIX_RUNTIME_CPU_ATTENTIONSPLIT_INL_H
#else
#define HELIX_RUNTIME_CPU_ATTENTIONSPLIT_INL_H
#endif

#include "runtime/Cpu/AttentionWork.h"
#include "runtime/Cpu/Vector-inl.h"

#include <algorithm>
#include <atomic>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

/// Rows that share a load. More would leave too few accumulators for the vectors that each meets.
inline constexpr size_t kTileRows = kRegisters == 32 ? 8 : 4;

static_assert(kLanes <= kWidest && kTileRows <= kRowBlock);

/// Vectors that R rows have accumulators for.
template <size_t R> constexpr size_t vectorsOf() { return std::min<size_t>(8, kAccumulators / R); }

inline constexpr float kLowest = -std::numeric_limits<float>::infinity();

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
  float *scores = nullptr;   ///< [kRowBlock, kScoreStride]
  float *queries = nullptr;  ///< of each register block of R rows [keyDim, R]
  State state;
  size_t outputStride = 0;
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

/// Tokens of a split that lie in one page.
struct Run {
  const std::byte *key;   ///< [keyDim / keyTogether, block, keyTogether], at the run's first token
  const std::byte *value; ///< [count, valueDim]
  size_t scale;           ///< index of the first token's scale
  size_t token, count;
};

/// All runs of a split, in order.
struct Runs {
  Run run[kSplitTokens + 1]; // pages of one token, or the split starts within one
  size_t count = 0;

  /// The run that holds `token`, a token of the split.
  const Run *at(size_t token) const {
    const Run *it = run;
    while (it->token + it->count <= token)
      ++it;
    return it;
  }
};

/// Those of the split at `start`, as far as the item sees it.
inline void findRuns(const Item &item, uint64_t start, Runs &runs) {
  const KvCache &cache = item.args.cache;
  const size_t bytes = elementBytes(cache.dtype);
  const auto *keys = static_cast<const std::byte *>(cache.key), *values = static_cast<const std::byte *>(cache.value);
  runs.count = 0;
  size_t end = start < item.seen.end ? std::min(item.seen.end - start, item.splitTokens) : 0,
         offset = start % cache.block;
  const int32_t *page = cache.table + item.sequence * cache.pagesPerSlot + start / cache.block;
  for (size_t token = 0; token < end; ++page, offset = 0) {
    size_t count = std::min<size_t>(cache.block - offset, end - token);
    auto physical = uint64_t(*page);
    runs.run[runs.count++] = {keys + kvKeyIndex(cache, physical, item.kvHead, offset) * bytes,
                              values + kvValueIndex(cache, physical, item.kvHead, offset) * bytes,
                              kvScaleIndex(cache, physical, item.kvHead) + offset, token, count};
    token += count;
  }
}

/// Bytes of the next keys to ask for with each vector of weights.
inline constexpr size_t kSoftmaxAhead = 256;

/// What to fetch while a split's weights are made and its values are used: the keys of the next, in the order of their
/// bytes.
struct KeysAhead {
  const Runs *runs = nullptr;
  size_t pageBytes = 0;
  size_t run = 0, byte = 0;
  size_t share = 0; ///< bytes with each dimension of a page's values

  size_t left() const { return runs && run < runs->count ? (runs->count - run) * pageBytes - byte : 0; }

  /// The next `count` bytes; null when all are asked for.
  HWY_INLINE const std::byte *take(size_t count) {
    if (left() == 0)
      return nullptr;
    const std::byte *at = runs->run[run].key + byte;
    for (byte += count; run < runs->count && byte >= pageBytes; ++run)
      byte -= pageBytes;
    return at;
  }
};

//===-----------------------------------------------------------------------===//
// Scores
//===-----------------------------------------------------------------------===//

/// The vectors of the dimensions of keys that lie together at p.
HWY_INLINE void loadDims(const auto *p, Vec (&dims)[1]) { dims[0] = load(p); }
HWY_INLINE void loadDims(const auto *p, Vec (&dims)[2]) { loadTwo(p, dims[0], dims[1]); }

/// Scores of R rows against V vectors of tokens, D dimensions of whose keys lie together. Slots that a row does not see
/// give scores that it does not read. Fetches `value`, the same pages' values, as it goes: pages are too short for the
/// processor to see what comes next, so values come while keys are used, and the next split's keys while values are.
template <size_t R, size_t V, size_t D, typename T>
HWY_INLINE void score(const Item &item, const float *HWY_RESTRICT query, const T *const *key, const T *const *value,
                      const size_t *token) {
  const F32 d;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  const size_t dims = item.args.cache.keyDim, block = item.args.cache.block;
  const T *keys[V];
  for (size_t v = 0; v < V; ++v)
    keys[v] = key[v];
  // The dimensions that lie together from i on. Of four pages they are work enough for a turn of the loop.
  auto add = [&](size_t i, const T *next) HWY_ATTR {
    Vec column[V][D];
    for (size_t v = 0; v < V; ++v)
      loadDims(keys[v] + i * block, column[v]);
    for (size_t dim = 0; dim < D; ++dim, next += V * block) {
      for (size_t line = 0; line < V * kLanes; line += 64 / sizeof(T))
        prefetch(next + line);
      // Spread over the arithmetic: a burst of them would wait for each other, and the loads behind them.
      std::atomic_signal_fence(std::memory_order_seq_cst);
      for (size_t r = 0; r < R; ++r) {
        Vec element = hn::Set(d, query[(i + dim) * R + r]);
        for (size_t v = 0; v < V; ++v)
          sum[r][v] = hn::MulAdd(element, column[v][dim], sum[r][v]);
      }
    }
  };
  for (size_t i = 0, page = 0; page < V; ++page) {
    // One page of values after the other, in the order of their bytes.
    const T *next = value[page];
    size_t end = (page + 1) * dims / (V * D) * D;
    if constexpr (V * D >= 8) {
      HWY_UNROLL(1)
      for (; i < end; i += D, next += D * V * block)
        add(i, next);
    } else {
      HWY_UNROLL(2)
      for (; i < end; i += D, next += D * V * block)
        add(i, next);
    }
  }
  // Ascending, so that the lanes past a page's end are overwritten by the next page's.
  Vec scale = hn::Set(d, item.scale);
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      hn::StoreU(hn::Mul(sum[r][v], scale), d, item.scores + r * kScoreStride + token[v]);
}

/// `count` vectors of tokens, V at a time, the rest in halves of V.
template <size_t R, size_t V, size_t D, typename T>
HWY_INLINE void scoreVectors(const Item &item, const float *query, const T *const *key, const T *const *value,
                             const size_t *token, size_t count) {
  for (; count >= V; count -= V, key += V, value += V, token += V)
    score<R, V, D>(item, query, key, value, token);
  if constexpr (V > 1)
    scoreVectors<R, V / 2, D>(item, query, key, value, token, count);
}

template <size_t R, size_t D, typename T>
HWY_INLINE void scoreBlock(const Item &item, const Block &block, const Runs &runs) {
  constexpr size_t vectors = vectorsOf<R>();
  const float *query = item.queries + block.row * item.args.cache.keyDim;
  bool fetch = block.row == 0;
  const T *key[vectors], *value[vectors];
  size_t at[vectors], count = 0;
  for (const Run *run = runs.at(block.from[0]); run != runs.run + runs.count && run->token < block.seen[R - 1]; ++run)
    for (size_t i = 0; i < run->count; i += kLanes) {
      key[count] = reinterpret_cast<const T *>(run->key) + i * D;
      // Other row blocks find the values fetched: they ask for what they have.
      value[count] = fetch ? reinterpret_cast<const T *>(run->value) + i : key[count];
      at[count] = run->token + i;
      if (++count == vectors) {
        score<R, vectors, D>(item, query, key, value, at);
        count = 0;
      }
    }
  scoreVectors<R, vectors, D>(item, query, key, value, at, count);
}

/// Multiplies a row's numbers of the split's tokens with their scales: scores of key codes, or weights of value codes.
inline void applyScales(const Item &item, const Block &block, const Runs &runs, size_t r, const float *scales) {
  float *numbers = item.scores + r * kScoreStride;
  for (size_t i = 0; i < runs.count; ++i) {
    const Run &run = runs.run[i];
    size_t begin = std::max(run.token, block.from[r]), end = std::min(run.token + run.count, block.seen[r]);
    for (size_t token = begin; token < end; ++token)
      numbers[token] *= scales[run.scale + token - run.token];
  }
}

/// What the scale leaves of a row's scores: the cap, then the slope.
inline void adjust(const Item &item, const Block &block, size_t r) {
  const F32 d;
  float *scores = item.scores + r * kScoreStride;
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

//===-----------------------------------------------------------------------===//
// Softmax
//===-----------------------------------------------------------------------===//

/// Turns the scores of R rows from `row` on into weights e^(score - m), m the largest of the row's scores of the split,
/// and sums them. A score of NaN makes the sum NaN, whatever the maximum does with it. Rows go side by side, as each
/// alone is a chain of dependent instructions.
template <size_t R>
HWY_INLINE void softmax(const Item &item, const Block &block, size_t row, float *maxima, float *sums,
                        KeysAhead &ahead) {
  const F32 d;
  float *scores = item.scores + row * kScoreStride;
  const size_t *from = block.from + row, *seen = block.seen + row;
  size_t begin = from[0] / kLanes * kLanes, end = (seen[R - 1] + kLanes - 1) / kLanes * kLanes;
  Vec largest[R], base[R], total[R];
  for (size_t r = 0; r < R; ++r) {
    float *own = scores + r * kScoreStride;
    std::fill(own + begin, own + from[r], kLowest);
    std::fill(own + seen[r], own + end, kLowest);
    largest[r] = hn::Set(d, kLowest);
  }
  for (size_t i = begin; i < end; i += kLanes)
    for (size_t r = 0; r < R; ++r)
      largest[r] = hn::Max(largest[r], hn::LoadU(d, scores + r * kScoreStride + i));
  for (size_t r = 0; r < R; ++r) {
    maxima[r] = hn::GetLane(hn::MaxOfLanes(d, largest[r]));
    // Scores of -inf alone weigh nothing; they must not become inf - inf.
    base[r] = hn::Set(d, maxima[r] == kLowest ? 0.0f : maxima[r]);
    total[r] = hn::Zero(d);
  }
  for (size_t i = begin; i < end; i += kLanes) {
    if (const std::byte *next = ahead.take(kSoftmaxAhead))
      for (size_t line = 0; line < kSoftmaxAhead; line += 64)
        prefetch(next + line);
    for (size_t r = 0; r < R; ++r) {
      float *own = scores + r * kScoreStride + i;
      Vec weight = exponential(hn::Sub(hn::LoadU(d, own), base[r]));
      hn::StoreU(weight, d, own);
      total[r] = hn::Add(total[r], weight);
    }
  }
  for (size_t r = 0; r < R; ++r)
    sums[r] = hn::GetLane(hn::SumOfLanes(d, total[r]));
}

/// Factors of what R rows have and of what joins it, given the maxima of both; the first becomes the maximum of all.
template <size_t R> HWY_INLINE void joinMaxima(float *maxima, const float *others, float *rescale, float *weight) {
  const F32 d;
  constexpr size_t stride = (R + kLanes - 1) / kLanes * kLanes;
  HWY_ALIGN float exponents[2 * stride] = {};
  for (size_t r = 0; r < R; ++r) {
    float joint = others[r] > maxima[r] ? others[r] : maxima[r], shift = joint == kLowest ? 0.0f : joint;
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
template <size_t R> HWY_NOINLINE void weigh(const Item &item, Block &block, const Runs &runs, KeysAhead &ahead) {
  const KvCache &cache = item.args.cache;
  float maxima[R], sums[R];
  for (size_t r = 0; r < R; ++r) {
    if (cache.keyScales)
      applyScales(item, block, runs, r, cache.keyScales);
    adjust(item, block, r);
  }
  constexpr size_t together = std::min<size_t>(R, 4);
  for (size_t r = 0; r < R; r += together)
    softmax<together>(item, block, r, maxima + r, sums + r, ahead);
  if (cache.valueScales)
    for (size_t r = 0; r < R; ++r)
      applyScales(item, block, runs, r, cache.valueScales);
  joinMaxima<R>(item.state.maxima + block.row, maxima, block.rescale, block.weight);
  for (size_t r = 0; r < R; ++r)
    if (block.from[r] != block.seen[r])
      item.state.sums[block.row + r] = item.state.sums[block.row + r] * block.rescale[r] + sums[r] * block.weight[r];
}

//===-----------------------------------------------------------------------===//
// Values
//===-----------------------------------------------------------------------===//

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

/// Adds the weighted values of tokens [token, end), which only some rows see, to these; a weight of 0 would let their
/// NaN through to the others.
template <size_t R, size_t V, typename T>
HWY_INLINE void addSome(const Block &block, const float *scores, const T *value, size_t dims, size_t token, size_t end,
                        Vec (&sum)[R][V]) {
  for (; token < end; ++token, value += dims)
    for (size_t r = 0; r < R; ++r)
      if (token >= block.from[r] && token < block.seen[r]) {
        Vec row[V], factor = hn::Set(F32(), scores[r * kScoreStride + token]);
        loadRow(value, row);
        for (size_t v = 0; v < V; ++v)
          sum[r][v] = hn::MulAdd(factor, row[v], sum[r][v]);
      }
}

/// Joins the weighted values of a split with the running output, for V vectors of the value's dimensions from `from`
/// on.
template <size_t R, size_t V, typename T>
HWY_INLINE void values(const Item &item, const Block &block, const Runs &runs, KeysAhead &ahead, size_t from) {
  const F32 d;
  const KvCache &cache = item.args.cache;
  Vec sum[R][V];
  for (size_t r = 0; r < R; ++r)
    for (size_t v = 0; v < V; ++v)
      sum[r][v] = hn::Zero(d);
  const float *HWY_RESTRICT scores = item.scores;
  const size_t dims = cache.valueDim, none = block.from[R - 1], all = block.seen[0], last = block.seen[R - 1];
  for (const Run *run = runs.at(block.from[0]); run != runs.run + runs.count && run->token < last; ++run) {
    const T *value = reinterpret_cast<const T *>(run->value) + from;
    const std::byte *next = ahead.take(V * kLanes * ahead.share);
    size_t step = V * kLanes * ahead.share / cache.block;
    if (!next)
      next = reinterpret_cast<const std::byte *>(value); // fetched already
    // All rows see what lies between.
    size_t first = run->token, end = std::min(first + run->count, last), begin = std::min(end, std::max(first, none)),
           stop = std::max(begin, std::min(end, all));
    addSome<R, V>(block, scores, value, dims, first, begin, sum);
    value += (begin - first) * dims;
    HWY_UNROLL(2)
    for (size_t token = begin; token < stop; ++token, value += dims, next += step) {
      for (size_t line = 0; line < V * kLanes * sizeof(T); line += 64)
        prefetch(next + line);
      Vec row[V];
      loadRow(value, row);
      for (size_t r = 0; r < R; ++r) {
        Vec factor = hn::Set(d, scores[r * kScoreStride + token]);
        for (size_t v = 0; v < V; ++v)
          sum[r][v] = hn::MulAdd(factor, row[v], sum[r][v]);
      }
    }
    addSome<R, V>(block, scores, value, dims, stop, end, sum);
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
HWY_INLINE void valueVectors(const Item &item, const Block &block, const Runs &runs, KeysAhead &ahead, size_t from) {
  size_t end = (item.args.cache.valueDim + kLanes - 1) / kLanes * kLanes;
  for (; from + V * kLanes <= end; from += V * kLanes)
    values<R, V, T>(item, block, runs, ahead, from);
  if constexpr (V > 1)
    valueVectors<R, V / 2, T>(item, block, runs, ahead, from);
}

//===-----------------------------------------------------------------------===//
// Rows
//===-----------------------------------------------------------------------===//

/// Lays out the queries as `split` reads them.
template <size_t R = kTileRows> void packQueries(const Item &item, size_t row = 0) {
  size_t dims = item.args.cache.keyDim;
  for (; row + R <= item.rows(); row += R)
    for (size_t r = 0; r < R; ++r)
      for (size_t i = 0; i < dims; ++i)
        item.queries[row * dims + i * R + r] = item.query(row + r)[i];
  if constexpr (R > 1)
    packQueries<R / 2>(item, row);
}

/// Rows from `row` on in register blocks of R, the rest in halves of R, over the split at `start`. What a row computes
/// does not depend on R. Fetches the keys of the split after it.
template <typename T, size_t D, size_t R = kTileRows>
HWY_INLINE void split(const Item &item, uint64_t start, const Runs &runs, const Runs &nextRuns, size_t row = 0) {
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
    scoreBlock<R, D, T>(item, block, runs);
    KeysAhead ahead;
    // Of a page that is longer than a split the keys of a split are no one piece.
    if (row == 0 && item.args.cache.block <= item.splitTokens)
      ahead = {&nextRuns, size_t(item.args.cache.keyDim) * item.args.cache.block * sizeof(T)};
    weigh<R>(item, block, runs, ahead);
    ahead.share = ahead.left() / std::max<size_t>(1, runs.count) / item.args.cache.valueDim;
    valueVectors<R, vectorsOf<R>(), T>(item, block, runs, ahead, 0);
  }
  if constexpr (R > 1)
    split<T, D, R / 2>(item, start, runs, nextRuns, row);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
