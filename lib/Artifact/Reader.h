//===- Reader.h - Verified view of an artifact -----------------------------===//
#ifndef HELIX_LIB_ARTIFACT_READER_H
#define HELIX_LIB_ARTIFACT_READER_H

#include "lib/Artifact/Artifact_generated.h"
#include "lib/Artifact/Error.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace helix::artifact {

/// The artifact in `bytes` (a whole file, at an address that is a multiple of 16), or null and an error. Checks the
/// header, size, checksum, the FlatBuffer, and then everything that Validate.h lists: a caller may rely on every field.
/// `bytes` must live, unchanged, as long as the result is in use.
const Artifact *verifyArtifact(std::span<const uint8_t> bytes, Error &error);

/// An artifact and the memory that holds it.
class LoadedArtifact {
public:
  LoadedArtifact() = default;
  LoadedArtifact(LoadedArtifact &&) = default;
  LoadedArtifact &operator=(LoadedArtifact &&) = default;

  explicit operator bool() const { return root != nullptr; }
  const Artifact &operator*() const { return *root; }
  const Artifact *operator->() const { return root; }

  /// XXH3-64 of all that it says, as its file's header has it; 0 of none.
  uint64_t checksum() const;

private:
  friend LoadedArtifact readArtifact(const std::string &path, Error &error);
  std::vector<uint8_t> bytes;
  const Artifact *root = nullptr;
};

/// Reads and verifies a file; empty on error. The file is copied to memory first, so that a change of it afterwards
/// changes nothing that was verified.
LoadedArtifact readArtifact(const std::string &path, Error &error);

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_READER_H
