//===- Config.cpp - What config.json says of a decoder ---------------------===//
#include "lib/Import/HuggingFace/Config.h"

#include "lib/Import/HuggingFace/RopeConfig.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace helix::checkpoint {
namespace {

constexpr int64_t kMaxSize = int64_t(1) << 24, kMaxLayers = 4096, kMax32 = (int64_t(1) << 31) - 1;
constexpr char kSliding[] = "sliding_attention", kFull[] = "full_attention";

// Fields of every configuration that say nothing of what a decoder computes: names, training, generation, and how the
// class of transformers is to behave.
const std::set<std::string_view> kHarmless = {"_attn_implementation",
                                              "_attn_implementation_autoset",
                                              "_commit_hash",
                                              "_name_or_path",
                                              "_sliding_window_pattern",
                                              "architectures",
                                              "attention_dropout",
                                              "attn_implementation",
                                              "auto_map",
                                              "bad_words_ids",
                                              "begin_suppress_tokens",
                                              "bos_token_id",
                                              "cache_implementation",
                                              "chunk_size_feed_forward",
                                              "cross_attention_hidden_size",
                                              "decoder_start_token_id",
                                              "diversity_penalty",
                                              "do_sample",
                                              "dtype",
                                              "early_stopping",
                                              "embd_pdrop",
                                              "encoder_no_repeat_ngram_size",
                                              "eos_token_id",
                                              "exponential_decay_length_penalty",
                                              "finetuning_task",
                                              "forced_bos_token_id",
                                              "forced_eos_token_id",
                                              "hidden_dropout",
                                              "id2label",
                                              "initializer_range",
                                              "is_decoder",
                                              "is_llama_config",
                                              "label2id",
                                              "length_penalty",
                                              "max_length",
                                              "max_sequence_length",
                                              "min_length",
                                              "name_or_path",
                                              "no_repeat_ngram_size",
                                              "num_beam_groups",
                                              "num_beams",
                                              "num_return_sequences",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "output_scores",
                                              "pad_token_id",
                                              "prefix",
                                              "pretraining_tp",
                                              "problem_type",
                                              "remove_invalid_values",
                                              "repetition_penalty",
                                              "resid_pdrop",
                                              "return_dict",
                                              "return_dict_in_generate",
                                              "sep_token_id",
                                              "suppress_tokens",
                                              "task_specific_params",
                                              "temperature",
                                              "tf_legacy_loss",
                                              "tie_encoder_decoder",
                                              "tokenizer_class",
                                              "top_k",
                                              "top_p",
                                              "torch_dtype",
                                              "torchscript",
                                              "transformers_version",
                                              "typical_p",
                                              "unk_token_id",
                                              "use_bfloat16",
                                              "use_cache",
                                              "use_return_dict"};

/// What a model type fixes, where the configuration has no say.
struct Family {
  std::string_view modelType, architecture;
  bool tiedByDefault = false, needsHeadDim = false, biasOfQkv = false, choosesBias = false, choosesMlpBias = false;
  bool packed = false, headNorms = false, isGemma = false;
  double theta = 10000;
};

constexpr Family kFamilies[] = {
    {.modelType = "llama", .architecture = "LlamaForCausalLM", .choosesBias = true, .choosesMlpBias = true},
    {.modelType = "qwen2", .architecture = "Qwen2ForCausalLM", .biasOfQkv = true},
    {.modelType = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .needsHeadDim = true,
     .choosesBias = true,
     .headNorms = true},
    {.modelType = "mistral", .architecture = "MistralForCausalLM"},
    {.modelType = "phi3", .architecture = "Phi3ForCausalLM", .packed = true},
    {.modelType = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .tiedByDefault = true,
     .needsHeadDim = true,
     .choosesBias = true,
     .isGemma = true},
    {.modelType = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .tiedByDefault = true,
     .needsHeadDim = true,
     .choosesBias = true,
     .headNorms = true,
     .isGemma = true,
     .theta = 1000000},
};

const Family *findFamily(Fields &fields) {
  std::string modelType = fields.text("model_type");
  if (fields.failed())
    return nullptr;
  const auto *family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                    [&](const Family &known) { return known.modelType == modelType; });
  if (family == std::end(kFamilies)) {
    std::string known;
    for (const Family &each : kFamilies)
      known += (known.empty() ? "" : ", ") + std::string(each.modelType);
    fields.fail(ErrorCode::ArchitectureUnsupported, "model_type",
                "is " + inQuotes(modelType) + "; known are " + known + ". Export the model as ONNX instead");
    return nullptr;
  }
  // A class with another head, or without one, has other tensors and other results.
  if (const Json *classes = fields.take("architectures"))
    if (!classes->is_array() || classes->size() != 1 || !classes->front().is_string() ||
        classes->front().get_ref<const std::string &>() != family->architecture) {
      fields.fail(ErrorCode::ArchitectureUnsupported, "architectures",
                  "must be [\"" + std::string(family->architecture) + "\"], a language model of type " +
                      std::string(family->modelType));
      return nullptr;
    }
  return family;
}

