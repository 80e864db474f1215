//===- Calibrate.h - A hardware description from measured steps ------------===//
#ifndef HELIX_LIB_PERF_CALIBRATE_H
#define HELIX_LIB_PERF_CALIBRATE_H

#include "lib/Perf/Program.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace helix::perf {

/// A step that was run and timed.
struct MeasuredStep {
  Program program;    ///< of the rank with the most to do, at the step's lengths
  double seconds = 0; ///< wall clock
  /// Of each command, the mean over ranks; a collective's from the mean of its ranks' starts, so that what they wait
  /// for each other is in it. Nothing: not measured.
  std::vector<std::optional<double>> commands;
  std::vector<double> wakeups; ///< from a record to the end of a wait that was held up by it
};

/// Steps of one process: same artifact, ranks, threads and link.
struct MeasuredRun {
  std::string name;
  std::string artifact;       ///< the file whose commands they are
  std::optional<Delay> delay; ///< the artificial link that it ran with
  std::vector<MeasuredStep> steps;
};

/// How well a fit predicts a run.
struct Residual {
  std::string run;
  double measured = 0;           ///< seconds of a step, median
  double predicted = 0;          ///< by the fit on all runs
  std::optional<double> leftOut; ///< predicted by the fit on all other runs; nothing if there are none
};

struct Calibration {
  Hardware hardware;
  std::vector<Residual> residuals; ///< in the runs' order
};

/// Fits what docs/hardware.md calls `model`, the memory's bandwidth and the links to the runs: per command class
/// max(bytes / bandwidth, flops / rate) + latency, with constants that are not negative, by least squares of relative
/// errors in which outliers count linearly. `base` gives what cannot be measured: capacity and name. False and
/// CalibrationImpossible if the runs have no commands to learn from.
bool calibrate(std::span<const MeasuredRun> runs, const Hardware &base, Calibration &result, Error &error);

/// The median of a run's steps as simulated on a hardware, with the run's link. 0 if none can be simulated.
double predictStep(const MeasuredRun &run, const Hardware &hardware);

} // namespace helix::perf

#endif // HELIX_LIB_PERF_CALIBRATE_H
