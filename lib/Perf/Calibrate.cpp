//===- Calibrate.cpp - A hardware description from measured steps ----------===//
#include "lib/Perf/Calibrate.h"
#include "lib/Perf/Fit.h"
#include "lib/Perf/Simulate.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace helix::perf {
namespace {

/// A command of a run: the median of its steps.
struct WorkSample {
  double bytes, flops, seconds;
  uint32_t ranks;
};

struct ExchangeSample {
  CollectiveKind kind;
  double sent, seconds;
  std::optional<Delay> delay;

  /// What the artificial link alone takes.
  double floor() const {
    return delay ? delay->latency + (delay->bytesPerSecond > 0 ? sent / delay->bytesPerSecond : 0) : 0;
  }
};

struct Samples {
  std::vector<WorkSample> works[kClasses];
  std::vector<ExchangeSample> exchanges;
  std::vector<double> wakeups;

  bool any() const {
    return std::any_of(std::begin(works), std::end(works), [](const auto &each) { return !each.empty(); });
  }
};

void collect(const MeasuredRun &run, Samples &samples) {
  if (run.steps.empty())
    return;
  // Steps of one entry have the same commands; their lengths differ by a token or so.
  std::map<std::pair<size_t, uint64_t>, std::vector<const MeasuredStep *>> entries;
  for (const MeasuredStep &step : run.steps) {
    entries[{step.program.commands.size(), step.program.newTokens}].push_back(&step);
    samples.wakeups.insert(samples.wakeups.end(), step.wakeups.begin(), step.wakeups.end());
  }
  for (const auto &[entry, steps] : entries)
    for (size_t i = 0; i < entry.first; ++i) {
      std::vector<double> seconds;
      for (const MeasuredStep *step : steps)
        if (i < step->commands.size() && step->commands[i] && *step->commands[i] > 0)
          seconds.push_back(*step->commands[i]);
      if (seconds.empty())
        continue;
      const Program &program = steps[steps.size() / 2]->program;
      double middle = median(seconds);
      if (const auto *work = std::get_if<Work>(&program.commands[i].work))
        samples.works[unsigned(work->kind)].push_back({work->bytes(), work->flops, middle, program.ranks});
      else if (const auto *exchange = std::get_if<Exchange>(&program.commands[i].work))
        if (exchange->peers > 1)
          samples.exchanges.push_back({exchange->kind, exchange->sentBytes, middle, run.delay});
    }
}

/// max(secondsPerByte * bytes, secondsPerFlop * flops) + latency.
struct ClassFit {
  double secondsPerByte = 0, secondsPerFlop = 0, latency = 0;

  double seconds(const WorkSample &sample) const {
    return std::max(secondsPerByte * sample.bytes, secondsPerFlop * sample.flops) + latency;
  }
};

double loss(const std::vector<WorkSample> &samples, const ClassFit &fit) {
  double sum = 0;
  for (const WorkSample &sample : samples)
    sum += std::min(1.0, std::abs(fit.seconds(sample) / sample.seconds - 1));
  return sum;
}

/// Which side of the maximum a sample is on decides its equation, and the fit decides the sides: repeated until both
/// agree, from all on the memory's side and from the larger half on the other.
ClassFit fitClass(const std::vector<WorkSample> &samples, double latencyHint) {
  constexpr int kRounds = 20;
  constexpr double kHintWeight = 0.01; // settles the latency where all commands are of one size
  ClassFit best;
  double least = INFINITY;
  std::vector<double> intensity;
  for (const WorkSample &sample : samples)
    intensity.push_back(sample.flops / sample.bytes);
  double middle = median(intensity);
  for (bool mixed : {false, true}) {
    ClassFit fit;
    std::vector<bool> compute(samples.size());
    for (size_t i = 0; i < samples.size(); ++i)
      compute[i] = mixed && samples[i].flops / samples[i].bytes > middle;
    for (int round = 0; round < kRounds; ++round) {
      std::vector<Equation<3>> equations = {{{0, 0, 1}, latencyHint, kHintWeight}};
      for (size_t i = 0; i < samples.size(); ++i)
        equations.push_back(
            {{compute[i] ? 0 : samples[i].bytes, compute[i] ? samples[i].flops : 0, 1}, samples[i].seconds, 1});
      std::array<double, 3> x = fitRelative(equations);
      fit = {x[0], x[1], x[2]};
      std::vector<bool> sides(samples.size());
      for (size_t i = 0; i < samples.size(); ++i)
        sides[i] = fit.secondsPerFlop * samples[i].flops > fit.secondsPerByte * samples[i].bytes;
      if (sides == compute)
        break;
      compute = sides;
    }
    if (double now = loss(samples, fit); now < least - 1e-9) {
      least = now;
      best = fit;
    }
  }
  return best;
}

/// The shortest commands are little more than latency.
double latencyHint(const Samples &samples) {
  std::vector<double> seconds;
  for (const auto &works : samples.works)
    for (const WorkSample &sample : works)
      seconds.push_back(sample.seconds);
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 20];
}

