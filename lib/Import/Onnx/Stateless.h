//===- Stateless.h - Models as functions of plain tensors ------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_STATELESS_H
#define HELIX_LIB_IMPORT_ONNX_STATELESS_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// Imports one node of a stateless function: those ops whose operands are plain tensors there, others as in a decoder.
mlir::LogicalResult importStatelessNode(Entry &entry, const onnx::NodeProto &node);

/// `value`, row-major, in another shape of as many elements.
mlir::Value reshaped(Entry &entry, mlir::Value value, llvm::ArrayRef<int64_t> shape);

/// The value with its dimensions in another order.
mlir::Value transposed(Entry &entry, mlir::Value value, llvm::ArrayRef<int64_t> permutation);

/// `value` as activations: with at least three dimensions, which generated kernels need, seen in its own shape.
View rowsView(Entry &entry, mlir::Value value);

/// What the graph sees, as a value of that shape: numbers are moved where it takes that.
mlir::Value wholeOf(Entry &entry, const View &view);

/// Operand `index` as a float tensor of the shape that the graph sees; an error if it is anything else.
mlir::FailureOr<mlir::Value> tensorAt(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as an input of i64, or of truths; an error if it is none or has another shape. Null if it is left
/// out.
mlir::FailureOr<mlir::Value> integersAt(Entry &entry, const onnx::NodeProto &node, int index,
                                        llvm::ArrayRef<int64_t> shape);

/// [batch, tokens, heads * width] as [batch, heads, tokens, width], or four dimensions as they are; an error if the
/// heads do not divide it.
mlir::FailureOr<mlir::Value> headsFirst(Entry &entry, const onnx::NodeProto &node, mlir::Value value, int64_t heads);

/// The inverse for a result: three dimensions if `isFlat`.
mlir::Value headsBack(Entry &entry, mlir::Value value, bool isFlat);

mlir::LogicalResult importDenseAttention(Entry &entry, const onnx::NodeProto &node);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_STATELESS_H
