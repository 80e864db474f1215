//===- FromArtifact.cpp - An entry of an artifact as a program -------------===//
#include "lib/Perf/FromArtifact.h"
#include "lib/Artifact/Costs.h"
#include "lib/Artifact/Validate.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace helix::perf {
namespace {

using artifact::Operand;

DType dtypeOf(artifact::DType dtype) {
  if (dtype == artifact::DType::I8 || dtype == artifact::DType::F8E4M3)
    return DType::Fp8;
  return dtype == artifact::DType::F16 || dtype == artifact::DType::BF16 ? DType::Half : DType::F32;
}

/// The number after "layers." or "layer" in the name of a node, or -1.
int32_t layerIn(const std::string &source) {
  size_t at = source.find("layer");
  if (at == std::string::npos)
    return -1;
  at += 5;
  if (at < source.size() && source[at] == 's')
    ++at;
  if (at < source.size() && (source[at] == '.' || source[at] == '/' || source[at] == '_'))
    ++at;
  int32_t layer = -1;
  for (; at < source.size() && std::isdigit(static_cast<unsigned char>(source[at])) && layer < 100000; ++at)
    layer = std::max(layer, 0) * 10 + (source[at] - '0');
  return layer;
}

/// Commands between two of one layer belong to it; one between two layers ends the first.
void fillLayers(std::vector<Command> &commands) {
  auto known = [](const Command &command) { return command.layer >= 0; };
  auto first = std::find_if(commands.begin(), commands.end(), known);
  auto last = std::find_if(commands.rbegin(), commands.rend(), known).base();
  int32_t layer = -1;
  for (auto it = first; it < last; ++it)
    layer = it->layer = it->layer >= 0 ? it->layer : layer;
}

struct Builder {
  const artifact::Artifact &artifact;
  const artifact::Entry &entry;
  const Lengths &lengths;
  const Assumed &assumed;
  uint32_t kvpRank;
  Program &program;
  Error &error;
  std::map<std::pair<artifact::Space, uint64_t>, size_t>
      writers;                                ///< place in an arena → the command that wrote it last
  std::optional<artifact::CostLengths> whole; ///< of commands that are not attention
  std::map<size_t, size_t> producers;         ///< collective → the command that wrote its input

  /// What assumed numbers take in place of those of a layer.
  double kvScale(const artifact::KvLayer &layer) const {
    double elements = double(layer.key_dim()) + layer.value_dim();
    return assumed.kv ? elements * bytesPerElement(*assumed.kv) / double(tokenBytes(layer)) : 1;
  }

  uint32_t sizeOf(artifact::Axis axis) const {
    const artifact::Mesh &mesh = *artifact.mesh();
    switch (axis) {
    case artifact::Axis::N:
      return program.ranks;
    case artifact::Axis::Tpa:
      return mesh.tpa();
    case artifact::Axis::Kvp:
      return mesh.kvp();
    case artifact::Axis::Ep:
      return mesh.ep();
    case artifact::Axis::Tpf:
      return mesh.tpf();
    }
    return 1;
  }

  uint32_t strideOf(artifact::Axis axis) const {
    return axis == artifact::Axis::Tpa  ? artifact.mesh()->kvp()
           : axis == artifact::Axis::Ep ? artifact.mesh()->tpf()
                                        : 1;
  }

  Exchange exchangeOf(CollectiveKind kind, artifact::Axis axis) const {
    Exchange exchange;
    exchange.kind = kind;
    exchange.peers = sizeOf(axis);
    exchange.stride = strideOf(axis);
    exchange.ranks = program.ranks;
    return exchange;
  }

  /// Sets what of the whole a chunk's collective is, and the product whose columns it sums.
  void setFraction(const Operand &operand, double fraction) {
    auto writer = writers.find({operand.space(), operand.offset()});
    if (writer == writers.end())
      return;
    auto *exchange = std::get_if<Exchange>(&program.commands[writer->second].work);
    if (!exchange)
      return;
    exchange->fraction = fraction;
    if (auto producer = producers.find(writer->second); producer != producers.end())
      if (auto *work = std::get_if<Work>(&program.commands[producer->second].work))
        if (work->kind == CommandClass::Linear)
          work->fraction = fraction;
  }

  template <typename Sizes> void setFractions(const artifact::Command &command, const Sizes *sizes) {
    double total = 0;
    for (uint32_t i = 0; sizes && i < sizes->size(); ++i)
      total += double(sizes->Get(i));
    for (uint32_t i = 0; sizes && i < sizes->size(); ++i)
      setFraction(*command.inputs()->Get(i), double(sizes->Get(i)) / total);
  }

  artifact::CostLengths lengthsOf(const artifact::Command &command) const {
    return artifact::costLengths(artifact, entry, command, lengths.past, lengths.newTokens, kvpRank);
  }