/// Ranks of one machine share its memory: own is what the fewest ranks of a run reached each, shared what the most got
/// together. How numbers of ranks compare is read off the class that moves the most bytes with both of them. With runs
/// of one number of ranks only, that number sets both.
void fitMemory(const Samples &samples, double hint, Hardware &hardware) {
  struct Reach {
    double bandwidth = 0, bytes = 0;
  };
  std::map<uint32_t, std::array<Reach, kClasses>> reach; ///< by ranks
  for (unsigned kind = 0; kind < kClasses; ++kind) {
    std::map<uint32_t, std::vector<WorkSample>> byRanks;
    for (const WorkSample &sample : samples.works[kind])
      byRanks[sample.ranks].push_back(sample);
    for (const auto &[ranks, some] : byRanks) {
      Reach &here = reach[ranks][kind];
      if (ClassFit fit = fitClass(some, hint); fit.secondsPerByte > 0)
        here.bandwidth = 1 / fit.secondsPerByte;
      for (const WorkSample &sample : some)
        here.bytes += sample.bytes;
    }
  }
  auto fastest = [](const std::array<Reach, kClasses> &classes) {
    double bandwidth = 0;
    for (const Reach &each : classes)
      bandwidth = std::max(bandwidth, each.bandwidth);
    return bandwidth;
  };
  auto most = reach.rbegin();
  double together = fastest(most->second);
  if (together == 0)
    return;
  hardware.memoryBytesPerSecond = together;
  hardware.sharedMemoryBytesPerSecond = together * most->first;
  hardware.domain = std::max(hardware.domain, most->first);
  for (const auto &[ranks, classes] : reach) {
    double ratio = 0, bytes = 0;
    for (unsigned kind = 0; kind < kClasses; ++kind) {
      const Reach &here = classes[kind], &there = most->second[kind];
      if (here.bandwidth > 0 && there.bandwidth > 0 && std::min(here.bytes, there.bytes) > bytes) {
        bytes = std::min(here.bytes, there.bytes);
        ratio = here.bandwidth / there.bandwidth;
      }
    }
    hardware.memoryBytesPerSecond = std::max(hardware.memoryBytesPerSecond, ratio * together);
    hardware.sharedMemoryBytesPerSecond = std::max(hardware.sharedMemoryBytesPerSecond, ratio * together * ranks);
  }
}

void fitWorks(const Samples &samples, double hint, Hardware &hardware) {
  PerClass rate = {}, flops = {}; ///< of what one rank's memory moves; FLOP/s; 0: not seen
  double peak = 0;
  for (unsigned kind = 0; kind < kClasses; ++kind) {
    std::vector<WorkSample> scaled = samples.works[kind];
    if (scaled.empty())
      continue;
    // Bytes as if they were moved at the speed of a memory of 1 byte/s.
    for (WorkSample &sample : scaled)
      sample.bytes /= memoryBandwidth(hardware, sample.ranks);
    ClassFit fit = fitClass(scaled, hint);
    hardware.opLatency[kind] = fit.latency;
    rate[kind] = fit.secondsPerByte > 0 ? 1 / fit.secondsPerByte : 0;
    flops[kind] = fit.secondsPerFlop > 0 ? 1 / fit.secondsPerFlop : 0;
    peak = std::max(peak, flops[kind]);
    // No other command may be slower than it was seen to be because of this peak.
    for (const WorkSample &sample : scaled)
      if (sample.seconds > fit.latency)
        peak = std::max(peak, sample.flops / (sample.seconds - fit.latency));
  }
  double fastest = *std::max_element(rate.begin(), rate.end());
  if (fastest > 0) {
    hardware.memoryBytesPerSecond *= fastest;
    hardware.sharedMemoryBytesPerSecond *= fastest;
  }
  bool anyFlops = *std::max_element(flops.begin(), flops.end()) > 0;
  hardware.peakFlops = {anyFlops ? peak : 0, 0, 0, 0};
  for (unsigned kind = 0; kind < kClasses; ++kind) {
    hardware.memoryEfficiency[kind] = rate[kind] > 0 ? std::clamp(rate[kind] / fastest, 1e-6, 1.0) : 1;
    hardware.computeEfficiency[kind] = flops[kind] > 0 ? std::clamp(flops[kind] / peak, 1e-6, 1.0) : 1;
  }
}

