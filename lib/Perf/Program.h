//===- Program.h - What the simulator runs ---------------------------------===//
#ifndef HELIX_LIB_PERF_PROGRAM_H
#define HELIX_LIB_PERF_PROGRAM_H

#include "lib/Perf/Cost.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace helix::perf {

/// Reached once the commands before it on its stream are done.
struct Record {
  uint32_t event = 0;
};

/// Holds its stream up until the event was reached.
struct Wait {
  uint32_t event = 0;
};

/// The part of a layer that a command belongs to, as in the artifact.
enum class Phase : uint8_t { None, Kvp, Tp };
inline constexpr unsigned kPhases = 3;

struct Command {
  std::variant<Work, Exchange, Record, Wait> work;
  uint32_t stream = 0; ///< 0 is compute
  Phase phase = Phase::None;
  int32_t layer = -1; ///< from 0; -1: of no layer
  std::string what;   ///< kind of the command, as "PartialAttention"
  std::string source; ///< name of the ONNX node; may be empty
};

/// One rank's share of a step at given lengths: commands in issue order. Those of one stream run in that order, streams
/// run beside each other. An event is recorded before any wait for it in the list.
struct Program {
  uint32_t ranks = 1; ///< of the mesh
  uint32_t streams = 1;
  uint32_t events = 0;
  uint64_t sequences = 1; ///< active in the step
  uint64_t newTokens = 1; ///< of each
  double weightBytes = 0; ///< that the rank keeps
  double kvBytes = 0;     ///< that its share of the sequences' caches takes
  std::vector<Command> commands;
};

} // namespace helix::perf

#endif // HELIX_LIB_PERF_PROGRAM_H
