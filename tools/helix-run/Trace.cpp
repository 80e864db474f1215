//===- Trace.cpp - Steps as a Chrome trace, runs as a report ---------------===//
#include "Run.h"
#include "lib/Artifact/Costs.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>

namespace helix {
namespace {

using json = nlohmann::ordered_json;

artifact::CostLengths lengthsOf(const Session &session, uint32_t rank, const artifact::Entry &entry,
                                const artifact::Command &command, const StepTrace &step) {
  std::vector<uint64_t> past(step.past.begin(), step.past.end()), newTokens(step.qLen.begin(), step.qLen.end());
  uint32_t kvpRank = meshOf(session.artifact()).coordinate(Axis::Kvp, rank);
  return artifact::costLengths(session.artifact(), entry, command, past, newTokens, kvpRank);
}

json commonJson(const Session &session, const RunOptions &options) {
  const artifact::Mesh &mesh = *session.artifact().mesh();
  unsigned compute = 0;
  for (uint32_t rank = 0; rank < session.ranks(); ++rank)
    compute += session.device().threadsOf(rank);
  json common = {{"version", 1},
                 {"artifact", options.artifact},
                 {"ranks", session.ranks()},
                 {"mesh", {{"tpa", mesh.tpa()}, {"kvp", mesh.kvp()}, {"ep", mesh.ep()}, {"tpf", mesh.tpf()}}},
                 {"threads", {{"compute", compute}, {"cores", std::thread::hardware_concurrency()}}},
                 {"link", nullptr}};
  if (const auto &link = session.options().link) {
    double bytes = link->bytesPerSecond;
    common["link"] = {{"latency_s", link->latency}, {"bytes_per_s", std::isfinite(bytes) ? bytes : 0}}; // 0: unlimited
  }
  return common;
}

/// The events of an entry's steps.
class Events {
public:
  Events(const Session &session, uint32_t entryIndex, int64_t zero)
      : session(session), entryIndex(entryIndex), entry(*session.artifact().entries()->Get(entryIndex)), zero(zero) {
    commands.resize(entry.streams());
    for (uint32_t i = 0; entry.commands() && i < entry.commands()->size(); ++i)
      commands[entry.commands()->Get(i)->stream()].push_back(i);
  }

  void name(json &events, uint32_t rank) const {
    events.push_back(
        {{"ph", "M"}, {"pid", rank}, {"name", "process_name"}, {"args", {{"name", "rank " + std::to_string(rank)}}}});
    events.push_back({{"ph", "M"}, {"pid", rank}, {"name", "process_sort_index"}, {"args", {{"sort_index", rank}}}});
    for (uint32_t stream = 0; stream < commands.size(); ++stream)
      events.push_back(
          {{"ph", "M"}, {"pid", rank}, {"tid", stream}, {"name", "thread_name"}, {"args", {{"name", nameOf(stream)}}}});
  }

  void add(json &events, const StepTrace &step, uint32_t rank) const {
    const RankTimes &times = step.ranks[rank];
    for (uint32_t stream = 0; stream < commands.size(); ++stream) {
      const std::vector<int64_t> &ends = times.streams[stream];
      if (stream != 0)
        events.push_back(event(step, rank, stream, times.begin, ends[0], "waits for its thread", "wait", "start"));
      for (size_t i = 0; i < commands[stream].size(); ++i)
        events.push_back(command(step, rank, stream, commands[stream][i], ends[i], ends[i + 1]));
      if (stream == 0 && commands.size() > 1)
        events.push_back(
            event(step, rank, stream, ends.back(), times.joined, "waits for other streams", "wait", "join"));
    }
    events.push_back(event(step, rank, 0, times.joined, times.end, "keeps the last logits", "runtime", "LastLogits"));
  }

private:
  std::string nameOf(uint32_t stream) const {
    bool exchanges = std::any_of(commands[stream].begin(), commands[stream].end(), [&](uint32_t i) {
      return artifact::isCollective(entry.commands()->Get(i)->work_type());
    });
    return stream == 0 ? "compute" : exchanges ? "comm" : "stream " + std::to_string(stream);
  }

  json event(const StepTrace &step, uint32_t rank, uint32_t stream, int64_t begin, int64_t end, const std::string &name,
             const char *category, const char *kind) const {
    return {{"ph", "X"},
            {"pid", rank},
            {"tid", stream},
            {"ts", double(begin - zero) * 1e-3},
            {"dur", double(end - begin) * 1e-3},
            {"name", name},
            {"cat", category},
            {"args",
             {{"kind", kind},
              {"entry", EnumNameEntryKind(entry.kind())},
              {"entry_index", entryIndex},
              {"step", step.number}}}};
  }

