//===- Calibrate.cpp - helix-simulate --calibrate --------------------------===//
#include "Simulate.h"
#include "lib/Perf/TraceFile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace helix {
namespace {

__attribute__((format(printf, 2, 3))) void append(std::string &text, const char *pattern, ...) {
  std::array<char, 1024> buffer;
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(buffer.data(), buffer.size(), pattern, arguments);
  va_end(arguments);
  text += buffer.data();
}

double relative(double predicted, double measured) { return 100 * (predicted / measured - 1); }

/// The median and the largest of some percentages, signs apart.
std::string spread(std::vector<double> percents) {
  if (percents.empty())
    return "none";
  for (double &each : percents)
    each = std::abs(each);
  std::sort(percents.begin(), percents.end());
  std::string text;
  append(text, "median %.1f %%, worst %.1f %%", percents[percents.size() / 2], percents.back());
  return text;
}

} // namespace

std::string printCalibration(const perf::Calibration &calibration) {
  const perf::Hardware &hardware = calibration.hardware;
  std::string text;
  append(text, "%-12s %14s %14s %12s\n", "commands", "GB/s per rank", "GFLOP/s", "latency us");
  for (unsigned i = 0; i < perf::kClasses; ++i) {
    append(text, "%-12s %14.2f ", std::string(perf::className(perf::CommandClass(i))).c_str(),
           hardware.memoryEfficiency[i] * hardware.memoryBytesPerSecond / 1e9);
    double peak = perf::peakFlops(hardware, perf::DType::F32);
    if (peak > 0)
      append(text, "%14.2f ", hardware.computeEfficiency[i] * peak / 1e9);
    else
      append(text, "%14s ", "-");
    append(text, "%12.2f\n", hardware.opLatency[i] * 1e6);
  }
  append(text, "ranks of a machine share %.2f GB/s\n", hardware.sharedMemoryBytesPerSecond / 1e9);
  append(text,
         "collectives: all-to-all %.1f us, all-reduce %.1f us, and %.2f GB/s; %.1f us more on an artificial link\n",
         hardware.inside.latency[0] * 1e6, hardware.inside.latency[1] * 1e6, hardware.inside.bytesPerSecond / 1e9,
         hardware.delayOverhead * 1e6);
  append(text, "event %.1f us, step %.1f us\n\n", hardware.eventLatency * 1e6, hardware.stepLatency * 1e6);

  append(text, "%14s %14s %8s %14s %8s  %s\n", "measured us", "predicted us", "error", "left out us", "error", "run");
  std::vector<double> inSample, leftOut;
  for (const perf::Residual &residual : calibration.residuals) {
    inSample.push_back(relative(residual.predicted, residual.measured));
    append(text, "%14.1f %14.1f %7.1f%% ", residual.measured * 1e6, residual.predicted * 1e6, inSample.back());
    if (residual.leftOut) {
      leftOut.push_back(relative(*residual.leftOut, residual.measured));
      append(text, "%14.1f %7.1f%%  %s\n", *residual.leftOut * 1e6, leftOut.back(), residual.run.c_str());
    } else {
      append(text, "%14s %8s  %s\n", "-", "-", residual.run.c_str());
    }
  }
  text += "error of a step, runs in the fit: " + spread(inSample) + "\n";
  text += "error of a step, run left out of the fit: " + spread(leftOut) + "\n";
  return text;
}

bool calibrateFromTraces(const SimulateOptions &options, perf::Calibration &calibration, Error &error) {
  perf::Hardware base;
  if (!perf::loadHardware(options.hardware.empty() ? "cpu" : options.hardware, base, error))
    return false;
  base.name = "calibrated";
  base.source = "helix-simulate --calibrate, from " + std::to_string(options.inputs.size()) + " traces";
  std::vector<perf::MeasuredRun> runs(options.inputs.size());
  for (size_t i = 0; i < runs.size(); ++i)
    if (!perf::readTrace(options.inputs[i], runs[i], error))
      return false;
  return perf::calibrate(runs, base, calibration, error);
}

} // namespace helix