  bool workOf(const artifact::Command &command, size_t index, Work &work) {
    const artifact::Cost *cost = command.cost();
    if (!cost)
      return error.set(ErrorCode::SimulationImpossible,
                       "command " + std::to_string(index) + " of the entry has no cost; compile the model again");
    const auto *attention = command.work_as_PartialAttention();
    // Prefill sums over every token: once for all commands that see the same.
    if (!attention && !whole)
      whole = lengthsOf(command);
    artifact::CostLengths by = attention ? lengthsOf(command) : *whole;
    double bytes = by.bytes(*cost), cachedBytes = by.cachedBytes(*cost);
    work.flops = by.flops(*cost);
    if (attention)
      work.fraction = double(artifact::batchChunk(*attention).count) / entry.batch() *
                      artifact::tokenChunk(*attention).count / entry.tokens();
    switch (command.work_type()) {
    case artifact::Work::Linear:
    case artifact::Work::Embedding: {
      const Operand &operand = *command.inputs()->Get(1);
      artifact::DType stored = artifact.weights()->Get(operand.index())->dtype();
      const auto *embedding = command.work_as_Embedding();
      double weights = double(operand.bytes());
      if (embedding)
        weights *= double(embedding->rows()) / double(embedding->vocabulary());
      double elements = 1;
      for (const artifact::WeightDim *dim : *artifact.weights()->Get(operand.index())->dims())
        elements *= double(dim->local());
      if (embedding)
        elements *= double(embedding->rows()) / double(embedding->vocabulary());
      work.kind = embedding ? CommandClass::Copy : CommandClass::Linear;
      work.dtype = assumed.weights.value_or(dtypeOf(stored));
      work.activationBytes = std::max(0.0, bytes - weights);
      work.weightBytes = assumed.weights ? elements * bytesPerElement(work.dtype) : weights;
      break;
    }
    case artifact::Work::PartialAttention: {
      const artifact::KvLayer &layer = *artifact.kv()->layers()->Get(command.inputs()->Get(1)->index());
      work.kind = CommandClass::Attention;
      // A cache narrower than that is widened before it is multiplied.
      work.dtype = std::min(assumed.kv.value_or(dtypeOf(layer.dtype())), DType::Half);
      work.kvBytes = cachedBytes * kvScale(layer);
      work.activationBytes = bytes - cachedBytes;
      break;
    }
    case artifact::Work::KvAppend: {
      const artifact::KvLayer &layer = *artifact.kv()->layers()->Get(command.inputs()->Get(4)->index());
      double written = by.queries * layer.heads() * double(tokenBytes(layer)) / artifact.mesh()->kvp();
      work.kind = CommandClass::Copy;
      work.kvBytes = written * kvScale(layer);
      work.activationBytes = std::max(0.0, bytes - written);
      break;
    }
    case artifact::Work::Generated:
      work.kind = CommandClass::Elementwise;
      work.activationBytes = bytes;
      break;
    default:
      work.kind = CommandClass::Copy;
      work.activationBytes = bytes;
    }
    return true;
  }

  bool add(const artifact::Command &from, size_t index) {
    Command command;
    command.stream = from.stream();
    command.phase = static_cast<Phase>(from.phase());
    command.what = artifact::EnumNameWork(from.work_type());
    command.source = from.source() ? from.source()->str() : "";
    command.layer = layerIn(command.source);
    switch (from.work_type()) {
    case artifact::Work::AllToAll: {
      Exchange exchange = exchangeOf(CollectiveKind::AllToAll, from.work_as_AllToAll()->axis());
      exchange.sentBytes = allToAllBytes(exchange.peers, double(from.work_as_AllToAll()->chunk()));
      command.work = exchange;
      break;
    }
    case artifact::Work::AllReduce: {
      Exchange exchange = exchangeOf(CollectiveKind::AllReduce, from.work_as_AllReduce()->axis());
      exchange.sentBytes = allReduceBytes(exchange.peers, from.work_as_AllReduce()->elements());
      command.work = exchange;
      break;
    }
    case artifact::Work::Record:
      command.work = Record{from.work_as_Record()->event()};
      break;
    case artifact::Work::Wait:
      command.work = Wait{from.work_as_Wait()->event()};
      break;
    default: {
      Work work;
      if (!workOf(from, index, work))
        return false;
      command.work = work;
    }
    }
    if (const auto *merge = from.work_as_MergeAttention())
      setFractions(from, merge->chunks());
    if (const auto *concat = from.work_as_Concat())
      setFractions(from, concat->widths());
    if (std::holds_alternative<Exchange>(command.work)) {
      const Operand &input = *from.inputs()->Get(0);
      if (auto writer = writers.find({input.space(), input.offset()}); writer != writers.end())
        producers[index] = writer->second;
    }
    for (uint32_t i = 0; from.outputs() && i < from.outputs()->size(); ++i)
      writers[{from.outputs()->Get(i)->space(), from.outputs()->Get(i)->offset()}] = index;
    program.commands.push_back(std::move(command));
    return true;
  }

