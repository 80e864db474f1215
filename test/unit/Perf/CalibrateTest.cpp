//===- CalibrateTest.cpp - A hardware description from measured steps ------===//
#include "lib/Perf/Calibrate.h"
#include "Machine.h"
#include "lib/Perf/Fit.h"
#include "lib/Perf/Simulate.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

using namespace helix;
using namespace helix::perf;
using helix::test::command;

namespace {

/// A machine of known constants, to be found again.
Hardware truth() {
  Hardware machine;
  machine.name = "truth";
  machine.memoryBytesPerSecond = 12e9;
  machine.sharedMemoryBytesPerSecond = 16e9;
  machine.capacityBytes = 1e10;
  machine.peakFlops = {50e9, 0, 0, 0};
  machine.domain = 1024;
  machine.memoryEfficiency = {0.6, 1, 0.3, 0.5};
  machine.computeEfficiency = {1, 0.8, 1, 1};
  machine.opLatency = {3e-6, 2e-6, 1e-6, 1.5e-6};
  machine.eventLatency = 20e-6;
  machine.stepLatency = 40e-6;
  machine.delayOverhead = 60e-6;
  machine.inside.bytesPerSecond = machine.outside.bytesPerSecond = 4e9;
  machine.inside.latency = machine.outside.latency = {8e-6, 12e-6};
  return machine;
}

/// Layers of attention in chunks beside their exchange, and products with their sum.
Program layers(uint32_t batch, double context, uint32_t chunks, uint32_t ranks) {
  Program program;
  program.ranks = ranks;
  program.streams = chunks > 1 ? 2 : 1;
  auto add = [&](auto work, uint32_t stream = 0) { program.commands.push_back(command(work, stream)); };
  for (int layer = 0; layer < 4; ++layer) {
    add(Work{CommandClass::Elementwise, 0, 0, 2e4 * batch, 0, DType::F32, 1});
    // Four sequences of a product's rows make it compute-bound.
    add(Work{CommandClass::Linear, 4e6, 0, 1e4 * batch, 2e6 * 4 * batch, DType::F32, 1});
    for (uint32_t i = 0; i < chunks; ++i) {
      double share = 1.0 / chunks;
      add(Work{CommandClass::Attention, 0, batch * context * 1024 * share, 1e3, batch * context * 512 * share,
               DType::F32, share});
      Exchange exchange{CollectiveKind::AllToAll, ranks, 1, ranks, 4e4 * batch * share, share};
      if (chunks == 1) {
        add(exchange);
        continue;
      }
      add(Record{program.events});
      add(Wait{program.events++}, 1);
      add(exchange, 1);
      add(Record{program.events++}, 1);
    }
    if (chunks > 1)
      add(Wait{program.events - 1});
    add(Work{CommandClass::Copy, 0, 0, 3e4 * batch, 0, DType::F32, 1});
    add(Exchange{CollectiveKind::AllReduce, ranks, 1, ranks, 2e4 * batch, 1});
  }
  return program;
}

/// What the true machine would have taken, times noise, with one step in ten disturbed.
MeasuredRun measure(const std::string &name, const Program &program, std::optional<Delay> delay, double noise,
                    std::mt19937 &random) {
  std::normal_distribution<double> normal(0, noise);
  MeasuredRun run;
  run.name = name;
  run.delay = delay;
  Hardware machine = truth();
  machine.delay = delay;
  for (int i = 0; i < 8; ++i) {
    Simulation simulation;
    Error error;
    EXPECT_TRUE(simulate(program, machine, simulation, error)) << error.message;
    MeasuredStep step;
    step.program = program;
    bool disturbed = noise > 0 && random() % 10 == 0;
    step.seconds = simulation.seconds * (1 + normal(random) / 3) * (disturbed ? 2 : 1);
    for (size_t c = 0; c < program.commands.size(); ++c) {
      const Timing &timing = simulation.timings[0][c];
      step.commands.push_back((timing.end - timing.start) * std::max(0.2, 1 + normal(random)) * (disturbed ? 2 : 1));
      if (std::holds_alternative<Wait>(program.commands[c].work) && timing.end > timing.start)
        step.wakeups.push_back(machine.eventLatency);
    }
    run.steps.push_back(std::move(step));
  }
  return run;
}

std::vector<MeasuredRun> runs(double noise) {
  std::mt19937 random(5);
  std::vector<MeasuredRun> all;
  for (uint32_t batch : {1, 2, 4, 8, 16}) {
    all.push_back(measure("one rank", layers(batch, 3000, 1, 1), std::nullopt, noise, random));
    all.push_back(measure("plain", layers(batch, 2000, 1, 2), std::nullopt, noise, random));
    all.push_back(measure("chunks", layers(batch, 4000, batch > 1 ? 2 : 1, 2), std::nullopt, noise, random));
    all.push_back(measure("link", layers(batch, 4000, 1, 2), Delay{1e-3, 1e9}, noise, random));
  }
  return all;
}

} // namespace

TEST(Fit, Median) {
  EXPECT_DOUBLE_EQ(median({}), 0);
  EXPECT_DOUBLE_EQ(median({3, 1, 2}), 2);
  EXPECT_DOUBLE_EQ(median({4, 1, 2, 3}), 2.5);
}

