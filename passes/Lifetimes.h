//===- Lifetimes.h - From when to when a value needs its bytes -------------===//
#ifndef HELIX_PASSES_LIFETIMES_H
#define HELIX_PASSES_LIFETIMES_H

#include "dialects/Plan/Plan.h"

namespace helix {

/// A value that lives in an arena, needed from command `begin` to command `end`, both included. Two values whose
/// lifetimes meet may not share bytes; so no command writes over what it reads.
struct Lifetime {
  mlir::OpResult value;
  plan::Arena arena;
  int64_t bytes;
  int64_t begin, end;

  bool meets(const Lifetime &other) const { return begin <= other.end && other.begin <= end; }
};

/// The lifetimes of an entry's values, in program order. Operands and results of collectives live in the comm arena,
/// all others in the device arena.
///
/// A value is needed from the command that makes it to the last one that reads it, the logits to the entry's end. What
/// a collective reads or writes may be read by its peers even after it is done on this rank: a slower peer has not
/// fetched its part yet. This rank knows that they all have once a later collective in which they all take part is
/// done, for each of them entered that one behind the first. Until then such a value keeps its bytes; if there is no
/// such collective, to the entry's end: an entry starts when all ranks have finished the one before.
llvm::SmallVector<Lifetime> lifetimesOf(plan::EntryOp entry, MeshAttr mesh);

} // namespace helix

#endif // HELIX_PASSES_LIFETIMES_H