Act activationOf(Fields &fields, const Family &family) {
  std::string field = "hidden_act";
  if (family.isGemma) {
    // Gemma's classes read the one and not the other, which old configurations have as well.
    fields.take(field);
    field = "hidden_activation";
  }
  std::string name =
      fields.text(field, family.isGemma ? std::optional<std::string>("gelu_pytorch_tanh") : std::nullopt);
  if (name == "silu" || name == "swish")
    return Act::Silu;
  if (name == "gelu")
    return Act::Gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new")
    return Act::GeluTanh;
  if (name == "relu")
    return Act::Relu;
  fields.fail(ErrorCode::ConfigFieldUnsupported, field,
              "is " + inQuotes(name) + "; known are silu, gelu, gelu_new, gelu_pytorch_tanh and relu");
  return Act::Silu;
}

void readSizes(Fields &fields, const Family &family, Config &config) {
  config.vocabulary = fields.integer("vocab_size", 1, kMax32);
  config.hidden = fields.integer("hidden_size", 1, kMaxSize);
  config.intermediate = fields.integer("intermediate_size", 1, kMaxSize);
  config.layers.resize(fields.integer("num_hidden_layers", 1, kMaxLayers));
  config.heads = fields.integer("num_attention_heads", 1, kMaxSize);
  config.kvHeads = fields.integer("num_key_value_heads", 1, kMaxSize, config.heads);
  config.positions = fields.integer("max_position_embeddings", 1, kMax32);
  config.epsilon = fields.positive("rms_norm_eps");
  config.activation = activationOf(fields, family);
  if (config.heads % config.kvHeads != 0)
    fields.fail(ErrorCode::ConfigFieldInvalid, "num_attention_heads",
                "is " + std::to_string(config.heads) + ", which is no multiple of the " +
                    std::to_string(config.kvHeads) + " KV heads (num_key_value_heads)");
  if (fields.has("head_dim") || family.needsHeadDim)
    config.headDim = fields.integer("head_dim", 2, kMaxSize);
  else if (config.hidden % config.heads != 0)
    fields.fail(ErrorCode::ConfigFieldInvalid, "hidden_size",
                "is " + std::to_string(config.hidden) + ", which " + std::to_string(config.heads) +
                    " heads do not divide; give head_dim");
  else
    config.headDim = config.hidden / config.heads;
}

