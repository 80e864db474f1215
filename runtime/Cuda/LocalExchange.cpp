//===- LocalExchange.cpp - Ranks that share a GPU --------------------------===//
#include "runtime/Cuda/Exchange.h"

namespace helix::cuda {
namespace {

class Local : public Exchange {
public:
  Local(const Mesh &mesh, std::vector<Port> ports, KernelLibrary &kernels)
      : mesh(mesh), ports(std::move(ports)), kernels(kernels) {}

  void enqueue(const Collective &collective, uint32_t stream) override {
    for (const Port &port : ports)
      if (mesh.coordinate(collective.axis, port.rank) == 0)
        group(collective, port.rank, stream);
  }

  bool gather(Address, Address, uint64_t) override { return false; }

  void finish(Stream stream, std::chrono::milliseconds) override { HELIX_CU(cuStreamSynchronize, stream); }

private:
  const Port &peer(const Collective &collective, uint32_t first, uint32_t coordinate) const {
    return ports[mesh.peer(collective.axis, first, coordinate)];
  }

  /// What is put on the ranks' streams after this waits for all that is there: they meet on the first one's.
  void meet(const Collective &collective, uint32_t first, uint32_t stream) const {
    uint32_t peers = mesh.size(collective.axis);
    const Port &at = peer(collective, first, 0);
    for (uint32_t p = 1; p < peers; ++p) {
      const Port &port = peer(collective, first, p);
      HELIX_CU(cuEventRecord, port.ready[stream].get(), port.streams[stream].get());
      HELIX_CU(cuStreamWaitEvent, at.streams[stream].get(), port.ready[stream].get(), 0);
    }
    HELIX_CU(cuEventRecord, at.ready[stream].get(), at.streams[stream].get());
    for (uint32_t p = 1; p < peers; ++p)
      HELIX_CU(cuStreamWaitEvent, peer(collective, first, p).streams[stream].get(), at.ready[stream].get(), 0);
  }

  /// The ranks along the axis, of which `first` has coordinate 0. A peer may still read a rank's segment when that
  /// rank's stream goes on: the plan gives no byte of it to another value before a later collective of them all.
  void group(const Collective &collective, uint32_t first, uint32_t stream) {
    uint32_t peers = mesh.size(collective.axis);
    meet(collective, first, stream);
    if (collective.kind == Collective::Kind::AllToAll) {
      for (uint32_t me = 0; me < peers; ++me)
        for (uint32_t p = 0; p < peers; ++p)
          copy(peer(collective, first, me), collective.receive + p * collective.count, peer(collective, first, p),
               collective.send + me * collective.count, collective.count, stream);
      return;
    }
    for (uint32_t me = 0; me < peers; ++me)
      sum(collective, first, me, stream);
    meet(collective, first, stream);
    for (uint32_t me = 0; me < peers; ++me)
      for (uint32_t p = 0; p < peers; ++p) {
        auto [begin, end] = reduceSlice(collective.count, peers, p);
        uint64_t at = collective.receive + begin * sizeof(float);
        if (p != me && begin != end)
          copy(peer(collective, first, me), at, peer(collective, first, p), at, (end - begin) * sizeof(float), stream);
      }
  }

  void copy(const Port &to, uint64_t toOffset, const Port &from, uint64_t fromOffset, uint64_t bytes,
            uint32_t stream) const {
    HELIX_CU(cuMemcpyDtoDAsync_v2, to.segment + toOffset, from.segment + fromOffset, bytes, to.streams[stream].get());
  }

  void sum(const Collective &collective, uint32_t first, uint32_t me, uint32_t stream) {
    uint32_t peers = mesh.size(collective.axis);
    auto [begin, end] = reduceSlice(collective.count, peers, me);
    std::vector<const float *> addends;
    for (uint32_t p = 0; p < peers; ++p)
      addends.push_back(reinterpret_cast<const float *>(peer(collective, first, p).segment + collective.send) + begin);
    const Port &mine = peer(collective, first, me);
    ReduceArgs args{reinterpret_cast<float *>(mine.segment + collective.receive) + begin, addends, end - begin};
    for (const Prepared &launch : kernels.prepare(args))
      launch.launch(mine.streams[stream].get());
  }

  Mesh mesh;
  std::vector<Port> ports; ///< by rank
  KernelLibrary &kernels;
};

} // namespace

std::unique_ptr<Exchange> localExchange(const Mesh &mesh, std::vector<Port> ports, KernelLibrary &kernels) {
  return std::make_unique<Local>(mesh, std::move(ports), kernels);
}

} // namespace helix::cuda
