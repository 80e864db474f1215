//===- Layout.cpp - Which tensors a decoder has ----------------------------===//
#include "lib/Import/HuggingFace/Layout.h"

#include <algorithm>

namespace helix::checkpoint {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

constexpr char kTable[] = "model.embed_tokens.weight", kHead[] = "lm_head.weight";

/// A linear layer's weight is [out, in].
void addLinear(Shapes &shapes, const std::string &name, int64_t out, int64_t in, bool bias) {
  shapes[name + ".weight"] = {out, in};
  if (bias)
    shapes[name + ".bias"] = {out};
}

Shapes expectedShapes(const Config &config) {
  Shapes shapes;
  int64_t queries = config.heads * config.headDim, keys = config.kvHeads * config.headDim;
  shapes[kTable] = {config.vocabulary, config.hidden};
  shapes["model.norm.weight"] = {config.hidden};
  if (!config.tied)
    shapes[kHead] = {config.vocabulary, config.hidden};
  for (size_t i = 0; i < config.layers.size(); ++i) {
    std::string layer = "model.layers." + std::to_string(i) + ".";
    std::vector<std::string> norms = {"input_layernorm", "post_attention_layernorm"};
    if (config.postNorms)
      norms.insert(norms.end(), {"pre_feedforward_layernorm", "post_feedforward_layernorm"});
    for (const std::string &norm : norms)
      shapes[layer + norm + ".weight"] = {config.hidden};
    std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    if (config.packed) {
      addLinear(shapes, attention + "qkv_proj", queries + 2 * keys, config.hidden, false);
      addLinear(shapes, mlp + "gate_up_proj", 2 * config.intermediate, config.hidden, false);
    } else {
      addLinear(shapes, attention + "q_proj", queries, config.hidden, config.qkvBias);
      addLinear(shapes, attention + "k_proj", keys, config.hidden, config.qkvBias);
      addLinear(shapes, attention + "v_proj", keys, config.hidden, config.qkvBias);
      addLinear(shapes, mlp + "gate_proj", config.intermediate, config.hidden, config.mlpBias);
      addLinear(shapes, mlp + "up_proj", config.intermediate, config.hidden, config.mlpBias);
    }
    if (config.headNorms)
      for (const char *norm : {"q_norm.weight", "k_norm.weight"})
        shapes[attention + norm] = {config.headDim};
    addLinear(shapes, attention + "o_proj", config.hidden, queries, config.outputBias);
    addLinear(shapes, mlp + "down_proj", config.hidden, config.intermediate, config.mlpBias);
  }
  return shapes;
}

/// Whether two tensors hold the same bytes.
bool areEqual(const Checkpoint &checkpoint, const Tensor &a, const Tensor &b, bool &equal, Error &error) {
  equal = a.dtype == b.dtype && a.shape == b.shape;
  constexpr uint64_t kChunk = uint64_t(1) << 24;
  std::string first, second;
  for (uint64_t at = 0; equal && at < a.bytes; at += kChunk) {
    uint64_t size = std::min(kChunk, a.bytes - at);
    if (!readBytes(checkpoint.files[a.file], a.offset + at, size, first, error) ||
        !readBytes(checkpoint.files[b.file], b.offset + at, size, second, error))
      return false;
    equal = first == second;
  }
  return true;
}

} // namespace

bool checkTensors(const Config &config, const Checkpoint &checkpoint, std::vector<std::string> &ignored, Error &error) {
  Shapes shapes = expectedShapes(config);
  for (const auto &[name, shape] : shapes) {
    auto found = checkpoint.tensors.find(name);
    if (found == checkpoint.tensors.end())
      return error.set(ErrorCode::CheckpointTensorMissing,
                       "the checkpoint has no tensor " + inQuotes(name) + ", which a " + config.modelType +
                           " model of this configuration has, of shape " + listText(shape));
    const Tensor &tensor = found->second;
    if (tensor.shape != shape)
      return error.set(ErrorCode::CheckpointTensorMismatch, "tensor " + inQuotes(name) + " has shape " +
                                                                listText(tensor.shape) +
                                                                ", but by config.json it must have " + listText(shape));
    if (tensor.dtype != "F32" && tensor.dtype != "F16" && tensor.dtype != "BF16")
      return error.set(ErrorCode::CheckpointTensorMismatch,
                       "tensor " + inQuotes(name) + " is of " + tensor.dtype + "; supported are F32, F16 and BF16");
  }
  for (const auto &[name, tensor] : checkpoint.tensors) {
    if (shapes.contains(name))
      continue;
    // Buffers of old checkpoints, which the classes compute for themselves.
    bool isHarmless = name.ends_with(".rotary_emb.inv_freq");
    if (name == kHead) {
      if (!areEqual(checkpoint, tensor, checkpoint.tensors.at(kTable), isHarmless, error))
        return false;
      if (!isHarmless)
        return error.set(ErrorCode::CheckpointTensorMismatch,
                         "tensor 'lm_head.weight' differs from 'model.embed_tokens.weight', but config.json says "
                         "that they are one (tie_word_embeddings)");
    }
    if (!isHarmless)
      return error.set(ErrorCode::CheckpointTensorUnknown, "the checkpoint has the tensor " + inQuotes(name) +
                                                               ", which no " + config.modelType +
                                                               " model of this configuration has");
    ignored.push_back(name);
  }
  return true;
}

} // namespace helix::checkpoint
