//===- Report.cpp - A simulated step as tables and as JSON -----------------===//
#include "Simulate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace helix {
namespace {

using Json = nlohmann::ordered_json;

std::string bytesText(double bytes) {
  constexpr std::array<const char *, 5> units = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < units.size(); ++unit)
    bytes /= 1024;
  return format("%.1f %s", bytes, units[unit]);
}

std::string secondsText(double seconds) {
  if (seconds < 1e-6)
    return seconds == 0 ? "0" : format("%.1f ns", seconds * 1e9);
  if (seconds < 1e-3)
    return format("%.1f us", seconds * 1e6);
  return seconds < 1 ? format("%.3f ms", seconds * 1e3) : format("%.3f s", seconds);
}

const std::array<const char *, perf::kPhases> kPhaseNames = {"other", "kvp", "tp"};

/// A part of a price, and its name in the two reports.
struct Part {
  const char *title, *key;
  double perf::Price::*seconds;
};
constexpr std::array<Part, 7> kParts = {{
    {"weights", "weights", &perf::Price::weights},
    {"KV cache", "kv", &perf::Price::kv},
    {"activations", "activations", &perf::Price::activations},
    {"FLOPs", "compute", &perf::Price::compute},
    {"collectives, bytes", "transfer", &perf::Price::transfer},
    {"collectives, latency", "collective_latency", &perf::Price::collectiveLatency},
    {"latency of commands", "op_latency", &perf::Price::opLatency},
}};

double tokensPerSecond(const Step &step) {
  const perf::Program &program = step.ranks.front();
  return double(program.sequences * program.newTokens) / step.simulation.seconds;
}

struct Needs {
  double weights, kv, available;
  bool fits() const { return weights + kv <= available; }
};

Needs needsOf(const Step &step) {
  return {step.ranks.front().weightBytes, step.ranks.front().kvBytes,
          std::max(0.0, step.hardware.capacityBytes - step.hardware.reservedBytes)};
}

/// Seconds along the critical path, and commands, by what they are.
struct Kind {
  std::string_view name;
  double critical = 0, all = 0;
  size_t count = 0;
};

std::vector<Kind> kindsOf(const Step &step) {
  std::map<std::string_view, Kind> kinds;
  const std::vector<perf::Command> &commands = step.ranks.front().commands;
  for (size_t i = 0; i < commands.size(); ++i) {
    if (std::holds_alternative<perf::Record>(commands[i].work) || std::holds_alternative<perf::Wait>(commands[i].work))
      continue;
    const perf::Timing &timing = step.simulation.timings[0][i];
    Kind &kind = kinds[kindOf(commands[i])];
    ++kind.count;
    kind.all += timing.end - timing.begin;
  }
  for (const perf::Place &place : step.simulation.criticalPath) {
    const perf::Timing &timing = step.simulation.timings[place.rank][place.command];
    auto kind = kinds.find(kindOf(step.ranks[place.rank].commands[place.command]));
    if (kind != kinds.end())
      kind->second.critical += timing.end - timing.begin;
  }
  std::vector<Kind> sorted;
  for (auto &[name, kind] : kinds) {
    kind.name = name;
    sorted.push_back(kind);
  }
  std::sort(sorted.begin(), sorted.end(), [](const Kind &a, const Kind &b) { return a.critical > b.critical; });
  return sorted;
}

std::string breakdownTable(const perf::Simulation &simulation) {
  std::string text = format("%-22s %12s %12s %12s %12s %7s\n", "critical path", "kvp", "tp", "other", "all", "share");
  auto row = [&](const char *title, double kvp, double tp, double other) {
    double all = kvp + tp + other;
    if (all > 0)
      text += format("%-22s %12s %12s %12s %12s %6.1f%%\n", title, secondsText(kvp).c_str(), secondsText(tp).c_str(),
                     secondsText(other).c_str(), secondsText(all).c_str(), 100 * all / simulation.seconds);
  };
  const perf::Price *spent = simulation.spent;
  for (const Part &part : kParts)
    row(part.title, spent[1].*part.seconds, spent[2].*part.seconds, spent[0].*part.seconds);
  row("events, step", 0, 0, simulation.eventSeconds);
  row("all", spent[1].total(), spent[2].total(), spent[0].total() + simulation.eventSeconds);
  return text;
}

} // namespace

