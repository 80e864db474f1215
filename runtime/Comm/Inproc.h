//===- Inproc.h - Ranks that are threads of one process --------------------===//
#ifndef HELIX_RUNTIME_COMM_INPROC_H
#define HELIX_RUNTIME_COMM_INPROC_H

#include "runtime/Comm/Communicator.h"

#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace helix {

/// An artificial link between ranks, which share a memory and are faster than any.
struct Link {
  double latency = 0;                                              ///< seconds of a collective
  double bytesPerSecond = std::numeric_limits<double>::infinity(); ///< of what a rank sends
};

struct InprocOptions {
  std::chrono::milliseconds timeout{60000}; ///< of one wait
  /// Look for peers a little while before sleeping: faster, where every rank's threads have cores of their own.
  bool spin = false;
  /// A collective of several ranks ends no earlier than latency + bytesSent / bytesPerSecond after the last of them has
  /// started it. Its time passes in sleep, so that it takes no core from what is computed beside it.
  std::optional<Link> link = {};
};

/// The communicators of all ranks, in order. Rank r's segment is segments[r]; all have one size, and they must outlive
/// the communicators. Ranks read each other's segments.
std::vector<std::unique_ptr<Communicator>> inprocCommunicators(const Mesh &mesh, std::span<std::byte *const> segments,
                                                               const InprocOptions &options);

} // namespace helix

#endif // HELIX_RUNTIME_COMM_INPROC_H
