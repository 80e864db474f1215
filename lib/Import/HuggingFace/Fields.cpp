//===- Fields.cpp - The fields of a JSON object of config.json -------------===//
#include "lib/Import/HuggingFace/Fields.h"

#include <cmath>

namespace helix::checkpoint {
namespace {

/// The value as config.json has it, short enough for a message.
std::string textOf(const Json &json) {
  std::string text = json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

std::optional<double> positiveOf(const Json &json) {
  if (!json.is_number())
    return std::nullopt;
  double value = json.get<double>();
  return std::isfinite(value) && value > 0 ? std::optional(value) : std::nullopt;
}

} // namespace

void Fields::fail(ErrorCode code, const std::string &field, const std::string &what) {
  if (!failed())
    error.set(code, "config.json: " + inQuotes(path + field) + ' ' + what);
}

bool Fields::has(const std::string &field) const {
  auto it = object.find(field);
  return it != object.end() && !it->is_null();
}

void Fields::require(const std::string &field) {
  if (!object.contains(field))
    fail(ErrorCode::ConfigFieldInvalid, field, "is missing; give it, or null for none");
}

const Json *Fields::take(const std::string &field) {
  taken.insert(field);
  return has(field) ? &*object.find(field) : nullptr;
}

int64_t Fields::integer(const std::string &field, int64_t least, int64_t most, std::optional<int64_t> absent) {
  const Json *json = take(field);
  if (!json && absent)
    return *absent;
  std::optional<int64_t> value = json ? countOf(*json) : std::nullopt;
  if (value && *value >= least && *value <= most)
    return *value;
  fail(ErrorCode::ConfigFieldInvalid, field,
       (json ? "is " + textOf(*json) : "is missing") + "; it must be a whole number from " + std::to_string(least) +
           " to " + std::to_string(most));
  return least;
}

double Fields::positive(const std::string &field, std::optional<double> absent) {
  const Json *json = take(field);
  if (!json && absent)
    return *absent;
  std::optional<double> value = json ? positiveOf(*json) : std::nullopt;
  if (value)
    return *value;
  fail(ErrorCode::ConfigFieldInvalid, field,
       (json ? "is " + textOf(*json) : "is missing") + "; it must be a positive number");
  return 1;
}

bool Fields::boolean(const std::string &field, bool absent) {
  const Json *json = take(field);
  if (!json)
    return absent;
  if (const auto *value = json->get_ptr<const Json::boolean_t *>())
    return *value;
  fail(ErrorCode::ConfigFieldInvalid, field, "is " + textOf(*json) + "; it must be true or false");
  return absent;
}

std::string Fields::text(const std::string &field, std::optional<std::string> absent) {
  const Json *json = take(field);
  if (!json && absent)
    return *absent;
  if (const auto *value = json ? json->get_ptr<const std::string *>() : nullptr)
    return *value;
  fail(ErrorCode::ConfigFieldInvalid, field, (json ? "is " + textOf(*json) : "is missing") + "; it must be a text");
  return "";
}

std::vector<double> Fields::positives(const std::string &field, size_t count) {
  const Json *json = take(field);
  std::vector<double> values;
  if (json && json->is_array() && json->size() == count)
    for (const Json &element : *json)
      if (std::optional<double> value = positiveOf(element))
        values.push_back(*value);
  if (values.size() != count)
    fail(ErrorCode::ConfigFieldInvalid, field,
         (json ? "is " + textOf(*json) : "is missing") + "; it must be a list of " + std::to_string(count) +
             " positive numbers, one per rotary frequency");
  values.resize(count, 1);
  return values;
}

void Fields::only(const std::string &field, const Json &value) {
  const Json *json = take(field);
  if (json && *json != value)
    fail(ErrorCode::ConfigFieldUnsupported, field,
         "is " + textOf(*json) + ", but only " + textOf(value) + " is supported");
}

std::vector<std::string> Fields::finish(const std::set<std::string_view> &harmless) {
  std::vector<std::string> ignored;
  for (const auto &[field, value] : object.items()) {
    if (taken.contains(field) || value.is_null())
      continue;
    if (harmless.contains(field))
      ignored.push_back(path + field);
    else
      fail(ErrorCode::ConfigFieldUnsupported, field,
           "is " + textOf(value) + ", and this field is not known: it may change what the model computes");
  }
  return ignored;
}

} // namespace helix::checkpoint
