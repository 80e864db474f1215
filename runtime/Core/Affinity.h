//===- Affinity.h - Which CPU a thread runs on -----------------------------===//
#ifndef HELIX_RUNTIME_CORE_AFFINITY_H
#define HELIX_RUNTIME_CORE_AFFINITY_H

#include <sched.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace helix {

/// CPUs by number, as the system counts them.
using Cpus = std::vector<unsigned>;

/// The CPUs that this thread may run on, by NUMA node, none of them empty. All are of one node where `directory`, which
/// has a nodeN/cpulist each, tells nothing of them.
std::vector<Cpus> nodesOfThread(const std::string &directory = "/sys/devices/system/node");

/// How many they are, at least 1.
unsigned cpusOfThread();

/// A CPU for each of the threads of each rank, `threads[r]` of rank r: of one node while one has as many left, as
/// memory is of the node whose thread touches it first; of the nodes in order otherwise. Nothing if there are too few.
std::optional<std::vector<Cpus>> placeThreads(std::vector<Cpus> nodes, std::span<const unsigned> threads);

/// Keeps the calling thread on a CPU while it lives, then lets it run where it could before. That the system refuses
/// is no error: the thread goes on where it is.
class OnCpu {
public:
  /// Nothing: does nothing.
  explicit OnCpu(std::optional<unsigned> cpu);
  ~OnCpu();
  OnCpu(const OnCpu &) = delete;
  OnCpu &operator=(const OnCpu &) = delete;

private:
  std::optional<cpu_set_t> before;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_AFFINITY_H
