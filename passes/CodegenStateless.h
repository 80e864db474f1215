//===- CodegenStateless.h - Commands of stateless entries ------------------===//
#ifndef HELIX_PASSES_CODEGENSTATELESS_H
#define HELIX_PASSES_CODEGENSTATELESS_H

#include "dialects/Plan/Plan.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/IRMapping.h"

namespace helix {

/// The command that does the op's work, made at `builder`; its result. `map` leads from values of the helix dialect to
/// those of the plan.
mlir::Value commandOf(mlir::OpBuilder &builder, const mlir::IRMapping &map, DenseAttentionOp op);
mlir::Value commandOf(mlir::OpBuilder &builder, const mlir::IRMapping &map, RotateOp op);
mlir::Value commandOf(mlir::OpBuilder &builder, const mlir::IRMapping &map, ScatterOp op);
mlir::Value commandOf(mlir::OpBuilder &builder, const mlir::IRMapping &map, TransposeOp op);

/// The `helix.io` of a stateless function's arguments or results, from their attributes; null for another function.
mlir::ArrayAttr portsOf(mlir::ArrayAttr attributes);

/// Ends a stateless entry. An output that no command makes, but that is an input, is a copy of it; so is one that is
/// another in another shape.
void returnOutputs(mlir::OpBuilder &builder, const mlir::IRMapping &map, mlir::func::ReturnOp op);

} // namespace helix

#endif // HELIX_PASSES_CODEGENSTATELESS_H
