//===- Costs.cpp - What a command costs in a step --------------------------===//
#include "lib/Artifact/Costs.h"
#include "lib/Artifact/Validate.h"

#include <algorithm>

namespace helix::artifact {

uint64_t localLength(uint64_t length, uint32_t block, uint32_t kvp, uint32_t rank) {
  uint64_t round = uint64_t(block) * kvp, begin = uint64_t(rank) * block, rest = length % round;
  return length / round * block + (rest > begin ? std::min<uint64_t>(rest - begin, block) : 0);
}

CostLengths costLengths(const Artifact &artifact, const Entry &entry, const Command &command,
                        std::span<const uint64_t> past, std::span<const uint64_t> newTokens, uint32_t kvpRank) {
  Chunk batch{0, entry.batch()}, tokens{0, entry.tokens()};
  uint64_t window = 0;
  if (const auto *attention = command.work_as_PartialAttention()) {
    batch = batchChunk(*attention);
    tokens = tokenChunk(*attention);
    window = attention->window();
  }
  auto held = [&](uint64_t length) {
    return artifact.kv() ? localLength(length, artifact.kv()->block(), artifact.mesh()->kvp(), kvpRank) : 0;
  };
  // Of the tokens up to position `last`, those that one at `first` still sees.
  auto seen = [&](uint64_t first, uint64_t last) {
    return double(held(last + 1) - (window != 0 && first + 1 > window ? held(first + 1 - window) : 0));
  };
  CostLengths lengths;
  for (uint32_t b = batch.begin; b < batch.begin + batch.count; ++b) {
    uint64_t begin = past[b] + std::min<uint64_t>(tokens.begin, newTokens[b]);
    uint64_t end = past[b] + std::min<uint64_t>(uint64_t(tokens.begin) + tokens.count, newTokens[b]);
    if (begin == end)
      continue;
    lengths.queries += double(end - begin);
    lengths.cached += seen(begin, end - 1);
    for (uint64_t position = begin; position < end; ++position)
      lengths.queriesCached += seen(position, position);
  }
  double share = double(batch.count) / entry.batch() * tokens.count / entry.tokens();
  lengths.queries /= share;
  lengths.cached /= batch.count;
  lengths.queriesCached /= share;
  return lengths;
}

} // namespace helix::artifact
