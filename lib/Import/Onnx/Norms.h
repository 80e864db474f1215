//===- Norms.h - Norms, as ops and out of their parts ----------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_NORMS_H
#define HELIX_LIB_IMPORT_ONNX_NORMS_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// A step of a norm over the last dimension of `x`, or with `centered` of x less its mean.
struct Norm {
  enum class Form {
    Square,      ///< x^2
    Mean,        ///< mean of x
    Centered,    ///< x - mean
    MeanSquare,  ///< mean of x^2, plus epsilon
    Root,        ///< the root of that
    InverseRoot, ///< 1 by the root
    Normed,      ///< x by the root
    Scaled,      ///< that, times `scale` per channel
  };
  Form form = Form::Square;
  View x = {};
  double epsilon = 0;
  bool centered = false;
  const StoredTensor *scale = nullptr;
};

/// Pow, ReduceMean, Sqrt, ... where they are steps of a norm; nothing where they are not.
std::optional<llvm::LogicalResult> importOnNorm(Entry &entry, const onnx::NodeProto &node);

/// x by the root of its mean square, times a constant per channel, plus another if the norm is centered.
mlir::FailureOr<View> normalise(Entry &entry, const onnx::NodeProto &node, const Norm &norm, const StoredTensor &scale,
                                const StoredTensor *bias = nullptr);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_NORMS_H
