//===- CpuDevice.h - Ranks that are threads of this process ----------------===//
#ifndef HELIX_RUNTIME_CORE_CPUDEVICE_H
#define HELIX_RUNTIME_CORE_CPUDEVICE_H

#include "runtime/Core/Affinity.h"
#include "runtime/Core/Device.h"
#include "runtime/Core/Executor.h"
#include "runtime/Error.h"

#include <vector>

namespace helix {

class CpuDevice : public Device {
public:
  CpuDevice(const artifact::Artifact &artifact, const SessionOptions &options);

  MemoryNeeds memory(uint32_t rank) const override { return layout.needs(threadsOf(rank)); }
  uint64_t sharedMemory() const override;
  uint64_t available() const override { return availableMemory(); }
  unsigned threadsOf(uint32_t rank) const override { return threads / mesh.ranks() + (rank < threads % mesh.ranks()); }
  void load(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) override;
  StepInputs &inputs(uint32_t entry) override { return stepInputs[entry]; }
  void run(uint32_t entry, std::span<Traffic> sent, StepTrace *times) override;
  RankTimes timesOf(uint32_t entry) const override { return executors[0]->timesOf(entry); }
  const float *logits(uint32_t rank, uint32_t entry) override { return executors[rank]->logits(entry); }
  const float *lastLogits(uint32_t rank, uint32_t slot) override { return executors[rank]->lastLogits(slot); }
  void fill(uint32_t slot, uint64_t tokens) override;

  Executor &rank(uint32_t index) { return *executors[index]; }

private:
  uint64_t pages() const;
  void checkMemory() const;
  void initialise(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress);
  template <typename Body> void onAllRanks(const Body &body);

  const artifact::Artifact &artifact;
  SessionOptions settings;
  Mesh mesh;
  RankLayout layout;
  unsigned threads;       ///< of all ranks
  std::vector<Cpus> cpus; ///< of each rank's threads, if they are pinned
  Images images;

  Mapping table;
  std::vector<StepInputs> stepInputs; ///< per entry
  std::vector<std::unique_ptr<Executor>> executors;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::unique_ptr<Workers> rankThreads;
  std::vector<std::optional<Error>> errors; ///< per rank, of one step
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_CPUDEVICE_H