  void measureMemory() {
    for (uint32_t i = 0; artifact.weights() && i < artifact.weights()->size(); ++i) {
      const artifact::Weight &weight = *artifact.weights()->Get(i);
      double elements = 1;
      for (const artifact::WeightDim *dim : *weight.dims())
        elements *= double(dim->local());
      bool isAssumed = assumed.weights && weight.use() != artifact::WeightUse::Vector;
      program.weightBytes += isAssumed ? elements * bytesPerElement(*assumed.weights) : double(heldBytes(weight));
    }
    double tokens = 0;
    for (size_t b = 0; b < lengths.past.size(); ++b)
      tokens += double(artifact::localLength(lengths.past[b] + lengths.newTokens[b], artifact.kv()->block(),
                                             artifact.mesh()->kvp(), kvpRank));
    for (uint32_t i = 0; artifact.kv()->layers() && i < artifact.kv()->layers()->size(); ++i) {
      const artifact::KvLayer &layer = *artifact.kv()->layers()->Get(i);
      double held = assumed.kv ? (double(layer.key_dim()) + layer.value_dim()) * bytesPerElement(*assumed.kv)
                               : double(tokenBytes(layer));
      program.kvBytes += tokens * layer.heads() * held;
    }
  }

  bool build() {
    program = Program();
    program.ranks = artifact.mesh()->tpa() * artifact.mesh()->kvp();
    program.streams = std::max(1U, entry.streams());
    program.events = entry.events();
    program.sequences = uint64_t(
        std::count_if(lengths.newTokens.begin(), lengths.newTokens.end(), [](uint64_t tokens) { return tokens != 0; }));
    program.newTokens =
        lengths.newTokens.empty() ? 0 : *std::max_element(lengths.newTokens.begin(), lengths.newTokens.end());
    for (uint32_t i = 0; entry.commands() && i < entry.commands()->size(); ++i)
      if (!add(*entry.commands()->Get(i), i))
        return false;
    fillLayers(program.commands);
    measureMemory();
    return true;
  }
};

} // namespace

bool findEntry(const artifact::Artifact &artifact, artifact::EntryKind kind, uint32_t &entry, Error &error) {
  for (entry = 0; entry < artifact.entries()->size(); ++entry)
    if (artifact.entries()->Get(entry)->kind() == kind)
      return true;
  return error.set(ErrorCode::SimulationImpossible,
                   std::string("the artifact has no ") + artifact::EnumNameEntryKind(kind) +
                       (kind == artifact::EntryKind::Prefill ? " entry; compile with --prefill-chunk" : " entry"));
}

bool uniformLengths(const artifact::Artifact &artifact, uint32_t index, uint64_t sequences, uint64_t context,
                    Lengths &lengths, Error &error) {
  const artifact::Entry &entry = *artifact.entries()->Get(index);
  auto fail = [&](const std::string &text) { return error.set(ErrorCode::SimulationImpossible, text); };
  if (sequences < 1 || sequences > entry.batch())
    return fail("a batch of " + std::to_string(sequences) + " does not fit the compiled " +
                std::to_string(entry.batch()) + "; compile with --batch " + std::to_string(sequences));
  if (context > artifact.kv()->capacity())
    return fail("a context of " + std::to_string(context) + " tokens does not fit the compiled " +
                std::to_string(artifact.kv()->capacity()) + "; compile with --max-context " + std::to_string(context));
  if (context < entry.tokens())
    return fail("a context of " + std::to_string(context) + " tokens is less than the " +
                std::to_string(entry.tokens()) + " that a step adds to it");
  lengths = {std::vector<uint64_t>(entry.batch()), std::vector<uint64_t>(entry.batch())};
  for (uint64_t b = 0; b < sequences; ++b) {
    lengths.past[b] = context - entry.tokens();
    lengths.newTokens[b] = entry.tokens();
  }
  return true;
}

bool programOf(const artifact::Artifact &artifact, uint32_t entry, const Lengths &lengths, const Assumed &assumed,
               uint32_t rank, Program &program, Error &error) {
  Builder builder{artifact,
                  *artifact.entries()->Get(entry),
                  lengths,
                  assumed,
                  rank % artifact.mesh()->kvp(),
                  program,
                  error,
                  {},
                  {},
                  {}};
  return builder.build();
}

} // namespace helix::perf
