//===- Json.h - JSON of a checkpoint, read strictly ------------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_JSON_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_JSON_H

#include "lib/Import/HuggingFace/Error.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

namespace helix::checkpoint {

// The ordered kind searches an object from its start for every key.
using Json = nlohmann::json;

/// Parses a JSON object. An error if it is malformed, nested more deeply than anything here is, or has a key twice: of
/// two values readers take different ones. `what` names it: "'config.json'".
bool parseObject(std::string_view text, const std::string &what, Json &json, Error &error);

/// A JSON number that is a whole one from 0 to 2^63 - 1.
std::optional<int64_t> countOf(const Json &json);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_JSON_H
