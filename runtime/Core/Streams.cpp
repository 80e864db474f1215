//===- Streams.cpp - The streams of one rank -------------------------------===//
#include "runtime/Core/Streams.h"

#include <chrono>
#include <new>

namespace helix {
namespace {

/// In place of a run: the event will not be recorded.
constexpr uint32_t kFailed = ~uint32_t(0);

} // namespace

Error caughtBy(uint32_t rank) {
  std::string who = "rank " + std::to_string(rank);
  try {
    throw;
  } catch (const Error &error) {
    return error;
  } catch (const std::bad_alloc &) {
    return {ErrorCode::MemoryExhausted, who + " ran out of memory"};
  } catch (const std::exception &error) {
    return {ErrorCode::SystemFailure, who + ": " + error.what()};
  }
}

Streams::Streams(uint32_t rank, uint32_t streams, uint32_t events, bool spin)
    : rank(rank), spin(spin), errors(streams), events(new std::atomic<uint32_t>[events]()), eventCount(events) {
  try {
    for (uint32_t stream = 1; stream < streams; ++stream) {
      threads.push_back(std::make_unique<Thread>());
      threads.back()->thread = std::thread([this, stream, &own = *threads.back()] {
        for (uint32_t seen = 0;; ++seen) {
          own.runs.wait(seen, std::memory_order_acquire);
          if (stopping)
            return;
          attempt(stream);
          if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1)
            busy.notify_one();
        }
      });
    }
  } catch (...) {
    // The destructor does not run; threads that were started must end.
    end();
    throw;
  }
}

Streams::~Streams() { end(); }

void Streams::end() {
  stopping = true;
  for (auto &it : threads) {
    ++it->runs;
    it->runs.notify_one();
    if (it->thread.joinable())
      it->thread.join();
  }
}

void Streams::attempt(uint32_t stream) {
  try {
    call(context, stream);
  } catch (...) {
    errors[stream] = caughtBy(rank);
    communicator->abort(errors[stream]->what());
    for (uint32_t event = 0; event < eventCount; ++event) {
      events[event].store(kFailed, std::memory_order_release);
      events[event].notify_all();
    }
  }
}

void Streams::run(uint32_t streams, Communicator &runCommunicator, const void *runContext, Call runCall) {
  if (++epoch == kFailed)
    epoch = 1;
  context = runContext;
  call = runCall;
  communicator = &runCommunicator;
  busy.store(streams - 1, std::memory_order_relaxed);
  for (uint32_t stream = 1; stream < streams; ++stream) {
    threads[stream - 1]->runs.fetch_add(1, std::memory_order_release);
    threads[stream - 1]->runs.notify_one();
  }
  attempt(0);
  for (uint32_t left; (left = busy.load(std::memory_order_acquire)) != 0;)
    busy.wait(left, std::memory_order_acquire);
  const Error *first = nullptr;
  for (const std::optional<Error> &error : errors)
    if (error && (!first || first->code() == ErrorCode::CommAborted))
      first = &*error;
  if (first)
    throw *first;
}

bool Streams::wait(uint32_t event) const {
  using Clock = std::chrono::steady_clock;
  const std::atomic<uint32_t> &state = events[event];
  if (spin) {
    auto until = Clock::now() + std::chrono::microseconds(50);
    for (uint32_t seen; (seen = state.load(std::memory_order_acquire)) != epoch && seen != kFailed;) {
      if (Clock::now() >= until)
        break;
      __builtin_ia32_pause();
    }
  }
  for (uint32_t seen; (seen = state.load(std::memory_order_acquire)) != epoch;) {
    if (seen == kFailed)
      return false;
    state.wait(seen, std::memory_order_acquire);
  }
  return true;
}

} // namespace helix
