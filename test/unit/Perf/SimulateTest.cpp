//===- SimulateTest.cpp - When each command of a step runs -----------------===//
#include "lib/Perf/Simulate.h"
#include "Machine.h"

#include <chrono>
#include <functional>
#include <gtest/gtest.h>
#include <random>

using namespace helix;
using namespace helix::perf;
using helix::test::command;
using helix::test::exchange;
using helix::test::unitMachine;
using helix::test::work;

namespace {

Simulation run(std::span<const Program> ranks, const Hardware &machine) {
  Simulation simulation;
  Error error;
  EXPECT_TRUE(simulate(ranks, machine, simulation, error)) << error.message;
  return simulation;
}

Simulation run(const Program &program, const Hardware &machine) { return run(std::span(&program, 1), machine); }

std::string refusal(std::vector<Program> ranks) {
  Simulation simulation;
  Error error;
  EXPECT_FALSE(simulate(ranks, unitMachine(), simulation, error));
  EXPECT_EQ(error.code, ErrorCode::SimulationImpossible);
  return error.message;
}

double spentInAll(const Simulation &simulation) {
  double seconds = simulation.eventSeconds;
  for (const Price &price : simulation.spent)
    seconds += price.total();
  return seconds;
}

/// A random program of some streams that keeps the rules of events.
Program randomProgram(std::mt19937 &random, uint32_t ranks) {
  std::uniform_real_distribution<double> uniform(0, 1);
  Program program;
  program.ranks = ranks;
  program.streams = 1 + random() % 3;
  for (int i = 0; i < 40; ++i) {
    uint32_t stream = random() % program.streams;
    switch (random() % 4) {
    case 0:
      program.commands.push_back(command(work(uniform(random)), stream));
      break;
    case 1:
      program.commands.push_back(command(exchange(uniform(random), ranks, ranks), stream));
      break;
    case 2:
      program.commands.push_back(command(Record{program.events++}, stream));
      break;
    default:
      if (program.events)
        program.commands.push_back(command(Wait{uint32_t(random() % program.events)}, stream));
    }
    if (!program.commands.empty())
      program.commands.back().phase = Phase(random() % kPhases);
  }
  return program;
}

} // namespace

TEST(Simulate, OneStreamIsASum) {
  Hardware machine = unitMachine();
  machine.opLatency.fill(0.5);
  machine.inside.latency.fill(0.25);
  machine.stepLatency = 10;
  Program program;
  program.ranks = 2;
  program.commands = {command(work(1)), command(exchange(2)), command(work(3))};
  Simulation simulation = run(program, machine);
  EXPECT_NEAR(simulation.seconds, 1.5 + 2.25 + 3.5 + 10, 1e-9);
  EXPECT_NEAR(simulation.exposedSeconds, 2.25, 1e-9);
  EXPECT_NEAR(simulation.computeSeconds, 5, 1e-9);
  EXPECT_NEAR(simulation.spent[0].kv, 4, 1e-9);
  EXPECT_NEAR(simulation.spent[0].opLatency, 1, 1e-9);
  EXPECT_NEAR(simulation.spent[0].collectiveLatency, 0.25, 1e-9);
  EXPECT_NEAR(simulation.spent[0].transfer, 2, 1e-9);
  EXPECT_NEAR(simulation.memoryUse, 4 / 17.25, 1e-9);
  EXPECT_NEAR(simulation.linkUse, 2 / 17.25, 1e-9);
  EXPECT_EQ(simulation.criticalPath.size(), 3U);
}

TEST(Simulate, AnEventCostsOnlyWhoWaits) {
  Hardware machine = unitMachine();
  machine.eventLatency = 0.5;
  Program program;
  program.streams = 2;
  program.events = 2;
  program.commands = {command(work(1)),      command(Record{0}), command(Wait{0}, 1), command(work(2), 1),
                      command(Record{1}, 1), command(work(4)),   command(Wait{1}),    command(work(1))};
  // The second stream runs from 1.5 to 3.5; the first comes to its wait at 5, which costs nothing then.
  Simulation simulation = run(program, machine);
  EXPECT_NEAR(simulation.timings[0][3].start, 1.5, 1e-9);
  EXPECT_NEAR(simulation.seconds, 6, 1e-9);
  EXPECT_NEAR(simulation.eventSeconds, 0, 1e-9);
  program.commands[5] = command(work(1));
  // Now it waits from 2 until 4.
  simulation = run(program, machine);
  EXPECT_NEAR(simulation.seconds, 5, 1e-9);
  EXPECT_NEAR(simulation.eventSeconds, 1, 1e-9);
}

