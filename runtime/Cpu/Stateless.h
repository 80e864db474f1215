//===- Stateless.h - CPU kernels of stateless functions --------------------===//
//
// As those of Kernels.h, but plain loops: correct and no faster than they need be. What they compute is said at the ops
// of the helix dialect of these names.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_STATELESS_H
#define HELIX_RUNTIME_CPU_STATELESS_H

#include <cstddef>
#include <cstdint>
#include <span>

namespace helix::cpu {

/// How far scores have come when they are the result; Values: the values that they weigh are.
enum class ScoreStage : uint8_t { Values, Scaled, Capped, Masked, Probabilities };

struct DenseAttentionArgs {
  const float *q = nullptr;                   ///< [batch, heads, tokens, keyDim]
  const float *key = nullptr;                 ///< [batch, kvHeads, keys, keyDim]
  const float *value = nullptr;               ///< [batch, kvHeads, keys, valueDim], at the stage Values
  const float *mask = nullptr;                ///< of maskShape, or null
  const uint8_t *truths = nullptr;            ///< the same, in place of `mask`
  const int64_t *lengths = nullptr;           ///< [batch], each 0 … keys, or null
  float *y = nullptr;                         ///< [batch, heads, tokens, valueDim], or keys at another stage
  uint32_t maskShape[4] = {};                 ///< repeats to [batch, heads, tokens, up to keys]
  uint32_t batch = 0, heads = 0, kvHeads = 0; ///< heads: a multiple of kvHeads
  uint32_t tokens = 0, keys = 0, keyDim = 0, valueDim = 0;
  float scale = 1;
  float softcap = 0;             ///< 0: none
  int64_t offset = 0;            ///< position of query 0, where there are no lengths
  int64_t left = -1, right = -1; ///< keys that a query sees before and behind its position; -1: all
  ScoreStage stage = ScoreStage::Values;
};

/// Work items: rows (sequence, head, query), the last fastest.
constexpr size_t denseAttentionItems(const DenseAttentionArgs &args) {
  return size_t(args.batch) * args.heads * args.tokens;
}

/// Floats of scratch that each thread needs.
constexpr size_t denseAttentionScratch(const DenseAttentionArgs &args) { return args.keys; }

/// Sums are in f64, scores in f32. A key that a query does not see is not part of its result, whatever it and its value
/// hold; a row that sees none is zero.
void denseAttention(const DenseAttentionArgs &args, size_t begin, size_t end, float *scratch);

struct RotateArgs {
  const float *x = nullptr;           ///< [batch, heads, tokens, dim]
  const float *cos = nullptr;         ///< [rows, half]
  const float *sin = nullptr;         ///< [rows, half]
  const int64_t *positions = nullptr; ///< [batch, tokens], each 0 … rows - 1; null: token t of sequence b has a row
  float *y = nullptr;                 ///< as x
  uint32_t batch = 0, heads = 0, tokens = 0, dim = 0, half = 0;
  uint64_t rows = 0;
  bool interleaved = false;
};

/// Items are rows (sequence, head, token).
void rotate(const RotateArgs &args, size_t begin, size_t end);

struct ScatterArgs {
  const float *update = nullptr;    ///< [batch, outer, tokens, inner]
  const float *cache = nullptr;     ///< [batch, outer, capacity, inner]
  const int64_t *indices = nullptr; ///< [batch], or null: 0. Not negative; index + tokens <= capacity if not circular
  float *y = nullptr;               ///< as cache
  uint64_t batch = 0, outer = 0, tokens = 0, capacity = 0, inner = 0;
  bool circular = false;
};

/// Items are (sequence, outer).
void scatter(const ScatterArgs &args, size_t begin, size_t end);

struct TransposeArgs {
  static constexpr unsigned maxRank = 8;
  const float *x = nullptr;
  float *y = nullptr;
  unsigned rank = 0;              ///< 1 … maxRank
  uint64_t sizes[maxRank] = {};   ///< of y
  uint64_t strides[maxRank] = {}; ///< of x, for each dimension of y
};

/// Rows of y: everything but its last dimension.
constexpr size_t transposeItems(const TransposeArgs &args) {
  size_t rows = 1;
  for (unsigned d = 0; d + 1 < args.rank; ++d)
    rows *= args.sizes[d];
  return rows;
}

void transpose(const TransposeArgs &args, size_t begin, size_t end);

/// Whether every number is from `least` to `most`.
bool areWithin(std::span<const int64_t> numbers, int64_t least, int64_t most);

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_STATELESS_H
