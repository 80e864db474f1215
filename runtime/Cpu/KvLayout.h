//===- KvLayout.h - Where a token's key and value live ---------------------===//
#ifndef HELIX_RUNTIME_CPU_KVLAYOUT_H
#define HELIX_RUNTIME_CPU_KVLAYOUT_H

#include <cstddef>
#include <cstdint>

namespace helix::cpu {

/// Element types of weights and caches, numbered as in lib/Artifact/Artifact.fbs. I8 and F8E4M3 are codes of caches,
/// which have scales.
enum class DType : uint8_t { F32 = 0, F16 = 1, BF16 = 2, I8 = 5, F8E4M3 = 6 };

/// Bytes of an element.
constexpr size_t elementBytes(DType dtype) {
  return dtype == DType::F32 ? 4 : dtype == DType::I8 || dtype == DType::F8E4M3 ? 1 : 2;
}

/// The kvp rank that holds global position `position`.
constexpr uint32_t kvOwner(uint64_t position, uint64_t block, uint64_t kvp) { return position / block % kvp; }

/// Index of global position `position` among the tokens of its owner, in order.
constexpr uint64_t kvLocal(uint64_t position, uint64_t block, uint64_t kvp) {
  return position / (block * kvp) * block + position % block;
}

/// How many of the positions 0 … length - 1 kvp rank `rank` holds; they are its local tokens 0, 1, ….
constexpr uint64_t kvLocalLength(uint64_t length, uint64_t rank, uint64_t block, uint64_t kvp) {
  uint64_t rest = length % (block * kvp), before = rank * block;
  uint64_t tail = rest <= before ? 0 : rest - before < block ? rest - before : block;
  return length / (block * kvp) * block + tail;
}

/// One layer's cache on one rank, and the block table that leads to it.
///
/// Keys lie transposed within a page, [head][page][key_dim][block], so that a vector holds one dimension of several
/// tokens: scores need no sums across lanes and a key is loaded once for all query heads of its group. CPUs keep two
/// dimensions of bf16 together, [key_dim / 2][block][2]: one load gives a vector of either in two instructions, where
/// each alone takes as many. Values lie as [head][page][block][value_dim]. A head's pages are one stream, which the
/// processor reads ahead; were all heads of a page together, it would read ahead what another thread needs. Vector
/// loads may run past a row's end, so an area ends with kKvSlackBytes that are never written.
///
/// What codes mean is a multiple of a scale: of one for all keys and one for all values, or, where keyScales and
/// valueScales are given, of one of each per token and head.
struct KvCache {
  void *key = nullptr;            ///< kvKeyBytes(…) bytes
  void *value = nullptr;          ///< kvValueBytes(…) bytes
  const int32_t *table = nullptr; ///< [slots, pagesPerSlot] physical page of a slot's logical page
  uint64_t pagesPerSlot = 0;      ///< capacity / (block * kvp)
  uint64_t pages = 0;             ///< of a head: physical pages of all slots
  uint32_t block = 0;             ///< tokens per page
  uint32_t kvp = 1;               ///< ranks that share the sequence
  uint32_t rank = 0;              ///< this rank's coordinate along kvp
  uint32_t heads = 0;             ///< KV heads of this rank
  uint32_t keyDim = 0;
  uint32_t valueDim = 0;
  DType dtype = DType::F32;
  float keyScale = 1, valueScale = 1;                 ///< 1 where each token and head has its own
  float *keyScales = nullptr, *valueScales = nullptr; ///< [head][page][block], kvScaleBytes(…) bytes each, or null
  uint32_t keyTogether = 1;                           ///< dimensions of a key that lie together; divides keyDim
};

inline constexpr size_t kKvSlackBytes = 64;

/// Bytes of the key area for `pages` physical pages of each head (slots * pagesPerSlot).
constexpr uint64_t kvKeyBytes(uint64_t pages, uint64_t heads, uint64_t block, uint64_t keyDim, DType dtype) {
  return pages * heads * block * keyDim * elementBytes(dtype) + kKvSlackBytes;
}

/// Bytes of the value area.
constexpr uint64_t kvValueBytes(uint64_t pages, uint64_t heads, uint64_t block, uint64_t valueDim, DType dtype) {
  return pages * heads * block * valueDim * elementBytes(dtype) + kKvSlackBytes;
}

/// Bytes of an area of scales per token and head.
constexpr uint64_t kvScaleBytes(uint64_t pages, uint64_t heads, uint64_t block) {
  return pages * heads * block * sizeof(float);
}

/// Index of the scale of the token at offset 0 of a page; those of its other tokens follow.
constexpr uint64_t kvScaleIndex(const KvCache &cache, uint64_t page, uint64_t head) {
  return (head * cache.pages + page) * cache.block;
}

/// `keyTogether` of a cache on a CPU.
constexpr uint32_t kvKeyTogether(DType dtype, uint32_t keyDim) {
  return dtype == DType::BF16 && keyDim % 2 == 0 ? 2 : 1;
}

/// Index, in elements, of dimension 0 of the key at `offset` within page `page`.
constexpr uint64_t kvKeyIndex(const KvCache &cache, uint64_t page, uint64_t head, uint64_t offset) {
  return (head * cache.pages + page) * cache.block * cache.keyDim + offset * cache.keyTogether;
}

/// How much further dimension `dim` of a key lies.
constexpr uint64_t kvKeyStep(const KvCache &cache, uint64_t dim) {
  return dim / cache.keyTogether * cache.keyTogether * cache.block + dim % cache.keyTogether;
}

/// Index, in elements, of the value at `offset` within page `page`; its dimensions follow one another.
constexpr uint64_t kvValueIndex(const KvCache &cache, uint64_t page, uint64_t head, uint64_t offset) {
  return ((head * cache.pages + page) * cache.block + offset) * cache.valueDim;
}

/// Physical page of the local token `local` of `slot`.
inline uint64_t kvPage(const KvCache &cache, uint64_t slot, uint64_t local) {
  return static_cast<uint64_t>(cache.table[slot * cache.pagesPerSlot + local / cache.block]);
}

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_KVLAYOUT_H
