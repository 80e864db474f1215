//===- HardwareFile.cpp - Hardware descriptions as JSON --------------------===//
#include "lib/Perf/Hardware.h"
#include "lib/Perf/JsonProblem.h"
#include "lib/Perf/Systems.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace helix::perf {
namespace {

using Json = nlohmann::ordered_json;

/// One JSON object of a description: takes its fields, and says which are missing, wrong, or none of a description's.
class Fields {
public:
  Fields(const Json *object, std::string path, const std::string &origin, Error &error)
      : object(object), path(std::move(path)), origin(origin), error(error) {}

  bool fail(const std::string &field, const std::string &what) {
    return error.set(ErrorCode::HardwareInvalid,
                     "'" + origin + "': " + (path.empty() ? "" : path + ".") + field + " " + what);
  }

  const Json *find(const std::string &field) {
    known.push_back(field);
    auto it = object->find(field);
    return it == object->end() ? nullptr : &*it;
  }

  /// A number in [least, most]; if it is not there, `value` stays, unless `required`.
  bool number(const std::string &field, double &value, double least, double most, bool required) {
    const Json *json = find(field);
    if (!json)
      return !required || fail(field, "is missing; give a number" + range(least, most));
    return number(field, *json, value, least, most);
  }

  bool text(const std::string &field, std::string &value) {
    const Json *json = find(field);
    if (!json || !json->is_string())
      return fail(field, "must be a text");
    value = json->get<std::string>();
    return true;
  }

  /// An object of this one, or null after an error. An optional one that is missing gives an empty object.
  const Json *nested(const std::string &field, bool required) {
    static const Json empty = Json::object();
    const Json *json = find(field);
    if (!json && !required)
      return &empty;
    if (!json || !json->is_object()) {
      fail(field, "must be an object, as in docs/hardware.md");
      return nullptr;
    }
    return json;
  }

  /// A number for all of `names`, or an object with a number for some of them.
  template <size_t count, typename Name>
  bool each(const std::string &field, std::array<double, count> &values, Name name, double least, double most) {
    const Json *json = find(field);
    if (!json)
      return true;
    if (!json->is_object()) {
      double value = 0;
      if (!number(field, *json, value, least, most))
        return false;
      values.fill(value);
      return true;
    }
    Fields inner = into(json, field);
    for (size_t i = 0; i < count; ++i)
      if (!inner.number(std::string(name(i)), values[i], least, most, false))
        return false;
    return inner.end();
  }

  /// "divisible", or the text for PerCommand.
  bool latencyModel(const std::string &field, const std::string &perCommand, LatencyModel &model) {
    const Json *json = find(field);
    if (!json)
      return true;
    if (*json != "divisible" && *json != perCommand)
      return fail(field, "must be \"divisible\" or \"" + perCommand + "\"");
    model = *json == "divisible" ? LatencyModel::Divisible : LatencyModel::PerCommand;
    return true;
  }

  /// The fields of an object of this one.
  Fields into(const Json *inner, const std::string &field) const {
    return {inner, path.empty() ? field : path + "." + field, origin, error};
  }

