//===- Layout.h - What a rank keeps in memory, and where -------------------===//
#ifndef HELIX_RUNTIME_CORE_LAYOUT_H
#define HELIX_RUNTIME_CORE_LAYOUT_H

#include "lib/Artifact/Reader.h"
#include "runtime/Comm/Communicator.h"
#include "runtime/Core/Memory.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"
#include "runtime/Cpu/Weights.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace helix {

/// Bytes of one rank, by use.
struct MemoryNeeds {
  uint64_t weights = 0; ///< packed
  uint64_t kv = 0;      ///< all pages of all slots
  uint64_t arenas = 0;  ///< activations, communication and the slots' last logits
  uint64_t scratch = 0; ///< of all threads of the rank
  uint64_t total() const { return weights + kv + arenas + scratch; }
};

/// Where things lie in a rank's memory; the same on every rank. Offsets in bytes, multiples of 64.
struct RankLayout {
  struct Part {
    uint64_t offset = 0, bytes = 0;
  };
  struct Layer {
    Part key, value, keyScale, valueScale; ///< the latter of caches with scales per token and head
  };
  std::vector<Part> weights;
  std::vector<Layer> layers;
  uint64_t weightBytes = 0, kvBytes = 0;
  uint64_t deviceBytes = 0, commBytes = 0; ///< the largest of any entry: one runs at a time
  uint64_t scratchBytes = 0;               ///< of one thread
  uint64_t partialBytes = 0;               ///< that threads share in attention, if they are many
  uint64_t roundedBytes = 0;               ///< that they share in products with rounded activations
  uint64_t logitsBytes = 0;                ///< of every slot's last token

  uint32_t events = 0; ///< the most of any entry

  MemoryNeeds needs(unsigned threads) const;

  /// Where in the scratch of so many threads what they share lies, behind what each has.
  uint64_t partialsAt(unsigned threads) const { return scratchBytes * threads; }
  uint64_t roundedAt(unsigned threads) const;
};

/// Reads and verifies an artifact. Throws what the reader says of one that it refuses.
artifact::LoadedArtifact openArtifact(const std::string &path);

/// Throws MemoryExhausted if no address space could hold it.
RankLayout layOut(const artifact::Artifact &artifact);

Mesh meshOf(const artifact::Artifact &artifact);

/// What `rank` loads of a weight.
cpu::WeightPlan weightPlan(const artifact::Weight &weight, const Mesh &mesh, uint32_t rank);

/// What the codes of a weight mean; only of one that has a quantization.
cpu::QuantFormat quantFormat(const artifact::Weight &weight);

/// Packs a weight out of the mapped files, as `plan` says, which is weightPlan's or one like it; false if it cannot be.
bool loadWeight(const artifact::Weight &weight, const cpu::WeightPlan &plan, std::span<const Mapping> files,
                std::span<std::byte> packed);

/// A layer's cache without its memory.
cpu::KvCache cacheOf(const artifact::Artifact &artifact, uint32_t layer, uint32_t rank);

/// The sizes of an attention command; no pointers.
cpu::AttentionArgs attentionOf(const artifact::Artifact &artifact, const artifact::Command &command, uint32_t rank);

/// The exchange that an all-to-all or all-reduce command is.
Collective collectiveOf(const artifact::Command &command);

} // namespace helix

#endif // HELIX_RUNTIME_CORE_LAYOUT_H
