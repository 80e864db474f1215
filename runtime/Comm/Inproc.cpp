//===- Inproc.cpp - Ranks that are threads of one process ------------------===//
#include "runtime/Comm/Inproc.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Error.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <sys/prctl.h>

namespace helix {

uint64_t bytesSent(const Collective &collective, uint64_t peers) {
  if (collective.kind == Collective::Kind::AllToAll)
    return (peers - 1) * collective.count;
  return 2 * (peers - 1) * ((collective.count + peers - 1) / peers) * sizeof(float);
}

namespace {

using Clock = std::chrono::steady_clock;

/// Collectives along an axis whose starts are remembered. With more in flight, a later start counts for an earlier one.
constexpr uint64_t kStarts = 16;

/// How far a rank is in the sequence of collectives along an axis. 64 bits do not wrap.
struct Progress {
  std::atomic<uint64_t> started{0}; ///< collectives
  std::atomic<uint64_t> stages{0};  ///< stages of collectives that are done: one per all-to-all, two per all-reduce
  std::atomic<Clock::rep> startedAt[kStarts] = {}; ///< with a link, by ordinal
};

/// Where a rank sleeps until a time, or until all are told to stop.
struct Sleeper {
  std::mutex mutex;
  std::condition_variable woken;
};

/// The ranks along an axis that share the other coordinate.
struct Group {
  explicit Group(uint32_t size) : progress(size) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Progress> progress;
};

struct World {
  World(const Mesh &mesh, std::span<std::byte *const> segments, const InprocOptions &options)
      : mesh(mesh), segments(segments.begin(), segments.end()), options(options) {
    for (unsigned axis = 0; axis < kAxes; ++axis)
      for (uint32_t i = 0, count = mesh.ranks() / mesh.size(Axis(axis)); i < count; ++i)
        groups[axis].push_back(std::make_unique<Group>(mesh.size(Axis(axis))));
    for (uint32_t rank = 0; options.link && rank < mesh.ranks(); ++rank)
      sleepers.push_back(std::make_unique<Sleeper>());
  }

  Group &group(Axis axis, uint32_t rank) {
    uint32_t stride = mesh.stride(axis), first = mesh.peer(axis, rank, 0);
    // Firsts of groups are 0, 1, … stride - 1 in each run of stride * size ranks.
    return *groups[unsigned(axis)][first / (stride * mesh.size(axis)) * stride + first % stride];
  }

  void abort(const char *why) noexcept {
    {
      std::lock_guard lock(reasonMutex);
      if (aborted.load())
        return;
      std::snprintf(reason, sizeof(reason), "%s", why);
      aborted.store(true);
    }
    for (auto &axis : groups)
      for (auto &group : axis) {
        std::lock_guard lock(group->mutex);
        group->changed.notify_all();
      }
    for (auto &sleeper : sleepers) {
      std::lock_guard lock(sleeper->mutex);
      sleeper->woken.notify_all();
    }
  }

  Mesh mesh;
  std::vector<std::byte *> segments;
  InprocOptions options;
  std::vector<std::unique_ptr<Group>> groups[kAxes];
  std::vector<std::unique_ptr<Sleeper>> sleepers; ///< per rank, if there is a link
  std::atomic<bool> aborted{false};
  std::mutex reasonMutex;
  char reason[512] = ""; ///< fixed, so that abort allocates nothing
};

class Inproc : public Communicator {
public:
  Inproc(std::shared_ptr<World> shared, uint32_t rank)
      : world(std::move(shared)), rank(rank), addends(world->mesh.ranks()) {}

  Pending start(const Collective &collective) override {
    Group &group = world->group(collective.axis, rank);
    auto &mine = group.progress[self(collective.axis)].started;
    uint64_t ordinal = mine.load(std::memory_order_relaxed) + 1;
    if (world->options.link)
      group.progress[self(collective.axis)].startedAt[ordinal % kStarts].store(Clock::now().time_since_epoch().count(),
                                                                               std::memory_order_relaxed);
    publish(group, &Progress::started, mine, ordinal);
    return {collective, ordinal};
  }

  void wait(const Pending &pending) override {
    const Collective &collective = pending.collective;
    Group &group = world->group(collective.axis, rank);
    auto &mine = group.progress[self(collective.axis)].stages;
    uint64_t stage = mine.load(std::memory_order_relaxed);
    await(group, collective, &Progress::started, pending.ordinal);
    std::optional<Clock::time_point> arrival = arrivalOf(group, pending);
    if (collective.kind == Collective::Kind::AllToAll) {
      exchange(collective);
    } else {
      reduceSlice(collective);
      publish(group, &Progress::stages, mine, ++stage);
      await(group, collective, &Progress::stages, stage);
      gatherSlices(collective);
    }
    // Peers read this rank's segment until they say so.
    publish(group, &Progress::stages, mine, ++stage);
    await(group, collective, &Progress::stages, stage);
    if (arrival)
      sleepUntil(*arrival);
  }

  void abort(const char *reason) noexcept override { world->abort(reason); }

private:
  uint32_t self(Axis axis) const { return world->mesh.coordinate(axis, rank); }
  std::byte *segment(Axis axis, uint32_t peer) const { return world->segments[world->mesh.peer(axis, rank, peer)]; }

  static bool reached(const Group &group, std::atomic<uint64_t> Progress::*counter, uint64_t value) {
    return std::all_of(group.progress.begin(), group.progress.end(),
                       [&](const Progress &peer) { return (peer.*counter).load(std::memory_order_acquire) >= value; });
  }

