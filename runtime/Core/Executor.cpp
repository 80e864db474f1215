//===- Executor.cpp - One rank of an artifact ------------------------------===//
#include "runtime/Core/Executor.h"
#include "runtime/Error.h"

#include <algorithm>

namespace helix {
namespace {

/// Bytes that a command should touch before the helpers are woken for it: below, that takes longer than the work.
constexpr uint64_t kParallelBytes = 32 * 1024;

uint64_t bytesOf(const artifact::Command &command) {
  uint64_t bytes = 0;
  for (const auto *operands : {command.inputs(), command.outputs()})
    for (uint32_t i = 0; operands && i < operands->size(); ++i)
      bytes += operands->Get(i)->bytes();
  return bytes;
}

} // namespace

Executor::Executor(const artifact::Artifact &artifact, const RankLayout &layout, uint32_t rank, unsigned threads)
    : artifact(artifact), layout(layout), mesh(meshOf(artifact)), rank(rank),
      weights(Mapping::zeros(layout.weightBytes)), kv(Mapping::zeros(layout.kvBytes)),
      device(Mapping::zeros(layout.deviceBytes)), comm(Mapping::zeros(layout.commBytes)),
      scratch(Mapping::zeros(layout.scratchBytes * threads)), last(Mapping::zeros(layout.logitsBytes)),
      workers(threads) {}

StepInputs::StepInputs(const artifact::Entry &entry) {
  size_t batch = entry.batch(), rows = batch * entry.tokens();
  auto padded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  size_t pastAt = padded(rows * sizeof(int64_t)), qLenAt = pastAt + padded(batch * sizeof(int32_t));
  memory = Mapping::zeros(qLenAt + padded(batch * sizeof(int32_t)));
  ids = {reinterpret_cast<int64_t *>(memory.data()), rows};
  past = {reinterpret_cast<int32_t *>(memory.data() + pastAt), batch};
  qLen = {reinterpret_cast<int32_t *>(memory.data() + qLenAt), batch};
}

void Executor::load(std::span<const Mapping> files, std::atomic<uint64_t> &done, const std::function<void()> &report) {
  for (size_t i = 0; i < layout.weights.size(); ++i) {
    const artifact::Weight &weight = *artifact.weights()->Get(uint32_t(i));
    const RankLayout::Part &part = layout.weights[i];
    std::span<const std::byte> stored = files[weight.file()].bytes().subspan(weight.offset(), weight.length());
    cpu::WeightPlan plan = weightPlan(weight, mesh, rank);
    // Memory that nothing is loaded to is not touched, either: a rank without a share does not pay for it.
    if (!plan.isEmpty() && !cpu::loadWeight(plan, stored, {weights.data() + part.offset, part.bytes}))
      throw Error(ErrorCode::WeightFileInvalid, "a weight of the artifact cannot be loaded; compile the model again");
    done += part.bytes;
    if (report)
      report();
  }
}

void *Executor::address(const artifact::Operand &operand) const {
  switch (operand.space()) {
  case artifact::Space::Device:
    return device.data() + operand.offset();
  case artifact::Space::Comm:
    return comm.data() + operand.offset();
  case artifact::Space::Weight:
    return weights.data() + layout.weights[operand.index()].offset;
  case artifact::Space::Kv:
    break;
  case artifact::Space::Input:
    if (operand.index() == 0)
      return current->ids.data();
    return (operand.index() == 1 ? current->past : current->qLen).data();
  }
  return nullptr;
}

Executor::Call Executor::bindCommand(const artifact::Command &command, const Images &images) const {
  auto in = [&](uint32_t i) { return address(*command.inputs()->Get(i)); };
  auto out = [&](uint32_t i) { return address(*command.outputs()->Get(i)); };
  auto floats = [](void *pointer) { return static_cast<float *>(pointer); };
  auto weight = [&](uint32_t i) -> const artifact::Weight & {
    return *artifact.weights()->Get(command.inputs()->Get(i)->index());
  };
  switch (command.work_type()) {
  case artifact::Work::Embedding: {
    const auto &work = *command.work_as_Embedding();
    return cpu::EmbeddingArgs{static_cast<const int64_t *>(in(0)),
                              in(1),
                              static_cast<cpu::DType>(weight(1).dtype()),
                              floats(out(0)),
                              work.rows(),
                              work.vocabulary(),
                              work.hidden(),
                              int64_t(rank * work.vocabulary()),
                              work.tied()};
  }
  case artifact::Work::Linear: {
    const auto &work = *command.work_as_Linear();
    bool empty = weightPlan(weight(1), mesh, rank).isEmpty();
    return cpu::LinearArgs{floats(in(0)),
                           empty ? nullptr : in(1), // a product with nothing but padding is zero
                           static_cast<cpu::DType>(weight(1).dtype()),
                           floats(out(0)),
                           work.rows(),
                           work.k(),
                           work.n()};
  }
  case artifact::Work::KvAppend: {
    const auto &work = *command.work_as_KvAppend();
    return cpu::KvAppendArgs{floats(in(0)),
                             floats(in(1)),
                             current->past.data(),
                             current->qLen.data(),
                             caches[command.inputs()->Get(4)->index()],
                             work.batch(),
                             work.tokens()};
  }
  case artifact::Work::PartialAttention: {
    cpu::AttentionArgs args = attentionOf(artifact, command, rank);
    args.q = floats(in(0));
    args.past = current->past.data();
    args.qLen = current->qLen.data();
    args.cache = caches[command.inputs()->Get(1)->index()];
    args.send = floats(out(0));
    return args;
  }
  case artifact::Work::MergeAttention: {
    const auto &work = *command.work_as_MergeAttention();
    MergeCall call;
    bool alongTokens = work.along() == artifact::ChunkDim::Tokens;
    for (uint32_t i = 0; work.chunks() && i < work.chunks()->size(); ++i)
      call.chunks.push_back({floats(in(i)), work.chunks()->Get(i)});
    if (call.chunks.empty())
      call.chunks.push_back({floats(in(0)), alongTokens ? work.tokens() : work.batch()});
    call.args = {{},           alongTokens,   floats(out(0)), work.peers(),
                 work.batch(), work.tokens(), work.heads(),   work.value_dim()};
    return call;
  }
  case artifact::Work::Concat: {
    const auto &work = *command.work_as_Concat();
    ConcatCall call{{}, {{}, floats(out(0)), work.rows()}};
    for (uint32_t i = 0; i < work.widths()->size(); ++i)
      call.parts.push_back({floats(in(i)), work.widths()->Get(i)});
    return call;
  }
  case artifact::Work::LastToken: {
    const auto &work = *command.work_as_LastToken();
    return cpu::LastTokenArgs{floats(in(0)), current->qLen.data(), floats(out(0)),
                              work.batch(),  work.tokens(),        work.hidden()};
  }
  case artifact::Work::Generated: {
    uint32_t kernel = command.work_as_Generated()->kernel();
    KernelCall call{images.kernel(kernel), {}, artifact.kernels()->Get(kernel)->groups()};
    for (uint32_t i = 0; command.inputs() && i < command.inputs()->size(); ++i)
      call.buffers.push_back(in(i));
    for (uint32_t i = 0; command.outputs() && i < command.outputs()->size(); ++i)
      call.buffers.push_back(out(i));
    return call;
  }
  case artifact::Work::AllToAll: {
    const auto &work = *command.work_as_AllToAll();
    return Collective{Collective::Kind::AllToAll, static_cast<Axis>(work.axis()), command.inputs()->Get(0)->offset(),
                      command.outputs()->Get(0)->offset(), work.chunk()};
  }
  case artifact::Work::AllReduce:
  case artifact::Work::Record:
  case artifact::Work::Wait:
  case artifact::Work::NONE:
    break;
  }
  const auto &work = *command.work_as_AllReduce();
  return Collective{Collective::Kind::AllReduce, static_cast<Axis>(work.axis()), command.inputs()->Get(0)->offset(),
                    command.outputs()->Get(0)->offset(), work.elements()};
}

void Executor::bind(const Images &images, std::span<const StepInputs> inputs, const int32_t *table,
                    Communicator &peers) {
  communicator = &peers;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    cpu::KvCache cache = cacheOf(artifact, i, rank);
    cache.key = kv.data() + layout.layers[i].key.offset;
    cache.value = kv.data() + layout.layers[i].value.offset;
    cache.table = table;
    caches.push_back(cache);
  }
  for (uint32_t i = 0; i < artifact.entries()->size(); ++i) {
    const artifact::Entry &entry = *artifact.entries()->Get(i);
    current = &inputs[i];
    Program &program = entries.emplace_back();
    program.inputs = current;
    program.allTokens = entry.logits() == artifact::LogitRows::All;
    program.logits = static_cast<const float *>(address(*entry.logits_operand()));
    if (!entry.commands())
      continue;
    for (const artifact::Command *command : *entry.commands()) {
      // One thread walks the list, in which every wait comes after its record.
      if (command->work_type() == artifact::Work::Record || command->work_type() == artifact::Work::Wait)
        continue;
      Bound bound{bindCommand(*command, images), bytesOf(*command) >= kParallelBytes};
      if (command->work_type() == artifact::Work::AllToAll)
        bound.sent = &traffic.allToAll;
      if (command->work_type() == artifact::Work::AllReduce)
        bound.sent = command->phase() == artifact::Phase::None ? &traffic.embedding : &traffic.allReduce;
      program.commands.push_back(std::move(bound));
    }
  }
}

