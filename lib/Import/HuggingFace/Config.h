//===- Config.h - What config.json says of a decoder -----------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_CONFIG_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_CONFIG_H

#include "lib/Import/HuggingFace/Rope.h"

namespace helix::checkpoint {

enum class Act { Silu, Gelu, GeluTanh, Relu };

/// One layer's attention.
struct LayerConfig {
  int64_t window = 0; ///< newest tokens that a query sees; 0: all
  size_t rope = 0;    ///< index into the ropes
};

/// A decoder: what its family fixes and what its configuration chooses.
struct Config {
  std::string modelType;
  int64_t vocabulary = 0, hidden = 0, intermediate = 0, heads = 0, kvHeads = 0, headDim = 0;
  int64_t positions = 0; ///< max_position_embeddings
  double epsilon = 0;    ///< of every norm
  Act activation = Act::Silu;
  std::vector<LayerConfig> layers = {};
  std::vector<Rope> ropes = {};
  bool tied = false;
  bool qkvBias = false, outputBias = false, mlpBias = false;
  bool packed = false;    ///< queries, keys and values in one weight, gate and up in one
  bool headNorms = false; ///< queries and keys are normalised per head
  bool postNorms = false; ///< attention and FFN are normalised behind them, too
  double normOffset = 0;  ///< what norms add to their weights
  double embeddingScale = 1;
  double scale = 0;                      ///< of scores
  double softcap = 0, finalSoftcap = 0;  ///< of scores and of logits; 0: none
  std::vector<std::string> ignored = {}; ///< fields that change nothing
};

/// Reads the text of a config.json. An error if it is not of a family that is known here, lacks a field, or has one
/// that would change what is computed in a way that is not known here. Defaults are those of transformers' classes.
bool readConfig(const std::string &text, Config &config, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_CONFIG_H