  static void publish(Group &group, std::atomic<uint64_t> Progress::*counter, std::atomic<uint64_t> &mine,
                      uint64_t value) {
    std::lock_guard lock(group.mutex);
    mine.store(value, std::memory_order_release);
    // Everyone waits for all: only the last to come can change anything.
    if (reached(group, counter, value))
      group.changed.notify_all();
  }

  void await(Group &group, const Collective &collective, std::atomic<uint64_t> Progress::*counter, uint64_t value) {
    auto done = [&] { return reached(group, counter, value); };
    if (world->options.spin) {
      auto until = Clock::now() + std::chrono::microseconds(50);
      while (!done() && !world->aborted.load() && Clock::now() < until)
        __builtin_ia32_pause();
    }
    if (!done()) {
      std::unique_lock lock(group.mutex);
      group.changed.wait_until(lock, Clock::now() + world->options.timeout,
                               [&] { return done() || world->aborted.load(); });
    }
    throwIfAborted();
    if (!done())
      timeOut(group, collective, counter, value);
  }

  void throwIfAborted() const {
    if (!world->aborted.load())
      return;
    std::lock_guard lock(world->reasonMutex);
    throw Error(ErrorCode::CommAborted,
                "rank " + std::to_string(rank) + " stopped because another rank failed: " + world->reason);
  }

  /// When the link has carried a collective that all have started. A rank alone has no link.
  std::optional<Clock::time_point> arrivalOf(const Group &group, const Pending &pending) const {
    if (!world->options.link || group.progress.size() == 1)
      return {};
    const Link &link = *world->options.link;
    Clock::rep last = 0;
    for (const Progress &peer : group.progress)
      last = std::max(last, peer.startedAt[pending.ordinal % kStarts].load(std::memory_order_relaxed));
    std::chrono::duration<double> delay(link.latency + double(bytesSent(pending.collective, group.progress.size())) /
                                                           link.bytesPerSecond);
    return Clock::time_point(Clock::duration(last)) + std::chrono::ceil<Clock::duration>(delay);
  }

  void sleepUntil(Clock::time_point time) const {
    // Else the system may wake a thread 50 us late, for fewer interrupts.
    thread_local const bool precise = ::prctl(PR_SET_TIMERSLACK, 1ul) == 0;
    static_cast<void>(precise);
    Sleeper &sleeper = *world->sleepers[rank];
    std::unique_lock lock(sleeper.mutex);
    sleeper.woken.wait_until(lock, time, [&] { return world->aborted.load(); });
    throwIfAborted();
  }

  [[noreturn]] void timeOut(const Group &group, const Collective &collective, std::atomic<uint64_t> Progress::*counter,
                            uint64_t value) const {
    std::string missing;
    for (uint32_t peer = 0; peer < group.progress.size(); ++peer)
      if ((group.progress[peer].*counter).load() < value)
        missing += " " + std::to_string(world->mesh.peer(collective.axis, rank, peer));
    throw Error(ErrorCode::CommTimeout,
                "rank " + std::to_string(rank) + " waited " + std::to_string(world->options.timeout.count()) +
                    " ms in an " + (collective.kind == Collective::Kind::AllToAll ? "all-to-all" : "all-reduce") +
                    " for ranks" + missing + "; raise the timeout if they are only slow");
  }

  void exchange(const Collective &collective) const {
    uint32_t peers = world->mesh.size(collective.axis), me = self(collective.axis);
    std::byte *receive = world->segments[rank] + collective.receive;
    for (uint32_t peer = 0; peer < peers; ++peer)
      std::memcpy(receive + peer * collective.count,
                  segment(collective.axis, peer) + collective.send + me * collective.count, collective.count);
  }

  /// The elements that coordinate `peer` sums.
  std::pair<uint64_t, uint64_t> slice(const Collective &collective, uint32_t peer) const {
    uint64_t peers = world->mesh.size(collective.axis), size = (collective.count + peers - 1) / peers;
    uint64_t begin = std::min(peer * size, collective.count);
    return {begin, std::min(begin + size, collective.count)};
  }

  void reduceSlice(const Collective &collective) {
    uint32_t peers = world->mesh.size(collective.axis);
    for (uint32_t peer = 0; peer < peers; ++peer)
      addends[peer] = reinterpret_cast<const float *>(segment(collective.axis, peer) + collective.send);
    auto [begin, end] = slice(collective, self(collective.axis));
    auto *sum = reinterpret_cast<float *>(world->segments[rank] + collective.receive);
    cpu::reduceOrdered(sum, addends.data(), peers, begin, end);
  }

  void gatherSlices(const Collective &collective) const {
    for (uint32_t peer = 0; peer < world->mesh.size(collective.axis); ++peer) {
      if (peer == self(collective.axis))
        continue;
      auto [begin, end] = slice(collective, peer);
      uint64_t offset = collective.receive + begin * sizeof(float);
      std::memcpy(world->segments[rank] + offset, segment(collective.axis, peer) + offset,
                  (end - begin) * sizeof(float));
    }
  }

  std::shared_ptr<World> world;
  uint32_t rank;
  std::vector<const float *> addends; ///< of a sum, here so that a step allocates nothing
};

} // namespace

std::vector<std::unique_ptr<Communicator>> inprocCommunicators(const Mesh &mesh, std::span<std::byte *const> segments,
                                                               const InprocOptions &options) {
  auto world = std::make_shared<World>(mesh, segments, options);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (uint32_t rank = 0; rank < mesh.ranks(); ++rank)
    ranks.push_back(std::make_unique<Inproc>(world, rank));
  return ranks;
}

} // namespace helix
