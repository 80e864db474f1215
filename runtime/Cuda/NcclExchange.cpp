//===- NcclExchange.cpp - Ranks in processes of their own ------------------===//
#include "runtime/Cuda/Exchange.h"
#include "runtime/Cuda/Nccl.h"
#include "runtime/Cuda/Rendezvous.h"
#include "runtime/Error.h"

#include <cstring>
#include <thread>

namespace helix::cuda {
namespace {

using Clock = std::chrono::steady_clock;

std::byte *memory(Address address) { return reinterpret_cast<std::byte *>(address); }

class NcclRank : public Exchange {
public:
  NcclRank(const Mesh &mesh, const Port &port, KernelLibrary &kernels, const NcclOptions &options)
      : mesh(mesh), port(port), kernels(kernels), options(options) {
    Meeting meeting{options.rendezvous, port.rank, mesh.ranks(), options.artifactChecksum, options.timeout};
    NcclUniqueId id;
    Token token = meet(meeting, [&] {
      succeed(nccl().ncclGetUniqueId(&id), "ncclGetUniqueId", nullptr);
      Token made;
      std::memcpy(made.data(), &id, sizeof(id));
      return made;
    });
    static_assert(sizeof(Token) == sizeof(NcclUniqueId));
    std::memcpy(&id, token.data(), sizeof(id));
    try {
      connect(id);
    } catch (...) {
      leave(meeting);
      abort();
      throw;
    }
    leave(meeting);
  }

  ~NcclRank() override {
    // A communicator that still works ends together with its peers', but no one waits for a peer that is gone.
    for (NcclComm comm : owned) {
      deadline = Clock::now() + std::chrono::seconds(5);
      try {
        settle(nccl().ncclCommFinalize(comm), "ncclCommFinalize", comm);
        nccl().ncclCommDestroy(comm);
      } catch (const Error &) {
        nccl().ncclCommAbort(comm);
      }
    }
  }

  void enqueue(const Collective &collective, uint32_t stream) override {
    deadline = Clock::now() + options.timeout;
    if (collective.kind == Collective::Kind::AllToAll)
      allToAll(collective, port.streams[stream].get());
    else
      allReduce(collective, port.streams[stream].get());
  }

  bool gather(Address from, Address to, uint64_t bytes) override {
    deadline = Clock::now() + options.timeout;
    Stream stream = port.streams[0].get();
    HELIX_CU(cuMemcpyDtoDAsync_v2, to + port.rank * bytes, from, bytes, stream);
    Messages messages(*this, Axis::N, stream);
    for (uint32_t p = 0; p < mesh.ranks(); ++p)
      messages.swap(p, from, bytes, to + p * bytes, bytes);
    messages.send();
    return true;
  }

  void finish(Stream stream, std::chrono::milliseconds timeout) override {
    Clock::time_point begin = Clock::now();
    deadline = begin + timeout;
    for (;;) {
      int state = driver().cuStreamQuery(stream);
      try {
        if (state != kSuccess && state != kNotReady)
          check(state, "cuStreamQuery");
        // Messages that fail end too, and what they should have brought is not there.
        for (NcclComm comm : owned)
          checkAsync(comm);
        if (state == kSuccess)
          return;
        throwIfLate();
      } catch (...) {
        abort();
        throw;
      }
      // A step is short; what takes long is waited for without a core.
      if (Clock::now() - begin > std::chrono::milliseconds(2))
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      else
        std::this_thread::yield();
    }
  }

private:
  uint32_t self(Axis axis) const { return mesh.coordinate(axis, port.rank); }

  /// Sends to and from peers along an axis, as one operation.
  class Messages {
  public:
    Messages(NcclRank &rank, Axis axis, Stream stream)
        : rank(rank), comm(rank.comms[unsigned(axis)]), self(rank.self(axis)), stream(stream) {
      rank.succeed(nccl().ncclGroupStart(), "ncclGroupStart", comm);
    }
    /// To the peer and from it; nothing with this rank itself.
    void swap(uint32_t peer, Address from, uint64_t sent, Address to, uint64_t received) {
      if (peer == self)
        return;
      if (sent != 0)
        rank.succeed(nccl().ncclSend(memory(from), sent, kNcclInt8, int(peer), comm, stream), "ncclSend", comm);
      if (received != 0)
        rank.succeed(nccl().ncclRecv(memory(to), received, kNcclInt8, int(peer), comm, stream), "ncclRecv", comm);
    }
    void send() { rank.settle(nccl().ncclGroupEnd(), "ncclGroupEnd", comm); }

  private:
    NcclRank &rank;
    NcclComm comm;
    uint32_t self;
    Stream stream;
  };

  void allToAll(const Collective &collective, Stream stream) {
    uint32_t peers = mesh.size(collective.axis), me = self(collective.axis);
    Address send = port.segment + collective.send, receive = port.segment + collective.receive;
    HELIX_CU(cuMemcpyDtoDAsync_v2, receive + me * collective.count, send + me * collective.count, collective.count,
             stream);
    Messages messages(*this, collective.axis, stream);
    for (uint32_t p = 0; p < peers; ++p)
      messages.swap(p, send + p * collective.count, collective.count, receive + p * collective.count, collective.count);
    messages.send();
  }

