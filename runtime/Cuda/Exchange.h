//===- Exchange.h - Collectives of GPU ranks, as work on streams -----------===//
#ifndef HELIX_RUNTIME_CUDA_EXCHANGE_H
#define HELIX_RUNTIME_CUDA_EXCHANGE_H

#include "runtime/Comm/Inproc.h"
#include "runtime/Cuda/KernelLibrary.h"

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace helix::cuda {

/// A rank of this process, as collectives see it.
struct Port {
  uint32_t rank = 0;
  Address segment = 0; ///< the communication segment
  Address scratch = 0; ///< ncclScratchBytes(…) of the largest collective
  std::span<const HeldStream> streams;
  std::span<const HeldEvent> ready; ///< one per stream, for nothing else
};

/// Puts collectives on streams, those of all ranks of this process at once; every process does so in the same order.
/// What it puts there can be captured into a graph. The elements that a rank sums, and their order, are those of
/// runtime/Comm/Inproc.
class Exchange {
public:
  virtual ~Exchange() = default;

  /// To be called before the first collective of what is captured, or run, as a whole.
  virtual void begin() {}

  /// Puts the collective on stream `stream` of every rank.
  virtual void enqueue(const Collective &collective, uint32_t stream) = 0;

  /// Every rank's `bytes` bytes at `from`, in order of rank, to `to` of this process, on stream 0 of its first rank.
  /// False, and nothing is done, if all ranks are here: the caller has them all.
  virtual bool gather(Address from, Address to, uint64_t bytes) = 0;

  /// Returns when all that was put on `stream` is done. Throws CommTimeout after `timeout`, what NCCL reports, and
  /// CudaFailed. After an error nothing of it waits.
  virtual void finish(Stream stream, std::chrono::milliseconds timeout) = 0;
};

/// The elements that coordinate `peer` of `peers` sums.
constexpr std::pair<uint64_t, uint64_t> reduceSlice(uint64_t elements, uint64_t peers, uint64_t peer) {
  uint64_t size = (elements + peers - 1) / peers, begin = peer * size < elements ? peer * size : elements;
  return {begin, begin + size < elements ? begin + size : elements};
}

/// All ranks on one GPU, in this process. Copies are the messages. With a link, a collective of several ranks ends no
/// earlier than latency + bytesSent / bytesPerSecond after the last of them has come to it and what those before it
/// took on their links is over; collectives of a rank come to it in the order in which they were put on streams. The
/// time passes on the GPU, inside a graph, in one warp.
std::unique_ptr<Exchange> localExchange(const Mesh &mesh, std::vector<Port> ports, KernelLibrary &kernels,
                                        const std::optional<Link> &link);

/// Bytes that a rank needs for a collective besides its segment, if its peers are in other processes.
uint64_t ncclScratchBytes(const Collective &collective, uint32_t peers);

struct NcclOptions {
  std::string rendezvous;    ///< file:PATH or tcp:HOST:PORT
  uint64_t artifactChecksum; ///< what all processes must agree on
  std::chrono::milliseconds timeout{60000};
};

/// One rank, each peer in a process of its own. Throws RendezvousFailed, NcclUnavailable, NcclFailed, CommTimeout.
std::unique_ptr<Exchange> ncclExchange(const Mesh &mesh, const Port &port, KernelLibrary &kernels,
                                       const NcclOptions &options);

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_EXCHANGE_H
