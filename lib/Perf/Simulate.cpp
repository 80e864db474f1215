//===- Simulate.cpp - When each command of a step runs ---------------------===//
//
// Commands are listed so that whatever holds one up stands before it, on every rank alike. So the events of the
// simulation need no queue: one walk over the list finds each command's time from those of its predecessors.
//
//===-----------------------------------------------------------------------===//
#include "lib/Perf/Simulate.h"

#include <algorithm>
#include <string>

namespace helix::perf {
namespace {

constexpr uint32_t kNowhere = UINT32_MAX;

/// What a command waited for last.
struct Cause {
  double at = 0;
  Place place = {0, kNowhere};
};

/// Where the walk stands on one rank.
struct State {
  std::vector<Cause> streams, events;
};

struct Walk {
  std::span<const Program> ranks;
  const Hardware &hardware;
  Simulation &result;
  std::vector<State> states;
  std::vector<std::vector<Cause>> causes; ///< [rank][command]
  std::vector<Cause> arrivals;            ///< of each rank at the command that is stepped

  Walk(std::span<const Program> ranks, const Hardware &hardware, Simulation &result)
      : ranks(ranks), hardware(hardware), result(result) {
    const Program &first = ranks.front();
    states.assign(ranks.size(),
                  State{std::vector<Cause>(first.streams), std::vector<Cause>(first.events, Cause{-1, {}})});
    causes.assign(ranks.size(), std::vector<Cause>(first.commands.size()));
    result.timings.assign(ranks.size(), std::vector<Timing>(first.commands.size()));
  }

  /// Ranks that take part in a rank's collective, of those simulated.
  std::vector<uint32_t> group(const Exchange &exchange, uint32_t rank) const {
    if (ranks.size() == 1)
      return {0};
    std::vector<uint32_t> members;
    uint32_t first = rank - rank / exchange.stride % exchange.peers * exchange.stride;
    for (uint32_t i = 0; i < exchange.peers; ++i)
      members.push_back(first + i * exchange.stride);
    return members;
  }

  void step(uint32_t index, uint32_t rank) {
    const Command &command = ranks[rank].commands[index];
    State &state = states[rank];
    Cause &stream = state.streams[command.stream];
    Cause cause = stream;
    Timing &timing = result.timings[rank][index];
    timing.start = timing.begin = timing.end = stream.at;
    if (const auto *work = std::get_if<Work>(&command.work)) {
      timing.end += price(*work, hardware, ranks[rank].ranks).total();
    } else if (const auto *exchange = std::get_if<Exchange>(&command.work)) {
      for (uint32_t peer : group(*exchange, rank)) {
        const Cause &theirs = arrivals[peer];
        if (theirs.at > cause.at)
          cause = theirs;
      }
      timing.begin = cause.at;
      timing.end = timing.begin + price(*exchange, hardware).total();
    } else if (const auto *record = std::get_if<Record>(&command.work)) {
      state.events[record->event] = {stream.at, {rank, index}};
    } else {
      const Cause &event = state.events[std::get<Wait>(command.work).event];
      if (event.at + hardware.eventLatency > stream.at) {
        timing.end = event.at + hardware.eventLatency;
        cause = event;
      }
    }
    causes[rank][index] = cause;
    stream = {timing.end, {rank, index}};
  }

  void run() {
    for (uint32_t index = 0; index < ranks.front().commands.size(); ++index) {
      arrivals.clear();
      for (uint32_t rank = 0; rank < ranks.size(); ++rank)
        arrivals.push_back(states[rank].streams[ranks[rank].commands[index].stream]);
      for (uint32_t rank = 0; rank < ranks.size(); ++rank)
        step(index, rank);
    }
  }

