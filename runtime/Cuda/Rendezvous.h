//===- Rendezvous.h - How processes of a run find each other ---------------===//
#ifndef HELIX_RUNTIME_CUDA_RENDEZVOUS_H
#define HELIX_RUNTIME_CUDA_RENDEZVOUS_H

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace helix::cuda {

/// What the first process gives to the others.
using Token = std::array<char, 128>;

struct Meeting {
  std::string address; ///< file:PATH or tcp:HOST:PORT
  uint32_t index = 0, count = 1;
  uint64_t checksum = 0; ///< the same in all processes
  std::chrono::milliseconds timeout{60000};
};

/// In process 0 makes a token and hands it out, in the others returns it. Over TCP process 0 returns when all have it.
/// Throws RendezvousFailed: the address cannot be used, a file is there already, another checksum, no one in time.
Token meet(const Meeting &meeting, const std::function<Token()> &make);

/// Removes what process 0 left at the address, once everyone has joined.
void leave(const Meeting &meeting) noexcept;

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_RENDEZVOUS_H
