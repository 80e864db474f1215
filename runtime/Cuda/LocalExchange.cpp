//===- LocalExchange.cpp - Ranks that share a GPU --------------------------===//
#include "runtime/Cuda/Exchange.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace helix::cuda {
namespace {

/// An artificial link's time. Collectives of a rank go over its link in the order of their `begin`.
class Delay {
public:
  Delay(const Link &link, const Mesh &mesh, uint32_t streams, KernelLibrary &kernels)
      : link(link), mesh(mesh), kernels(kernels), bytes((1 + streams) * mesh.ranks() * sizeof(uint64_t)),
        times(allocate(bytes)), isPassed(mesh.ranks()) {
    HeldStream stream = makeStream();
    HELIX_CU(cuMemsetD8Async, times.get(), 0, bytes, stream.get());
    HELIX_CU(cuStreamSynchronize, stream.get());
    for (uint32_t rank = 0; rank < mesh.ranks(); ++rank)
      passed.push_back(makeEvent(false));
  }

  void reset() { isPassed.assign(mesh.ranks(), false); }

  /// The collective is on the links of its ranks, all of which have come to it, from now on.
  void begin(const Collective &collective, uint32_t first, uint32_t number, Stream stream) {
    LinkArgs args = argsOf(collective, first, number);
    // Those before it may be on other streams.
    for (uint32_t p = 0; p < args.peers; ++p)
      if (uint32_t rank = mesh.peer(collective.axis, first, p); isPassed[rank])
        HELIX_CU(cuStreamWaitEvent, stream, passed[rank].get(), 0);
    launch(args, stream);
    for (uint32_t p = 0; p < args.peers; ++p) {
      uint32_t rank = mesh.peer(collective.axis, first, p);
      HELIX_CU(cuEventRecord, passed[rank].get(), stream);
      isPassed[rank] = true;
    }
  }

  /// What is on the stream after this waits until the links have carried it.
  void end(const Collective &collective, uint32_t first, uint32_t number, Stream stream) {
    LinkArgs args = argsOf(collective, first, number);
    args.waits = true;
    launch(args, stream);
  }

private:
  LinkArgs argsOf(const Collective &collective, uint32_t first, uint32_t number) const {
    constexpr double kMost = 1e18; // 30 years
    LinkArgs args;
    args.peers = mesh.size(collective.axis), args.first = first, args.stride = mesh.stride(collective.axis);
    args.free = reinterpret_cast<uint64_t *>(times.get());
    args.end = args.free + (1 + number) * mesh.ranks();
    double seconds = link.latency + double(bytesSent(collective, args.peers)) / link.bytesPerSecond;
    args.nanoseconds = uint64_t(std::min(std::ceil(seconds * 1e9), kMost));
    return args;
  }

  void launch(const LinkArgs &args, Stream stream) {
    for (const Prepared &launch : kernels.prepare(args))
      launch.launch(stream);
  }

  Link link;
  Mesh mesh;
  KernelLibrary &kernels;
  uint64_t bytes;
  HeldMemory times;              ///< of [1 + streams][ranks]: when links are free, when what is under way ends
  std::vector<HeldEvent> passed; ///< per rank, after its last collective has begun
  std::vector<bool> isPassed;    ///< since the last reset
};

class Local : public Exchange {
public:
  Local(const Mesh &mesh, std::vector<Port> ports, KernelLibrary &kernels, const std::optional<Link> &link)
      : mesh(mesh), ports(std::move(ports)), kernels(kernels) {
    if (link)
      delay.emplace(*link, mesh, uint32_t(this->ports[0].streams.size()), kernels);
  }

  void begin() override {
    if (delay)
      delay->reset();
  }

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

  /// What is put on the ranks' streams after this waits for all that is there: they meet on the first one's, where
  /// `meanwhile` may put something more.
  void meet(const Collective &collective, uint32_t first, uint32_t stream,
            const std::function<void(Stream)> &meanwhile = {}) const {
    uint32_t peers = mesh.size(collective.axis);
    const Port &at = peer(collective, first, 0);
    for (uint32_t p = 1; p < peers; ++p) {
      const Port &port = peer(collective, first, p);
      HELIX_CU(cuEventRecord, port.ready[stream].get(), port.streams[stream].get());
      HELIX_CU(cuStreamWaitEvent, at.streams[stream].get(), port.ready[stream].get(), 0);
    }
    if (meanwhile)
      meanwhile(at.streams[stream].get());
    HELIX_CU(cuEventRecord, at.ready[stream].get(), at.streams[stream].get());
    for (uint32_t p = 1; p < peers; ++p)
      HELIX_CU(cuStreamWaitEvent, peer(collective, first, p).streams[stream].get(), at.ready[stream].get(), 0);
  }

  /// The ranks along the axis, of which `first` has coordinate 0. A peer may still read a rank's segment when that
  /// rank's stream goes on: the plan gives no byte of it to another value before a later collective of them all.
  void group(const Collective &collective, uint32_t first, uint32_t stream) {
    // A rank alone has no link.
    bool delayed = delay && mesh.size(collective.axis) > 1;
    std::function<void(Stream)> begin, end;
    if (delayed) {
      begin = [&](Stream on) { delay->begin(collective, first, stream, on); };
      end = [&](Stream on) { delay->end(collective, first, stream, on); };
    }
    meet(collective, first, stream, begin);
    move(collective, first, stream);
    if (delayed)
      meet(collective, first, stream, end);
  }

  void move(const Collective &collective, uint32_t first, uint32_t stream) {
    uint32_t peers = mesh.size(collective.axis);
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
  std::optional<Delay> delay;
};

} // namespace

std::unique_ptr<Exchange> localExchange(const Mesh &mesh, std::vector<Port> ports, KernelLibrary &kernels,
                                        const std::optional<Link> &link) {
  return std::make_unique<Local>(mesh, std::move(ports), kernels, link);
}

} // namespace helix::cuda
