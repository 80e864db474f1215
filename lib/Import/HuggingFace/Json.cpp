//===- Json.cpp - JSON of a checkpoint, read strictly ----------------------===//
#include "lib/Import/HuggingFace/Json.h"

#include <limits>
#include <set>
#include <vector>

namespace helix::checkpoint {
namespace {

constexpr int kDeepest = 32;

} // namespace

std::string inQuotes(std::string_view text) {
  constexpr size_t kLongest = 200;
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result = "'";
  for (unsigned char c : text.substr(0, kLongest)) {
    if (c >= 0x20 && c < 0x7f && c != '\\')
      result += static_cast<char>(c);
    else
      result.append({'\\', kDigits[c >> 4], kDigits[c & 15]});
  }
  return result + (text.size() > kLongest ? "...'" : "'");
}

bool parseObject(std::string_view text, const std::string &what, Json &json, Error &error) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  bool isRepeated = false, isDeep = false;
  auto look = [&](int depth, Json::parse_event_t event, Json &value) {
    switch (event) {
    case Json::parse_event_t::object_start:
      keys.emplace_back();
      [[fallthrough]];
    case Json::parse_event_t::array_start:
      isDeep |= depth >= kDeepest;
      break;
    case Json::parse_event_t::object_end:
      keys.pop_back();
      break;
    case Json::parse_event_t::key:
      if (!keys.back().insert(value.get_ref<const std::string &>()).second && !isRepeated) {
        isRepeated = true;
        repeated = value.get_ref<const std::string &>();
      }
      break;
    default:
      break;
    }
    return !isDeep;
  };
  json = Json::parse(text.begin(), text.end(), look, /*allow_exceptions=*/false);
  if (isDeep)
    return error.set(ErrorCode::CheckpointJsonInvalid,
                     what + " is nested more than " + std::to_string(kDeepest) + " levels deep");
  if (json.is_discarded() || !json.is_object())
    return error.set(ErrorCode::CheckpointJsonInvalid,
                     what + " is not a whole JSON object; it may be truncated or of another format");
  if (isRepeated)
    return error.set(ErrorCode::CheckpointJsonInvalid, what + " has the key " + inQuotes(repeated) + " twice");
  return true;
}

std::optional<int64_t> countOf(const Json &json) {
  const auto *number = json.get_ptr<const Json::number_unsigned_t *>();
  if (!number || *number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return std::nullopt;
  return static_cast<int64_t>(*number);
}

} // namespace helix::checkpoint