TEST(Fit, NonNegativeLeastSquaresAgainstAGrid) {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int round = 0; round < 50; ++round) {
    std::vector<Equation<2>> equations(5);
    for (Equation<2> &equation : equations)
      equation = {{uniform(random), uniform(random)}, uniform(random), 0.1 + std::abs(uniform(random))};
    auto loss = [&](double a, double b) {
      double sum = 0;
      for (const Equation<2> &equation : equations) {
        double error = equation.features[0] * a + equation.features[1] * b - equation.value;
        sum += equation.weight * error * error;
      }
      return sum;
    };
    std::array<double, 2> x = solveNonNegative(equations);
    EXPECT_GE(x[0], 0);
    EXPECT_GE(x[1], 0);
    for (double a = 0; a < 4; a += 0.05)
      for (double b = 0; b < 4; b += 0.05)
        EXPECT_LE(loss(x[0], x[1]), loss(a, b) + 1e-9);
  }
}

TEST(Fit, OutliersDoNotPull) {
  std::vector<Equation<2>> equations;
  for (int i = 1; i <= 40; ++i)
    equations.push_back({{double(i), 1}, (3.0 * i + 5) * (i % 8 == 0 ? 10 : i % 8 == 3 ? 0.5 : 1), 1});
  std::array<double, 2> x = fitRelative(equations);
  EXPECT_NEAR(x[0], 3, 0.15);
  EXPECT_NEAR(x[1], 5, 0.5);
}

TEST(Calibrate, FindsTheConstantsThatMadeTheRuns) {
  Calibration calibration;
  Error error;
  ASSERT_TRUE(calibrate(runs(0), truth(), calibration, error)) << error.message;
  const Hardware &found = calibration.hardware;
  Hardware expected = truth();
  for (unsigned kind = 0; kind < kClasses; ++kind) {
    for (uint32_t ranks : {1U, 2U})
      EXPECT_NEAR(found.memoryEfficiency[kind] * memoryBandwidth(found, ranks),
                  expected.memoryEfficiency[kind] * memoryBandwidth(expected, ranks),
                  0.05 * memoryBandwidth(expected, ranks))
          << kind;
    // Commands of a millisecond say little of a microsecond.
    EXPECT_NEAR(found.opLatency[kind], expected.opLatency[kind],
                kind == unsigned(CommandClass::Elementwise) || kind == unsigned(CommandClass::Copy) ? 1e-6 : 1e-5)
        << kind;
  }
  EXPECT_NEAR(found.computeEfficiency[1] * found.peakFlops[0], 40e9, 1e9);
  EXPECT_NEAR(found.inside.bytesPerSecond, 4e9, 1e8);
  EXPECT_NEAR(found.inside.latency[0], 8e-6, 1e-6);
  EXPECT_NEAR(found.inside.latency[1], 12e-6, 1e-6);
  EXPECT_NEAR(found.delayOverhead, 60e-6, 2e-6);
  EXPECT_NEAR(found.stepLatency, 40e-6, 5e-6);
  for (const Residual &residual : calibration.residuals) {
    EXPECT_NEAR(residual.predicted, residual.measured, 0.02 * residual.measured) << residual.run;
    EXPECT_NEAR(residual.leftOut.value(), residual.measured, 0.05 * residual.measured) << residual.run;
  }
}

TEST(Calibrate, PredictsLinksItHasNotSeenFromNoisyRuns) {
  Calibration calibration;
  Error error;
  ASSERT_TRUE(calibrate(runs(0.1), truth(), calibration, error)) << error.message;
  for (uint32_t batch : {2, 6, 12})
    for (Delay delay : {Delay{3e-4, 0}, Delay{2e-3, 2e8}})
      for (uint32_t chunks : {1U, 2U}) {
        MeasuredRun run;
        run.delay = delay;
        run.steps.push_back({layers(batch, 3000, chunks, 2), 0, {}, {}});
        double expected = predictStep(run, truth());
        EXPECT_NEAR(predictStep(run, calibration.hardware), expected, 0.05 * expected);
      }
}

TEST(Calibrate, ADelayedCollectiveSaysNothingOfTheOwnLink) {
  std::mt19937 random(8);
  std::vector<MeasuredRun> some;
  for (uint32_t batch : {1, 8})
    some.push_back(measure("plain", layers(batch, 1000, 1, 2), std::nullopt, 0, random));
  for (uint32_t batch : {1, 2, 3, 4, 5, 6, 7, 8})
    some.push_back(measure("link", layers(batch, 1000, 1, 2), Delay{1e-3, 1e9}, 0, random));
  Calibration calibration;
  Error error;
  ASSERT_TRUE(calibrate(some, truth(), calibration, error)) << error.message;
  EXPECT_NEAR(calibration.hardware.inside.latency[0], 8e-6, 1e-6);
  EXPECT_NEAR(calibration.hardware.inside.latency[1], 12e-6, 1e-6);
  EXPECT_NEAR(calibration.hardware.delayOverhead, 60e-6, 1e-6);
}

TEST(Calibrate, OneRunIsLeftOutOfNothing) {
  std::mt19937 random(7);
  std::vector<MeasuredRun> one = {measure("one", layers(4, 1000, 1, 2), std::nullopt, 0, random)};
  Calibration calibration;
  Error error;
  ASSERT_TRUE(calibrate(one, truth(), calibration, error)) << error.message;
  EXPECT_FALSE(calibration.residuals[0].leftOut);
  EXPECT_NEAR(calibration.residuals[0].predicted, calibration.residuals[0].measured,
              0.05 * calibration.residuals[0].measured);
  one[0].steps.clear();
  EXPECT_FALSE(calibrate(one, truth(), calibration, error));
  EXPECT_EQ(error.code, ErrorCode::CalibrationImpossible);
}
