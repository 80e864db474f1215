//===- VerifyCaches.h - Caches are used linearly ---------------------------===//
#ifndef HELIX_PASSES_VERIFYCACHES_H
#define HELIX_PASSES_VERIFYCACHES_H

#include "passes/Entries.h"

namespace helix {

/// Checks that `entry` takes (ids, past, q_len, caches…) and returns (logits, the same caches…), and that each cache is
/// used linearly: no version is read or appended to after it was appended to, which would copy all of it. Emits HLX2003
/// and HLX2004. `entry` has one block; regions of the helix dialect inside count as part of it.
mlir::LogicalResult verifyEntry(mlir::func::FuncOp entry);

} // namespace helix

#endif // HELIX_PASSES_VERIFYCACHES_H
