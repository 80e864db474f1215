//===- Device.h - What runs the ranks of an artifact -----------------------===//
#ifndef HELIX_RUNTIME_CORE_DEVICE_H
#define HELIX_RUNTIME_CORE_DEVICE_H

#include "lib/Artifact/Reader.h"
#include "runtime/Comm/Inproc.h"
#include "runtime/Core/Layout.h"
#include "runtime/Core/Memory.h"
#include "runtime/Core/Sampler.h"
#include "runtime/Core/Trace.h"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace helix {

/// Ranks on GPUs in processes of their own: this one of how many, and where they meet (file:PATH or tcp:HOST:PORT).
struct Processes {
  uint32_t index = 0, count = 1;
  std::string rendezvous;
  uint64_t artifact = 0; ///< its checksum, which the session fills in: processes with another are refused
};

/// Whether each thread of a rank on the CPU stays on a CPU of its own. Auto: on machines with several NUMA nodes, if
/// there are as many threads as CPUs: with fewer, another process may want the same ones.
enum class Pinning { Auto, On, Off };

struct SessionOptions {
  std::string weightsRoot = {}; ///< empty: the artifact's directory
  /// Of all ranks, at least one each; 0: as many as there are CPUs that the caller may run on.
  unsigned threads = 0;
  Pinning pinning = Pinning::Auto;
  std::chrono::milliseconds commTimeout{60000}; ///< of one wait in a collective
  std::optional<Link> link = {};                ///< an artificial one between the ranks
  uint32_t traceSteps = 0;                      ///< steps of each entry, the last ones, whose times are kept
  int gpu = 0;                                  ///< of this machine, for an artifact that runs on one
  /// Only on a GPU: in products of many rows with weights of 16 bits, to their type. Less exact, and faster.
  bool roundActivations = false;
  std::optional<Processes> processes = {}; ///< without: all ranks are in this one
};

/// What all ranks read in a step of an entry; zeros at first.
struct StepInputs {
  explicit StepInputs(const artifact::Entry &entry);
  Mapping memory;
  std::vector<std::span<std::byte>> parts; ///< what operands of the space Input are, by index

  // Those of an entry that is not stateless; empty for one that is.
  std::span<int64_t> ids;  ///< [batch, tokens]
  std::span<int32_t> past; ///< [batch]
  std::span<int32_t> qLen; ///< [batch]
};

/// Bytes that one rank sent, by kind.
struct Traffic {
  uint64_t allToAll = 0;  ///< attention over kvp
  uint64_t allReduce = 0; ///< of layers
  uint64_t embedding = 0; ///< collectives outside the layers' phases
  uint64_t sampling = 0;  ///< candidates and normalisers

  uint64_t total() const { return allToAll + allReduce + embedding + sampling; }
  Traffic &operator+=(const Traffic &other) {
    allToAll += other.allToAll;
    allReduce += other.allReduce;
    embedding += other.embedding;
    sampling += other.sampling;
    return *this;
  }
};

/// The memory and the programs of all ranks of an artifact, on one kind of processor. Stages: construct, load, then run
/// as often as wanted. Functions throw Error; after one of `run` or `fill` it is not to be used again. Not for several
/// threads at once.
class Device {
public:
  virtual ~Device() = default;

  /// Bytes that a rank will hold, and of what all ranks share.
  virtual MemoryNeeds memory(uint32_t rank) const = 0;
  virtual uint64_t sharedMemory() const = 0;

  /// Bytes that can be allocated where the ranks' memory is.
  virtual uint64_t available() const = 0;

  /// Threads that compute for a rank; zero where none of this machine do.
  virtual unsigned threadsOf(uint32_t rank) const = 0;

  /// A line on how this machine does things, for people; may be empty.
  virtual std::string note() const { return {}; }

  /// Allocates memory and loads weights from the mapped files. Throws MemoryExhausted, before it allocates, if not
  /// enough is available. `progress` is called with bytes loaded and their total. After an error it is as it was.
  virtual void load(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) = 0;

  /// What the next run of the entry reads.
  virtual StepInputs &inputs(uint32_t entry) = 0;

  /// Runs the entry on all ranks and fills in what each sent, and `times` if there are any: of those the ranks' alone.
  virtual void run(uint32_t entry, std::span<Traffic> sent, StepTrace *times) = 0;

  /// Room for a rank's times of a step.
  virtual RankTimes timesOf(uint32_t entry) const = 0;

  /// [batch, tokens or 1, local vocabulary] of a rank, as the last run of all, which was of this entry, left them.
  /// Where they are not in memory of the host, they come there now.
  virtual const float *logits(uint32_t rank, uint32_t entry) = 0;

  /// [local vocabulary] of a rank: the logits of the slot's last token in the last run that had tokens of it.
  virtual const float *lastLogits(uint32_t rank, uint32_t slot) = 0;

  /// The first of these, padding aside, in the order of cpu::comesBefore, if the run that gave them has found it.
  /// The next steps will list nothing of the slot.
  virtual std::optional<cpu::Candidate> firstToken(uint32_t rank, uint32_t slot) { return {}; }

  /// Fills in what `draw` asks of the slot's last logits, for as many ranks as have tokens of the vocabulary; false
  /// where they are not to be listed. Steps of the slot will list the same, with their position, until something else
  /// is asked for, so that it is there when it is asked for again.
  virtual bool list(uint32_t slot, const cpu::Draw &draw, std::span<Shortlist> ranks) { return false; }

  /// Makes up `tokens` tokens of a slot in every layer's cache.
  virtual void fill(uint32_t slot, uint64_t tokens) = 0;
};

/// The device that an artifact was compiled for. Loads its kernels and works out what it needs; allocates nothing
/// large. `artifact` must outlive it.
std::unique_ptr<Device> makeDevice(const artifact::Artifact &artifact, const SessionOptions &options);

} // namespace helix

#endif // HELIX_RUNTIME_CORE_DEVICE_H
