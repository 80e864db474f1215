//===- Simulate.h - When each command of a step runs -----------------------===//
#ifndef HELIX_LIB_PERF_SIMULATE_H
#define HELIX_LIB_PERF_SIMULATE_H

#include "lib/Perf/Program.h"

#include <span>

namespace helix::perf {

/// When a command holds its stream, in seconds from the step's start.
struct Timing {
  double start = 0;
  double begin = 0; ///< of a collective: when its last rank came to it; else start
  double end = 0;
};

/// A command of a simulated rank.
struct Place {
  uint32_t rank = 0, command = 0;
};

struct Simulation {
  double seconds = 0;                       ///< of the step: TTL if it decodes
  std::vector<std::vector<Timing>> timings; ///< [simulated rank][command]
  std::vector<Place> criticalPath;          ///< in time; each starts as the one before ends
  Price spent[kPhases];    ///< along the critical path, by phase; with eventSeconds they make up `seconds`
  double eventSeconds = 0; ///< along the critical path: events, and what a step takes around its commands

  // Of the first simulated rank.
  double computeSeconds = 0;       ///< that its commands run, collectives apart
  double communicationSeconds = 0; ///< that a collective is under way
  double exposedSeconds = 0;       ///< that a collective is under way and nothing else runs
  double memoryUse = 0;            ///< bytes of the step over what the memory moves in that time
  double computeUse = 0;           ///< FLOPs likewise, each at its dtype's peak
  double linkUse = 0;              ///< bytes sent likewise, over the link inside a domain
};

/// Simulates a rank whose peers come to collectives when it does: that with the most to do.
bool simulate(const Program &program, const Hardware &hardware, Simulation &result, Error &error);

/// Simulates all ranks, which wait for each other in collectives. Programs are the same but for the sizes of their
/// work. False and SimulationImpossible if they are not, or if a wait stands before its record.
bool simulate(std::span<const Program> ranks, const Hardware &hardware, Simulation &result, Error &error);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_SIMULATE_H
