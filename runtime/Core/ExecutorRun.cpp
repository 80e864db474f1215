//===- ExecutorRun.cpp - A step of one rank --------------------------------===//
#include "runtime/Core/Executor.h"
#include "runtime/Error.h"

#include <algorithm>

namespace helix {

Traffic Executor::run(uint32_t entry, RankTimes *times) {
  traffic = Traffic();
  ++runs;
  Program &program = entries[entry];
  int64_t begin = times ? traceNow() : 0;
  for (size_t i = 0; i < program.streams.size(); ++i) {
    Stream &stream = program.streams[i];
    stream.begun = stream.ended = 0;
    stream.times = times ? &times->streams[i] : nullptr;
    if (times)
      stream.times->front() = begin;
  }
  followFirst(program);
  if (times) {
    times->begin = begin;
    times->joined = traceNow();
  }
  keepLastLogits(program);
  if (times)
    times->end = traceNow();
  return traffic;
}

void Executor::followFirst(Program &program) {
  Stream &first = program.streams.front();
  bool others = program.streams.size() > 1;
  for (const Bound &command : first.commands) {
    if (const auto *event = std::get_if<EventCall>(&command.call)) {
      if (!event->wait)
        recorded[event->event] = runs;
      while (recorded[event->event] != runs)
        if (!carryOn(program))
          waitForOldest(program);
    } else if (const auto *collective = std::get_if<Collective>(&command.call)) {
      communicator->wait(communicator->start(*collective));
      *command.sent += bytesSent(*collective, mesh.size(collective->axis));
    } else {
      compute(command);
    }
    ++first.ended;
    if (first.times)
      (*first.times)[first.ended] = traceNow();
    if (others)
      carryOn(program);
  }
  auto busy = [](const Stream &stream) { return stream.ended != stream.commands.size(); };
  while (std::any_of(program.streams.begin(), program.streams.end(), busy))
    if (!carryOn(program))
      waitForOldest(program);
}

/// Takes the streams but the first as far as they get without blocking; false if that was nowhere.
bool Executor::carryOn(Program &program) {
  bool any = false;
  for (bool more = true; more; any |= more) {
    more = false;
    for (auto stream = program.streams.begin() + 1; stream != program.streams.end(); ++stream) {
      more |= end(*stream);
      more |= begin(*stream);
    }
  }
  return any;
}

/// Begins the stream's next command, if it can: an exchange whose inputs are ready need not wait for those before it.
bool Executor::begin(Stream &stream) {
  if (stream.begun == stream.commands.size())
    return false;
  const Bound &command = stream.commands[stream.begun];
  Underway &underway = stream.underway[stream.begun];
  if (const auto *event = std::get_if<EventCall>(&command.call)) {
    if (event->wait && recorded[event->event] != runs)
      return false;
    underway.at = event->wait && stream.times ? traceNow() : 0;
  } else if (const auto *collective = std::get_if<Collective>(&command.call)) {
    if (stream.ended < command.after || stream.begun - stream.ended >= Communicator::kUnderWay)
      return false;
    underway.ticket = communicator->start(*collective);
    *command.sent += bytesSent(*collective, mesh.size(collective->axis));
  } else if (stream.ended == stream.begun) {
    compute(command);
  } else {
    return false;
  }
  ++stream.begun;
  return true;
}

/// Ends the first command that is under way, if it has.
bool Executor::end(Stream &stream) {
  if (stream.ended == stream.begun)
    return false;
  const Bound &command = stream.commands[stream.ended];
  const Underway &underway = stream.underway[stream.ended];
  int64_t at = 0; ///< of a record: with the command before it
  if (const auto *event = std::get_if<EventCall>(&command.call)) {
    if (!event->wait)
      recorded[event->event] = runs;
    at = underway.at;
  } else if (std::holds_alternative<Collective>(command.call)) {
    if (!communicator->test(underway.ticket))
      return false;
    at = communicator->doneAt(underway.ticket);
  } else if (stream.times) {
    at = traceNow();
  }
  if (stream.times)
    (*stream.times)[stream.ended + 1] = std::max((*stream.times)[stream.ended], at);
  ++stream.ended;
  return true;
}

/// With nothing else to do: sleeps until the exchange that was started first has ended.
void Executor::waitForOldest(const Program &program) {
  Communicator::Ticket oldest = 0;
  for (auto stream = program.streams.begin() + 1; stream != program.streams.end(); ++stream)
    if (stream->ended != stream->begun)
      if (Communicator::Ticket ticket = stream->underway[stream->ended].ticket; oldest == 0 || ticket < oldest)
        oldest = ticket;
  // Readers of artifacts refuse events that wait for each other in a circle.
  if (oldest == 0)
    throw Error(ErrorCode::ArgumentInvalid, "rank " + std::to_string(rank) + " waits for what nobody does");
  communicator->wait(oldest);
}

void Executor::compute(const Bound &command) {
  std::visit(
      [&](const auto &call) {
        using Type = std::decay_t<decltype(call)>;
        if constexpr (!std::is_same_v<Type, EventCall> && !std::is_same_v<Type, Collective>)
          execute(call, command);
      },
      command.call);
}

void Executor::keepLastLogits(const Program &program) {
  if (!program.logits)
    return;
  size_t vocabulary = artifact.local_vocabulary(), batch = program.inputs->qLen.size();
  size_t rows = program.allTokens ? program.inputs->ids.size() / batch : 1;
  auto *to = reinterpret_cast<float *>(last.data());
  for (size_t b = 0; b < batch; ++b)
    if (size_t used = size_t(program.inputs->qLen[b]); used != 0)
      std::copy_n(program.logits + (b * rows + (program.allTokens ? used - 1 : 0)) * vocabulary, vocabulary,
                  to + b * vocabulary);
}

RankTimes Executor::timesOf(uint32_t entry) const {
  RankTimes times;
  for (const Stream &stream : entries[entry].streams)
    times.streams.emplace_back(stream.commands.size() + 1);
  return times;
}

} // namespace helix
