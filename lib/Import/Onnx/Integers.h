//===- Integers.h - Shapes and lengths, evaluated at import ----------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_INTEGERS_H
#define HELIX_LIB_IMPORT_ONNX_INTEGERS_H

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"

#include <cstdint>

namespace helix::onnximport {

/// constant + total * S + rowFactor * L[row], where S is the second dimension of attention_mask and L[row] the number
/// of ones in that row of it. Batch and query tokens are bound, so nothing else is unknown.
struct LinearInt {
  int64_t constant = 0;
  int64_t total = 0;
  int64_t rowFactor = 0;
  /// 0 where rowFactor is 0.
  int64_t row = 0;
  /// A size that the model does not state. Nothing can be computed with it.
  bool unknown = false;

  bool isConstant() const { return total == 0 && rowFactor == 0 && !unknown; }
  bool operator==(const LinearInt &) const = default;
};

/// A tensor of such integers, row-major.
struct IntTensor {
  llvm::SmallVector<int64_t> shape;
  llvm::SmallVector<LinearInt> elements;

  bool isConstant() const {
    return llvm::all_of(elements, [](const LinearInt &e) { return e.isConstant(); });
  }
};

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_INTEGERS_H
