//===- Caches.h - Past keys and values, and attention over them ------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_CACHES_H
#define HELIX_LIB_IMPORT_ONNX_CACHES_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// Keys or values of all tokens, past and new, as the graph sees them: repeated over the queries of a group,
/// transposed, scaled.
struct Cached {
  /// What a dimension is made of. The size of Head is 1 as long as heads and width are not told apart.
  enum Axis : unsigned { Batch, Head, Repeat, Token, Width };

  /// Of the past input.
  unsigned past = 0;
  /// The new tokens' [batch, tokens, heads, width].
  mlir::Value fresh = {};
  /// What was joined or scattered, by which a graph's output is told to be this cache; and as it was seen, where heads
  /// and width are not told apart yet.
  mlir::Value origin = {};
  View flat = {};
  LinearInt sizes[5] = {};
  Groups groups = {};
  double scale = 1;

  llvm::SmallVector<LinearInt, 4> shape() const;
};

/// Products of queries and keys on their way to the softmax and beyond.
struct Scores {
  enum class Stage { Raw, Capped, Masked, Soft, IsNan };
  Stage stage = Stage::Raw;
  /// [batch, tokens, heads, width].
  mlir::Value q = {};
  /// Their own scale included; behind a softcap the scale within it is scale / softcap.
  Cached key = {};
  double scale = 1, softcap = 0;
  std::vector<Grid> masks = {};
  /// Per query head, times the key's position; none if empty.
  std::vector<double> slopes = {};
  /// Seen as [batch * heads, queries, keys], not [batch, heads, queries, keys].
  bool flat = false;
};

/// Attention as it is made, whatever it came from.
struct AttentionParts {
  /// All [batch, tokens, heads, width]; keys and values of the new tokens, rotated.
  mlir::Value q = {}, k = {}, v = {};
  unsigned pastKey = 0, pastValue = 0;
  double scale = 1, softcap = 0;
  /// Tokens that a query sees, itself the last; 0 for all.
  int64_t window = 0;
  /// Per query head, times the key's position; none if null.
  mlir::Value slopes = {};
  /// One score per query head that takes weight; none if null.
  mlir::Value sinks = {};
  /// Positions for which the model has tables; 0 if it does not say.
  int64_t positions = 0;
  /// Of a cache that the model keeps as int8 codes, whatever the options say; null if it leaves that to them.
  KvScaleAttr codes = {};
};

/// Slopes per query head as a weight.
mlir::FailureOr<mlir::Value> slopesOf(Entry &entry, const onnx::NodeProto &node, const std::vector<double> &slopes);

/// An error unless the past input grows with the sequence: [batch, KV heads, dynamic, head size].
mlir::LogicalResult checkGrowing(Entry &entry, unsigned past);

/// The new tokens of a past input with their heads apart, joined with it.
mlir::FailureOr<Cached> joinPast(Entry &entry, const onnx::NodeProto &node, unsigned past, mlir::Value fresh);

std::optional<Cached> reshapeCached(const Cached &cached, llvm::ArrayRef<LinearInt> shape);

/// Appends, attends. The result is [batch, tokens, heads, width]; the cache's number is given too.
struct AttentionResult {
  mlir::Value value = {};
  unsigned cache = 0;
};
mlir::FailureOr<AttentionResult> makeAttention(Entry &entry, const onnx::NodeProto &node, const AttentionParts &parts);

/// Attention of queries over keys and values that are `Cached`, with the masks proven plain. `causal` says that the op
/// masks by itself, query t seeing keys up to t + past.
mlir::FailureOr<mlir::Value> attend(Entry &entry, const onnx::NodeProto &node, const Scores &scores,
                                    const Cached &value);

/// Whether a query sees itself and what is before it, of that the last `window` tokens if that is not 0, and nothing
/// else; an error otherwise.
mlir::FailureOr<int64_t> windowOf(Entry &entry, const onnx::NodeProto &node, llvm::ArrayRef<Grid> masks);

/// The mask of a causal op without one of its own: key j of S is seen by query i of T where j - i <= offset.
Grid causalMask(Entry &entry, const LinearInt &offset);
/// Query i sees key j from i + offset on.
Grid laterMask(Entry &entry, const LinearInt &offset);

/// Whether each dimension that the graph sees is made of these axes, those of size 1 aside.
bool hasForm(const Cached &cached, llvm::ArrayRef<llvm::SmallVector<unsigned, 3>> form);

/// Reshape, Transpose, Unsqueeze, Squeeze, Expand and Concat where keys and values are concerned.
bool isOfCaches(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importOnCaches(Entry &entry, const onnx::NodeProto &node);

/// What decomposed attention does with the products of queries and keys.
bool isOfScores(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importOnScores(Entry &entry, const onnx::NodeProto &node);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_CACHES_H
