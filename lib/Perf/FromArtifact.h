//===- FromArtifact.h - An entry of an artifact as a program ---------------===//
#ifndef HELIX_LIB_PERF_FROMARTIFACT_H
#define HELIX_LIB_PERF_FROMARTIFACT_H

#include "lib/Artifact/Reader.h"
#include "lib/Perf/Program.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace helix::perf {

/// Of each slot of an entry: tokens that are cached when the step begins, and new ones in it; 0: the slot is idle.
struct Lengths {
  std::vector<uint64_t> past, newTokens;
};

/// Types to price a plan in, whatever it was compiled for.
struct Assumed {
  std::optional<DType> weights; ///< of matrices and embedding tables, not of norms and other vectors
  std::optional<DType> kv;
};

/// The index of the entry of that kind. False and SimulationImpossible if there is none.
bool findEntry(const artifact::Artifact &artifact, artifact::EntryKind kind, uint32_t &entry, Error &error);

/// `sequences` slots whose caches hold `context` tokens when the step is over, all of an entry's new tokens among them;
/// the other slots are idle. False and SimulationImpossible if the artifact has no room for that.
bool uniformLengths(const artifact::Artifact &artifact, uint32_t entry, uint64_t sequences, uint64_t context,
                    Lengths &lengths, Error &error);

/// What a rank does in a step. Costs are the artifact's coefficients at these lengths; of a command's bytes, those of
/// matrices, embedding rows and the cache are told apart. Rank 0 holds the most of every sequence. False and
/// SimulationImpossible if a command has no cost.
bool programOf(const artifact::Artifact &artifact, uint32_t entry, const Lengths &lengths, const Assumed &assumed,
               uint32_t rank, Program &program, Error &error);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_FROMARTIFACT_H
