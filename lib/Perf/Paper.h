//===- Paper.h - Closed forms of the Helix paper ---------------------------===//
//
// arXiv 2507.07120: per layer, memory traffic alone, no latencies. Kept apart from the simulator, which they check.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_LIB_PERF_PAPER_H
#define HELIX_LIB_PERF_PAPER_H

#include <cstdint>

namespace helix::perf::paper {

/// A dense decoder layer and how it is served. bytesPerSecond is of one device's memory.
struct Layer {
  double batch = 1, context = 1; ///< sequences, tokens of each
  double queryHeads = 1, kvHeads = 1, headSize = 1, ffnWidth = 1;
  double bytesPerElement = 0.5; ///< FP4
  double bytesPerSecond = 8e12; ///< GB200
  double hidden() const { return queryHeads * headSize; }
};

/// B 2 ceil(K/TPA) Hsz (S/KVP) bytes / bandwidth, in seconds. TPA beyond K replicates: ceil gives one head.
double kvSeconds(const Layer &layer, double tpa, double kvp);

/// Over how many devices the output projection is split. The paper's formula prints TPA, its section 2.2 says N.
enum class OutputProjection : uint8_t { OverTpa, OverAll };

/// (2 H (Q/TPA) Hsz + 2 H ceil(K/TPA) Hsz + 3 H F/TPF) bytes / bandwidth, in seconds; with OverAll, the output
/// projection's half of the first term is over N = TPA KVP.
double weightSeconds(const Layer &layer, double tpa, double kvp, double tpf, OutputProjection output);

/// n requests of the same compute and communication time, overlapped: c + (n - 1) max(c, m) + m.
double hopbSeconds(double requests, double compute, double communication);

/// The same in lockstep: n (c + m).
double lockstepSeconds(double requests, double compute, double communication);

} // namespace helix::perf::paper

#endif // HELIX_LIB_PERF_PAPER_H