std::string printTable(const Step &step) {
  const perf::Simulation &result = step.simulation;
  const perf::Program &program = step.ranks.front();
  bool decode = step.entry == artifact::EntryKind::Decode;
  uint32_t ranks = program.ranks;
  std::string text =
      format("%s on %s: %s, %llu sequence%s of %llu tokens\n", step.artifact.c_str(), step.hardware.name.c_str(),
             decode ? "decode" : "prefill", (unsigned long long)program.sequences, program.sequences == 1 ? "" : "s",
             (unsigned long long)step.context);
  text += format("%u rank%s: attention tpa %u x kvp %u, FFN ep %u x tpf %u; %zu commands on %u stream%s\n", ranks,
                 ranks == 1 ? "" : "s", step.tpa, step.kvp, step.ep, step.tpf, program.commands.size(), program.streams,
                 program.streams == 1 ? "" : "s");
  if (decode)
    text += format("TTL %s: %.2f tokens/s/user, %.2f tokens/s/device\n", secondsText(result.seconds).c_str(),
                   1 / result.seconds, tokensPerSecond(step) / ranks);
  else
    text += format("step of %llu tokens %s: %.2f tokens/s/device\n", (unsigned long long)program.newTokens,
                   secondsText(result.seconds).c_str(), tokensPerSecond(step) / ranks);
  Needs needs = needsOf(step);
  text +=
      format("memory of a device: weights %s + KV cache %s of %s%s\n\n", bytesText(needs.weights).c_str(),
             bytesText(needs.kv).c_str(), bytesText(needs.available).c_str(), needs.fits() ? "" : "; IT DOES NOT FIT");
  text += breakdownTable(result);
  text += format("\n%-22s %8s %14s %17s\n", "commands", "count", "seconds", "on critical path");
  for (const Kind &kind : kindsOf(step))
    text += format("%-22s %8zu %14s %17s\n", std::string(kind.name).c_str(), kind.count, secondsText(kind.all).c_str(),
                   secondsText(kind.critical).c_str());
  text += format("\ncommunication %s, of it exposed %s (%.1f%% of the step)\n",
                 secondsText(result.communicationSeconds).c_str(), secondsText(result.exposedSeconds).c_str(),
                 100 * result.exposedSeconds / result.seconds);
  text +=
      format("use: memory %.1f%%, FLOPs %.1f%%, link %.1f%%; commands run %.1f%% of the time\n", 100 * result.memoryUse,
             100 * result.computeUse, 100 * result.linkUse, 100 * result.computeSeconds / result.seconds);
  return text;
}

std::string printJson(const Step &step, bool withCommands) {
  const perf::Simulation &result = step.simulation;
  const perf::Program &program = step.ranks.front();
  Json json = {{"artifact", step.artifact},
               {"hardware", step.hardware.name},
               {"entry", step.entry == artifact::EntryKind::Decode ? "decode" : "prefill"},
               {"ranks", program.ranks},
               {"mesh", {{"tpa", step.tpa}, {"kvp", step.kvp}, {"ep", step.ep}, {"tpf", step.tpf}}},
               {"sequences", program.sequences},
               {"new_tokens", program.newTokens},
               {"context", step.context},
               {"streams", program.streams},
               {"step_s", result.seconds},
               {"tokens_per_s_per_device", tokensPerSecond(step) / program.ranks}};
  if (step.entry == artifact::EntryKind::Decode) {
    json["ttl_s"] = result.seconds;
    json["tokens_per_s_per_user"] = 1 / result.seconds;
  }
  Needs needs = needsOf(step);
  json["memory"] = {{"weights_bytes", needs.weights},
                    {"kv_bytes", needs.kv},
                    {"available_bytes", needs.available},
                    {"fits", needs.fits()}};
  json["communication_s"] = result.communicationSeconds;
  json["exposed_communication_s"] = result.exposedSeconds;
  json["compute_s"] = result.computeSeconds;
  json["use"] = {{"memory", result.memoryUse}, {"compute", result.computeUse}, {"link", result.linkUse}};
  Json breakdown, bytes;
  std::array<perf::Work, perf::kPhases> sums;
  std::array<double, perf::kPhases> sent = {};
  for (const perf::Command &command : program.commands) {
    perf::Work &sum = sums[unsigned(command.phase)];
    if (const auto *work = std::get_if<perf::Work>(&command.work)) {
      sum.weightBytes += work->weightBytes;
      sum.kvBytes += work->kvBytes;
      sum.activationBytes += work->activationBytes;
      sum.flops += work->flops;
    } else if (const auto *exchange = std::get_if<perf::Exchange>(&command.work)) {
      sent[unsigned(command.phase)] += exchange->sentBytes;
    }
  }
  for (unsigned phase = 0; phase < perf::kPhases; ++phase) {
    for (const Part &part : kParts)
      breakdown[kPhaseNames[phase]][std::string(part.key) + "_s"] = result.spent[phase].*part.seconds;
    bytes[kPhaseNames[phase]] = {{"weights", sums[phase].weightBytes},
                                 {"kv", sums[phase].kvBytes},
                                 {"activations", sums[phase].activationBytes},
                                 {"sent", sent[phase]},
                                 {"flops", sums[phase].flops}};
  }
  breakdown["events_s"] = result.eventSeconds;
  json["critical_path"] = std::move(breakdown);
  json["per_rank"] = std::move(bytes);
  for (const Kind &kind : kindsOf(step))
    json["kinds"][std::string(kind.name)] = {{"count", kind.count}, {"s", kind.all}, {"critical_s", kind.critical}};
  if (withCommands) {
    std::vector<bool> critical(program.commands.size());
    for (const perf::Place &place : result.criticalPath)
      if (place.rank == 0)
        critical[place.command] = true;
    for (size_t i = 0; i < program.commands.size(); ++i) {
      const perf::Command &command = program.commands[i];
      const perf::Timing &timing = result.timings[0][i];
      Json entry = {
          {"kind", kindOf(command)}, {"what", command.what},     {"source", command.source},
          {"layer", command.layer},  {"stream", command.stream}, {"phase", kPhaseNames[unsigned(command.phase)]},
          {"start_s", timing.start}, {"end_s", timing.end},      {"critical", bool(critical[i])}};
      if (const auto *work = std::get_if<perf::Work>(&command.work)) {
        entry["weight_bytes"] = work->weightBytes;
        entry["kv_bytes"] = work->kvBytes;
        entry["activation_bytes"] = work->activationBytes;
        entry["flops"] = work->flops;
      } else if (const auto *exchange = std::get_if<perf::Exchange>(&command.work)) {
        entry["sent_bytes"] = exchange->sentBytes;
        entry["peers"] = exchange->peers;
      }
      json["commands"].push_back(std::move(entry));
    }
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace helix