  /// Whether every field of the object was asked for.
  bool end() {
    for (const auto &[key, value] : object->items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        return fail(key, "is no field of a hardware description; see docs/hardware.md for those there are");
    return true;
  }

private:
  static std::string range(double least, double most) {
    auto text = [](double value) {
      std::array<char, 32> buffer;
      std::snprintf(buffer.data(), buffer.size(), "%.6g", value);
      return std::string(buffer.data());
    };
    return " from " + text(least) + (std::isinf(most) ? " on" : " to " + text(most));
  }

  bool number(const std::string &field, const Json &json, double &value, double least, double most) {
    if (!json.is_number() || !(json.get<double>() >= least) || !(json.get<double>() <= most) ||
        std::isinf(json.get<double>()))
      return fail(field, "must be a number" + range(least, most));
    value = json.get<double>();
    return true;
  }

  const Json *object;
  std::string path;
  const std::string &origin;
  Error &error;
  std::vector<std::string> known;
};

constexpr double kMost = INFINITY;
constexpr double kLeastRate = 1;          // bytes/s, FLOP/s
constexpr double kLeastEfficiency = 1e-6; // nothing is free, and nothing takes for ever
constexpr double kMostEfficiency = 1;
constexpr double kMostSeconds = 3600;

std::string_view nameOfClass(size_t i) { return className(CommandClass(i)); }
std::string_view nameOfCollective(size_t i) { return collectiveName(CollectiveKind(i)); }

bool readDevice(Fields fields, Hardware &hardware) {
  const Json *peaks = nullptr;
  if (!fields.number("memory_bytes_per_s", hardware.memoryBytesPerSecond, kLeastRate, kMost, true) ||
      !fields.number("capacity_bytes", hardware.capacityBytes, 0, kMost, true) ||
      !fields.number("reserved_bytes", hardware.reservedBytes, 0, kMost, false) ||
      !(peaks = fields.nested("peak_flops_per_s", true)))
    return false;
  Fields inner = fields.into(peaks, "peak_flops_per_s");
  for (unsigned i = 0; i < kDTypes; ++i)
    if (!inner.number(std::string(dtypeName(DType(i))), hardware.peakFlops[i], kLeastRate, kMost, false))
      return false;
  return inner.end() && fields.end();
}

bool readLink(Fields fields, Link &link) {
  return fields.text("name", link.name) && fields.number("bytes_per_s", link.bytesPerSecond, kLeastRate, kMost, true) &&
         fields.each("latency_s", link.latency, nameOfCollective, 0, kMostSeconds) && fields.end();
}

bool readSystem(Fields fields, Hardware &hardware) {
  double domain = 0;
  if (!fields.number("domain", domain, 1, 1 << 20, true))
    return false;
  if (domain != std::floor(domain))
    return fields.fail("domain", "must be a whole number of devices");
  hardware.domain = uint32_t(domain);
  const Json *links = fields.find("links");
  if (!links || !links->is_array() || links->empty() || links->size() > 2)
    return fields.fail("links", "must be an array of one or two objects: the link inside a domain, that beyond it");
  for (size_t i = 0; i < links->size(); ++i) {
    std::string name = "links[" + std::to_string(i) + "]";
    if (!(*links)[i].is_object())
      return fields.fail(name, "must be an object");
    if (!readLink(fields.into(&(*links)[i], name), i == 0 ? hardware.inside : hardware.outside))
      return false;
  }
  if (links->size() == 1)
    hardware.outside = hardware.inside;
  return fields.number("shared_memory_bytes_per_s", hardware.sharedMemoryBytesPerSecond, kLeastRate, kMost, false) &&
         fields.end();
}

bool readModel(Fields fields, Hardware &hardware) {
  return fields.each("memory_efficiency", hardware.memoryEfficiency, nameOfClass, kLeastEfficiency, kMostEfficiency) &&
         fields.each("compute_efficiency", hardware.computeEfficiency, nameOfClass, kLeastEfficiency,
                     kMostEfficiency) &&
         fields.each("op_latency_s", hardware.opLatency, nameOfClass, 0, kMostSeconds) &&
         fields.number("event_latency_s", hardware.eventLatency, 0, kMostSeconds, false) &&
         fields.number("step_latency_s", hardware.stepLatency, 0, kMostSeconds, false) &&
         fields.number("delay_overhead_s", hardware.delayOverhead, 0, kMostSeconds, false) &&
         fields.latencyModel("latency_model", "per-collective", hardware.collectiveLatency) &&
         fields.latencyModel("op_latency_model", "per-command", hardware.opLatencyModel) && fields.end();
}

bool readHardware(const Json &json, const std::string &origin, Hardware &hardware, Error &error) {
  hardware = Hardware();
  Fields fields(&json, "", origin, error);
  const Json *device = nullptr, *system = nullptr, *model = nullptr;
  return fields.text("name", hardware.name) && fields.text("source", hardware.source) &&
         (device = fields.nested("device", true)) && readDevice(fields.into(device, "device"), hardware) &&
         (system = fields.nested("system", true)) && readSystem(fields.into(system, "system"), hardware) &&
         (model = fields.nested("model", false)) && readModel(fields.into(model, "model"), hardware) && fields.end();
}

/// The built-in description of that name, or null.
const Json *builtin(const std::string &name) {
  static const Json systems = Json::parse(builtinSystems(), nullptr, /*allow_exceptions=*/false);
  for (const Json &system : systems)
    if (system["name"] == name)
      return &system;
  return nullptr;
}

template <size_t count, typename Name> Json perName(const std::array<double, count> &values, Name name) {
  Json json;
  for (size_t i = 0; i < count; ++i)
    json[std::string(name(i))] = values[i];
  return json;
}

Json printLink(const Link &link) {
  return {{"name", link.name},
          {"bytes_per_s", link.bytesPerSecond},
          {"latency_s", perName(link.latency, nameOfCollective)}};
}

const char *printModel(LatencyModel model, const char *perCommand) {
  return model == LatencyModel::Divisible ? "divisible" : perCommand;
}

} // namespace

std::vector<std::string> builtinHardware() {
  std::vector<std::string> names;
  for (const Json &system : Json::parse(builtinSystems(), nullptr, /*allow_exceptions=*/false))
    names.push_back(system["name"].get<std::string>());
  return names;
}

bool parseHardware(std::string_view text, const std::string &origin, Hardware &hardware, Error &error) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    return error.set(ErrorCode::HardwareUnreadable, "'" + origin + "' " + jsonProblem(text));
  if (!json.is_object())
    return error.set(ErrorCode::HardwareUnreadable, "'" + origin + "' is not a JSON object");
  return readHardware(json, origin, hardware, error);
}

