//===- Tensor.h - A tensor of doubles ---------------------------------------===//
#ifndef HELIX_INTERPRETER_TENSOR_H
#define HELIX_INTERPRETER_TENSOR_H

#include "mlir/IR/Types.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"

#include <memory>
#include <vector>

namespace helix {

/// A row-major tensor. Integers (token ids, lengths) are held as doubles too; they are below 2^53.
struct Tensor {
  llvm::SmallVector<int64_t> shape;
  std::vector<double> values;
  /// Of a weight that activations are rounded for: where the blocks of its first dimension end. Else empty.
  std::vector<int64_t> blockEnds;

  Tensor() = default;
  explicit Tensor(llvm::ArrayRef<int64_t> shape, double fill = 0);
  Tensor(llvm::ArrayRef<int64_t> shape, std::vector<double> values);

  int64_t rank() const { return shape.size(); }
  int64_t size() const { return values.size(); }
  /// Elements of the last dimension.
  int64_t width() const { return shape.back(); }
  /// Where the element at `index` starts; missing trailing indices are 0, so a short index names a row or a block.
  double *at(llvm::ArrayRef<int64_t> index) { return values.data() + offset(index); }
  const double *at(llvm::ArrayRef<int64_t> index) const { return values.data() + offset(index); }

private:
  int64_t offset(llvm::ArrayRef<int64_t> index) const;
};

using TensorRef = std::shared_ptr<const Tensor>;

/// `value` rounded to nearest even in `element`, if that is narrower than f32; f32 and wider keep every bit, because
/// the interpreter says what is computed and not how it is rounded.
double roundTo(mlir::Type element, double value);

} // namespace helix

#endif // HELIX_INTERPRETER_TENSOR_H
