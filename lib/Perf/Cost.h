//===- Cost.h - Seconds of one command -------------------------------------===//
#ifndef HELIX_LIB_PERF_COST_H
#define HELIX_LIB_PERF_COST_H

#include "lib/Perf/Hardware.h"

#include <cstdint>

namespace helix::perf {

/// What a command does on one rank, at given lengths.
struct Work {
  CommandClass kind = CommandClass::Elementwise;
  double weightBytes = 0;     ///< read of weight matrices and embedding rows
  double kvBytes = 0;         ///< read from or written to the KV cache
  double activationBytes = 0; ///< all other memory traffic
  double flops = 0;
  DType dtype = DType::F32; ///< whose peak the FLOPs run at
  double fraction = 1;      ///< of the command that it is a chunk of

  double bytes() const { return weightBytes + kvBytes + activationBytes; }
};

/// A collective on one rank. Its group is `peers` ranks, `stride` apart, of `ranks` in all.
struct Exchange {
  CollectiveKind kind = CollectiveKind::AllToAll;
  uint32_t peers = 1, stride = 1, ranks = 1;
  double sentBytes = 0; ///< by each rank; see allToAllBytes and allReduceBytes
  double fraction = 1;  ///< of the exchange that it is a chunk of
};

/// Bytes that a rank sends: `chunkBytes` to each other peer.
double allToAllBytes(uint32_t peers, double chunkBytes);

/// Bytes that a rank sends to sum `elements` f32 values in a defined order: to each other peer its share of the partial
/// sums, then its own share of the whole; shares are rounded up.
double allReduceBytes(uint32_t peers, uint64_t elements);

/// Seconds, by what they are spent on. Of a command, memory or compute, whichever takes longer; memory's in proportion
/// to the bytes.
struct Price {
  double weights = 0, kv = 0, activations = 0; ///< memory traffic
  double compute = 0;
  double transfer = 0;          ///< bytes of a collective on a link
  double opLatency = 0;         ///< fixed part of a command
  double collectiveLatency = 0; ///< fixed part of a collective

  double total() const { return weights + kv + activations + compute + transfer + opLatency + collectiveLatency; }
  Price &operator+=(const Price &other);
};

/// max(bytes / (efficiency * bandwidth), flops / (efficiency * peak)) + latency, where `ranks` ranks are at work.
Price price(const Work &work, const Hardware &hardware, uint32_t ranks);

/// alpha + bytes / beta on the link inside a domain; of a group that goes beyond its domain, the share of the bytes
/// that crosses goes over the outside link at the same time, and the slower of the two counts. The group with the
/// largest such share is priced. Nothing for a group of one.
Price price(const Exchange &exchange, const Hardware &hardware);

/// The largest share of a rank's messages that leave its domain: of any rank, among the peers - 1 others.
double shareOutside(const Exchange &exchange, uint32_t domain);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_COST_H