template <typename Body> void Executor::each(size_t items, bool parallel, const Body &body) {
  if (parallel)
    workers.parallel(items, body);
  else
    body(size_t(0), items, 0u);
}

void Executor::execute(const cpu::EmbeddingArgs &args, bool parallel) {
  each(args.rows, parallel, [&](size_t begin, size_t end, unsigned) { cpu::embedding(args, begin, end); });
}

void Executor::execute(const cpu::LinearArgs &args, bool parallel) {
  if (!args.weight) {
    std::fill_n(args.y, args.rows * args.n, 0.0f);
    return;
  }
  each(cpu::linearItems(args.n), parallel, [&](size_t begin, size_t end, unsigned) { cpu::linear(args, begin, end); });
}

void Executor::execute(const cpu::KvAppendArgs &args, bool parallel) {
  each(cpu::kvAppendItems(args), parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::kvAppend(args, begin, end); });
}

void Executor::execute(const cpu::AttentionArgs &args, bool) {
  // What it touches depends on the lengths.
  uint64_t tokens = 0;
  for (uint32_t b = args.batchBegin; b < args.batchBegin + args.batchCount; ++b)
    tokens += uint64_t(args.qLen[b]) * (uint64_t(args.past[b]) + uint64_t(args.qLen[b]));
  uint64_t width = uint64_t(args.cache.keyDim + args.cache.valueDim) * cpu::elementBytes(args.cache.dtype);
  bool parallel = tokens / args.cache.kvp * args.cache.heads * width >= kParallelBytes;
  auto *floats = reinterpret_cast<float *>(scratch.data());
  size_t stride = layout.scratchBytes / sizeof(float);
  each(cpu::attentionItems(args), parallel, [&](size_t begin, size_t end, unsigned worker) {
    cpu::partialAttention(args, begin, end, floats + worker * stride);
  });
}

