//===- Inproc.h - Ranks that are threads of one process --------------------===//
#ifndef HELIX_RUNTIME_COMM_INPROC_H
#define HELIX_RUNTIME_COMM_INPROC_H

#include "runtime/Comm/Communicator.h"

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace helix {

struct InprocOptions {
  std::chrono::milliseconds timeout{60000}; ///< of one wait
  /// Look for peers a little while before sleeping: faster, where every rank's threads have cores of their own.
  bool spin = false;
};

/// The communicators of all ranks, in order. Rank r's segment is segments[r]; all have one size, and they must outlive
/// the communicators. Ranks read each other's segments.
std::vector<std::unique_ptr<Communicator>> inprocCommunicators(const Mesh &mesh, std::span<std::byte *const> segments,
                                                               const InprocOptions &options);

} // namespace helix

#endif // HELIX_RUNTIME_COMM_INPROC_H
