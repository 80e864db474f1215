//===- Files.h - The files of a checkpoint ---------------------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_FILES_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_FILES_H

#include "lib/Import/HuggingFace/Error.h"

#include <cstdint>

namespace helix::checkpoint {

/// Where the files of a checkpoint may lie; all real paths. Model caches link every file into a store of their own.
struct Directories {
  std::string given;       ///< the checkpoint's
  std::string resolved;    ///< that of the file which its config.json resolves to
  std::string weightsRoot; ///< empty if none was given
};

struct File {
  std::string name; ///< relative to the checkpoint's directory
  std::string path; ///< the real one
  uint64_t bytes = 0;
};

/// Resolves the directories of the checkpoint in `directory`.
bool findDirectories(const std::string &directory, const std::string &weightsRoot, Directories &directories,
                     Error &error);

/// Finds the file `name`, a name without directories. It must be a regular file whose real path lies where it may.
bool findFile(const Directories &directories, const std::string &name, File &file, Error &error);

/// Whether the checkpoint's directory, or the weights root, has something of that name.
bool hasFile(const Directories &directories, const std::string &name);

/// Reads `bytes` bytes from `offset` on.
bool readBytes(const File &file, uint64_t offset, uint64_t bytes, std::string &contents, Error &error);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_FILES_H