TEST(Simulate, RanksWaitForEachOther) {
  std::vector<Program> ranks(4);
  for (uint32_t rank = 0; rank < 4; ++rank) {
    ranks[rank].ranks = 4;
    Exchange pairs = exchange(1, 2, 4), all = exchange(1, 4, 4);
    pairs.stride = 2;
    ranks[rank].commands = {command(work(rank)), command(pairs), command(work(1)), command(all)};
  }
  Simulation simulation = run(ranks, unitMachine());
  // 0 with 2, 1 with 3, then all with the last.
  EXPECT_NEAR(simulation.timings[0][1].begin, 2, 1e-9);
  EXPECT_NEAR(simulation.timings[1][1].begin, 3, 1e-9);
  EXPECT_NEAR(simulation.timings[0][3].end, 6, 1e-9);
  EXPECT_NEAR(simulation.seconds, 6, 1e-9);
  EXPECT_EQ(simulation.criticalPath.front().rank, 3U);
}

TEST(Simulate, AllRanksAlikeAreAsOne) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    Program program = randomProgram(random, 4);
    Hardware machine = unitMachine();
    machine.eventLatency = 0.1;
    EXPECT_NEAR(run(program, machine).seconds, run(std::vector<Program>(4, program), machine).seconds, 1e-9);
  }
}

TEST(Simulate, LongestPathByBruteForce) {
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    Program program = randomProgram(random, 2);
    Hardware machine = unitMachine();
    machine.eventLatency = 0.05;
    machine.opLatency.fill(0.01);
    std::vector<Command> &commands = program.commands;
    // End of a command = its own seconds after the later of what its stream did before and the record it waits for.
    std::function<double(int)> end = [&](int i) {
      double ready = 0;
      for (int before = i - 1; before >= 0; --before)
        if (commands[before].stream == commands[i].stream) {
          ready = end(before);
          break;
        }
      if (const auto *wait = std::get_if<Wait>(&commands[i].work))
        for (int before = 0; before < i; ++before)
          if (const auto *record = std::get_if<Record>(&commands[before].work); record && record->event == wait->event)
            ready = std::max(ready, end(before) + 0.05);
      if (const auto *each = std::get_if<Work>(&commands[i].work))
        ready += each->kvBytes / 1e9 + 0.01;
      if (const auto *each = std::get_if<Exchange>(&commands[i].work))
        ready += each->sentBytes / 1e9;
      return ready;
    };
    double last = 0;
    for (int i = 0; i < int(commands.size()); ++i)
      if (i + 12 > int(commands.size()))
        last = std::max(last, end(i));
    Simulation simulation = run(program, machine);
    for (int i = 0; i < int(commands.size()) && i < 16; ++i)
      EXPECT_NEAR(simulation.timings[0][i].end, end(i), 1e-9);
    // What the critical path is made of is the whole time, and it has no gaps.
    EXPECT_NEAR(spentInAll(simulation), simulation.seconds, 1e-9);
    for (size_t i = 0; i + 1 < simulation.criticalPath.size(); ++i)
      EXPECT_LT(simulation.criticalPath[i].command, simulation.criticalPath[i + 1].command);
    EXPECT_LE(simulation.exposedSeconds, simulation.communicationSeconds + 1e-12);
    EXPECT_GE(simulation.seconds, last - 1e-9);
  }
}

TEST(Simulate, RefusesWhatCannotRun) {
  Program program;
  program.ranks = 2;
  program.events = 1;
  program.streams = 2;
  program.commands = {command(Wait{0}, 1), command(Record{0})};
  EXPECT_NE(refusal({program}).find("waits for an event that no command before it records"), std::string::npos);
  program.commands = {command(Record{0}), command(Record{0})};
  EXPECT_NE(refusal({program}).find("recorded before"), std::string::npos);
  program.commands = {command(work(1), 2)};
  EXPECT_NE(refusal({program}).find("is on stream 2 of 2"), std::string::npos);
  program.commands = {command(exchange(1, 3, 2))};
  EXPECT_NE(refusal({program}).find("do not divide"), std::string::npos);
  program.commands = {command(work(1))};
  Program other = program;
  other.commands = {command(exchange(1))};
  EXPECT_NE(refusal({program, other}).find("not the same on every rank"), std::string::npos);
  EXPECT_NE(refusal({program, program, program}).find("same program"), std::string::npos);
  EXPECT_NE(refusal({}).find("no program"), std::string::npos);
}

TEST(Simulate, A126LayerPlanTakesWellUnderASecond) {
  Program program;
  program.ranks = 64;
  program.streams = 2;
  for (int layer = 0; layer < 126; ++layer)
    for (int i = 0; i < 8; ++i) {
      program.commands.push_back(command(work(1)));
      program.commands.push_back(command(Record{program.events}));
      program.commands.push_back(command(Wait{program.events++}, 1));
      program.commands.push_back(command(exchange(1, 8, 64), 1));
    }
  auto begin = std::chrono::steady_clock::now();
  EXPECT_GT(run(program, unitMachine()).seconds, 1000);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 0.5);
}