  json command(const StepTrace &step, uint32_t rank, uint32_t stream, uint32_t index, int64_t begin,
               int64_t end) const {
    const artifact::Command &it = *entry.commands()->Get(index);
    const char *kind = EnumNameWork(it.work_type());
    std::string source = it.source() ? it.source()->str() : "";
    bool wait = it.work_type() == artifact::Work::Wait;
    json result = event(step, rank, stream, begin, end, source.empty() ? kind : source, wait ? "wait" : kind, kind);
    json &args = result["args"];
    args["command"] = index;
    args["phase"] = EnumNamePhase(it.phase());
    if (const artifact::Cost *cost = it.cost()) {
      artifact::CostLengths by = lengthsOf(session, rank, entry, it, step);
      args["bytes"] = by.bytes(*cost);
      args["flops"] = by.flops(*cost);
    }
    if (artifact::isCollective(it.work_type())) {
      Collective collective = collectiveOf(it);
      uint32_t peers = meshOf(session.artifact()).size(collective.axis);
      args["axis"] = EnumNameAxis(static_cast<artifact::Axis>(collective.axis));
      args["peers"] = peers;
      args["sent_bytes"] = bytesSent(collective, peers);
    }
    if (wait || it.work_type() == artifact::Work::Record)
      args["event"] = wait ? it.work_as_Wait()->event() : it.work_as_Record()->event();
    return result;
  }

  const Session &session;
  uint32_t entryIndex;
  const artifact::Entry &entry;
  int64_t zero;
  std::vector<std::vector<uint32_t>> commands; ///< per stream, their places in the entry's list
};

/// The entry to show: that of decode steps, or of prefill if nothing was decoded.
uint32_t tracedEntry(const Session &session, uint64_t firstStep) {
  for (artifact::EntryKind kind : {artifact::EntryKind::Decode, artifact::EntryKind::Prefill})
    for (uint32_t i = 0; i < session.artifact().entries()->size(); ++i)
      if (session.artifact().entries()->Get(i)->kind() == kind)
        for (const StepTrace *step : session.trace(i))
          if (step->number >= firstStep)
            return i;
  return 0;
}

void write(const std::string &path, const json &document) {
  // Names are bytes of the model's maker: what is no UTF-8 in them is replaced.
  std::string text = document.dump(-1, ' ', false, json::error_handler_t::replace);
  std::ofstream file(path, std::ios::binary);
  file << text << "\n";
  if (!file.flush())
    throw Error(ErrorCode::ReportUnwritable, "'" + path + "' cannot be written: " + std::strerror(errno));
}

} // namespace

void writeTrace(const Session &session, const RunOptions &options, uint64_t firstStep) {
  uint32_t entry = tracedEntry(session, firstStep);
  std::vector<const StepTrace *> steps = session.trace(entry);
  std::erase_if(steps, [&](const StepTrace *step) { return step->number < firstStep; });
  int64_t zero = steps.empty() ? 0 : steps[0]->begin;
  json common = commonJson(session, options), listed = json::array(), events = json::array();
  Events all(session, entry, zero);
  for (uint32_t rank = 0; rank < session.ranks(); ++rank)
    all.name(events, rank);
  for (const StepTrace *step : steps) {
    listed.push_back({{"step", step->number},
                      {"entry", EnumNameEntryKind(session.artifact().entries()->Get(entry)->kind())},
                      {"entry_index", entry},
                      {"past", step->past},
                      {"q_len", step->qLen},
                      {"start_us", double(step->begin - zero) * 1e-3},
                      {"wall_us", double(step->end - step->begin) * 1e-3}});
    for (uint32_t rank = 0; rank < session.ranks(); ++rank)
      all.add(events, *step, rank);
  }
  common["steps"] = std::move(listed);
  write(options.traceFile, {{"displayTimeUnit", "ms"}, {"helix", common}, {"traceEvents", events}});
}

void writeReport(const Session &session, const RunOptions &options, const Statistics &statistics) {
  json report = commonJson(session, options);
  report["decode"] = nullptr;
  if (std::vector<double> sorted = statistics.stepSeconds; !sorted.empty()) {
    std::sort(sorted.begin(), sorted.end());
    double sum = 0;
    for (double seconds : sorted)
      sum += seconds;
    report["decode"] = {{"steps", sorted.size()},
                        {"min_s", sorted.front()},
                        {"median_s", quantile(sorted, 0.5)},
                        {"p90_s", quantile(sorted, 0.9)},
                        {"p99_s", quantile(sorted, 0.99)},
                        {"max_s", sorted.back()},
                        {"mean_s", sum / double(sorted.size())},
                        {"step_seconds", statistics.stepSeconds}};
  }
  report["prefill"] = {{"tokens", statistics.prefillTokens}, {"seconds", statistics.prefillSeconds}};
  const Traffic &sent = statistics.decodeTraffic;
  report["sent_bytes_per_step"] = {
      {"all_to_all", sent.allToAll},
      {"all_reduce", sent.allReduce},
      {"embedding", sent.embedding},
      {"sampling", statistics.samplingSent / std::max<size_t>(1, statistics.stepSeconds.size())}};
  write(options.reportFile, report);
}

} // namespace helix
