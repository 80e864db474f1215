//===- Workers.cpp - The threads of one rank -------------------------------===//
#include "runtime/Core/Workers.h"
#include "runtime/Core/Affinity.h"
#include "runtime/Pause.h"

namespace helix {

Workers::Workers(unsigned count, bool spin, std::span<const unsigned> cpus) : spin(spin) {
  try {
    for (unsigned worker = 1; worker < count; ++worker) {
      std::optional<unsigned> cpu = cpus.empty() ? std::nullopt : std::optional(cpus[worker]);
      helpers.emplace_back([this, worker, cpu] { help(worker, cpu); });
    }
  } catch (...) {
    // The destructor does not run; threads that were started must end.
    stopping = true;
    ++generation;
    generation.notify_all();
    for (std::thread &helper : helpers)
      helper.join();
    throw;
  }
}

Workers::~Workers() {
  stopping = true;
  ++generation;
  generation.notify_all();
  for (std::thread &helper : helpers)
    helper.join();
}

void Workers::run(size_t itemCount, const void *jobContext, Call jobCall) {
  items = itemCount;
  context = jobContext;
  call = jobCall;
  busy.store(uint32_t(helpers.size()), std::memory_order_relaxed);
  generation.fetch_add(1, std::memory_order_release);
  generation.notify_all();
  share(0);
  for (uint32_t left; (left = busy.load(std::memory_order_acquire)) != 0;)
    awaitChange(busy, left, spin);
}

void Workers::share(unsigned worker) const {
  // Runs of equal size but one.
  size_t threads = count(), base = items / threads, extra = items % threads;
  size_t begin = worker * base + (worker < extra ? worker : extra), end = begin + base + (worker < extra);
  if (begin < end)
    call(context, begin, end, worker);
}

void Workers::help(unsigned worker, std::optional<unsigned> cpu) {
  OnCpu stay(cpu);
  // Jobs come one by one, each after the last is done: none can be missed, the first included.
  for (uint32_t seen = 0;; ++seen) {
    awaitChange(generation, seen, spin);
    if (stopping)
      return;
    share(worker);
    if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1)
      busy.notify_one();
  }
}

} // namespace helix
