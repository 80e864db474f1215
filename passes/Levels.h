//===- Levels.h - What makes a module model level, or SPMD level -----------===//
#ifndef HELIX_PASSES_LEVELS_H
#define HELIX_PASSES_LEVELS_H

#include "passes/Entries.h"

namespace helix {

/// Checks that every entry of `module`, at least one, is whole: the right signature, caches used linearly, static
/// shapes, no op or type of the SPMD level. A stateless entry is alone. Emits HLX2003, HLX2004, HLX2005 or HLX2071.
mlir::LogicalResult verifyModelLevel(mlir::ModuleOp module);

/// Checks that every entry of `module`, at least one, is what one rank of its mesh computes: the right signature,
/// caches used linearly and spread over the mesh's kvp, slices that cover their weights, partial values completed by
/// one op, no attention of the model level. A stateless entry is alone, on a mesh of one rank. Emits HLX2003, HLX2004,
/// HLX2005, HLX2070 or HLX2071.
mlir::LogicalResult verifySpmdLevel(mlir::ModuleOp module);

} // namespace helix

#endif // HELIX_PASSES_LEVELS_H
