//===- TraceFile.cpp - Measured steps from traces of helix-run -------------===//
#include "lib/Perf/TraceFile.h"
#include "lib/Perf/FromArtifact.h"
#include "lib/Perf/JsonProblem.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

namespace helix::perf {
namespace {

using Json = nlohmann::json;

/// When a command ran, in seconds.
struct Span {
  double start = 0, end = 0;
  std::string kind = {};
};

struct Reader {
  const std::string &path;
  MeasuredRun &run;
  Error &error;
  Json json;
  artifact::LoadedArtifact artifact;
  uint32_t ranks = 0;
  std::map<uint64_t, std::map<std::pair<uint64_t, uint64_t>, Span>> spans; ///< step → (command, rank) → span

  bool fail(const std::string &text) { return error.set(ErrorCode::TraceInvalid, "'" + path + "' " + text); }

  static const Json *find(const Json &object, const char *field) {
    auto it = object.is_object() ? object.find(field) : object.end();
    return object.is_object() && it != object.end() ? &*it : nullptr;
  }

  /// An hour: what is longer is no step.
  static constexpr double kMostMicroseconds = 3600e6;

  static bool number(const Json &object, const char *field, double &value) {
    const Json *json = find(object, field);
    if (!json || !json->is_number() || !std::isfinite(json->get<double>()))
      return false;
    value = json->get<double>();
    return true;
  }

  static bool whole(const Json &object, const char *field, uint64_t &value) {
    double number = 0;
    if (!Reader::number(object, field, number) || number < 0 || number > 1e15 || number != std::floor(number))
      return false;
    value = uint64_t(number);
    return true;
  }

  /// An array of one whole number per slot.
  static bool lengths(const Json &object, const char *field, size_t slots, std::vector<uint64_t> &values) {
    const Json *json = find(object, field);
    if (!json || !json->is_array() || json->size() != slots)
      return false;
    for (const Json &each : *json) {
      if (!each.is_number_unsigned() && !(each.is_number_integer() && each.get<int64_t>() >= 0))
        return false;
      values.push_back(each.get<uint64_t>());
    }
    return true;
  }

  bool open() {
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    std::string text(std::istreambuf_iterator<char>(file), {});
    if (!file)
      return error.set(ErrorCode::TraceInvalid,
                       "cannot read '" + path + "': " + (errno ? std::strerror(errno) : "it is no file"));
    json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded())
      return fail(jsonProblem(text));
    const Json *helix = json.is_object() ? find(json, "helix") : nullptr;
    const Json *name = helix ? find(*helix, "artifact") : nullptr;
    if (!name || !name->is_string())
      return fail("is not a trace that helix-run --trace wrote");
    std::filesystem::path given = name->get<std::string>();
    std::error_code ignored;
    if (!std::filesystem::exists(given, ignored))
      given = std::filesystem::path(path).parent_path() / given.filename();
    run.artifact = given.string();
    artifact = artifact::readArtifact(run.artifact, error);
    if (!artifact)
      return false;
    uint64_t count = 0;
    ranks = artifact->mesh()->tpa() * artifact->mesh()->kvp();
    if (!whole(*helix, "ranks", count) || count != ranks)
      return fail("was written with another artifact than '" + run.artifact + "' is now");
    if (const Json *link = find(*helix, "link"); link && link->is_object()) {
      Delay delay;
      if (!number(*link, "latency_s", delay.latency) || !number(*link, "bytes_per_s", delay.bytesPerSecond) ||
          delay.latency < 0 || delay.bytesPerSecond < 0)
        return fail("helix.link has no latency_s and bytes_per_s");
      run.delay = delay;
    }
    return true;
  }

  bool readEvents() {
    const Json *events = find(json, "traceEvents");
    if (!events || !events->is_array())
      return fail("has no traceEvents");
    for (const Json &event : *events) {
      const Json *args = find(event, "args"), *kind = find(event, "ph");
      if (!args || !kind || *kind != "X" || !find(*args, "command"))
        continue;
      uint64_t rank = 0, step = 0, command = 0;
      double start = 0, duration = 0;
      if (!whole(event, "pid", rank) || !whole(*args, "step", step) || !whole(*args, "command", command) ||
          !number(event, "ts", start) || !number(event, "dur", duration) || rank >= ranks)
        return fail("has an event without pid, ts, dur, step or command");
      const Json *what = find(*args, "kind");
      spans[step][{command, rank}] = {start * 1e-6, (start + duration) * 1e-6,
                                      what && what->is_string() ? what->get<std::string>() : ""};
    }
    return true;
  }