/// The window of each layer, from the list of layer types or from the family's rule for it.
void readWindows(Fields &fields, const Family &family, Config &config) {
  bool isQwen = family.modelType == "qwen2" || family.modelType == "qwen3";
  // Where it is absent these classes take one of their own, where it is null none.
  if (family.isGemma || family.modelType == "mistral")
    fields.require("sliding_window");
  int64_t window = fields.integer("sliding_window", 1, kMax32, 0);
  int64_t layers = static_cast<int64_t>(config.layers.size());
  int64_t firstSliding = 0, pattern = 0;
  if (isQwen) {
    if (!fields.boolean("use_sliding_window", false))
      window = 0;
    firstSliding = fields.integer("max_window_layers", 0, kMax32, 28);
  } else if (family.isGemma) {
    // All but every second (Gemma 2) or sixth layer see a window.
    pattern = family.modelType == "gemma2" ? 2 : fields.integer("sliding_window_pattern", 1, kMaxLayers, 6);
  } else if (family.modelType == "llama" && window != 0) {
    fields.fail(ErrorCode::ConfigFieldUnsupported, "sliding_window", "is given, but a llama model has none");
  }
  std::vector<std::string> types;
  for (int64_t i = 0; i < layers; ++i) {
    bool sees = window == 0 || i < firstSliding || (pattern != 0 && (i + 1) % pattern == 0);
    types.emplace_back(sees ? kFull : kSliding);
  }
  if (const Json *given = fields.take("layer_types")) {
    bool isList = given->is_array() && given->size() == types.size();
    for (size_t i = 0; isList && i < types.size(); ++i) {
      isList = (*given)[i] == kSliding || (*given)[i] == kFull;
      // Classes without layer types of their own do as their sliding_window says.
      if (isList && !isQwen && !family.isGemma && (*given)[i] != types[i])
        fields.fail(ErrorCode::ConfigFieldUnsupported, "layer_types",
                    "differ from what sliding_window says, which alone counts for " + config.modelType);
      types[i] = isList && (*given)[i] == kSliding ? kSliding : kFull;
      if (types[i] == kSliding && window == 0)
        fields.fail(ErrorCode::ConfigFieldInvalid, "layer_types",
                    "name a layer with sliding_attention, but there is no sliding_window");
    }
    if (!isList)
      fields.fail(ErrorCode::ConfigFieldInvalid, "layer_types",
                  "must name sliding_attention or full_attention for each of " + std::to_string(layers) + " layers");
  }
  for (int64_t i = 0; i < layers; ++i)
    if (types[i] == kSliding)
      config.layers[i] = {.window = window, .rope = config.ropes.size() > 1 ? size_t(1) : size_t(0)};
}

void readRest(Fields &fields, const Family &family, Config &config) {
  config.tied = fields.boolean("tie_word_embeddings", family.tiedByDefault);
  bool bias = fields.boolean("attention_bias", false);
  if (bias && !family.choosesBias)
    fields.fail(ErrorCode::ConfigFieldUnsupported, "attention_bias",
                "is true, but a " + config.modelType + " model has no choice of biases");
  config.qkvBias = bias || family.biasOfQkv;
  config.outputBias = bias;
  config.mlpBias = fields.boolean("mlp_bias", false);
  if (config.mlpBias && !family.choosesMlpBias)
    fields.fail(ErrorCode::ConfigFieldUnsupported, "mlp_bias",
                "is true, but a " + config.modelType + " model has no choice of biases");
  config.packed = family.packed;
  config.headNorms = family.headNorms;
  config.scale = 1 / std::sqrt(static_cast<double>(config.headDim));
  if (family.isGemma) {
    config.postNorms = true;
    config.normOffset = 1;
    config.embeddingScale = std::sqrt(static_cast<double>(config.hidden));
    config.scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar"));
    if (family.modelType == "gemma2")
      for (const char *cap : {"attn_logit_softcapping", "final_logit_softcapping"})
        fields.require(cap);
    config.softcap = fields.positive("attn_logit_softcapping", 0);
    config.finalSoftcap = fields.positive("final_logit_softcapping", 0);
  }
  for (const char *field : {"is_encoder_decoder", "add_cross_attention", "use_bidirectional_attention", "use_mrope",
                            "rope_interleaved", "lm_head_bias"})
    fields.only(field, false);
  for (const char *field : {"full_attn_mod", "interpolate_factor"}) // of Phi-3.5 and Phi-4 mini
    fields.only(field, 1);
  fields.only("is_causal", true);
  fields.only("pruned_heads", Json::object());
  for (const char *field : {"quantization_config", "compression_config"})
    if (fields.take(field))
      fields.fail(ErrorCode::ConfigFieldUnsupported, field,
                  "is given: quantised checkpoints are not read; take the one in bf16, f16 or f32");
}

} // namespace

bool readConfig(const std::string &text, Config &config, Error &error) {
  Json json;
  if (!parseObject(text, "'config.json'", json, error))
    return false;
  Fields fields(json, "", error);
  const Family *family = findFamily(fields);
  if (!family)
    return false;
  config.modelType = family->modelType;
  readSizes(fields, *family, config);
  if (fields.failed())
    return false;
  config.ropes = readRopes(fields, family->modelType, family->theta, config.headDim, config.positions, error);
  if (fields.failed())
    return false;
  readWindows(fields, *family, config);
  readRest(fields, *family, config);
  config.ignored = fields.finish(kHarmless);
  return !fields.failed();
}

} // namespace helix::checkpoint
