//===- Simulate.h - What helix-simulate is asked to do, and its parts ------===//
#ifndef HELIX_TOOLS_HELIX_SIMULATE_SIMULATE_H
#define HELIX_TOOLS_HELIX_SIMULATE_SIMULATE_H

#include "lib/Perf/Calibrate.h"
#include "lib/Perf/FromArtifact.h"
#include "lib/Perf/Simulate.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace helix {

struct Range {
  int32_t first = 0, last = 0;
};

struct SimulateOptions {
  std::vector<std::string> inputs; ///< an artifact, or traces to calibrate with
  std::string hardware, entry = "decode", context, layers;
  std::string assumeWeights, assumeKv, latencyModel, opLatencyModel;
  uint64_t batch = 0; ///< 0: the compiled one
  std::optional<double> linkLatency, linkBandwidth;
  bool allRanks = false, json = false, commands = false;
  std::string traceFile, svgFile, printHardware, output;
  bool calibrate = false;
};

/// A simulated step and what it was simulated from.
struct Step {
  std::string artifact;
  artifact::EntryKind entry = artifact::EntryKind::Decode;
  uint32_t entryIndex = 0;
  uint32_t tpa = 1, kvp = 1, ep = 1, tpf = 1;
  uint64_t context = 0;
  perf::Lengths lengths;
  perf::Hardware hardware;
  std::vector<perf::Program> ranks; ///< simulated
  perf::Simulation simulation;
};

/// Exits of the tool's functions: false after an error was set.
using perf::Error;

/// "1000000", "128K" (times 1024) or "1M" (times 1000000).
bool parseCount(const std::string &option, const std::string &text, uint64_t &count, Error &error);

/// "3" or "3..5".
bool parseLayers(const std::string &text, Range &layers, Error &error);

/// The command line's hardware with what else it says of it.
bool chooseHardware(const SimulateOptions &options, perf::Hardware &hardware, Error &error);

/// Reads the artifact and simulates the step that was asked for.
bool simulateStep(const SimulateOptions &options, Step &step, Error &error);

/// Writes a file whole, or says why not; never over one of `inputs`.
bool writeOutput(const std::string &path, const std::string &text, const std::vector<std::string> &inputs,
                 Error &error);

/// What printf would print.
__attribute__((format(printf, 1, 2))) std::string format(const char *pattern, ...);

/// The result as tables for people.
std::string printTable(const Step &step);

/// The result as JSON; with the commands, each with its bytes, FLOPs, start and end.
std::string printJson(const Step &step, bool commands);

/// The result as a Chrome trace, in the form that `helix-run --trace` writes.
std::string printTrace(const Step &step);

/// The result as a picture: a row per stream of the first simulated rank, the given layers or, without them, all of a
/// few layers and the first two of many.
bool printTimeline(const Step &step, const std::optional<Range> &layers, std::string &svg, Error &error);

/// Fits a description to the traces that the command line names; `artifacts` become the files that they are of.
bool calibrateFromTraces(const SimulateOptions &options, perf::Calibration &calibration,
                         std::vector<std::string> &artifacts, Error &error);

/// The fit's constants, and how well it predicts each run.
std::string printCalibration(const perf::Calibration &calibration);

/// What a command is called in pictures and tables: "attention", "linear", "all_to_all", "wait" and so on.
std::string_view kindOf(const perf::Command &command);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_SIMULATE_SIMULATE_H