void Executor::execute(const MergeCall &call, bool parallel) {
  cpu::MergeArgs args = call.args;
  args.chunks = call.chunks;
  each(cpu::mergeItems(args), parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::mergeAttention(args, begin, end); });
}

void Executor::execute(const ConcatCall &call, bool parallel) {
  cpu::ConcatArgs args = call.args;
  args.parts = call.parts;
  each(args.rows, parallel, [&](size_t begin, size_t end, unsigned) { cpu::concat(args, begin, end); });
}

void Executor::execute(const cpu::LastTokenArgs &args, bool parallel) {
  each(args.batch, parallel, [&](size_t begin, size_t end, unsigned) { cpu::lastToken(args, begin, end); });
}

void Executor::execute(const KernelCall &call, bool parallel) {
  each(call.groups, parallel, [&](size_t begin, size_t end, unsigned) {
    for (size_t group = begin; group < end; ++group)
      call.kernel(call.buffers.data(), nullptr, int64_t(group));
  });
}

Traffic Executor::run(uint32_t entry) {
  traffic = Traffic();
  for (const Bound &command : entries[entry].commands) {
    if (const auto *collective = std::get_if<Collective>(&command.call)) {
      communicator->wait(communicator->start(*collective));
      *command.sent += bytesSent(*collective, mesh.size(collective->axis));
      continue;
    }
    std::visit(
        [&](const auto &call) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(call)>, Collective>)
            execute(call, command.parallel);
        },
        command.call);
  }
  keepLastLogits(entries[entry]);
  return traffic;
}

void Executor::keepLastLogits(const Program &program) {
  size_t vocabulary = artifact.local_vocabulary(), batch = program.inputs->qLen.size();
  size_t rows = program.allTokens ? program.inputs->ids.size() / batch : 1;
  auto *to = reinterpret_cast<float *>(last.data());
  for (size_t b = 0; b < batch; ++b)
    if (size_t used = size_t(program.inputs->qLen[b]); used != 0)
      std::copy_n(program.logits + (b * rows + (program.allTokens ? used - 1 : 0)) * vocabulary, vocabulary,
                  to + b * vocabulary);
}

const float *Executor::lastLogits(uint32_t slot) const {
  return reinterpret_cast<const float *>(last.data()) + slot * artifact.local_vocabulary();
}

} // namespace helix
