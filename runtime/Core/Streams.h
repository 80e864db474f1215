//===- Streams.h - The streams of one rank ---------------------------------===//
#ifndef HELIX_RUNTIME_CORE_STREAMS_H
#define HELIX_RUNTIME_CORE_STREAMS_H

#include "runtime/Comm/Communicator.h"
#include "runtime/Error.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace helix {

/// The error that is being handled, as one of a rank. Call it within a catch block.
Error caughtBy(uint32_t rank);

/// A thread for every stream but the first, which is the caller's, and the events between streams. Threads sleep
/// between runs; a run allocates nothing and takes no lock.
class Streams {
public:
  /// `spin`: look for an event a little while before sleeping.
  Streams(uint32_t rank, uint32_t streams, uint32_t events, bool spin);
  ~Streams();

  uint32_t count() const { return uint32_t(threads.size()) + 1; }

  /// Calls body(stream) for `streams` streams side by side and returns when all are done. A body may throw: the others
  /// are then told to stop, by `communicator` and by `wait`, and what came first, not what followed from it, is thrown
  /// here when all have ended. After that there are no more runs.
  template <typename Body> void run(uint32_t streams, Communicator &communicator, const Body &body) {
    run(streams, communicator, &body,
        [](const void *context, uint32_t stream) { (*static_cast<const Body *>(context))(stream); });
  }

  /// What the stream has done before this call is seen by whoever waits for the event in this run.
  void record(uint32_t event) {
    events[event].store(epoch, std::memory_order_release);
    events[event].notify_all();
  }

  /// Returns when the event has been recorded in this run; false if it will not be, as a stream has failed.
  bool wait(uint32_t event) const;

private:
  using Call = void (*)(const void *context, uint32_t stream);
  struct Thread {
    std::atomic<uint32_t> runs{0}; ///< a change wakes it
    std::thread thread;
  };
  void run(uint32_t streams, Communicator &communicator, const void *context, Call call);
  void attempt(uint32_t stream);
  void end();

  uint32_t rank;
  bool spin;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::optional<Error>> errors; ///< per stream
  /// The last run in which each was recorded, so that none has to be reset. Of 32 bits, which the system can wait for:
  /// a number comes again after four thousand million runs, by when the event has had others.
  std::unique_ptr<std::atomic<uint32_t>[]> events;
  uint32_t eventCount;

  // The run; written before `runs` changes, read after.
  uint32_t epoch = 0;
  const void *context = nullptr;
  Call call = nullptr;
  Communicator *communicator = nullptr;
  std::atomic<uint32_t> busy{0}; ///< threads at work
  std::atomic<bool> stopping{false};
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_STREAMS_H
