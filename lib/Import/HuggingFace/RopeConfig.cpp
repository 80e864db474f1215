//===- RopeConfig.cpp - What config.json says of rotary embeddings ---------===//
#include "lib/Import/HuggingFace/RopeConfig.h"

#include <cmath>

namespace helix::checkpoint {
namespace {

constexpr int64_t kMax32 = (int64_t(1) << 31) - 1;

/// What all rotary embeddings of a configuration share.
struct Shared {
  std::string_view modelType;
  int64_t headDim = 0, positions = 0;
  std::optional<double> theta = {}, partial = {};
  std::optional<int64_t> trained = {}; ///< original_max_position_embeddings, outside of the parameters
};

Rope::Kind kindOf(Fields &fields, std::string_view modelType) {
  // "type" is the older name. Where both are given they must agree.
  std::string kind = fields.text("rope_type", fields.text("type", "default"));
  if (fields.has("type") && fields.text("type") != kind)
    fields.fail(ErrorCode::RopeUnsupported, "type", "and rope_type differ");
  if (modelType == "phi3" && (kind == "su" || kind == "yarn"))
    return Rope::Kind::LongRope; // older names of it there
  if (kind == "default")
    return Rope::Kind::Default;
  if (kind == "linear")
    return Rope::Kind::Linear;
  if (kind == "llama3")
    return Rope::Kind::Llama3;
  if (kind == "yarn")
    return Rope::Kind::Yarn;
  if (kind == "longrope")
    return Rope::Kind::LongRope;
  fields.fail(ErrorCode::RopeUnsupported, "rope_type",
              "is " + inQuotes(kind) + "; known are default, linear, llama3, yarn and longrope");
  return Rope::Kind::Default;
}

/// How far yarn stretches the magnitude, for a factor and a weight of it.
double yarnMagnitude(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

void readYarn(Fields &fields, Rope &rope) {
  rope.factor = fields.positive("factor");
  rope.fast = fields.positive("beta_fast", 32);
  rope.slow = fields.positive("beta_slow", 1);
  rope.truncate = fields.boolean("truncate", true);
  double ofAll = fields.positive("mscale_all_dim", 0), weight = fields.positive("mscale", 0);
  rope.magnitude = weight != 0 && ofAll != 0 ? yarnMagnitude(rope.factor, weight) / yarnMagnitude(rope.factor, ofAll)
                                             : yarnMagnitude(rope.factor, 1);
  rope.magnitude = fields.positive("attention_factor", rope.magnitude);
}

void readLongRope(Fields &fields, const Shared &shared, Rope &rope) {
  rope.shortFactors = fields.positives("short_factor", rope.width / 2);
  rope.longFactors = fields.positives("long_factor", rope.width / 2);
  auto trained = static_cast<double>(rope.trained);
  rope.factor = fields.positive("factor", static_cast<double>(shared.positions) / trained);
  double magnitude =
      rope.factor <= 1 || rope.trained <= 1 ? 1 : std::sqrt(1 + std::log(rope.factor) / std::log(trained));
  rope.magnitude = fields.positive("attention_factor", magnitude);
}

Rope readRope(const Json &json, const std::string &path, const std::string &name, double theta, const Shared &shared,
              Error &error) {
  Fields fields(json, path, error);
  Rope rope{.name = name, .kind = kindOf(fields, shared.modelType)};
  rope.theta = fields.positive("rope_theta", shared.theta.value_or(theta));
  if (!(rope.theta > 1))
    fields.fail(ErrorCode::ConfigFieldInvalid, "rope_theta", "must be above 1");
  double partial = fields.positive("partial_rotary_factor", shared.partial.value_or(1));
  if (partial > 1 || (partial != 1 && shared.modelType != "phi3"))
    fields.fail(ErrorCode::RopeUnsupported, "partial_rotary_factor",
                "rotates a part of each head, which " + std::string(shared.modelType) + " models do not");
  rope.width = static_cast<int64_t>(static_cast<double>(shared.headDim) * std::min(partial, 1.));
  if (rope.width < 2 || rope.width % 2 != 0)
    fields.fail(ErrorCode::RopeUnsupported, "partial_rotary_factor",
                "and the head size give " + std::to_string(rope.width) + " elements to rotate, which are no pairs");
  // Phi-3 gives the number outside and means that one.
  rope.trained =
      fields.integer("original_max_position_embeddings", 1, kMax32, shared.trained.value_or(shared.positions));
  if (shared.trained && rope.trained != *shared.trained)
    fields.fail(ErrorCode::RopeUnsupported, "original_max_position_embeddings",
                "is given twice, with different numbers");
  switch (rope.kind) {
  case Rope::Kind::Default:
    break;
  case Rope::Kind::Linear:
    rope.factor = fields.positive("factor");
    break;
  case Rope::Kind::Llama3:
    rope.factor = fields.positive("factor");
    rope.lowFrequency = fields.positive("low_freq_factor");
    rope.highFrequency = fields.positive("high_freq_factor");
    if (!(rope.highFrequency > rope.lowFrequency))
      fields.fail(ErrorCode::ConfigFieldInvalid, "high_freq_factor", "must be above low_freq_factor");
    break;
  case Rope::Kind::Yarn:
    readYarn(fields, rope);
    break;
  case Rope::Kind::LongRope:
    readLongRope(fields, shared, rope);
    break;
  }
  fields.finish({});
  return rope;
}

/// Positive, or nothing if it is absent.
std::optional<double> optionalPositive(Fields &fields, const std::string &field) {
  return fields.has(field) ? std::optional(fields.positive(field)) : std::nullopt;
}

} // namespace

std::vector<Rope> readRopes(Fields &fields, std::string_view modelType, double theta, int64_t headDim,
                            int64_t positions, Error &error) {
  Shared shared{.modelType = modelType, .headDim = headDim, .positions = positions};
  shared.theta = optionalPositive(fields, "rope_theta");
  shared.partial = optionalPositive(fields, "partial_rotary_factor");
  if (fields.has("original_max_position_embeddings"))
    shared.trained = fields.integer("original_max_position_embeddings", 1, kMax32);
  const Json *parameters = fields.take("rope_parameters"), *scaling = fields.take("rope_scaling");
  if (parameters && scaling)
    fields.fail(ErrorCode::RopeUnsupported, "rope_scaling", "and rope_parameters, its newer name, are both given");
  std::string path = parameters ? "rope_parameters" : "rope_scaling";
  static const Json empty = Json::object();
  const Json &all = parameters ? *parameters : scaling ? *scaling : empty;
  if (!all.is_object()) {
    fields.fail(ErrorCode::ConfigFieldInvalid, path, "must be an object");
    return {};
  }
  path += ".";
  if (modelType != "gemma3_text")
    return {readRope(all, path, "rope", theta, shared, error)};

  // One for the layers that see all and one for those with a window, whose theta had a field of its own.
  std::optional<double> local = optionalPositive(fields, "rope_local_base_freq");
  const char *const names[] = {"full_attention", "sliding_attention"};
  bool isNested = all.contains(names[0]) || all.contains(names[1]);
  std::vector<Rope> ropes;
  for (const char *name : names) {
    bool isLocal = name == names[1];
    const Json *own = isLocal || isNested ? &empty : &all;
    if (isNested && all.contains(name) && !all.find(name)->is_null())
      own = &*all.find(name);
    if (!own->is_object()) {
      fields.fail(ErrorCode::ConfigFieldInvalid, path + name, "must be an object");
      return {};
    }
    Shared mine = shared;
    if (isLocal)
      mine.theta = local;
    ropes.push_back(readRope(*own, isNested ? path + name + "." : path, std::string("rope.") + name,
                             isLocal ? 10000 : theta, mine, error));
  }
  if (isNested)
    for (const auto &[name, value] : all.items())
      if (name != names[0] && name != names[1])
        fields.fail(ErrorCode::ConfigFieldUnsupported, path + name, "is not known beside those of layer types");
  return ropes;
}

} // namespace helix::checkpoint