void fitExchanges(const Samples &samples, Hardware &hardware) {
  std::vector<Equation<3>> plain;
  for (const ExchangeSample &sample : samples.exchanges)
    if (!sample.delay)
      plain.push_back({{sample.sent, sample.kind == CollectiveKind::AllToAll ? 1.0 : 0.0,
                        sample.kind == CollectiveKind::AllReduce ? 1.0 : 0.0},
                       sample.seconds,
                       1});
  if (!plain.empty()) {
    constexpr double kFastest = 1e15; // bytes/s: too fast to be told from nothing
    std::array<double, 3> x = fitRelative(plain);
    hardware.inside.bytesPerSecond = x[0] > 0 ? std::min(1 / x[0], kFastest) : kFastest;
    hardware.inside.latency = {x[1], x[2]};
  } else if (!samples.exchanges.empty()) {
    // All that was seen is the artificial link: what it takes beyond its own formula is in delayOverhead.
    hardware.inside.latency = {};
  }
  hardware.inside.name = "memory";
  hardware.outside = hardware.inside;
  std::vector<double> late;
  for (const ExchangeSample &sample : samples.exchanges)
    if (sample.delay) {
      Exchange exchange{sample.kind, 2, 1, 2, sample.sent, 1};
      if (sample.floor() > price(exchange, hardware).total())
        late.push_back(std::max(0.0, sample.seconds - sample.floor()));
    }
  hardware.delayOverhead = median(late);
}

bool fit(const std::vector<const MeasuredRun *> &runs, const Hardware &base, Hardware &hardware, Error &error) {
  Samples samples;
  for (const MeasuredRun *run : runs)
    collect(*run, samples);
  if (!samples.any())
    return error.set(ErrorCode::CalibrationImpossible, "the runs have no commands to learn from");
  hardware = base;
  hardware.delay.reset();
  hardware.opLatencyModel = hardware.collectiveLatency = LatencyModel::PerCommand;
  hardware.stepLatency = hardware.delayOverhead = 0;
  double hint = latencyHint(samples);
  fitMemory(samples, hint, hardware);
  fitWorks(samples, hint, hardware);
  fitExchanges(samples, hardware);
  hardware.eventLatency = std::max(0.0, median(samples.wakeups));
  // What a step takes beyond its commands.
  std::vector<double> beyond;
  for (const MeasuredRun *run : runs) {
    std::vector<double> measured;
    for (const MeasuredStep &step : run->steps)
      measured.push_back(step.seconds);
    if (double predicted = predictStep(*run, hardware); predicted > 0)
      beyond.push_back(median(measured) - predicted);
  }
  hardware.stepLatency = std::max(0.0, median(beyond));
  return true;
}

} // namespace

double predictStep(const MeasuredRun &run, const Hardware &hardware) {
  Hardware here = hardware;
  here.delay = run.delay;
  std::vector<double> seconds;
  for (const MeasuredStep &step : run.steps) {
    Simulation simulation;
    Error error;
    if (simulate(step.program, here, simulation, error))
      seconds.push_back(simulation.seconds);
  }
  return median(seconds);
}

bool calibrate(std::span<const MeasuredRun> runs, const Hardware &base, Calibration &result, Error &error) {
  std::vector<const MeasuredRun *> all;
  for (const MeasuredRun &run : runs)
    all.push_back(&run);
  result = Calibration();
  if (!fit(all, base, result.hardware, error))
    return false;
  for (const MeasuredRun &run : runs) {
    Residual residual;
    residual.run = run.name;
    std::vector<double> measured;
    for (const MeasuredStep &step : run.steps)
      measured.push_back(step.seconds);
    residual.measured = median(measured);
    residual.predicted = predictStep(run, result.hardware);
    std::vector<const MeasuredRun *> others;
    for (const MeasuredRun *other : all)
      if (other != &run)
        others.push_back(other);
    Hardware without;
    Error ignored;
    if (!others.empty() && fit(others, base, without, ignored))
      residual.leftOut = predictStep(run, without);
    result.residuals.push_back(std::move(residual));
  }
  return true;
}

} // namespace helix::perf
