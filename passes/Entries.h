//===- Entries.h - What passes ask of a module's entries -------------------===//
#ifndef HELIX_PASSES_ENTRIES_H
#define HELIX_PASSES_ENTRIES_H

#include "dialects/Helix/Helix.h"
#include "helix/Errors.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace helix {

/// The functions of the module that have a `helix.entry`.
inline llvm::SmallVector<mlir::func::FuncOp> entriesOf(mlir::ModuleOp module) {
  return llvm::filter_to_vector(module.getOps<mlir::func::FuncOp>(),
                                [](mlir::func::FuncOp f) { return f->hasAttr(kEntryAttr); });
}

/// Whether the function is a stateless entry: of named tensors, for one rank, without caches.
inline bool isStateless(mlir::func::FuncOp entry) {
  auto signature = llvm::dyn_cast_or_null<EntryAttr>(entry->getAttr(kEntryAttr));
  return signature && signature.isStateless();
}

/// Positions of a decoder entry's arguments; caches follow.
enum EntryArgument : unsigned { kIds = 0, kPast = 1, kQLen = 2, kFirstCache = 3 };

/// ceil(a / b) for positive b.
inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace helix

#endif // HELIX_PASSES_ENTRIES_H
