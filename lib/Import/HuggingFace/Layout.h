//===- Layout.h - Which tensors a decoder has ------------------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_LAYOUT_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_LAYOUT_H

#include "lib/Import/HuggingFace/Checkpoint.h"
#include "lib/Import/HuggingFace/Config.h"

namespace helix::checkpoint {

/// Checks that the checkpoint has every tensor of the decoder with its shape, in F32, F16 or BF16, and no other but
/// such as change nothing, whose names go to `ignored`.
bool checkTensors(const Config &config, const Checkpoint &checkpoint, std::vector<std::string> &ignored, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_LAYOUT_H
