//===- Inproc.cpp - Ranks that are threads of one process ------------------===//
#include "runtime/Comm/Inproc.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Error.h"
#include "runtime/Pause.h"

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

/// How long to look for peers before sleeping, and how late a sleeper may wake.
constexpr std::chrono::microseconds kSpin{50}, kLate{80};

int64_t nanoseconds(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

/// How far a rank is in the sequence of collectives along an axis. 64 bits do not wrap.
struct Progress {
  std::atomic<uint64_t> started{0}; ///< collectives
  std::atomic<uint64_t> stages{0};  ///< stages of collectives that are done: one per all-to-all, two per all-reduce
  /// When, in nanoseconds, by number: a rank is at most kUnderWay collectives ahead of another.
  std::atomic<int64_t> startedAt[Communicator::kUnderWay] = {};
  std::atomic<int64_t> stageAt{0}; ///< of the last stage
};

/// Where a rank sleeps until a time, or until it is woken.
struct Bed {
  std::atomic<uint32_t> calls{0}; ///< a change is news
  std::atomic<bool> taken{false};
  std::mutex mutex;
  std::condition_variable woken;
};

/// The ranks along an axis that share the other coordinate.
struct Group {
  explicit Group(uint32_t size) : progress(size) {}
  std::vector<Progress> progress;
};

struct World {
  World(const Mesh &mesh, std::span<std::byte *const> segments, const InprocOptions &options)
      : mesh(mesh), segments(segments.begin(), segments.end()), options(options), beds(mesh.ranks()) {
    for (unsigned axis = 0; axis < kAxes; ++axis)
      for (uint32_t i = 0, count = mesh.ranks() / mesh.size(Axis(axis)); i < count; ++i)
        groups[axis].push_back(std::make_unique<Group>(mesh.size(Axis(axis))));
  }

  Group &group(Axis axis, uint32_t rank) {
    uint32_t stride = mesh.stride(axis), first = mesh.peer(axis, rank, 0);
    // Firsts of groups are 0, 1, … stride - 1 in each run of stride * size ranks.
    return *groups[unsigned(axis)][first / (stride * mesh.size(axis)) * stride + first % stride];
  }

  void wake(uint32_t rank) noexcept {
    Bed &bed = beds[rank];
    bed.calls.fetch_add(1);
    if (!bed.taken.load())
      return;
    // Whoever is about to sleep holds the mutex from its last look at `calls` on.
    {
      std::lock_guard lock(bed.mutex);
    }
    bed.woken.notify_one();
  }

  void abort(const char *why) noexcept {
    {
      std::lock_guard lock(reasonMutex);
      if (aborted.load())
        return;
      std::snprintf(reason, sizeof(reason), "%s", why);
      aborted.store(true);
    }
    for (uint32_t rank = 0; rank < mesh.ranks(); ++rank)
      wake(rank);
  }

  Mesh mesh;
  std::vector<std::byte *> segments;
  InprocOptions options;
  std::vector<std::unique_ptr<Group>> groups[kAxes];
  std::vector<Bed> beds; ///< of each rank
  std::atomic<bool> aborted{false};
  std::mutex reasonMutex;
  char reason[512] = ""; ///< fixed, so that abort allocates nothing
};

class Inproc : public Communicator {
public:
  Inproc(std::shared_ptr<World> shared, uint32_t rank)
      : world(std::move(shared)), rank(rank), addends(world->mesh.ranks()) {}

  Ticket start(const Collective &collective) override {
    if (last - done == kUnderWay)
      wait(done + 1);
    Group &group = world->group(collective.axis, rank);
    Progress &mine = group.progress[self(collective.axis)];
    uint64_t ordinal = mine.started.load(std::memory_order_relaxed) + 1;
    mine.startedAt[ordinal % kUnderWay].store(nanoseconds(Clock::now()), std::memory_order_relaxed);
    Flight &flight = flights[++last % kUnderWay];
    flight = {collective, &group, ordinal, Stage::Meet, 0};
    publish(flight, &Progress::started, mine.started, ordinal);
    return last;
  }

  bool test(Ticket ticket) override {
    throwIfAborted();
    while (done < ticket && carryOn(flights[(done + 1) % kUnderWay]))
      throwIfAborted();
    return done >= ticket;
  }

  void wait(Ticket ticket) override {
    const InprocOptions &options = world->options;
    Bed &bed = world->beds[rank];
    // Time starts again with each stage that is reached.
    uint64_t at = ~uint64_t(0);
    Clock::time_point since;
    for (;;) {
      uint32_t seen = bed.calls.load();
      if (test(ticket))
        return;
      const Flight &flight = flights[(done + 1) % kUnderWay];
      Clock::time_point now = Clock::now();
      if (uint64_t reached = done * kStages + uint64_t(flight.stage); reached != at) {
        at = reached;
        since = now;
      }
      Clock::time_point until = since + options.timeout;
      if (flight.stage == Stage::Arrive) {
        until = Clock::time_point(std::chrono::nanoseconds(flight.end));
        if (options.spin) {
          until -= kLate;
          if (now >= until) {
            pause();
            continue;
          }
        }
      } else if (now >= until) {
        timeOut(flight);
      } else if (options.spin && now < since + kSpin) {
        pause();
        continue;
      }
      sleep(bed, seen, until);
    }
  }

  int64_t doneAt(Ticket ticket) const override { return flights[ticket % kUnderWay].end; }

  void abort(const char *reason) noexcept override { world->abort(reason); }

private:
  /// What a collective still needs: that all have started it, have summed their slices, need this rank's segment no
  /// more; that the link's time is over.
  enum class Stage : uint8_t { Meet, Gather, Part, Arrive };
  static constexpr uint64_t kStages = 4;

  /// A collective that was started.
  struct Flight {
    Collective collective;
    Group *group = nullptr;
    uint64_t ordinal = 0; ///< among those along its axis, from 1
    Stage stage = Stage::Meet;
    int64_t end = 0; ///< nanoseconds; with a link, its alone
  };

  uint32_t self(Axis axis) const { return world->mesh.coordinate(axis, rank); }
  std::byte *segment(Axis axis, uint32_t peer) const { return world->segments[world->mesh.peer(axis, rank, peer)]; }

  static bool reached(const Flight &flight, std::atomic<uint64_t> Progress::*counter, uint64_t value) {
    // Sequentially consistent, as in publish: of two ranks that publish at once, one sees the other.
    return std::all_of(flight.group->progress.begin(), flight.group->progress.end(),
                       [&](const Progress &peer) { return (peer.*counter).load() >= value; });
  }

  void publish(const Flight &flight, std::atomic<uint64_t> Progress::*counter, std::atomic<uint64_t> &mine,
               uint64_t value) {
    mine.store(value);
    // Everyone waits for all: only the last to come can change anything.
    if (!reached(flight, counter, value))
      return;
    for (uint32_t peer = 0; peer < flight.group->progress.size(); ++peer)
      if (uint32_t other = world->mesh.peer(flight.collective.axis, rank, peer); other != rank)
        world->wake(other);
  }

  void finishStage(const Flight &flight) {
    Progress &mine = flight.group->progress[self(flight.collective.axis)];
    mine.stageAt.store(nanoseconds(Clock::now()), std::memory_order_relaxed);
    publish(flight, &Progress::stages, mine.stages, mine.stages.load(std::memory_order_relaxed) + 1);
  }

  bool stageReached(const Flight &flight) const {
    return reached(flight, &Progress::stages,
                   flight.group->progress[self(flight.collective.axis)].stages.load(std::memory_order_relaxed));
  }

  /// Takes the first collective that is not done a stage further; false if peers or the link are not as far.
  bool carryOn(Flight &flight) {
    switch (flight.stage) {
    case Stage::Meet:
      if (!reached(flight, &Progress::started, flight.ordinal))
        return false;
      flight.end = arrivalOf(flight);
      linkFree = std::max(linkFree, flight.end);
      if (flight.collective.kind == Collective::Kind::AllToAll)
        exchange(flight.collective);
      else
        reduceSlice(flight.collective);
      flight.stage = flight.collective.kind == Collective::Kind::AllToAll ? Stage::Part : Stage::Gather;
      finishStage(flight);
      return true;
    case Stage::Gather:
      if (!stageReached(flight))
        return false;
      gatherSlices(flight.collective);
      flight.stage = Stage::Part;
      finishStage(flight);
      return true;
    case Stage::Part:
      if (!stageReached(flight))
        return false;
      for (const Progress &peer : flight.group->progress)
        if (!hasLink(flight))
          flight.end = std::max(flight.end, peer.stageAt.load(std::memory_order_relaxed));
      flight.stage = Stage::Arrive;
      return true;
    case Stage::Arrive:
      if (nanoseconds(Clock::now()) < flight.end)
        return false;
      ++done;
      return true;
    }
    return false;
  }

  void throwIfAborted() const {
    if (!world->aborted.load())
      return;
    std::lock_guard lock(world->reasonMutex);
    throw Error(ErrorCode::CommAborted,
                "rank " + std::to_string(rank) + " stopped because another rank failed: " + world->reason);
  }

  /// A rank alone has none.
  bool hasLink(const Flight &flight) const { return world->options.link && flight.group->progress.size() > 1; }

  /// When the link has carried a collective that all have started, after those before it; 0 without one.
  int64_t arrivalOf(const Flight &flight) const {
    if (!hasLink(flight))
      return 0;
    size_t peers = flight.group->progress.size();
    const Link &link = *world->options.link;
    int64_t begin = linkFree;
    for (const Progress &peer : flight.group->progress)
      begin = std::max(begin, peer.startedAt[flight.ordinal % kUnderWay].load(std::memory_order_relaxed));
    std::chrono::duration<double> delay(link.latency +
                                        double(bytesSent(flight.collective, peers)) / link.bytesPerSecond);
    return begin + std::chrono::ceil<std::chrono::nanoseconds>(delay).count();
  }

  void sleep(Bed &bed, uint32_t seen, Clock::time_point until) const {
    // Else the system may wake a thread 50 us late, for fewer interrupts.
    thread_local const bool precise = ::prctl(PR_SET_TIMERSLACK, 1ul) == 0;
    static_cast<void>(precise);
    std::unique_lock lock(bed.mutex);
    bed.taken.store(true);
    bed.woken.wait_until(lock, until, [&] { return bed.calls.load() != seen; });
    bed.taken.store(false);
  }

  [[noreturn]] void timeOut(const Flight &flight) const {
    const Collective &collective = flight.collective;
    bool meeting = flight.stage == Stage::Meet;
    uint64_t value = meeting ? flight.ordinal : flight.group->progress[self(collective.axis)].stages.load();
    std::string missing;
    for (uint32_t peer = 0; peer < flight.group->progress.size(); ++peer) {
      const Progress &theirs = flight.group->progress[peer];
      if ((meeting ? theirs.started : theirs.stages).load() < value)
        missing += " " + std::to_string(world->mesh.peer(collective.axis, rank, peer));
    }
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
  Flight flights[kUnderWay];          ///< by ticket
  Ticket last = 0, done = 0;
  int64_t linkFree = 0; ///< nanoseconds
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
