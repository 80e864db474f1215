//===- Executor.h - One rank of an artifact --------------------------------===//
#ifndef HELIX_RUNTIME_CORE_EXECUTOR_H
#define HELIX_RUNTIME_CORE_EXECUTOR_H

#include "runtime/Comm/Communicator.h"
#include "runtime/Core/Device.h"
#include "runtime/Core/Images.h"
#include "runtime/Core/Layout.h"
#include "runtime/Core/Memory.h"
#include "runtime/Core/Trace.h"
#include "runtime/Core/Workers.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Stateless.h"

#include <atomic>
#include <functional>
#include <span>
#include <variant>
#include <vector>

namespace helix {

/// A rank's memory and programs. Stages: construct (memory is mapped), load, bind, then run as often as wanted.
///
/// One thread runs all streams of a rank, with helpers within a kernel. It follows the first stream; after each
/// command, and where it has to wait, it carries the others on: it starts an exchange as soon as what that needs is
/// there, and finds out whether it has ended. So an exchange's time passes while kernels compute, but nobody has to be
/// woken.
class Executor {
public:
  Executor(const artifact::Artifact &artifact, const RankLayout &layout, uint32_t rank, unsigned threads,
           bool spin = false, std::span<const unsigned> cpus = {});

  std::byte *segment() const { return comm.data(); }

  /// Packs the rank's weights out of the mapped files; adds the bytes of each to `done` and calls `report`, if there is
  /// one, as it is there.
  void load(std::span<const Mapping> files, std::atomic<uint64_t> &done, const std::function<void()> &report = {});

  /// Turns the commands of every entry into calls. `inputs` has one element per entry, `table` is the block table; they
  /// and the rest must outlive the executor.
  void bind(const Images &images, std::span<const StepInputs> inputs, const int32_t *table, Communicator &communicator);

  /// Runs an entry on this rank and returns what the rank sent. Allocates nothing. Throws what the communicator throws;
  /// after that it is not to be run again. `times`, if there are any, are filled in.
  Traffic run(uint32_t entry, RankTimes *times = nullptr);

  /// Room for the times of a step.
  RankTimes timesOf(uint32_t entry) const;

  /// [batch, tokens or 1, local vocabulary], as the entry's last run left them.
  const float *logits(uint32_t entry) const { return entries[entry].logits; }

  /// Output `index` of a stateless entry, f32, as its last run left it.
  const float *output(uint32_t entry, uint32_t index) const { return entries[entry].outputs[index]; }

  /// [local vocabulary]: the logits of the slot's last token in the last run that had tokens of it.
  const float *lastLogits(uint32_t slot) const;

  /// Makes up `tokens` tokens of a slot in every layer's cache.
  void fillCache(uint32_t slot, uint64_t tokens) {
    for (const cpu::KvCache &cache : caches)
      cpu::kvFill(cache, slot, tokens);
  }

  /// The cache of a layer, for tests.
  cpu::KvCache &cache(uint32_t layer) { return caches[layer]; }

private:
  struct KernelCall {
    HelixKernel kernel = nullptr;
    std::vector<void *> buffers;
    uint32_t groups = 0;
  };
  struct EventCall {
    bool wait; ///< or record
    uint32_t event;
  };
  struct MergeCall {
    std::vector<cpu::MergeChunk> chunks;
    cpu::MergeArgs args; ///< without them
  };
  struct ConcatCall {
    std::vector<cpu::ConcatPart> parts;
    cpu::ConcatArgs args; ///< without them
  };
  using Call = std::variant<cpu::EmbeddingArgs, cpu::EmbeddingQuantizedArgs, cpu::LinearArgs, cpu::LinearQuantizedArgs,
                            cpu::KvAppendArgs, cpu::AttentionArgs, MergeCall, cpu::LastTokenArgs, ConcatCall,
                            KernelCall, Collective, EventCall, cpu::DenseAttentionArgs, cpu::RotateArgs,
                            cpu::ScatterArgs, cpu::TransposeArgs>;
  struct Bound {
    Call call;
    bool parallel = true;     ///< worth the helpers; attention finds out by the lengths
    uint64_t *sent = nullptr; ///< of `traffic`, where a collective counts
    uint32_t after = 0;       ///< commands of its stream that a collective needs the results of
  };
  /// A command of a further stream in this run.
  struct Underway {
    Communicator::Ticket ticket = 0; ///< of a collective
    int64_t at = 0;                  ///< when a wait was over
  };
  struct Stream {
    std::vector<Bound> commands;
    std::vector<Underway> underway;        ///< by command
    uint32_t begun = 0, ended = 0;         ///< commands; those between are collectives, waits and records
    std::vector<int64_t> *times = nullptr; ///< that are wanted
  };
  struct Program {
    std::vector<Stream> streams;
    const float *logits = nullptr;
    const StepInputs *inputs = nullptr;
    bool allTokens = false;             ///< logits of all tokens, not of the last
    std::vector<const float *> outputs; ///< of a stateless entry
  };

  void *address(const artifact::Operand &operand) const;
  Call bindCommand(const artifact::Command &command, const Images &images) const;
  /// How many of the stream's commands it takes until what the collective sends is there, if they receive it.
  uint32_t lastSource(const Stream &stream, const Collective &collective) const;
  Call bindStateless(const artifact::Command &command) const;

  void execute(const cpu::EmbeddingArgs &args, const Bound &command);
  void execute(const cpu::EmbeddingQuantizedArgs &args, const Bound &command);
  void execute(const cpu::LinearArgs &args, const Bound &command);
  void execute(const cpu::LinearQuantizedArgs &args, const Bound &command);
  void execute(const cpu::KvAppendArgs &args, const Bound &command);
  void execute(const cpu::AttentionArgs &args, const Bound &command);
  void execute(const MergeCall &call, const Bound &command);
  void execute(const ConcatCall &call, const Bound &command);
  void execute(const cpu::LastTokenArgs &args, const Bound &command);
  void execute(const KernelCall &call, const Bound &command);
  void execute(const cpu::DenseAttentionArgs &args, const Bound &command);
  void execute(const cpu::RotateArgs &args, const Bound &command);
  void execute(const cpu::ScatterArgs &args, const Bound &command);
  void execute(const cpu::TransposeArgs &args, const Bound &command);
  void compute(const Bound &command);
  void followFirst(Program &program);
  bool carryOn(Program &program);
  bool begin(Stream &stream);
  bool end(Stream &stream);
  void waitForOldest(const Program &program);
  void keepLastLogits(const Program &program);
  template <typename Body> void each(size_t items, bool parallel, const Body &body) {
    if (parallel)
      workers.parallel(items, body);
    else
      body(size_t(0), items, 0u);
  }

  const artifact::Artifact &artifact;
  const RankLayout &layout;
  Mesh mesh;
  uint32_t rank;
  Mapping weights, kv, device, comm, scratch, last;
  std::vector<cpu::KvCache> caches;
  std::vector<Program> entries;
  const StepInputs *current = nullptr; ///< of the entry that is being bound
  Communicator *communicator = nullptr;
  Traffic traffic;
  Workers workers;
  std::vector<uint64_t> recorded; ///< by event: the last run in which it was, so that none has to be reset
  uint64_t runs = 0;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_EXECUTOR_H
