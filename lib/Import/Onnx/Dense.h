//===- Dense.h - Constants, computed at import -----------------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_DENSE_H
#define HELIX_LIB_IMPORT_ONNX_DENSE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace helix::onnximport {

/// A small constant. Values of f32 are rounded to f32 after each op, so that results are those of an f32 runtime, up
/// to the last bit of transcendental functions.
struct Dense {
  enum class Type { Bool, Int, Float };
  Type type = Type::Float;
  llvm::SmallVector<int64_t, 4> shape = {};
  std::vector<double> values = {};
};

/// An ONNX op on constants, its parameters (axes, shapes, ...) resolved. Meaning of `numbers` by op: Cast: the Type;
/// Transpose: the permutation; Reshape, Expand: the shape; Unsqueeze, Squeeze: the axes, ascending; Concat, Gather: the
/// axis; Slice: axis, first, count and step for each axis that is cut.
struct DenseOp {
  std::string name;
  llvm::SmallVector<int64_t, 8> numbers = {};
};

/// Whether the op works element by element.
bool isElementwise(llvm::StringRef op);

/// The result, or nothing if the shapes do not fit, it would be absurdly large, or the op is not known here.
std::optional<Dense> evaluate(const DenseOp &op, llvm::ArrayRef<Dense> operands);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_DENSE_H
