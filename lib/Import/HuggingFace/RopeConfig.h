//===- RopeConfig.h - What config.json says of rotary embeddings -----------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_ROPECONFIG_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_ROPECONFIG_H

#include "lib/Import/HuggingFace/Fields.h"
#include "lib/Import/HuggingFace/Rope.h"

namespace helix::checkpoint {

/// The rotary embeddings of a model type: one; for Gemma 3 one of the layers that see all and one of those with a
/// window. `theta` is the family's default, `positions` are max_position_embeddings. Takes rope_parameters or, as older
/// configurations have them, rope_scaling, rope_theta and their like.
std::vector<Rope> readRopes(Fields &fields, std::string_view modelType, double theta, int64_t headDim,
                            int64_t positions, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_ROPECONFIG_H
