//===- Validate.h - What an artifact must satisfy beyond its schema --------===//
#ifndef HELIX_LIB_ARTIFACT_VALIDATE_H
#define HELIX_LIB_ARTIFACT_VALIDATE_H

#include "lib/Artifact/Artifact_generated.h"
#include "lib/Artifact/Error.h"

namespace helix::artifact {

/// Offsets of values in an arena are multiples of this, in bytes.
inline constexpr uint64_t kArenaAlignment = 64;

/// Ranks of a mesh at most.
inline constexpr uint64_t kMaxRanks = 4096;

/// Checks everything that the runtime relies on, of a buffer that the FlatBuffers verifier has passed: tables and lists
/// that must be there are; the mesh makes one set of ranks; weights lie in their files, windows in the stored tensors,
/// every rank's share in the local size, and no part of a window is lost; the KV layout's sizes; images and kernels
/// under their checksums; and for every command the number, space, place, alignment and size of its operands, against
/// the shapes of its work. No product of sizes exceeds 2^62.
bool validate(const Artifact &artifact, Error &error);

/// Ranks along an axis of the mesh.
uint64_t axisSize(const Mesh &mesh, Axis axis);

/// Bytes of an element.
uint64_t elementBytes(DType dtype);

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_VALIDATE_H
