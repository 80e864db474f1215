//===- Layout.cpp - What a rank keeps in memory, and where -----------------===//
#include "runtime/Core/Layout.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Error.h"

#include <algorithm>

namespace helix {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kMaxBytes = uint64_t(1) << 46; // what an address space has, less a bit

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Appends a part to an area.
RankLayout::Part place(uint64_t &area, uint64_t bytes) {
  if (bytes > kMaxBytes || area > kMaxBytes - aligned(bytes))
    throw Error(ErrorCode::MemoryExhausted, "a rank needs more than " + formatBytes(kMaxBytes) +
                                                "; compile the model for more ranks or a shorter context");
  RankLayout::Part part{area, bytes};
  area += aligned(bytes);
  return part;
}

cpu::DType dtypeOf(artifact::DType dtype) { return static_cast<cpu::DType>(dtype); }

/// Floats of scratch that a thread needs for a command.
uint64_t scratchOf(const artifact::Artifact &artifact, const artifact::Command &command) {
  if (command.work_type() == artifact::Work::PartialAttention)
    return cpu::attentionScratch(attentionOf(artifact, command, 0));
  if (const auto *work = command.work_as_DenseAttention())
    return work->keys();
  return 0;
}

/// Bytes that a command rounds activations in.
uint64_t roundedOf(const artifact::Artifact &artifact, const artifact::Command &command) {
  const auto *work = command.work_as_Linear();
  if (!work)
    return 0;
  const artifact::Weight &weight = *artifact.weights()->Get(command.inputs()->Get(1)->index());
  if (!weight.quantization())
    return 0;
  cpu::LinearQuantizedArgs args;
  args.format = quantFormat(weight);
  args.layout = cpu::quantLayout(weightPlan(weight, meshOf(artifact), 0), args.format).value_or(cpu::QuantLayout());
  args.rows = work->rows();
  args.k = work->k();
  return cpu::roundedBytes(args);
}

} // namespace

MemoryNeeds RankLayout::needs(unsigned threads) const {
  return {weightBytes, kvBytes, aligned(deviceBytes) + aligned(commBytes) + aligned(logitsBytes),
          roundedAt(threads) + roundedBytes};
}

uint64_t RankLayout::roundedAt(unsigned threads) const {
  return partialsAt(threads) + (threads > 1 ? partialBytes : 0);
}

Mesh meshOf(const artifact::Artifact &artifact) {
  const artifact::Mesh &mesh = *artifact.mesh();
  return {mesh.tpa(), mesh.kvp(), mesh.ep(), mesh.tpf()};
}

cpu::WeightPlan weightPlan(const artifact::Weight &weight, const Mesh &mesh, uint32_t rank) {
  cpu::WeightPlan plan;
  plan.stored = dtypeOf(weight.stored_dtype());
  plan.dtype = dtypeOf(weight.dtype());
  plan.use = static_cast<cpu::WeightUse>(weight.use());
  plan.rank = weight.dims()->size();
  plan.transposed = weight.transposed();
  for (uint32_t i = 0; i < plan.rank; ++i) {
    const artifact::WeightDim &dim = *weight.dims()->Get(i);
    cpu::Range share{0, dim.window_size()};
    if (dim.splits())
      for (const artifact::Split *split : *dim.splits())
        share = cpu::splitRange(share, split->chunk(),
                                mesh.coordinate(static_cast<Axis>(split->axis()), rank) / split->replicas());
    plan.dims[i] = {dim.stored(), dim.window_offset(), share, dim.local(), dim.run(), dim.stride()};
  }
  return plan;
}

cpu::QuantFormat quantFormat(const artifact::Weight &weight) {
  const artifact::Quantization &quantization = *weight.quantization();
  return {quantization.bits(),
          quantization.block(),
          dtypeOf(quantization.scale_dtype()),
          static_cast<cpu::ZeroPoint>(quantization.zero()),
          quantization.is_signed(),
          dtypeOf(quantization.activations())};
}

bool loadWeight(const artifact::Weight &weight, const cpu::WeightPlan &plan, std::span<const Mapping> files,
                std::span<std::byte> packed) {
  auto range = [&](const auto &it) { return files[it.file()].bytes().subspan(it.offset(), it.length()); };
  const artifact::Quantization *quantization = weight.quantization();
  if (!quantization)
    return cpu::loadWeight(plan, range(weight), packed);
  const artifact::FileRange *zeros = quantization->zero_points();
  return cpu::loadQuantized(plan, quantFormat(weight), range(weight), range(*quantization->scales()),
                            zeros ? range(*zeros) : std::span<const std::byte>(), packed);
}

