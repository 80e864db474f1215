//===- Trace.cpp - A simulated step as a Chrome trace ----------------------===//
#include "Simulate.h"

#include <nlohmann/json.hpp>

namespace helix {
namespace {
using Json = nlohmann::ordered_json;

std::string streamName(uint32_t stream) {
  return stream == 0 ? "compute" : stream == 1 ? "comm" : "stream " + std::to_string(stream);
}

Json nameOf(const char *what, uint32_t rank, uint32_t stream, const std::string &name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", stream}, {"args", {{"name", name}}}};
}
} // namespace

std::string printTrace(const Step &step) {
  const char *entry = artifact::EnumNameEntryKind(step.entry);
  Json events = Json::array();
  for (uint32_t rank = 0; rank < step.ranks.size(); ++rank) {
    const perf::Program &program = step.ranks[rank];
    events.push_back(nameOf("process_name", rank, 0, "rank " + std::to_string(rank)));
    for (uint32_t stream = 0; stream < program.streams; ++stream)
      events.push_back(nameOf("thread_name", rank, stream, streamName(stream)));
    for (size_t i = 0; i < program.commands.size(); ++i) {
      const perf::Command &command = program.commands[i];
      const perf::Timing &timing = step.simulation.timings[rank][i];
      Json args = {{"kind", command.what},
                   {"command", i},
                   {"entry", entry},
                   {"entry_index", step.entryIndex},
                   {"step", 0},
                   {"phase", artifact::EnumNamePhase(artifact::Phase(command.phase))}};
      std::string category = command.what;
      if (const auto *work = std::get_if<perf::Work>(&command.work)) {
        args["bytes"] = work->bytes();
        args["flops"] = work->flops;
      } else if (const auto *exchange = std::get_if<perf::Exchange>(&command.work)) {
        args["peers"] = exchange->peers;
        args["sent_bytes"] = exchange->sentBytes;
      } else if (const auto *record = std::get_if<perf::Record>(&command.work)) {
        args["event"] = record->event;
        category = "record";
      } else {
        args["event"] = std::get<perf::Wait>(command.work).event;
        category = "wait";
      }
      events.push_back({{"ph", "X"},
                        {"pid", rank},
                        {"tid", command.stream},
                        {"ts", timing.start * 1e6},
                        {"dur", (timing.end - timing.start) * 1e6},
                        {"name", command.source.empty() ? command.what : command.source},
                        {"cat", category},
                        {"args", std::move(args)}});
    }
  }
  Json link;
  if (step.hardware.delay)
    link = {{"latency_s", step.hardware.delay->latency}, {"bytes_per_s", step.hardware.delay->bytesPerSecond}};
  Json json = {{"displayTimeUnit", "ms"},
               {"helix",
                {{"version", 1},
                 {"artifact", step.artifact},
                 {"hardware", step.hardware.name},
                 {"ranks", step.ranks.front().ranks},
                 {"mesh", {{"tpa", step.tpa}, {"kvp", step.kvp}, {"ep", step.ep}, {"tpf", step.tpf}}},
                 {"link", link},
                 {"steps", Json::array({{{"step", 0},
                                         {"entry", entry},
                                         {"entry_index", step.entryIndex},
                                         {"past", step.lengths.past},
                                         {"q_len", step.lengths.newTokens},
                                         {"start_us", 0.0},
                                         {"wall_us", step.simulation.seconds * 1e6}}})}}},
               {"traceEvents", std::move(events)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace helix
