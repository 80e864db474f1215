//===- Views.h - Activations as the graph sees them ------------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_VIEWS_H
#define HELIX_LIB_IMPORT_ONNX_VIEWS_H

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"

#include <optional>

namespace helix::onnximport {

/// Per dimension that the graph sees, the dimensions of the value that it is the product of, slowest first.
using Groups = llvm::SmallVector<llvm::SmallVector<unsigned, 2>, 4>;

/// A tensor in the order in which it is computed, [batch, tokens, heads, width] for one, and how the graph sees it.
/// What exporters write between products and attention, reshapes and transposes of heads, moves no number: only this.
struct View {
  mlir::Value value = {};
  Groups groups = {};

  llvm::SmallVector<int64_t> shape() const;
};

/// The whole value as it is.
View identityView(mlir::Value value);

/// The view with another shape of as many elements; dimensions of the value are split where it needs that. Nothing if
/// a dimension of the new shape would have to join parts of several.
std::optional<View> reshapeView(mlir::OpBuilder &builder, mlir::Location loc, View view, llvm::ArrayRef<int64_t> shape);

/// `count` elements from `first` on along dimension `axis`, without the dimension if `drop`. Nothing if it is the
/// batch's or the tokens' (dimensions 0 and 1 of the value), or not one dimension of the value. `part` is the cut's
/// value: made if it is null.
std::optional<View> cutView(mlir::OpBuilder &builder, mlir::Location loc, View view, int64_t axis, int64_t first,
                            int64_t count, bool drop, mlir::Value &part);

View transposeView(View view, llvm::ArrayRef<int64_t> perm);

/// Whether both show dimensions of equal values in the same way.
bool sameOrder(const View &a, const View &b);

/// A value of the shape and order that the graph sees. Nothing if numbers would have to move for that.
std::optional<mlir::Value> materialise(mlir::OpBuilder &builder, mlir::Location loc, const View &view);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_VIEWS_H
