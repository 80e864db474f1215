//===- WholeFile.h - Files that are written whole or not at all ------------===//
#ifndef HELIX_LIB_ARTIFACT_WHOLEFILE_H
#define HELIX_LIB_ARTIFACT_WHOLEFILE_H

#include <cstddef>
#include <string>

namespace helix::artifact {

/// Writes `count` bytes to a file beside `path`, which then takes its place: what was there stays until all else is
/// done. False, and the system's reason, if that cannot be. For regular files: a device or a pipe would be replaced.
bool writeWholeFile(const std::string &path, const void *bytes, size_t count, std::string &reason);

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_WHOLEFILE_H
