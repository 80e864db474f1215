//===- Checkpoint.h - config.json and the tensors of a checkpoint ----------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_CHECKPOINT_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_CHECKPOINT_H

#include "lib/Import/HuggingFace/Safetensors.h"

namespace helix::checkpoint {

/// The text of config.json, and where every tensor lies. No byte of a tensor is read.
struct Checkpoint {
  Directories directories;
  std::string config;
  std::vector<File> files; ///< with tensors
  Tensors tensors;
};

/// Reads the checkpoint in `directory`: config.json, and model.safetensors or the files that
/// model.safetensors.index.json names, which must hold what it says.
bool readCheckpoint(const std::string &directory, const std::string &weightsRoot, Checkpoint &checkpoint, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_CHECKPOINT_H
