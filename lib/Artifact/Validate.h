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

/// Streams of an entry at most: each but the first is a thread of every rank.
inline constexpr uint32_t kMaxStreams = 8;

/// Checks everything that the runtime relies on, of a buffer that the FlatBuffers verifier has passed: tables and lists
/// that must be there are; the mesh makes one set of ranks; weights lie in their files, windows in the stored tensors,
/// every rank's share in the local size, and no part of a window is lost; the KV layout's sizes; images and kernels
/// under their checksums; for every command the number, space, place, alignment and size of its operands, against the
/// shapes of its work; and that streams and events cannot block one another for ever. No product of sizes exceeds 2^62.
/// Not that commands on different streams keep apart in memory: helix-verify-plan proves that, and what breaks it gives
/// wrong numbers, nothing worse.
bool validate(const Artifact &artifact, Error &error);

/// Ranks along an axis of the mesh.
uint64_t axisSize(const Mesh &mesh, Axis axis);

/// Bytes of an element.
uint64_t elementBytes(DType dtype);

/// Bytes that a rank holds of a weight, as operands count them: all of its local sizes, and of a quantised one what
/// belongs to its blocks.
uint64_t heldBytes(const Weight &weight);

/// Bytes of one token of one head of a layer: its key and value, and their scales if they have some of their own.
uint64_t tokenBytes(const KvLayer &layer);

/// Whether the artifact is a stateless function, and no decoder.
inline bool isStateless(const Artifact &artifact) {
  return artifact.entries() && artifact.entries()->size() == 1 &&
         artifact.entries()->Get(0)->kind() == EntryKind::Stateless;
}

/// Elements of a tensor that a stateless entry takes or gives.
uint64_t elementsOf(const Port &port);

/// Bytes of it as commands see it: floats are f32.
inline uint64_t innerBytes(const Port &port) {
  return elementsOf(port) * (port.dtype() <= DType::BF16 ? sizeof(float) : elementBytes(port.dtype()));
}

/// Whether the work is an exchange among ranks.
inline bool isCollective(Work work) { return work == Work::AllToAll || work == Work::AllReduce; }

/// The sequences, or the query tokens of each, that an attention command is for.
struct Chunk {
  uint32_t begin = 0, count = 0;
};
inline Chunk batchChunk(const PartialAttention &work) {
  return {work.batch_begin(), work.batch_count() ? work.batch_count() : work.batch() - work.batch_begin()};
}
inline Chunk tokenChunk(const PartialAttention &work) {
  return {work.token_begin(), work.token_count() ? work.token_count() : work.tokens() - work.token_begin()};
}

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_VALIDATE_H
