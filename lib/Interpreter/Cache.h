//===- Cache.h - One rank's share of a layer's KV cache ----------------------===//
#ifndef HELIX_INTERPRETER_CACHE_H
#define HELIX_INTERPRETER_CACHE_H

#include "dialects/Helix/Helix.h"

#include <limits>
#include <vector>

namespace helix {

/// The coordinate along kvp of the rank that holds global position `position`.
inline int64_t owner(KVType type, int64_t position) { return position / type.getBlock() % type.getKvp(); }

/// The place of global position `position` in its owner's storage.
inline int64_t local(KVType type, int64_t position) {
  return position / (type.getBlock() * type.getKvp()) * type.getBlock() + position % type.getBlock();
}

/// The global position that `place` of the storage of the rank at coordinate `rank` is for.
inline int64_t position(KVType type, int64_t rank, int64_t place) {
  return (place / type.getBlock() * type.getKvp() + rank) * type.getBlock() + place % type.getBlock();
}

/// Local storage of one rank, in places 0 … of each slot. What was never written holds `unwritten`: NaN, so that a read
/// of a place that holds no token shows in the result.
class Cache {
public:
  /// `kvpRank` is the rank's coordinate along kvp.
  Cache(KVType type, int64_t kvpRank, double unwritten = std::numeric_limits<double>::quiet_NaN());

  KVType type;
  int64_t kvpRank;
  /// Appends so far; a value that names an older version is stale.
  int64_t version = 0;

  /// The key and value of `head` at `place`; they stay valid until the next write.
  const double *key(int64_t slot, int64_t place, int64_t head) const;
  const double *value(int64_t slot, int64_t place, int64_t head) const;
  /// Stores one head of one token, rounded to the cache's element type.
  void write(int64_t slot, int64_t place, int64_t head, const double *key, const double *value);
  /// Forgets the positions of `slot` from global position `length` on.
  void truncate(int64_t slot, int64_t length);

private:
  double unwritten;
  /// Per slot [place, head, key_dim] and [place, head, value_dim], as far as places have been written.
  std::vector<std::vector<double>> keys, values;
  /// One head of a place that no token has reached yet.
  std::vector<double> nothing;
};

} // namespace helix

#endif // HELIX_INTERPRETER_CACHE_H
