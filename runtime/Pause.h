//===- Pause.h - Looking for a change before sleeping ----------------------===//
#ifndef HELIX_RUNTIME_PAUSE_H
#define HELIX_RUNTIME_PAUSE_H

#include <atomic>
#include <cstdint>

namespace helix {

/// Tells the processor that this thread waits for another.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Returns when `value` is no longer `old`, at most about 100 us later if `spin`, and then sleeps.
inline void awaitChange(const std::atomic<uint32_t> &value, uint32_t old, bool spin) {
  for (int i = 0; spin && i < 2000; ++i) {
    if (value.load(std::memory_order_acquire) != old)
      return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

} // namespace helix

#endif // HELIX_RUNTIME_PAUSE_H
