//===- Lifetimes.h - From when to when a value needs its bytes -------------===//
#ifndef HELIX_PASSES_LIFETIMES_H
#define HELIX_PASSES_LIFETIMES_H

#include "passes/Order.h"

namespace helix {

/// A value that lives in an arena. Two values whose lifetimes meet may not share bytes.
struct Lifetime {
  mlir::OpResult value;
  plan::Arena arena;
  int64_t bytes;
  /// Per stream, how many of its commands are done when the one that makes the value starts.
  llvm::ArrayRef<int64_t> start;
  /// Per stream, how many of its commands must be done before the value's bytes are free.
  llvm::SmallVector<int64_t, 4> end;

  /// Whether the value is gone when the other comes.
  bool endsBefore(const Lifetime &other) const {
    return llvm::all_of(llvm::zip(end, other.start), [](auto pair) { return std::get<0>(pair) <= std::get<1>(pair); });
  }
  bool meets(const Lifetime &other) const { return !endsBefore(other) && !other.endsBefore(*this); }
};

/// The lifetimes of an entry's values, in the order of issue; they refer to `order`, which is the entry's. Operands and
/// results of collectives live in the comm arena, all others in the device arena.
///
/// A value's bytes are free for a command that is known to start when all that write or read it are done, whatever
/// their streams; so no command writes over what it reads. The logits stay to the entry's end. What a collective reads
/// or writes may be read by its peers even after it is done on this rank: a slower peer has not fetched its part yet.
/// This rank knows that they all have once a later collective in which they all take part is done, for each of them
/// entered that one behind the first. Until then such a value keeps its bytes; if there is no such collective, to the
/// entry's end: an entry starts when all ranks have finished the one before.
llvm::SmallVector<Lifetime> lifetimesOf(plan::EntryOp entry, MeshAttr mesh, const Order &order);

} // namespace helix

#endif // HELIX_PASSES_LIFETIMES_H
