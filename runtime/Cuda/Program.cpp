//===- Program.cpp - Ranks on GPUs: commands and graphs --------------------===//
#include "runtime/Cuda/CudaDevice.h"
#include "runtime/Error.h"

#include <algorithm>
#include <cstring>

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#endif

namespace helix::cuda {
namespace {

/// Names what the host puts on streams in a profile; nothing where no profiler is, or NVTX was not there to build with.
class Range {
public:
#if __has_include(<nvtx3/nvToolsExt.h>)
  explicit Range(const std::string &name) { nvtxRangePushA(name.c_str()); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(const std::string &) {}
#endif
  Range(const Range &) = delete;
};

float *floats(Address address) { return reinterpret_cast<float *>(address); }

} // namespace

LinearQuantizedArgs quantizedLinearOf(const artifact::Artifact &artifact, const artifact::Command &command,
                                      uint32_t rank) {
  const auto &work = *command.work_as_Linear();
  const artifact::Weight &weight = *artifact.weights()->Get(command.inputs()->Get(1)->index());
  cpu::WeightPlan plan = weightPlan(weight, meshOf(artifact), rank);
  LinearQuantizedArgs args;
  args.format = quantFormat(weight);
  args.layout = cpu::quantLayout(plan, args.format).value();
  args.share = cpu::quantShare(plan, args.format);
  args.rows = work.rows(), args.k = work.k(), args.n = work.n();
  return args;
}

Address CudaDevice::address(const artifact::Operand &operand, const Rank &rank, const Program &program) const {
  switch (operand.space()) {
  case artifact::Space::Device:
    return rank.device.get() + operand.offset();
  case artifact::Space::Comm:
    return rank.comm.get() + operand.offset();
  case artifact::Space::Weight:
    return rank.weights.get() + layout.weights[operand.index()].offset;
  case artifact::Space::Kv:
    break;
  case artifact::Space::Input: {
    const StepInputs &inputs = program.inputs;
    const void *at = operand.index() == 0   ? static_cast<const void *>(inputs.ids.data())
                     : operand.index() == 1 ? static_cast<const void *>(inputs.past.data())
                                            : static_cast<const void *>(inputs.qLen.data());
    return program.input.get() + Address(static_cast<const std::byte *>(at) - inputs.memory.data());
  }
  }
  return 0;
}

const int32_t *CudaDevice::lengthsOf(const Program &program, std::span<const int32_t> of) {
  return reinterpret_cast<const int32_t *>(
      program.input.get() + Address(reinterpret_cast<const std::byte *>(of.data()) - program.inputs.memory.data()));
}

CudaDevice::Work CudaDevice::workOf(const artifact::Command &command, Rank &rank, const Program &program) {
  auto in = [&](uint32_t i) { return address(*command.inputs()->Get(i), rank, program); };
  auto out = [&](uint32_t i) { return address(*command.outputs()->Get(i), rank, program); };
  auto dtype = [&](uint32_t i) {
    return static_cast<DType>(artifact.weights()->Get(command.inputs()->Get(i)->index())->dtype());
  };
  const int32_t *past = lengthsOf(program, program.inputs.past), *qLen = lengthsOf(program, program.inputs.qLen);
  switch (command.work_type()) {
  case artifact::Work::Embedding: {
    const auto &work = *command.work_as_Embedding();
    const artifact::Weight &table = *artifact.weights()->Get(command.inputs()->Get(1)->index());
    if (table.quantization()) {
      cpu::WeightPlan plan = weightPlan(table, mesh, rank.number);
      cpu::QuantFormat format = quantFormat(table);
      // Where the rank has no rows, no id finds one.
      return {kernels.prepare(cpu::EmbeddingQuantizedArgs{
                  reinterpret_cast<const int64_t *>(in(0)), reinterpret_cast<const std::byte *>(in(1)), format,
                  cpu::quantLayout(plan, format).value(), cpu::quantShare(plan, format), floats(out(0)), work.rows(),
                  plan.isEmpty() ? 0 : work.vocabulary(), work.hidden(), int64_t(rank.number * work.vocabulary()),
                  work.tied()}),
              {}};
    }
    EmbeddingArgs args;
    args.ids = reinterpret_cast<const int64_t *>(in(0));
    args.table = reinterpret_cast<const void *>(in(1));
    args.dtype = dtype(1);
    args.y = floats(out(0));
    args.rows = work.rows(), args.vocabulary = work.vocabulary(), args.hidden = work.hidden();
    args.stride = work.tied() ? linearStride(work.hidden(), args.dtype) : work.hidden();
    args.firstId = int64_t(rank.number * work.vocabulary());
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::Linear: {
    const auto &work = *command.work_as_Linear();
    const artifact::Weight &weight = *artifact.weights()->Get(command.inputs()->Get(1)->index());
    // A product with nothing but padding is zero, whatever the other operand holds.
    if (weightPlan(weight, mesh, rank.number).isEmpty())
      return {{}, {{out(0), work.rows() * work.n() * sizeof(float)}}};
    if (weight.quantization()) {
      LinearQuantizedArgs args = quantizedLinearOf(artifact, command, rank.number);
      args.x = floats(in(0));
      args.weight = reinterpret_cast<const std::byte *>(in(1));
      args.y = floats(out(0));
      args.scratch = reinterpret_cast<void *>(rank.scratch[command.stream()].get());
      return {kernels.prepare(args), {}};
    }
    LinearArgs args;
    args.x = floats(in(0));
    args.weight = reinterpret_cast<const void *>(in(1));
    args.dtype = dtype(1);
    args.y = floats(out(0));
    args.scratch = reinterpret_cast<void *>(rank.scratch[command.stream()].get());
    args.rows = work.rows(), args.k = work.k(), args.n = work.n();
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::KvAppend: {
    const auto &work = *command.work_as_KvAppend();
    cpu::KvAppendArgs args{floats(in(0)), floats(in(1)), past, qLen, rank.caches[command.inputs()->Get(4)->index()],
                           work.batch(),  work.tokens()};
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::PartialAttention: {
    AttentionArgs args{attentionOf(artifact, command, rank.number), floats(rank.scratch[command.stream()].get())};
    args.q = floats(in(0));
    args.past = past;
    args.qLen = qLen;
    args.cache = rank.caches[command.inputs()->Get(1)->index()];
    if (command.work_as_PartialAttention()->slopes())
      args.slopes = floats(in(4));
    args.send = floats(out(0));
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::MergeAttention: {
    const auto &work = *command.work_as_MergeAttention();
    bool alongTokens = work.along() == artifact::ChunkDim::Tokens;
    std::vector<cpu::MergeChunk> chunks;
    for (uint32_t i = 0; work.chunks() && i < work.chunks()->size(); ++i)
      chunks.push_back({floats(in(i)), work.chunks()->Get(i)});
    if (chunks.empty())
      chunks.push_back({floats(in(0)), alongTokens ? work.tokens() : work.batch()});
    cpu::MergeArgs args{chunks,       alongTokens,   floats(out(0)), work.peers(),
                        work.batch(), work.tokens(), work.heads(),   work.value_dim()};
    if (work.sinks())
      args.sinks = floats(in(command.inputs()->size() - 1));
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::Concat: {
    const auto &work = *command.work_as_Concat();
    std::vector<cpu::ConcatPart> parts;
    for (uint32_t i = 0; i < work.widths()->size(); ++i)
      parts.push_back({floats(in(i)), work.widths()->Get(i)});
    return {kernels.prepare(cpu::ConcatArgs{parts, floats(out(0)), work.rows()}), {}};
  }
  case artifact::Work::LastToken: {
    const auto &work = *command.work_as_LastToken();
    cpu::LastTokenArgs args{floats(in(0)), qLen, floats(out(0)), work.batch(), work.tokens(), work.hidden()};
    return {kernels.prepare(args), {}};
  }
  case artifact::Work::Generated: {
    std::vector<Address> buffers;
    for (uint32_t i = 0; command.inputs() && i < command.inputs()->size(); ++i)
      buffers.push_back(in(i));
    for (uint32_t i = 0; command.outputs() && i < command.outputs()->size(); ++i)
      buffers.push_back(out(i));
    return {{kernels.generated(command.work_as_Generated()->kernel(), std::move(buffers))}, {}};
  }
  default:
    return {};
  }
}

void CudaDevice::bind(uint32_t index) {
  const artifact::Entry &entry = *artifact.entries()->Get(index);
  Program &program = programs[index];
  Traffic sent;
  for (uint32_t i = 0; entry.commands() && i < entry.commands()->size(); ++i) {
    const artifact::Command &from = *entry.commands()->Get(i);
    Command &command = program.commands.emplace_back();
    command.stream = from.stream();
    command.name = from.source() ? from.source()->str() : "";
    switch (from.work_type()) {
    case artifact::Work::Record:
      command.kind = Command::Kind::Record;
      command.event = from.work_as_Record()->event();
      break;
    case artifact::Work::Wait:
      command.kind = Command::Kind::Wait;
      command.event = from.work_as_Wait()->event();
      break;
    case artifact::Work::AllToAll:
    case artifact::Work::AllReduce: {
      command.kind = Command::Kind::Collective;
      command.collective = collectiveOf(from);
      uint64_t bytes = bytesSent(command.collective, mesh.size(command.collective.axis));
      if (from.work_type() == artifact::Work::AllToAll)
        sent.allToAll += bytes;
      else
        (from.phase() == artifact::Phase::None ? sent.embedding : sent.allReduce) += bytes;
      break;
    }
    default:
      for (Rank &rank : ranks)
        command.ranks.push_back(workOf(from, rank, program));
    }
    if (settings.traceSteps != 0)
      for (size_t r = 0; r < ranks.size(); ++r)
        command.done.push_back(makeEvent(true));
  }
  program.sent.assign(mesh.ranks(), sent);
  for (Rank &rank : ranks)
    program.keeps.push_back(isWhole() ? keepOf(rank, program, entry) : Work());
}

/// Each slot's last logits stay on the GPU until its next step; the host gets the first token of each, and lists of
/// those that are drawn from.
CudaDevice::Work CudaDevice::keepOf(const Rank &rank, const Program &program, const artifact::Entry &entry) {
  const StepInputs &inputs = program.inputs;
  uint64_t share = artifact.local_vocabulary();
  KeepLogitsArgs keep;
  keep.logits = floats(address(*program.logitsAt, rank, program));
  keep.qLen = lengthsOf(program, inputs.qLen);
  keep.last = floats(rank.last.get());
  keep.batch = inputs.qLen.size(), keep.vocabulary = share;
  keep.tokens = entry.logits() == artifact::LogitRows::All ? inputs.ids.size() / keep.batch : 1;
  Work work{kernels.prepare(keep), {}};
  BestTokenArgs best;
  best.logits = keep.last;
  best.id = reinterpret_cast<int64_t *>(firsts.get()) + slotOf(rank.number, 0);
  best.value = reinterpret_cast<float *>(firsts.get() + allSlots() * sizeof(int64_t)) + slotOf(rank.number, 0);
  best.rows = keep.batch, best.stride = share, best.firstId = int64_t(rank.number * share);
  best.count = localTokens(rank.number);
  if (best.count == 0) // all is padding
    return work;
  for (std::vector<Prepared> more : {kernels.prepare(best), drawsOf(rank, program.input.get() + program.drawsAt)})
    for (Prepared &launch : more)
      work.launches.push_back(std::move(launch));
  return work;
}

void CudaDevice::stamp(const HeldEvent &event, Stream stream, bool captured) const {
  // In a graph it is a node that records, not an edge.
  if (event.get())
    HELIX_CU(cuEventRecordWithFlags, event.get(), stream, captured ? kRecordExternal : 0);
}

/// Puts a step on the streams, beginning and ending on the main one.
void CudaDevice::enqueue(Program &program, bool captured) {
  HELIX_CU(cuMemcpyHtoDAsync_v2, program.input.get(), program.staging.get(),
           program.drawsAt + nextDraws.size() * sizeof(cpu::Draw), main.get());
  stamp(begun, main.get(), captured);
  HELIX_CU(cuEventRecord, forked.get(), main.get());
  for (Rank &rank : ranks)
    for (uint32_t s = 0; s < program.streams; ++s)
      HELIX_CU(cuStreamWaitEvent, rank.streams[s].get(), forked.get(), 0);

  exchange->begin();
  for (const Command &command : program.commands) {
    Range range(command.name);
    if (command.kind == Command::Kind::Collective)
      exchange->enqueue(command.collective, command.stream);
    for (size_t r = 0; r < ranks.size(); ++r) {
      Stream stream = ranks[r].streams[command.stream].get();
      if (command.kind == Command::Kind::Record)
        HELIX_CU(cuEventRecord, ranks[r].events[command.event].get(), stream);
      else if (command.kind == Command::Kind::Wait)
        HELIX_CU(cuStreamWaitEvent, stream, ranks[r].events[command.event].get(), 0);
      if (command.kind == Command::Kind::Launches) {
        for (const Zero &zero : command.ranks[r].zeros)
          HELIX_CU(cuMemsetD8Async, zero.at, 0, zero.bytes, stream);
        for (const Prepared &launch : command.ranks[r].launches)
          launch.launch(stream);
      }
      if (!command.done.empty())
        stamp(command.done[r], stream, captured);
    }
  }

  // The logits of all ranks where some are elsewhere; else they stay until they are asked for.
  for (size_t r = 0; r < ranks.size(); ++r)
    for (const Prepared &launch : program.keeps[r].launches)
      launch.launch(ranks[r].streams[0].get());
  auto *host = static_cast<std::byte *>(program.logits.get());
  bool gathered =
      exchange->gather(address(*program.logitsAt, ranks.front(), program), program.gathered.get(), program.logitsBytes);
  for (Rank &rank : ranks)
    for (uint32_t s = 0; s < program.streams; ++s) {
      HELIX_CU(cuEventRecord, rank.joined[s].get(), rank.streams[s].get());
      HELIX_CU(cuStreamWaitEvent, main.get(), rank.joined[s].get(), 0);
    }
  stamp(ended, main.get(), captured);
  if (gathered)
    HELIX_CU(cuMemcpyDtoHAsync_v2, host, program.gathered.get(), program.logitsBytes * mesh.ranks(), main.get());
  else
    HELIX_CU(cuMemcpyDtoHAsync_v2, hostFirsts.get(), firsts.get(), allSlots() * (sizeof(int64_t) + sizeof(float)),
             main.get());
}

void CudaDevice::capture(Program &program) {
  HeldGraph graph;
  HELIX_CU(cuStreamBeginCapture_v2, main.get(), kCaptureThreadLocal);
  try {
    enqueue(program, /*captured=*/true);
  } catch (...) {
    // The stream must not stay in capture; why it cannot go on is known.
    driver().cuStreamEndCapture(main.get(), graph.out());
    throw;
  }
  HELIX_CU(cuStreamEndCapture, main.get(), graph.out());
  HELIX_CU(cuGraphInstantiateWithFlags, program.graph.out(), graph.get(), 0);
}

void CudaDevice::run(uint32_t entry, std::span<Traffic> sent, StepTrace *times) {
  gpu.use();
  Program &program = programs[entry];
  std::memcpy(program.staging.get(), program.inputs.memory.data(), program.inputs.memory.size());
  stageDraws(program);
  int64_t launched = traceNow();
  HELIX_CU(cuGraphLaunch, program.graph.get(), main.get());
  exchange->finish(main.get(), settings.commTimeout);
  keepLastLogits(entry);
  std::copy(program.sent.begin(), program.sent.end(), sent.begin());
  if (times)
    fillTimes(program, launched, *times);
}

RankTimes CudaDevice::timesOf(uint32_t entry) const {
  RankTimes times;
  times.streams.resize(programs[entry].streams);
  for (std::vector<int64_t> &stream : times.streams)
    stream.resize(1);
  for (const Command &command : programs[entry].commands)
    times.streams[command.stream].push_back(0);
  return times;
}

/// Times of the GPU, from when the graph was launched on: how long it takes to begin is not known.
void CudaDevice::fillTimes(const Program &program, int64_t launched, StepTrace &times) const {
  auto at = [&](const HeldEvent &event) {
    float milliseconds = 0;
    HELIX_CU(cuEventElapsedTime_v2, &milliseconds, begun.get(), event.get());
    return launched + int64_t(double(milliseconds) * 1e6);
  };
  int64_t now = traceNow(), end = at(ended);
  for (size_t r = 0; r < ranks.size(); ++r) {
    RankTimes &rank = times.ranks[ranks[r].number];
    std::vector<size_t> next(program.streams, 1);
    for (std::vector<int64_t> &stream : rank.streams)
      stream[0] = launched;
    for (const Command &command : program.commands)
      rank.streams[command.stream][next[command.stream]++] = at(command.done[r]);
    rank.begin = launched;
    rank.joined = end;
    rank.end = now;
  }
}

} // namespace helix::cuda
