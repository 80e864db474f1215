//===- Calibrate.cpp - helix-simulate --calibrate --------------------------===//
#include "Simulate.h"
#include "lib/Perf/TraceFile.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace helix {
namespace {

double relative(double predicted, double measured) { return 100 * (predicted / measured - 1); }

/// The median and the largest of some percentages, signs apart.
std::string spread(std::vector<double> percents) {
  if (percents.empty())
    return "none";
  for (double &each : percents)
    each = std::abs(each);
  std::sort(percents.begin(), percents.end());
  std::string text;
  text += format("median %.1f %%, worst %.1f %%", percents[percents.size() / 2], percents.back());
  return text;
}

} // namespace

std::string printCalibration(const perf::Calibration &calibration) {
  const perf::Hardware &hardware = calibration.hardware;
  std::string text;
  text += format("%-12s %14s %14s %12s\n", "commands", "GB/s per rank", "GFLOP/s", "latency us");
  for (unsigned i = 0; i < perf::kClasses; ++i) {
    text += format("%-12s %14.2f ", std::string(perf::className(perf::CommandClass(i))).c_str(),
                   hardware.memoryEfficiency[i] * hardware.memoryBytesPerSecond / 1e9);
    double peak = perf::peakFlops(hardware, perf::DType::F32);
    if (peak > 0)
      text += format("%14.2f ", hardware.computeEfficiency[i] * peak / 1e9);
    else
      text += format("%14s ", "-");
    text += format("%12.2f\n", hardware.opLatency[i] * 1e6);
  }
  text += format("ranks of a machine share %.2f GB/s\n", hardware.sharedMemoryBytesPerSecond / 1e9);
  text +=
      format("collectives: all-to-all %.1f us, all-reduce %.1f us, and %.2f GB/s; %.1f us more on an artificial link\n",
             hardware.inside.latency[0] * 1e6, hardware.inside.latency[1] * 1e6, hardware.inside.bytesPerSecond / 1e9,
             hardware.delayOverhead * 1e6);
  text += format("event %.1f us, step %.1f us\n\n", hardware.eventLatency * 1e6, hardware.stepLatency * 1e6);

  text += format("%14s %14s %8s %14s %8s  %s\n", "measured us", "predicted us", "error", "left out us", "error", "run");
  std::vector<double> inSample, leftOut;
  for (const perf::Residual &residual : calibration.residuals) {
    inSample.push_back(relative(residual.predicted, residual.measured));
    text += format("%14.1f %14.1f %7.1f%% ", residual.measured * 1e6, residual.predicted * 1e6, inSample.back());
    if (residual.leftOut) {
      leftOut.push_back(relative(*residual.leftOut, residual.measured));
      text += format("%14.1f %7.1f%%  %s\n", *residual.leftOut * 1e6, leftOut.back(), residual.run.c_str());
    } else {
      text += format("%14s %8s  %s\n", "-", "-", residual.run.c_str());
    }
  }
  text += "error of a step, runs in the fit: " + spread(inSample) + "\n";
  text += "error of a step, run left out of the fit: " + spread(leftOut) + "\n";
  return text;
}

bool calibrateFromTraces(const SimulateOptions &options, perf::Calibration &calibration,
                         std::vector<std::string> &artifacts, Error &error) {
  perf::Hardware base;
  if (!perf::loadHardware(options.hardware.empty() ? "cpu" : options.hardware, base, error))
    return false;
  base.name = "calibrated";
  base.source = "helix-simulate --calibrate, from " + std::to_string(options.inputs.size()) + " traces";
  std::vector<perf::MeasuredRun> runs(options.inputs.size());
  for (size_t i = 0; i < runs.size(); ++i)
    if (perf::readTrace(options.inputs[i], runs[i], error))
      artifacts.push_back(runs[i].artifact);
    else
      return false;
  return perf::calibrate(runs, base, calibration, error);
}

} // namespace helix
