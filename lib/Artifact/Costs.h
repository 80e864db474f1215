//===- Costs.h - What a command costs in a step ----------------------------===//
#ifndef HELIX_LIB_ARTIFACT_COSTS_H
#define HELIX_LIB_ARTIFACT_COSTS_H

#include "lib/Artifact/Artifact_generated.h"

#include <cstdint>
#include <span>

namespace helix::artifact {

/// Tokens of the first `length` of a sequence that a kvp rank holds, in round-robin blocks.
uint64_t localLength(uint64_t length, uint32_t block, uint32_t kvp, uint32_t rank);

/// What the coefficients of a command's cost are multiplied with on one rank.
struct CostLengths {
  double queries = 0;       ///< used query tokens
  double cached = 0;        ///< cached tokens of the rank per sequence, as far as a query token sees them
  double queriesCached = 0; ///< over query tokens, the cached tokens that each sees

  double cachedBytes(const Cost &cost) const {
    return cost.bytes_per_cached() * cached + cost.bytes_per_query_cached() * queriesCached;
  }
  double bytes(const Cost &cost) const { return cost.bytes() + cost.bytes_per_query() * queries + cachedBytes(cost); }
  double flops(const Cost &cost) const {
    return cost.flops() + cost.flops_per_query() * queries + cost.flops_per_cached() * cached +
           cost.flops_per_query_cached() * queriesCached;
  }
};

/// Of a command in a step in which each slot of the entry holds `past` tokens and takes `newTokens`. Attention counts
/// the slots, query tokens and window that are its own; the coefficients of a chunk are those of its share of the
/// entry's slots and tokens, so sums over it are divided by that share.
CostLengths costLengths(const Artifact &artifact, const Entry &entry, const Command &command,
                        std::span<const uint64_t> past, std::span<const uint64_t> newTokens, uint32_t kvpRank);

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_COSTS_H