bool loadHardware(const std::string &nameOrPath, Hardware &hardware, Error &error) {
  if (const Json *json = builtin(nameOrPath))
    return readHardware(*json, nameOrPath, hardware, error);
  std::ifstream file(nameOrPath, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.is_open() && !file.bad() && !text.empty())
    return parseHardware(text, nameOrPath, hardware, error);
  if (nameOrPath.find('.') != std::string::npos || nameOrPath.find('/') != std::string::npos)
    return error.set(ErrorCode::HardwareUnreadable, "'" + nameOrPath + "' cannot be read, or is empty");
  std::string names;
  for (const std::string &name : builtinHardware())
    names += (names.empty() ? "" : ", ") + name;
  return error.set(ErrorCode::HardwareUnknown,
                   "there is no hardware '" + nameOrPath + "'; name one of " + names + ", or a JSON file");
}

std::string printHardware(const Hardware &hardware) {
  Json peaks = Json::object();
  for (unsigned i = 0; i < kDTypes; ++i)
    if (hardware.peakFlops[i] > 0)
      peaks[std::string(dtypeName(DType(i)))] = hardware.peakFlops[i];
  Json system = {{"domain", hardware.domain},
                 {"links", Json::array({printLink(hardware.inside), printLink(hardware.outside)})}};
  if (hardware.sharedMemoryBytesPerSecond > 0)
    system["shared_memory_bytes_per_s"] = hardware.sharedMemoryBytesPerSecond;
  Json json = {{"name", hardware.name},
               {"source", hardware.source},
               {"device",
                {{"memory_bytes_per_s", hardware.memoryBytesPerSecond},
                 {"capacity_bytes", hardware.capacityBytes},
                 {"reserved_bytes", hardware.reservedBytes},
                 {"peak_flops_per_s", peaks}}},
               {"system", system},
               {"model",
                {{"memory_efficiency", perName(hardware.memoryEfficiency, nameOfClass)},
                 {"compute_efficiency", perName(hardware.computeEfficiency, nameOfClass)},
                 {"op_latency_s", perName(hardware.opLatency, nameOfClass)},
                 {"op_latency_model", printModel(hardware.opLatencyModel, "per-command")},
                 {"event_latency_s", hardware.eventLatency},
                 {"step_latency_s", hardware.stepLatency},
                 {"delay_overhead_s", hardware.delayOverhead},
                 {"latency_model", printModel(hardware.collectiveLatency, "per-collective")}}}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace helix::perf