  /// Each rank sums its slice, in order of rank, and sends it to everyone.
  void allReduce(const Collective &collective, Stream stream) {
    uint32_t peers = mesh.size(collective.axis), me = self(collective.axis);
    Address send = port.segment + collective.send, receive = port.segment + collective.receive;
    auto slice = [&](uint32_t p) { return reduceSlice(collective.count, peers, p); };
    auto bytesOf = [&](uint32_t p) { return (slice(p).second - slice(p).first) * sizeof(float); };
    auto offsetOf = [&](uint32_t p) { return slice(p).first * sizeof(float); };
    uint64_t mine = bytesOf(me), room = (collective.count + peers - 1) / peers * sizeof(float);
    {
      Messages messages(*this, collective.axis, stream);
      for (uint32_t p = 0; p < peers; ++p)
        messages.swap(p, send + offsetOf(p), bytesOf(p), port.scratch + p * room, mine);
      messages.send();
    }
    std::vector<const float *> addends;
    for (uint32_t p = 0; p < peers; ++p)
      addends.push_back(reinterpret_cast<const float *>(p == me ? send + offsetOf(me) : port.scratch + p * room));
    ReduceArgs args{reinterpret_cast<float *>(receive + offsetOf(me)), addends, mine / sizeof(float)};
    for (const Prepared &launch : kernels.prepare(args))
      launch.launch(stream);
    Messages messages(*this, collective.axis, stream);
    for (uint32_t p = 0; p < peers; ++p)
      messages.swap(p, receive + offsetOf(me), mine, receive + offsetOf(p), bytesOf(p));
    messages.send();
  }

  void connect(const NcclUniqueId &id) {
    deadline = Clock::now() + options.timeout;
    NcclConfig config;
    NcclComm world = nullptr;
    int result = nccl().ncclCommInitRankConfig(&world, int(mesh.ranks()), id, int(port.rank), &config);
    if (world)
      owned.push_back(world);
    settle(result, "ncclCommInitRankConfig", world);
    for (unsigned axis = 0; axis < kAxes; ++axis) {
      uint32_t size = mesh.size(Axis(axis));
      // An axis of one rank exchanges nothing, one of all ranks has the whole world.
      if (size == 1 || size == mesh.ranks()) {
        comms[axis] = world;
        continue;
      }
      NcclComm split = nullptr;
      int color = int(mesh.peer(Axis(axis), port.rank, 0)); // the first rank's number is the group's own
      result = nccl().ncclCommSplit(world, color, int(self(Axis(axis))), &split, &config);
      settle(result, "ncclCommSplit", world);
      if (split)
        owned.push_back(split);
      settle(result, "ncclCommSplit", split);
      comms[axis] = split;
    }
  }

  //===--------------------------------------------------------------------===//
  // Errors
  //===--------------------------------------------------------------------===//

  [[noreturn]] void fail(int result, const char *what, NcclComm comm) const {
    const char *last = comm ? nccl().ncclGetLastError(comm) : nullptr;
    throw Error(ErrorCode::NcclFailed, "rank " + std::to_string(port.rank) + ": " + what + ": " +
                                           nccl().ncclGetErrorString(result) +
                                           (last && *last ? std::string(" (") + last + ")" : ""));
  }

  /// For calls that only take note.
  void succeed(int result, const char *what, NcclComm comm) const {
    if (result != kNcclSuccess && result != kNcclInProgress)
      fail(result, what, comm);
  }

  /// Waits until what the call began is under way.
  void settle(int result, const char *what, NcclComm comm) const {
    while (result == kNcclInProgress && comm) {
      int state = kNcclSuccess;
      succeed(nccl().ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError", comm);
      if (state != kNcclInProgress) {
        result = state;
        break;
      }
      throwIfLate();
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    if (result != kNcclSuccess)
      fail(result, what, comm);
  }

  void checkAsync(NcclComm comm) const {
    int state = kNcclSuccess;
    succeed(nccl().ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError", comm);
    if (state != kNcclSuccess && state != kNcclInProgress)
      fail(state, "a collective", comm);
  }

  void throwIfLate() const {
    if (Clock::now() >= deadline)
      throw Error(ErrorCode::CommTimeout, "rank " + std::to_string(port.rank) + " waited " +
                                              std::to_string(options.timeout.count()) +
                                              " ms for its peers, one of which may have ended; raise --comm-timeout "
                                              "if they are only slow");
  }

  void abort() noexcept {
    for (NcclComm comm : owned)
      nccl().ncclCommAbort(comm);
    owned.clear();
  }

  Mesh mesh;
  Port port;
  KernelLibrary &kernels;
  NcclOptions options;
  NcclComm comms[kAxes] = {};
  std::vector<NcclComm> owned;
  Clock::time_point deadline;
};

} // namespace

uint64_t ncclScratchBytes(const Collective &collective, uint32_t peers) {
  if (collective.kind == Collective::Kind::AllToAll)
    return 0;
  return (collective.count + peers - 1) / peers * peers * sizeof(float);
}

std::unique_ptr<Exchange> ncclExchange(const Mesh &mesh, const Port &port, KernelLibrary &kernels,
                                       const NcclOptions &options) {
  return std::make_unique<NcclRank>(mesh, port, kernels, options);
}

} // namespace helix::cuda
