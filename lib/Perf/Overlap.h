//===- Overlap.h - In how many chunks to hide a collective -----------------===//
//
// What `auto` of the overlapping passes asks. Each question is answered by simulating the commands that a pass would
// write for every number of chunks, so that the choice and helix-simulate cannot differ.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_LIB_PERF_OVERLAP_H
#define HELIX_LIB_PERF_OVERLAP_H

#include "lib/Perf/Cost.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace helix::perf {

/// `items` in `chunks` parts of whole multiples of `granule` (the last may hold what is left), as even as that allows,
/// larger ones first. At most one chunk per granule: fewer than `chunks` if there are fewer granules.
std::vector<uint64_t> chunkSizes(uint64_t items, uint64_t chunks, uint64_t granule = 1);

/// A command and the collective that carries its result away, of all items that they can be split along.
struct Overlapped {
  Work work;
  Exchange exchange;
  uint64_t items = 1;       ///< sequences or query tokens of attention, columns of a product
  uint64_t granule = 1;     ///< a chunk is a multiple of it
  uint32_t ranks = 1;       ///< of the mesh
  uint64_t elements = 0;    ///< that an all-reduce sums; each rank's share of a chunk is rounded up to whole ones
  double sharedBytes = 0;   ///< of work's activations, what every chunk reads whole: the rows that a product multiplies
  std::optional<Work> join; ///< after the last chunk, if there is more than one: the concatenation of column chunks
};

/// What a split gives.
struct Overlap {
  std::vector<uint64_t> sizes; ///< of the chunks; one: do not split
  double seconds = 0;          ///< from the first chunk's start until the result can be used
  double whole = 0;            ///< seconds of the command and its collective one after the other on one stream
};

/// Seconds with these chunks: chunk i's collective on a stream of its own beside the work of chunk i + 1, with an event
/// each way per chunk. One chunk: one stream, no events.
double overlapSeconds(const Overlapped &site, const std::vector<uint64_t> &sizes, const Hardware &hardware);

/// The number of chunks, at most `maxChunks`, with the least seconds; the smallest of equals.
Overlap chooseOverlap(const Overlapped &site, uint64_t maxChunks, const Hardware &hardware);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_OVERLAP_H
