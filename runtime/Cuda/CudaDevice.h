//===- CudaDevice.h - Ranks on GPUs ----------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_CUDADEVICE_H
#define HELIX_RUNTIME_CUDA_CUDADEVICE_H

#include "runtime/Core/Device.h"
#include "runtime/Cuda/Exchange.h"
#include "runtime/Cuda/KernelLibrary.h"

#include <vector>

namespace helix::cuda {

/// Whether the artifact's kernels are for NVIDIA GPUs.
bool isForCuda(const artifact::Artifact &artifact);

/// A product of `rank` with a weight of codes, without addresses.
LinearQuantizedArgs quantizedLinearOf(const artifact::Artifact &artifact, const artifact::Command &command,
                                      uint32_t rank);

/// All ranks of an artifact on one GPU, or one of them, its peers in other processes. Every entry is a CUDA graph that
/// is captured when the artifact is loaded: a copy of the step's inputs, the commands of all ranks on their streams, a
/// copy of each slot's first token back, or of the logits of all ranks where some are elsewhere. A step writes lengths,
/// positions and ids, and what to list of each slot's logits, to where that copy begins and launches the graph.
class CudaDevice : public Device {
public:
  CudaDevice(const artifact::Artifact &artifact, const SessionOptions &options);
  ~CudaDevice() override;

  MemoryNeeds memory(uint32_t rank) const override;
  uint64_t sharedMemory() const override;
  uint64_t available() const override { return gpu.freeBytes(); }
  unsigned threadsOf(uint32_t) const override { return 0; }
  std::string note() const override;
  void load(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress) override;
  StepInputs &inputs(uint32_t entry) override { return programs[entry].inputs; }
  void run(uint32_t entry, std::span<Traffic> sent, StepTrace *times) override;
  RankTimes timesOf(uint32_t entry) const override;
  const float *logits(uint32_t rank, uint32_t entry) override;
  const float *lastLogits(uint32_t rank, uint32_t slot) override;
  std::optional<cpu::Candidate> firstToken(uint32_t rank, uint32_t slot) override;
  bool list(uint32_t slot, const cpu::Draw &draw, std::span<Shortlist> ranks) override;
  void fill(uint32_t slot, uint64_t tokens) override;

private:
  /// A rank of this process.
  struct Rank {
    uint32_t number = 0;
    HeldMemory weights, kv, device, comm, exchange;
    HeldMemory last; ///< [slots, local vocabulary], the logits of each slot's last token, if all ranks are here
    HeldMemory drawKeys, drawSums;   ///< of lists in the making, if all ranks are here
    std::vector<HeldMemory> scratch; ///< per stream
    std::vector<HeldStream> streams;
    std::vector<HeldEvent> events; ///< the plan's
    std::vector<HeldEvent> ready;  ///< per stream, the exchange's
    std::vector<HeldEvent> joined; ///< per stream
    std::vector<KvCache> caches;
  };
  /// Zeros instead of a product with nothing but padding.
  struct Zero {
    Address at;
    uint64_t bytes;
  };
  /// What a rank's stream does for a command.
  struct Work {
    std::vector<Prepared> launches;
    std::vector<Zero> zeros;
  };
  struct Command {
    enum class Kind { Launches, Collective, Record, Wait } kind = Kind::Launches;
    uint32_t stream = 0, event = 0;
    Collective collective = {};
    std::string name;            ///< of the ONNX node
    std::vector<Work> ranks;     ///< of this process
    std::vector<HeldEvent> done; ///< per rank of this process, when steps are traced
  };
  struct Program {
    explicit Program(const artifact::Entry &entry) : inputs(entry) {}
    StepInputs inputs;
    HeldPinned staging, logits; ///< of the host; logits [ranks, batch, tokens or 1, local vocabulary]
    HeldMemory input, gathered; ///< of the GPU: all ranks of this process read one copy
    uint64_t drawsAt = 0;       ///< in staging and input: of each slot, what to list, after the step's inputs
    uint64_t logitsBytes = 0;   ///< of one rank
    artifact::Operand const *logitsAt = nullptr;
    std::vector<Command> commands; ///< in the plan's order
    std::vector<Work> keeps;       ///< per rank: its last logits, the first tokens of these, and what is to be listed
    uint32_t streams = 1;
    std::vector<Traffic> sent;   ///< per rank
    std::vector<bool> isFetched; ///< per rank: the logits of the last run are on the host
    HeldGraphExec graph;
  };

  uint64_t pages() const;
  uint32_t localRanks() const { return uint32_t(last - first); }
  bool isWhole() const { return localRanks() == mesh.ranks(); }
  uint64_t slotOf(uint32_t rank, uint32_t slot) const { return uint64_t(rank) * artifact.kv()->slots() + slot; }
  uint64_t allSlots() const { return slotOf(mesh.ranks(), 0); }
  void layOutWeights();
  void layOutScratch();
  void checkMemory() const;
  void allocateAll();
  void loadWeights(std::span<const Mapping> files, const std::function<void(uint64_t, uint64_t)> &progress);
  void connect();
  void bind(uint32_t entry);
  Work workOf(const artifact::Command &command, Rank &rank, const Program &program);
  /// Where one of the step's inputs is on the GPU.
  static const int32_t *lengthsOf(const Program &program, std::span<const int32_t> of);
  Address address(const artifact::Operand &operand, const Rank &rank, const Program &program) const;
  void enqueue(Program &program, bool captured);
  void capture(Program &program);
  void stamp(const HeldEvent &event, Stream stream, bool captured) const;
  void keepLastLogits(uint32_t entry);
  Work keepOf(const Rank &rank, const Program &program, const artifact::Entry &entry);
  uint64_t localTokens(uint32_t rank) const;
  std::vector<Prepared> drawsOf(const Rank &rank, Address draws);
  void stageDraws(Program &program);
  void ask(uint32_t slot, const cpu::Draw &draw);
  void fetch(float *to, Address from, uint64_t bytes);
  void fillTimes(const Program &program, int64_t launched, StepTrace &times) const;

  const artifact::Artifact &artifact;
  SessionOptions settings;
  Mesh mesh;
  RankLayout layout;
  uint32_t first = 0, last = 0; ///< the ranks of this process
  Gpu gpu;
  KernelLibrary kernels;
  uint32_t streamCount = 1, eventCount = 0; ///< the most of any entry
  uint64_t exchangeBytes = 0;
  std::vector<uint64_t> scratchBytes; ///< per stream

  HeldStream main;
  HeldEvent forked;
  HeldEvent begun, ended; ///< timed, when steps are traced
  HeldMemory table;
  std::vector<Rank> ranks;
  std::unique_ptr<Exchange> exchange;
  std::vector<Program> programs;
  // Of [ranks, slots]: the ids of first tokens, then their logits; and whole rows of logits.
  HeldMemory firsts;
  HeldPinned hostFirsts, lastRows;
  std::vector<bool> isLastFetched;

  // What is listed, by the GPU straight to the host: [ranks, slots, 2, cpu::kListed], and [ranks, slots].
  HeldPinned lists, shares;
  // Per slot.
  std::vector<cpu::Draw> nextDraws;  ///< what steps will list, but for the position
  std::vector<cpu::Draw> lastDraws;  ///< what was listed of the last logits
  HeldPinned askedDraws;             ///< what is listed between steps,
  HeldMemory askedDrawsThere;        ///< on the GPU,
  std::vector<Prepared> askedAtOnce; ///< by these, of all ranks
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_CUDADEVICE_H