cpu::KvCache cacheOf(const artifact::Artifact &artifact, uint32_t layer, uint32_t rank) {
  const artifact::KvLayout &kv = *artifact.kv();
  const artifact::KvLayer &shape = *kv.layers()->Get(layer);
  Mesh mesh = meshOf(artifact);
  cpu::KvCache cache;
  cache.pagesPerSlot = kv.capacity() / (uint64_t(kv.block()) * mesh.kvp);
  cache.pages = cache.pagesPerSlot * kv.slots();
  cache.block = kv.block();
  cache.kvp = mesh.kvp;
  cache.rank = mesh.coordinate(Axis::Kvp, rank);
  cache.heads = shape.heads();
  cache.keyDim = shape.key_dim();
  cache.valueDim = shape.value_dim();
  cache.dtype = dtypeOf(shape.dtype());
  if (shape.scaling() == artifact::KvScaling::Tensor) {
    cache.keyScale = shape.key_scale();
    cache.valueScale = shape.value_scale();
  }
  return cache;
}

cpu::AttentionArgs attentionOf(const artifact::Artifact &artifact, const artifact::Command &command, uint32_t rank) {
  const artifact::PartialAttention &work = *command.work_as_PartialAttention();
  cpu::AttentionArgs args;
  args.cache = cacheOf(artifact, command.inputs()->Get(1)->index(), rank);
  artifact::Chunk batch = artifact::batchChunk(work), tokens = artifact::tokenChunk(work);
  args.tokens = work.tokens();
  args.batchBegin = batch.begin;
  args.batchCount = batch.count;
  args.tokenBegin = tokens.begin;
  args.tokenCount = tokens.count;
  args.heads = work.heads();
  args.paddedHeads = work.padded_heads();
  args.scale = static_cast<float>(work.scale());
  args.softcap = static_cast<float>(work.softcap());
  args.window = work.window();
  return args;
}

Collective collectiveOf(const artifact::Command &command) {
  uint64_t send = command.inputs()->Get(0)->offset(), receive = command.outputs()->Get(0)->offset();
  if (const auto *work = command.work_as_AllToAll())
    return {Collective::Kind::AllToAll, static_cast<Axis>(work->axis()), send, receive, work->chunk()};
  const auto &work = *command.work_as_AllReduce();
  return {Collective::Kind::AllReduce, static_cast<Axis>(work.axis()), send, receive, work.elements()};
}

artifact::LoadedArtifact openArtifact(const std::string &path) {
  artifact::Error error;
  artifact::LoadedArtifact file = artifact::readArtifact(path, error);
  if (!file)
    throw Error::fromMessage(error.code, error.message);
  return file;
}

RankLayout layOut(const artifact::Artifact &artifact) {
  RankLayout layout;
  Mesh mesh = meshOf(artifact);
  if (artifact.weights())
    for (const artifact::Weight *weight : *artifact.weights()) {
      cpu::WeightPlan plan = weightPlan(*weight, mesh, 0);
      std::optional<uint64_t> bytes;
      if (!weight->quantization())
        bytes = cpu::packedBytes(plan);
      else if (std::optional<cpu::QuantLayout> packed = cpu::quantLayout(plan, quantFormat(*weight)))
        bytes = packed->bytes;
      layout.weights.push_back(place(layout.weightBytes, bytes.value_or(kMaxBytes + 1)));
    }
  const artifact::KvLayout *kv = artifact.kv(); // none of a stateless function
  for (uint32_t i = 0; kv && kv->layers() && i < kv->layers()->size(); ++i) {
    cpu::KvCache cache = cacheOf(artifact, i, 0);
    uint64_t key = cpu::kvKeyBytes(cache.pages, cache.heads, cache.block, cache.keyDim, cache.dtype);
    uint64_t value = cpu::kvValueBytes(cache.pages, cache.heads, cache.block, cache.valueDim, cache.dtype);
    RankLayout::Layer layer;
    layer.key = place(layout.kvBytes, key);
    layer.value = place(layout.kvBytes, value);
    if (kv->layers()->Get(i)->scaling() == artifact::KvScaling::TokenHead)
      for (RankLayout::Part *part : {&layer.keyScale, &layer.valueScale})
        *part = place(layout.kvBytes, cpu::kvScaleBytes(cache.pages, cache.heads, cache.block));
    layout.layers.push_back(layer);
  }
  uint64_t row = artifact.local_vocabulary() * sizeof(float), slots = kv ? kv->slots() : 1;
  place(layout.logitsBytes, row <= kMaxBytes / slots ? row * slots : kMaxBytes + 1);
  for (const artifact::Entry *entry : *artifact.entries()) {
    layout.deviceBytes = std::max(layout.deviceBytes, entry->device_bytes());
    layout.commBytes = std::max(layout.commBytes, entry->comm_bytes());
    layout.events = std::max(layout.events, entry->events());
    if (!entry->commands())
      continue;
    for (const artifact::Command *command : *entry->commands()) {
      layout.scratchBytes = std::max(layout.scratchBytes, aligned(scratchOf(artifact, *command) * sizeof(float)));
      layout.roundedBytes = std::max(layout.roundedBytes, aligned(roundedOf(artifact, *command)));
      if (command->work_type() == artifact::Work::PartialAttention) {
        uint64_t partials = cpu::attentionPartials(attentionOf(artifact, *command, 0));
        layout.partialBytes = std::max(layout.partialBytes, aligned(partials * sizeof(float)));
      }
    }
  }
  return layout;
}

} // namespace helix
