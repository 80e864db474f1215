//===- Linalg.h - Outlined kernels as linalg, for every target -------------===//
#ifndef HELIX_LIB_CODEGEN_LINALG_H
#define HELIX_LIB_CODEGEN_LINALG_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace helix::codegen {

/// What a kernel moves and computes over all of its rows.
struct KernelCost {
  double bytes = 0, flops = 0;
};

/// Rewrites the body of `kernel`, which `helix-fuse` outlined, as `linalg.generic` ops on tensors whose first two
/// dimensions are the rows [batch, tokens] and whose last is contiguous:
///
/// - runs of elementwise ops of one shape become one op, which reads what `helix.broadcast` repeats as it is;
/// - `helix.rms_norm` becomes a sum of squares over the last dimension and a scaling by it;
/// - `helix.layer_norm` becomes a sum, a sum of squared differences from the mean, and a scaling by both;
/// - `helix.row_statistic` becomes such sums, and what is made of them;
/// - `helix.position_embedding` becomes a look-up of the row's position;
/// - `helix.rope` becomes a look-up of the rows' cosines and sines, shared by all heads, and a rotation.
///
/// Emits HLX2050 for a kernel that is anything else.
mlir::FailureOr<KernelCost> lowerToLinalg(mlir::func::FuncOp kernel);

} // namespace helix::codegen

#endif // HELIX_LIB_CODEGEN_LINALG_H