  /// The mean over ranks of a command's seconds.
  static double meanSeconds(const std::vector<Span> &all) {
    double start = 0, end = 0;
    for (const Span &span : all) {
      start += span.start;
      end += span.end;
    }
    return (end - start) / double(all.size());
  }

  void measure(const std::map<std::pair<uint64_t, uint64_t>, Span> &found, MeasuredStep &step) {
    const std::vector<Command> &commands = step.program.commands;
    step.commands.resize(commands.size());
    std::vector<size_t> before(commands.size(), SIZE_MAX); ///< the command before it on its stream
    std::map<uint32_t, size_t> last, records;              ///< stream → command, event → its record
    for (size_t i = 0; i < commands.size(); ++i) {
      if (auto it = last.find(commands[i].stream); it != last.end())
        before[i] = it->second;
      last[commands[i].stream] = i;
      if (const auto *record = std::get_if<Record>(&commands[i].work))
        records[record->event] = i;
    }
    for (size_t i = 0; i < commands.size(); ++i) {
      std::vector<Span> all;
      for (uint32_t rank = 0; rank < ranks; ++rank) {
        auto span = found.find({i, rank});
        if (span == found.end())
          continue;
        all.push_back(span->second);
        const auto *wait = std::get_if<Wait>(&commands[i].work);
        auto record = wait ? records.find(wait->event) : records.end();
        if (record == records.end())
          continue;
        auto recorded = found.find({record->second, rank});
        if (recorded != found.end() && recorded->second.end > span->second.start)
          step.wakeups.push_back(std::max(0.0, span->second.end - recorded->second.end));
      }
      if (all.size() == ranks)
        step.commands[i] = meanSeconds(all);
    }
  }

  bool readSteps() {
    const Json *steps = find(json["helix"], "steps");
    if (!steps || !steps->is_array() || steps->empty())
      return fail("has no steps");
    for (const Json &each : *steps) {
      uint64_t number = 0, entry = 0;
      double wall = 0;
      Lengths lengths;
      if (!whole(each, "step", number) || !whole(each, "entry_index", entry) ||
          !Reader::number(each, "wall_us", wall) || !(wall > 0 && wall <= kMostMicroseconds) ||
          entry >= artifact->entries()->size())
        return fail("has a step without step, entry_index or wall_us");
      size_t slots = artifact->entries()->Get(uint32_t(entry))->batch();
      if (!Reader::lengths(each, "past", slots, lengths.past) ||
          !Reader::lengths(each, "q_len", slots, lengths.newTokens))
        return fail("has a step whose past and q_len are not one whole number for each of " + std::to_string(slots) +
                    " slots");
      const artifact::Entry &of = *artifact->entries()->Get(uint32_t(entry));
      for (size_t slot = 0; slot < slots; ++slot)
        if (lengths.newTokens[slot] > of.tokens() ||
            lengths.past[slot] > artifact->kv()->capacity() - lengths.newTokens[slot])
          return fail("has a step with " + std::to_string(lengths.past[slot]) + " past and " +
                      std::to_string(lengths.newTokens[slot]) + " new tokens, more than the artifact has room for");
      MeasuredStep step;
      step.seconds = wall * 1e-6;
      if (!programOf(*artifact, uint32_t(entry), lengths, {}, 0, step.program, error))
        return false;
      auto found = spans.find(number);
      if (found == spans.end())
        return fail("has no events of step " + std::to_string(number));
      for (const auto &[at, span] : found->second)
        if (at.first >= step.program.commands.size() || span.kind != step.program.commands[at.first].what)
          return fail("was written with another artifact than '" + run.artifact + "' is now: its command " +
                      std::to_string(at.first) + " is " + (span.kind.empty() ? "of no kind" : span.kind));
      measure(found->second, step);
      run.steps.push_back(std::move(step));
    }
    return true;
  }
};

} // namespace

bool readTrace(const std::string &path, MeasuredRun &run, Error &error) {
  run = MeasuredRun();
  run.name = path;
  Reader reader{path, run, error, {}, {}, 0, {}};
  return reader.open() && reader.readEvents() && reader.readSteps();
}

} // namespace helix::perf
