//===- Mix.h - Heads rearranged and rotated --------------------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_MIX_H
#define HELIX_LIB_IMPORT_ONNX_MIX_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// sign * base[source], times a column of a table at the token's position if there is one.
struct MixTerm {
  int64_t source = 0;
  double sign = 1;
  std::shared_ptr<const Table> table = {};
  int64_t column = 0;
};

/// Activations whose elements along the last dimension are sums of few of `base`'s: slices, halves swapped and negated,
/// products with cos and sin. What exporters write for a rotary embedding, in whatever order, is one such sum per
/// element, and as that it is recognised.
struct Mix {
  View base = {};
  /// The last dimension, or the several that it is seen as.
  llvm::SmallVector<int64_t> inner = {};
  std::vector<llvm::SmallVector<MixTerm, 1>> elements = {};
  /// A factor of all of it.
  double scale = 1;

  llvm::SmallVector<int64_t> shape() const;
};

/// Slice, Split, Gather, Concat, Neg, Mul, Add and the like where they cut activations, or rearrange or rotate their
/// last dimension.
bool isOfMix(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importOnMix(Entry &entry, const onnx::NodeProto &node);

/// x [batch, tokens, heads, width] rotated by tables of r columns each, 2 r at most the width. `positions` are those
/// the tables have, if they say.
mlir::FailureOr<mlir::Value> rotate(Entry &entry, const onnx::NodeProto &node, mlir::Value x, const StoredTensor &cos,
                                    const StoredTensor &sin, bool interleaved);

/// A part of the width of heads rotated by two tables: pairs (i, i + r), or (2 i, 2 i + 1) if interleaved.
mlir::FailureOr<Mix> rotatePart(Entry &entry, const onnx::NodeProto &node, const Mix &part,
                                const std::shared_ptr<const Table> &cos, const std::shared_ptr<const Table> &sin,
                                bool interleaved);

/// Columns of tables as one constant [context, columns], the stored one itself where it is that.
mlir::FailureOr<const StoredTensor *> columnsOf(Entry &entry, const onnx::NodeProto &node, llvm::StringRef name,
                                                llvm::ArrayRef<MixTerm> columns);

/// The numbers of a table at one position, along its last dimension: nothing if they differ along others.
std::optional<std::vector<double>> plainRow(const Table &table, int64_t position);

/// A table over all of its last dimension.
llvm::SmallVector<MixTerm> allColumns(const std::shared_ptr<const Table> &table);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_MIX_H