  /// From the command that ends last, back to the start.
  void findCriticalPath() {
    Cause at;
    for (const State &state : states)
      for (const Cause &stream : state.streams)
        if (stream.place.command != kNowhere && (at.place.command == kNowhere || stream.at > at.at))
          at = stream;
    result.seconds = at.at + hardware.stepLatency;
    result.eventSeconds = hardware.stepLatency;
    while (at.place.command != kNowhere) {
      auto [rank, index] = at.place;
      const Command &command = ranks[rank].commands[index];
      if (const auto *work = std::get_if<Work>(&command.work))
        result.spent[unsigned(command.phase)] += price(*work, hardware, ranks[rank].ranks);
      else if (const auto *exchange = std::get_if<Exchange>(&command.work))
        result.spent[unsigned(command.phase)] += price(*exchange, hardware);
      const Cause &cause = causes[rank][index];
      if (std::holds_alternative<Wait>(command.work))
        result.eventSeconds += at.at - cause.at;
      result.criticalPath.push_back(at.place);
      at = cause;
    }
    std::reverse(result.criticalPath.begin(), result.criticalPath.end());
  }
};

using Intervals = std::vector<std::pair<double, double>>;

/// Sorted, without overlaps.
Intervals merged(Intervals intervals) {
  std::sort(intervals.begin(), intervals.end());
  Intervals result;
  for (auto [start, end] : intervals) {
    if (!result.empty() && start <= result.back().second)
      result.back().second = std::max(result.back().second, end);
    else
      result.emplace_back(start, end);
  }
  return result;
}

double length(const Intervals &intervals) {
  double seconds = 0;
  for (auto [start, end] : intervals)
    seconds += end - start;
  return seconds;
}

void measure(const Program &program, const Hardware &hardware, Simulation &result) {
  Intervals compute, communication;
  double bytes = 0, flopSeconds = 0, sent = 0;
  for (size_t i = 0; i < program.commands.size(); ++i) {
    const Timing &timing = result.timings[0][i];
    if (const auto *work = std::get_if<Work>(&program.commands[i].work)) {
      compute.emplace_back(timing.start, timing.end);
      bytes += work->bytes();
      if (double peak = peakFlops(hardware, work->dtype); peak > 0)
        flopSeconds += work->flops / peak;
    } else if (const auto *exchange = std::get_if<Exchange>(&program.commands[i].work)) {
      if (timing.end > timing.start)
        communication.emplace_back(timing.start, timing.end);
      sent += exchange->sentBytes;
    }
  }
  compute = merged(std::move(compute));
  communication = merged(std::move(communication));
  result.computeSeconds = length(compute);
  result.communicationSeconds = length(communication);
  Intervals both = compute;
  both.insert(both.end(), communication.begin(), communication.end());
  result.exposedSeconds = length(merged(std::move(both))) - result.computeSeconds;
  if (result.seconds == 0)
    return;
  result.memoryUse = bytes / memoryBandwidth(hardware, program.ranks) / result.seconds;
  result.computeUse = flopSeconds / result.seconds;
  result.linkUse = sent / hardware.inside.bytesPerSecond / result.seconds;
}

/// Whether the walk can rely on the programs.
bool check(std::span<const Program> ranks, Error &error) {
  auto fail = [&](size_t command, const std::string &what) {
    return error.set(ErrorCode::SimulationImpossible, "command " + std::to_string(command) + " " + what);
  };
  const Program &first = ranks.front();
  for (const Program &program : ranks) {
    if (program.commands.size() != first.commands.size() || program.streams != first.streams ||
        program.events != first.events || program.ranks != first.ranks ||
        (ranks.size() != 1 && ranks.size() != first.ranks))
      return error.set(ErrorCode::SimulationImpossible, "the ranks do not run the same program, or some are missing");
    std::vector<bool> recorded(program.events);
    for (size_t i = 0; i < program.commands.size(); ++i) {
      const Command &command = program.commands[i], &model = first.commands[i];
      if (command.stream >= program.streams)
        return fail(i, "is on stream " + std::to_string(command.stream) + " of " + std::to_string(program.streams));
      if (command.work.index() != model.work.index() || command.stream != model.stream)
        return fail(i, "is not the same on every rank");
      if (const auto *record = std::get_if<Record>(&command.work)) {
        if (record->event >= program.events || recorded[record->event])
          return fail(i, "records an event that there is not, or one that was recorded before");
        recorded[record->event] = true;
      } else if (const auto *wait = std::get_if<Wait>(&command.work)) {
        if (wait->event >= program.events || !recorded[wait->event])
          return fail(i, "waits for an event that no command before it records");
      } else if (const auto *exchange = std::get_if<Exchange>(&command.work)) {
        const Exchange &theirs = std::get<Exchange>(model.work);
        if (exchange->peers != theirs.peers || exchange->stride != theirs.stride || exchange->stride == 0 ||
            exchange->peers == 0 || program.ranks % (uint64_t(exchange->peers) * exchange->stride) != 0)
          return fail(i, "exchanges with a group that the ranks do not divide into");
      }
    }
  }
  return true;
}

} // namespace

bool simulate(std::span<const Program> ranks, const Hardware &hardware, Simulation &result, Error &error) {
  if (ranks.empty())
    return error.set(ErrorCode::SimulationImpossible, "there is no program to simulate");
  if (!check(ranks, error))
    return false;
  result = Simulation();
  Walk walk(ranks, hardware, result);
  walk.run();
  walk.findCriticalPath();
  measure(ranks.front(), hardware, result);
  return true;
}

bool simulate(const Program &program, const Hardware &hardware, Simulation &result, Error &error) {
  return simulate(std::span(&program, 1), hardware, result, error);
}

} // namespace helix::perf
