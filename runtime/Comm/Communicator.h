//===- Communicator.h - Collectives among the ranks of a mesh --------------===//
#ifndef HELIX_RUNTIME_COMM_COMMUNICATOR_H
#define HELIX_RUNTIME_COMM_COMMUNICATOR_H

#include "runtime/Comm/Mesh.h"

#include <cstdint>

namespace helix {

/// A collective among the ranks along an axis. Offsets, in bytes, are into the communication segment, which has the
/// same layout on every rank.
struct Collective {
  enum class Kind : uint8_t {
    /// Chunk j of `send` goes to peer j, which stores it as chunk i of `receive`, i the sender's coordinate.
    AllToAll,
    /// `receive` = the sum of the peers' `send`, f32, added in ascending rank. May be in place.
    AllReduce,
  };
  Kind kind = Kind::AllToAll;
  Axis axis = Axis::N;
  uint64_t send = 0, receive = 0;
  uint64_t count = 0; ///< AllToAll: bytes of a chunk; AllReduce: elements
};

/// Bytes that a rank sends in a collective of `peers` ranks: (peers - 1) * chunk, or 2 (peers - 1) ceil(elements /
/// peers)
/// * 4, its slice of the sum to everyone after everyone's share of it to the rank that sums it.
uint64_t bytesSent(const Collective &collective, uint64_t peers);

/// One rank's end. Every rank of a group starts the same collectives in the same order, and waits for them in that
/// order. Between start and wait the collective's bytes are not touched. Not for several threads at once, but for
/// `abort`.
class Communicator {
public:
  /// A collective that was started.
  struct Pending {
    Collective collective;
    uint64_t ordinal = 0; ///< among those along its axis, from 1
  };

  virtual ~Communicator() = default;

  /// Says that this rank's input is ready. Does not block.
  virtual Pending start(const Collective &collective) = 0;

  /// Returns when the result is there and this rank's segment is its own again. Throws CommTimeout if a peer does not
  /// come in time, CommAborted if one has failed.
  virtual void wait(const Pending &pending) = 0;

  /// Makes every rank's present and later waits fail, with this reason. The first call counts. From any thread.
  virtual void abort(const char *reason) noexcept = 0;
};

} // namespace helix

#endif // HELIX_RUNTIME_COMM_COMMUNICATOR_H
