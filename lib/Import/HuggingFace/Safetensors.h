//===- Safetensors.h - The header of a .safetensors file -------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_SAFETENSORS_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_SAFETENSORS_H

#include "lib/Import/HuggingFace/Files.h"

#include <map>
#include <vector>

namespace helix::checkpoint {

/// A tensor in its file: row-major and little-endian.
struct Tensor {
  std::string dtype = {}; ///< as safetensors call it: "BF16"
  std::vector<int64_t> shape = {};
  size_t file = 0; ///< index into the checkpoint's files
  uint64_t offset = 0, bytes = 0;
};

using Tensors = std::map<std::string, Tensor>;

/// Reads the header of `file` and adds its tensors to `tensors` as those of file number `index`. Checked: the header
/// lies inside the file, every dtype is known and as long as its shape says, and the tensors fill the file from the
/// header's end to its own, without overlap or gap. An error if a tensor is in `tensors` already.
bool readHeader(const File &file, size_t index, Tensors &tensors, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_SAFETENSORS_H
