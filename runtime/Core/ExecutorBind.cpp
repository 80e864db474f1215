//===- ExecutorBind.cpp - Commands to calls --------------------------------===//
#include "lib/Artifact/Validate.h"
#include "runtime/Core/Executor.h"

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
    return current->parts[operand.index()].data();
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
    if (weight(1).quantization()) {
      cpu::WeightPlan plan = weightPlan(weight(1), mesh, rank);
      cpu::QuantFormat format = quantFormat(weight(1));
      // Where the rank has no rows, no id finds one.
      return cpu::EmbeddingQuantizedArgs{static_cast<const int64_t *>(in(0)),
                                         static_cast<const std::byte *>(in(1)),
                                         format,
                                         cpu::quantLayout(plan, format).value(),
                                         cpu::quantShare(plan, format),
                                         floats(out(0)),
                                         work.rows(),
                                         plan.isEmpty() ? 0 : work.vocabulary(),
                                         work.hidden(),
                                         int64_t(rank * work.vocabulary()),
                                         work.tied()};
    }
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
    cpu::WeightPlan plan = weightPlan(weight(1), mesh, rank);
    bool empty = plan.isEmpty();
    if (weight(1).quantization()) {
      cpu::QuantFormat format = quantFormat(weight(1));
      return cpu::LinearQuantizedArgs{floats(in(0)),
                                      empty ? nullptr : static_cast<const std::byte *>(in(1)),
                                      format,
                                      cpu::quantLayout(plan, format).value(),
                                      cpu::quantShare(plan, format),
                                      floats(out(0)),
                                      work.rows(),
                                      work.k(),
                                      work.n(),
                                      scratch.data() + layout.roundedAt(workers.count())};
    }
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
    if (command.work_as_PartialAttention()->slopes())
      args.slopes = floats(in(4));
    args.send = floats(out(0));
    if (workers.count() > 1 && cpu::attentionPartials(args) != 0)
      args.partials = reinterpret_cast<float *>(scratch.data() + layout.partialsAt(workers.count()));
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
    if (work.sinks())
      call.args.sinks = floats(in(command.inputs()->size() - 1));
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
  case artifact::Work::Record:
    return EventCall{false, command.work_as_Record()->event()};
  case artifact::Work::Wait:
    return EventCall{true, command.work_as_Wait()->event()};
  case artifact::Work::DenseAttention:
  case artifact::Work::Rotate:
  case artifact::Work::Scatter:
  case artifact::Work::Transpose:
    return bindStateless(command);
  case artifact::Work::AllToAll:
  case artifact::Work::AllReduce:
  case artifact::Work::NONE:
    break;
  }
  return collectiveOf(command);
}

void Executor::bind(const Images &images, std::span<const StepInputs> inputs, const int32_t *table,
                    Communicator &peers) {
  communicator = &peers;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    cpu::KvCache cache = cacheOf(artifact, i, rank);
    cache.keyTogether = cpu::kvKeyTogether(cache.dtype, cache.keyDim);
    cache.key = kv.data() + layout.layers[i].key.offset;
    cache.value = kv.data() + layout.layers[i].value.offset;
    if (layout.layers[i].keyScale.bytes != 0) {
      cache.keyScales = reinterpret_cast<float *>(kv.data() + layout.layers[i].keyScale.offset);
      cache.valueScales = reinterpret_cast<float *>(kv.data() + layout.layers[i].valueScale.offset);
    }
    cache.table = table;
    caches.push_back(cache);
  }
  for (uint32_t i = 0; i < artifact.entries()->size(); ++i) {
    const artifact::Entry &entry = *artifact.entries()->Get(i);
    current = &inputs[i];
    Program &program = entries.emplace_back();
    program.inputs = current;
    program.allTokens = entry.logits() == artifact::LogitRows::All;
    if (entry.logits_operand())
      program.logits = static_cast<const float *>(address(*entry.logits_operand()));
    for (uint32_t o = 0; entry.outputs() && o < entry.outputs()->size(); ++o)
      program.outputs.push_back(static_cast<const float *>(address(*entry.outputs()->Get(o)->place())));
    program.streams.resize(entry.streams());
    if (!entry.commands())
      continue;
    for (const artifact::Command *command : *entry.commands()) {
      Bound bound{bindCommand(*command, images), bytesOf(*command) >= kParallelBytes};
      if (command->work_type() == artifact::Work::AllToAll)
        bound.sent = &traffic.allToAll;
      if (command->work_type() == artifact::Work::AllReduce)
        bound.sent = command->phase() == artifact::Phase::None ? &traffic.embedding : &traffic.allReduce;
      Stream &stream = program.streams[command->stream()];
      if (const auto *collective = std::get_if<Collective>(&bound.call))
        bound.after = lastSource(stream, *collective);
      stream.commands.push_back(std::move(bound));
    }
    for (Stream &stream : program.streams)
      stream.underway.resize(stream.commands.size());
  }
}

uint32_t Executor::lastSource(const Stream &stream, const Collective &collective) const {
  auto bytes = [&](const Collective &of) {
    return of.kind == Collective::Kind::AllToAll ? of.count * mesh.size(of.axis) : of.count * sizeof(float);
  };
  for (size_t i = stream.commands.size(); i > 0; --i)
    if (const auto *before = std::get_if<Collective>(&stream.commands[i - 1].call);
        before && before->receive < collective.send + bytes(collective) &&
        collective.send < before->receive + bytes(*before))
      return uint32_t(i);
  return 0;
}

} // namespace helix
