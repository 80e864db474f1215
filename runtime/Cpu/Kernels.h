//===- Kernels.h - CPU kernels that an artifact's commands call ------------===//
//
// Plain functions over caller-owned memory: no allocation, no state, no locks. Kernels that several threads may share
// take a half-open range of work items; any partition of all items among threads gives the same bits. Activations are
// row-major f32 and need no alignment beyond their element's; rows = batch * tokens. Sizes are in elements.
//
// The result of a row depends neither on the other rows nor on their number.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_KERNELS_H
#define HELIX_RUNTIME_CPU_KERNELS_H

#include "runtime/Cpu/KvLayout.h"
#include "runtime/Cpu/Range.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace helix::cpu {

//===-----------------------------------------------------------------------===//
// Linear
//===-----------------------------------------------------------------------===//

/// Columns of a packed panel. A packed matrix is [panel][k][kPanelWidth], its last panel padded with zeros.
inline constexpr size_t kPanelWidth = 64;

/// Work items of `linear`: panels of an [_, n] matrix.
constexpr size_t linearItems(size_t n) { return (n + kPanelWidth - 1) / kPanelWidth; }

struct LinearArgs {
  const float *x = nullptr;     ///< [rows, k]
  const void *weight = nullptr; ///< [k, n] as loadWeight packs it for WeightUse::Linear
  DType dtype = DType::F32;     ///< of the weight
  float *y = nullptr;           ///< [rows, n]
  size_t rows = 0, k = 0, n = 0;
};

/// y = x · weight for the columns of panels [begin, end). Products are summed in f32 in ascending k, in blocks of 256
/// whose sums are added in order.
void linear(const LinearArgs &args, size_t begin, size_t end);

//===-----------------------------------------------------------------------===//
// Token rows
//===-----------------------------------------------------------------------===//

struct EmbeddingArgs {
  const int64_t *ids = nullptr; ///< [rows]
  const void *table = nullptr;  ///< [vocabulary, hidden], the ids firstId … firstId + vocabulary - 1
  DType dtype = DType::F32;     ///< of the table
  float *y = nullptr;           ///< [rows, hidden]
  size_t rows = 0, vocabulary = 0, hidden = 0;
  int64_t firstId = 0;
  bool tied = false; ///< the table is a matrix [hidden, vocabulary] in panels, as `linear` reads it
};

/// Items are rows. An id that the table does not hold, whatever it is, gives zeros.
void embedding(const EmbeddingArgs &args, size_t begin, size_t end);

struct LastTokenArgs {
  const float *x = nullptr;      ///< [batch, tokens, hidden]
  const int32_t *qLen = nullptr; ///< [batch], 0 … tokens
  float *y = nullptr;            ///< [batch, 1, hidden]; zeros where qLen is 0
  size_t batch = 0, tokens = 0, hidden = 0;
};

/// Items are batch rows.
void lastToken(const LastTokenArgs &args, size_t begin, size_t end);

struct ConcatPart {
  const float *x = nullptr; ///< [rows, width]
  size_t width = 0;
};

struct ConcatArgs {
  std::span<const ConcatPart> parts;
  float *y = nullptr; ///< [rows, sum of widths]
  size_t rows = 0;
};

/// Sets the parts side by side. Items are rows.
void concat(const ConcatArgs &args, size_t begin, size_t end);

//===-----------------------------------------------------------------------===//
// Attention
//===-----------------------------------------------------------------------===//

struct KvAppendArgs {
  const float *key = nullptr;    ///< [batch, tokens, cache.heads, cache.keyDim]
  const float *value = nullptr;  ///< [batch, tokens, cache.heads, cache.valueDim]
  const int32_t *past = nullptr; ///< [batch] tokens that each slot held before
  const int32_t *qLen = nullptr; ///< [batch], 0 … tokens
  KvCache cache;
  uint32_t batch = 0, tokens = 0;
};

/// Items of kvAppend: (sequence, token), token fastest.
constexpr size_t kvAppendItems(const KvAppendArgs &args) { return size_t(args.batch) * args.tokens; }

/// Writes the tokens that this rank owns, rounded to the cache's type (nearest even). Slot b is batch row b.
/// past[b] + qLen[b] must not exceed the slot's capacity.
void kvAppend(const KvAppendArgs &args, size_t begin, size_t end);

/// Writes small numbers where the first `tokens` tokens of a slot lie on this rank, for timing.
void kvFill(const KvCache &cache, uint64_t slot, uint64_t tokens);

