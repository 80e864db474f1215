//===- Symbolic.h - Nodes on formulas, constants and tables of positions ---===//
#ifndef HELIX_LIB_IMPORT_ONNX_SYMBOLIC_H
#define HELIX_LIB_IMPORT_ONNX_SYMBOLIC_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// One dimension cut by a Slice.
struct Cut {
  int64_t axis = 0;
  LinearInt first = {}, count = {};
  int64_t step = 1;
};

/// A node with its parameters resolved.
struct Parsed {
  llvm::StringRef op;
  /// How many of the first operands are data rather than parameters.
  int data = 0;
  /// Axes, a permutation and the like.
  llvm::SmallVector<int64_t> numbers = {};
  /// Shapes.
  llvm::SmallVector<LinearInt> sizes = {};
  /// Starts, ends, axes and steps of Slice as given.
  std::optional<IntTensor> starts = {}, ends = {};
  llvm::SmallVector<int64_t> axes = {}, steps = {};
  std::optional<Dense::Type> type = {};
  bool exclusive = false, reverse = false, upper = true;
  double fill = 0;
  LinearInt diagonal = {};
};

/// An error that the node's result cannot be followed.
llvm::LogicalResult notFollowed(Entry &entry, const onnx::NodeProto &node);

/// Axes made non-negative, checked and sorted; nothing if they do not fit.
std::optional<llvm::SmallVector<int64_t>> normalAxes(llvm::ArrayRef<int64_t> axes, int64_t rank);
/// A permutation of `rank` dimensions, reversed if none is given.
std::optional<llvm::SmallVector<int64_t>> normalPerm(llvm::ArrayRef<int64_t> perm, int64_t rank);
/// The cuts of a Slice of a tensor of this shape.
std::optional<llvm::SmallVector<Cut>> cutsOf(const Parsed &parsed, llvm::ArrayRef<LinearInt> shape, LengthRange range);

/// The shape that a Reshape of `from` asks for, with 0 (the size as it was) and -1 (what is left) replaced; nothing if
/// it has another number of elements or is not known.
std::optional<llvm::SmallVector<LinearInt, 4>> resolveSizes(llvm::ArrayRef<LinearInt> from,
                                                            llvm::ArrayRef<LinearInt> given);

/// The node on formulas.
std::optional<Grid> onGrids(const Parsed &parsed, llvm::ArrayRef<Grid> operands, LengthRange range);

/// The node on constants of these shapes.
std::optional<DenseOp> denseOp(const Parsed &parsed, llvm::ArrayRef<int64_t> shape);
/// Rows of a constant at the positions of the new tokens; null if it has none to read.
std::shared_ptr<const Table> rowsByPosition(Entry &entry, const StoredTensor &stored);

/// The node on numbers that depend on the position.
llvm::LogicalResult importOnTables(Entry &entry, const onnx::NodeProto &node, const Parsed &parsed);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_SYMBOLIC_H
