//===- Exchanges.cpp - One all-to-all of outputs with their log-sum-exp, or two ===//
#include "Exchanges.h"
#include "runtime/Cuda/Exchange.h"
#include "test/gpu/GpuMachine.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace helix::cuda::test {
namespace {

constexpr uint32_t kRanks = 4, kHeads = 8, kDim = 128; ///< heads that a rank sends to each
constexpr uint32_t kRepeat = 20;                       ///< exchanges of a graph
constexpr uint64_t kRoom = uint64_t(8) << 20;          ///< bytes of a segment's half
constexpr std::chrono::seconds kTimeout{30};

/// The ranks of this process, and what is between all.
struct Ends {
  HeldStream main = makeStream();
  HeldEvent forked = makeEvent(false);
  std::vector<HeldMemory> segments;
  std::vector<std::vector<HeldStream>> streams;
  std::vector<std::vector<HeldEvent>> ready;
  std::vector<HeldEvent> joined;
  std::unique_ptr<Exchange> exchange;

  explicit Ends(const std::optional<Processes> &processes) {
    const Mesh mesh{.tpa = 1, .kvp = kRanks, .ep = 1, .tpf = kRanks};
    std::vector<Port> ports;
    uint32_t count = processes ? 1 : kRanks;
    segments.resize(count), streams.resize(count), ready.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      segments[i] = allocate(2 * kRoom);
      HELIX_CU(cuMemsetD8Async, segments[i].get(), 0, 2 * kRoom, main.get());
      streams[i].push_back(makeStream(/*urgent=*/true));
      ready[i].push_back(makeEvent(false));
      joined.push_back(makeEvent(false));
      ports.push_back({processes ? processes->index : i, segments[i].get(), 0, streams[i], ready[i]});
    }
    HELIX_CU(cuStreamSynchronize, main.get());
    KernelLibrary &kernels = gpuMachine().kernels();
    exchange = processes ? ncclExchange(mesh, ports[0], kernels, {processes->rendezvous, 0, kTimeout})
                         : localExchange(mesh, ports, kernels, {});
  }

  void enqueue(const std::vector<uint64_t> &chunks) {
    HELIX_CU(cuEventRecord, forked.get(), main.get());
    for (const auto &rank : streams)
      HELIX_CU(cuStreamWaitEvent, rank[0].get(), forked.get(), 0);
    exchange->begin();
    for (uint32_t i = 0; i < kRepeat; ++i) {
      uint64_t at = 0;
      for (uint64_t bytes : chunks) {
        exchange->enqueue({Collective::Kind::AllToAll, Axis::Kvp, at, kRoom + at, bytes}, 0);
        at += kRanks * bytes;
      }
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      HELIX_CU(cuEventRecord, joined[i].get(), streams[i][0].get());
      HELIX_CU(cuStreamWaitEvent, main.get(), joined[i].get(), 0);
    }
  }

  HeldGraphExec capture(const std::vector<uint64_t> &chunks) {
    // What NCCL sets up for the first exchange cannot be captured.
    enqueue(chunks);
    exchange->finish(main.get(), kTimeout);
    HeldGraph graph;
    HeldGraphExec executable;
    HELIX_CU(cuStreamBeginCapture_v2, main.get(), kCaptureThreadLocal);
    enqueue(chunks);
    HELIX_CU(cuStreamEndCapture, main.get(), graph.out());
    HELIX_CU(cuGraphInstantiateWithFlags, executable.out(), graph.get(), 0);
    return executable;
  }

  double seconds(const HeldGraphExec &graph) {
    auto begin = std::chrono::steady_clock::now();
    HELIX_CU(cuGraphLaunch, graph.get(), main.get());
    exchange->finish(main.get(), kTimeout);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kRepeat;
  }
};

} // namespace

void benchExchanges(const std::optional<Processes> &processes, int rounds) {
  gpuMachine(); // its context is this thread's
  Ends ends(processes);
  for (uint64_t batch : {1, 8, 64}) {
    const uint64_t rows = batch * kHeads;
    HeldGraphExec packed = ends.capture({rows * (kDim + 1) * sizeof(float)});
    HeldGraphExec two = ends.capture({rows * kDim * sizeof(float), rows * sizeof(float)});
    std::vector<double> seconds[2];
    for (int round = 0; round < rounds; ++round) {
      seconds[0].push_back(ends.seconds(packed));
      seconds[1].push_back(ends.seconds(two));
    }
    for (int which : {0, 1}) {
      std::printf("{\"name\": \"exchange/%s/batch %d/%s\", \"seconds\": [", processes ? "nccl" : "local", int(batch),
                  which == 0 ? "packed" : "two");
      for (int round = 0; round < rounds; ++round)
        std::printf("%s%.9g", round == 0 ? "" : ", ", seconds[which][size_t(round)]);
      std::printf("]}\n");
    }
  }
}

} // namespace helix::cuda::test