struct AttentionArgs {
  const float *q = nullptr;                ///< [batch, tokens, heads, cache.keyDim]
  const int32_t *past = nullptr;           ///< [batch] position of query token 0
  const int32_t *qLen = nullptr;           ///< [batch], 0 … tokens
  KvCache cache;                           ///< holds the new tokens already
  float *send = nullptr;                   ///< [kvp, batchCount, tokenCount, paddedHeads / kvp, valueDim + 1]
  uint32_t tokens = 0;                     ///< of q
  uint32_t batchBegin = 0, batchCount = 0; ///< the sequences to attend for
  uint32_t tokenBegin = 0, tokenCount = 0; ///< and their query tokens
  uint32_t heads = 0;                      ///< query heads, a multiple of cache.heads
  uint32_t paddedHeads = 0;                ///< a multiple of kvp, at least heads
  float scale = 1;
  float softcap = 0;             ///< scores become softcap * tanh(score / softcap); 0: they stay as they are
  uint64_t window = 0;           ///< the newest tokens that a query token sees, itself included; 0: all
  const float *slopes = nullptr; ///< [heads], or null: score += slope * (position of the key - that of the query)
  float *partials = nullptr;     ///< attentionPartials(…) floats that all threads share, or null
};

/// Work items: (sequence of the chunk, KV head, block of query tokens), the last fastest; attentionQueryBlock tokens
/// are one item. With `partials` (sequence, KV head, segment of about 2048 local tokens), so that a few long sequences
/// have many: then their number depends on the lengths.
size_t attentionItems(const AttentionArgs &args);
uint32_t attentionQueryBlock(const AttentionArgs &args);

/// The items of one of `parts` threads, of about as many cached tokens as any other's.
Range attentionShare(const AttentionArgs &args, size_t part, size_t parts);

/// Floats of `partials`; 0 where the query tokens are more than an item's: there are items enough without.
size_t attentionPartials(const AttentionArgs &args);

/// To be called once before the items of `args` are dealt to threads.
void beginAttention(const AttentionArgs &args);

/// Floats of scratch that each thread needs.
size_t attentionScratch(const AttentionArgs &args);

/// Attention of each query token over the cached tokens of this rank at global positions 0 … past[b] + t, or the last
/// `window` of them: scale, cap, slope, then softmax. For every
/// head the output, then the natural-log log-sum-exp of its scaled scores. o = 0 and lse = -inf for padding heads,
/// tokens t >= qLen[b] and where this rank holds no visible token. Cache slots that are not visible are not part of the
/// result, whatever they hold; a NaN in visible ones shows.
///
/// A sequence is split into runs of about 128 local tokens from its start, and every 16 runs into segments; partial sums
/// of the runs of a segment, then of the segments, are combined in order. A row's bits depend neither on the chunk that
/// it is in nor on `partials`.
/// The exponential is accurate to 2 ulp, the hyperbolic tangent to 4.
void partialAttention(const AttentionArgs &args, size_t begin, size_t end, float *scratch);

/// Partials of a run of sequences, or of a run of every sequence's tokens.
struct MergeChunk {
  const float *stacked = nullptr; ///< [peers, count, tokens, heads, valueDim + 1] or [peers, batch, count, heads, …]
  uint32_t count = 0;
};

struct MergeArgs {
  std::span<const MergeChunk> chunks; ///< in order; their counts sum to batch, or to tokens
  bool alongTokens = false;
  float *y = nullptr; ///< [batch, tokens, heads, valueDim]
  uint32_t peers = 0, batch = 0, tokens = 0, heads = 0, valueDim = 0;
  const float *sinks = nullptr; ///< [heads], or null: a score that takes weight and gives no value
};

/// Items of mergeAttention: (row, head), head fastest.
constexpr size_t mergeItems(const MergeArgs &args) { return size_t(args.batch) * args.tokens * args.heads; }

/// Exact attention from the peers' partials, in ascending peer order; peers with lse = -inf are skipped, zero if all
/// are, the one peer's output itself if there is one and no sink; a NaN shows. A sink counts once, whatever the peers.
void mergeAttention(const MergeArgs &args, size_t begin, size_t end);

//===-----------------------------------------------------------------------===//
// Reduction
//===-----------------------------------------------------------------------===//

/// out[i] = ((buffers[0][i] + buffers[1][i]) + buffers[2][i]) + … for i in [begin, end), count >= 1. `out` may be one
/// of the buffers.
void reduceOrdered(float *out, const float *const *buffers, size_t count, size_t begin, size_t end);

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_KERNELS_H
