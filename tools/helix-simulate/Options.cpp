//===- Options.cpp - From the command line to a simulated step -------------===//
#include "Simulate.h"

#include <charconv>
#include <cmath>

namespace helix {
namespace {

bool fail(Error &error, const std::string &text) { return error.set(ErrorCode::SimulateArgumentInvalid, text); }

bool parseWhole(std::string_view text, uint64_t &value) {
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size();
}

bool parseAssumed(const char *option, const std::string &text, std::optional<perf::DType> &dtype, Error &error) {
  if (text.empty())
    return true;
  dtype = perf::parseDType(text);
  return dtype || fail(error, std::string(option) + " '" + text + "' is none of f32, bf16, f16, fp8, int8, fp4");
}

bool parseModel(const char *option, const std::string &text, const char *perCommand, perf::LatencyModel &model,
                Error &error) {
  if (text.empty())
    return true;
  if (text != "divisible" && text != perCommand)
    return fail(error, std::string(option) + " '" + text + "' is neither divisible nor " + perCommand);
  model = text == "divisible" ? perf::LatencyModel::Divisible : perf::LatencyModel::PerCommand;
  return true;
}

bool parseEntry(const std::string &text, artifact::EntryKind &kind, Error &error) {
  kind = text == "prefill" ? artifact::EntryKind::Prefill : artifact::EntryKind::Decode;
  return text == "prefill" || text == "decode" || fail(error, "--entry '" + text + "' is neither decode nor prefill");
}

} // namespace

bool parseCount(const std::string &option, const std::string &text, uint64_t &count, Error &error) {
  std::string_view digits = text;
  uint64_t unit = 1;
  if (!text.empty() && (text.back() == 'K' || text.back() == 'M')) {
    unit = text.back() == 'K' ? 1024 : 1000000;
    digits.remove_suffix(1);
  }
  if (!parseWhole(digits, count) || count == 0 || count > (uint64_t(1) << 40) / unit)
    return fail(error,
                option + " '" + text +
                    "' is not a number of tokens from 1 on; K is times 1024, M is times 1000000, as in 128K, 1M");
  count *= unit;
  return true;
}

bool parseLayers(const std::string &text, Range &layers, Error &error) {
  size_t dots = text.find("..");
  std::string_view first = std::string_view(text).substr(0, dots);
  std::string_view last = dots == std::string::npos ? first : std::string_view(text).substr(dots + 2);
  uint64_t from = 0, to = 0;
  if (!parseWhole(first, from) || !parseWhole(last, to) || from > to || to > INT32_MAX)
    return fail(error, "--layers '" + text + "' is no range of layers; write 3 or 3..5");
  layers = {int32_t(from), int32_t(to)};
  return true;
}

bool chooseHardware(const SimulateOptions &options, perf::Hardware &hardware, Error &error) {
  if (!perf::loadHardware(options.hardware, hardware, error) ||
      !parseModel("--latency-model", options.latencyModel, "per-collective", hardware.collectiveLatency, error) ||
      !parseModel("--op-latency-model", options.opLatencyModel, "per-command", hardware.opLatencyModel, error))
    return false;
  if (options.linkLatency || options.linkBandwidth) {
    double latency = options.linkLatency.value_or(0), bandwidth = options.linkBandwidth.value_or(0);
    if (!(latency >= 0 && latency <= 3600))
      return fail(error, "--link-latency must be from 0 to 3600 seconds");
    if (options.linkBandwidth && !(bandwidth >= 1 && std::isfinite(bandwidth)))
      return fail(error, "--link-bandwidth must be at least 1 byte per second");
    hardware.delay = perf::Delay{latency, bandwidth};
  }
  return true;
}

bool simulateStep(const SimulateOptions &options, Step &step, Error &error) {
  perf::Assumed assumed;
  if (!chooseHardware(options, step.hardware, error) || !parseEntry(options.entry, step.entry, error) ||
      !parseAssumed("--assume-weights", options.assumeWeights, assumed.weights, error) ||
      !parseAssumed("--assume-kv", options.assumeKv, assumed.kv, error))
    return false;
  step.artifact = options.inputs.front();
  artifact::LoadedArtifact artifact = artifact::readArtifact(step.artifact, error);
  uint32_t &entry = step.entryIndex;
  if (!artifact || !perf::findEntry(*artifact, step.entry, entry, error))
    return false;
  step.context = artifact->kv()->capacity();
  if (!options.context.empty() && !parseCount("--context", options.context, step.context, error))
    return false;
  uint64_t batch = options.batch ? options.batch : artifact->entries()->Get(entry)->batch();
  if (!perf::uniformLengths(*artifact, entry, batch, step.context, step.lengths, error))
    return false;
  const artifact::Mesh &mesh = *artifact->mesh();
  step.tpa = mesh.tpa(), step.kvp = mesh.kvp(), step.ep = mesh.ep(), step.tpf = mesh.tpf();
  step.ranks.resize(options.allRanks ? step.tpa * step.kvp : 1);
  for (uint32_t rank = 0; rank < step.ranks.size(); ++rank)
    if (!perf::programOf(*artifact, entry, step.lengths, assumed, rank, step.ranks[rank], error))
      return false;
  return perf::simulate(step.ranks, step.hardware, step.simulation, error);
}

} // namespace helix
