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

/// One rank's end. Every rank of a group starts the same collectives in the same order, and they are carried out in the
/// order of their starts, in calls to `test` and `wait`, whichever collective these ask for: so ranks cannot wait for
/// each other in a circle. From its start to its end a collective's bytes are not touched. Not for several threads at
/// once, but for `abort`.
class Communicator {
public:
  /// Which of the collectives that this rank has started, from 1.
  using Ticket = uint64_t;

  /// Collectives that may be under way; one more waits for the first of them.
  static constexpr uint64_t kUnderWay = 16;

  virtual ~Communicator() = default;

  /// Says that this rank's input is ready.
  virtual Ticket start(const Collective &collective) = 0;

  /// Whether the collective's result is there and this rank's segment is its own again. Does not block. Throws
  /// CommAborted if a rank has failed.
  virtual bool test(Ticket ticket) = 0;

  /// Returns when that is so. Throws CommTimeout if a peer does not come in time, CommAborted if one has failed.
  virtual void wait(Ticket ticket) = 0;

  /// When a collective that is done, one of the last `kUnderWay`, came to its end, in nanoseconds of `traceNow`: maybe
  /// before the call that found out.
  virtual int64_t doneAt(Ticket ticket) const = 0;

  /// Makes every rank's present and later calls fail, with this reason. The first call counts. From any thread.
  virtual void abort(const char *reason) noexcept = 0;
};

} // namespace helix

#endif // HELIX_RUNTIME_COMM_COMMUNICATOR_H
