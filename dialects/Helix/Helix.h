//===- Helix.h - The helix dialect: everything a user of it includes -------===//
#ifndef HELIX_DIALECTS_HELIX_HELIX_H
#define HELIX_DIALECTS_HELIX_HELIX_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dialects/Helix/HelixEnums.h.inc"

#include "dialects/Helix/HelixDialect.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/Helix/HelixAttrs.h.inc"

#define GET_TYPEDEF_CLASSES
#include "dialects/Helix/HelixTypes.h.inc"

#define GET_OP_CLASSES
#include "dialects/Helix/HelixOps.h.inc"

namespace helix {
/// The view that an axis belongs to.
View viewOf(Axis axis);

/// Bytes that a rank holds of a tensor of numbers or, if its type has that encoding, of codes with what belongs to their
/// blocks. Codes of one row fill whole bytes. Static shapes only.
int64_t heldBytes(mlir::RankedTensorType type);

/// Names of the attributes that the passes leave on modules, functions and ops.
inline constexpr llvm::StringLiteral kMeshAttr = "helix.mesh";
inline constexpr llvm::StringLiteral kFfnRanksAttr = "helix.ffn_ranks";
inline constexpr llvm::StringLiteral kEntryAttr = "helix.entry";
inline constexpr llvm::StringLiteral kIOAttr = "helix.io";
inline constexpr llvm::StringLiteral kShardingAttr = "helix.sharding";
inline constexpr llvm::StringLiteral kPhaseAttr = "helix.phase";
inline constexpr llvm::StringLiteral kKernelAttr = "helix.kernel";
} // namespace helix

#endif // HELIX_DIALECTS_HELIX_HELIX_H
