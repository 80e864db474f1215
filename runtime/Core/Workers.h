//===- Workers.h - The threads of one rank ---------------------------------===//
#ifndef HELIX_RUNTIME_CORE_WORKERS_H
#define HELIX_RUNTIME_CORE_WORKERS_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace helix {

/// A rank's thread and the helpers that share its kernels' work. One caller at a time.
class Workers {
public:
  /// `count` threads in all, the caller's included. They sleep when they have nothing to do; with `spin` not before
  /// they have looked for work a little while, as the next kernel of a step comes sooner than a thread wakes. With
  /// `cpus`, one for each, helper i stays on cpus[i]; where the caller runs is his affair.
  explicit Workers(unsigned count, bool spin = false, std::span<const unsigned> cpus = {});
  ~Workers();

  unsigned count() const { return unsigned(helpers.size()) + 1; }

  /// Calls body(begin, end, worker) for equal runs of [0, items), one per thread, and returns when all are done. The
  /// body must not throw. Allocates nothing.
  template <typename Body> void parallel(size_t items, const Body &body) {
    if (helpers.empty() || items <= 1) {
      body(size_t(0), items, 0u);
      return;
    }
    run(items, &body, [](const void *context, size_t begin, size_t end, unsigned worker) {
      (*static_cast<const Body *>(context))(begin, end, worker);
    });
  }

private:
  using Call = void (*)(const void *context, size_t begin, size_t end, unsigned worker);
  void run(size_t items, const void *context, Call call);
  void share(unsigned worker) const;
  void help(unsigned worker, std::optional<unsigned> cpu);

  bool spin;

  // The job; written before `generation` changes, read after.
  size_t items = 0;
  const void *context = nullptr;
  Call call = nullptr;
  std::atomic<uint32_t> generation{0}; ///< a change wakes the helpers
  std::atomic<uint32_t> busy{0};       ///< helpers at work
  std::atomic<bool> stopping{false};
  std::vector<std::thread> helpers;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_WORKERS_H
