//===- Mutants.h - Deliberate bugs, for tests that must see them ------------===//
#ifndef HELIX_INTERPRETER_MUTANTS_H
#define HELIX_INTERPRETER_MUTANTS_H

#include "lib/Interpreter/Machine.h"

namespace helix {

/// A bug in one place. A test suite that cannot tell a mutant from the interpreter would not see such a bug in Helix
/// either. Each says what the mutant does, and where it can show.
enum class Mutant {
  None,
  NoRope,           ///< rope passes its input through
  LocalRope,        ///< rope counts positions by the token's place on its owner; kvp > 1
  Base2Merge,       ///< the merge takes e^x for 2^x; kvp > 1, SPMD level
  UnweightedMerge,  ///< the merge averages the shards that are not empty; kvp > 1, SPMD level
  DoubleAppend,     ///< the first token of each block is written by the next rank too; kvp > 1, SPMD level
  LostAppend,       ///< the first token of each block is written by no rank and read as zeros
  GlobalLength,     ///< a shard takes the global length for its own and reads zeros behind its tokens; kvp > 1
  UniformAttention, ///< every visible token gets the same weight
  HeadShift,        ///< the query heads are shifted by one group; more than one (local) KV head
  BlockOffByOne,    ///< attention finds tokens by a block that is longer by one; kvp > 1, SPMD level
  PeersSwapped,     ///< the first two peers of the all-to-all get each other's heads; kvp > 1, SPMD level
  NoRescaleEmpty,   ///< the merge gives an empty shard the weight of the largest; kvp > 1, SPMD level
  SoftcapAfterMask, ///< masked scores are capped, and so get weight; a softcap, and a window or several query tokens
  SinkPerRank,      ///< every peer of the merge counts the sinks; sinks, kvp > 1, SPMD level
};

/// The names of all mutants, as `no-rope`, in the order of `Mutant`, without `None`.
llvm::ArrayRef<llvm::StringRef> mutantNames();
std::optional<Mutant> symbolizeMutant(llvm::StringRef name);

/// Replaces the ops that `mutant` bends.
void applyMutant(Mutant mutant, OpTable &table);

/// What a mutant's cache holds where nothing was written: zeros, as a cleared buffer would, and not NaN.
double unwritten(Mutant mutant);

} // namespace helix

#endif // HELIX_INTERPRETER_MUTANTS_H
