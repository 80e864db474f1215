//===- Executor.cpp - One rank of an artifact ------------------------------===//
#include "runtime/Core/Executor.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Error.h"

#include <algorithm>
#include <numeric>

namespace helix {
namespace {

/// Bytes that attention should touch before the helpers are woken for it: below, that takes longer than the work.
constexpr uint64_t kParallelBytes = 32 * 1024;

} // namespace

Executor::Executor(const artifact::Artifact &artifact, const RankLayout &layout, uint32_t rank, unsigned threads,
                   bool spin, std::span<const unsigned> cpus)
    : artifact(artifact), layout(layout), mesh(meshOf(artifact)), rank(rank),
      weights(Mapping::zeros(layout.weightBytes)), kv(Mapping::zeros(layout.kvBytes)),
      device(Mapping::zeros(layout.deviceBytes)), comm(Mapping::zeros(layout.commBytes)),
      scratch(Mapping::zeros(layout.needs(threads).scratch)), last(Mapping::zeros(layout.logitsBytes)),
      workers(threads, spin, cpus), recorded(layout.events) {}

StepInputs::StepInputs(const artifact::Entry &entry) {
  bool isStateless = entry.kind() == artifact::EntryKind::Stateless;
  size_t batch = entry.batch(), rows = batch * entry.tokens();
  std::vector<size_t> bytes = {rows * sizeof(int64_t), batch * sizeof(int32_t), batch * sizeof(int32_t)};
  if (isStateless)
    bytes.clear();
  for (uint32_t i = 0; entry.inputs() && i < entry.inputs()->size(); ++i)
    bytes.push_back(artifact::innerBytes(*entry.inputs()->Get(i)));
  auto padded = [](size_t size) { return (size + 63) / 64 * 64; };
  size_t total = 0;
  for (size_t size : bytes)
    total += padded(size);
  memory = Mapping::zeros(total);
  size_t at = 0;
  for (size_t size : bytes) {
    parts.emplace_back(memory.data() + at, size);
    at += padded(size);
  }
  if (isStateless)
    return;
  ids = {reinterpret_cast<int64_t *>(parts[0].data()), rows};
  past = {reinterpret_cast<int32_t *>(parts[1].data()), batch};
  qLen = {reinterpret_cast<int32_t *>(parts[2].data()), batch};
}

void Executor::load(std::span<const Mapping> files, std::atomic<uint64_t> &done, const std::function<void()> &report) {
  // Large weights first, so that the threads end together.
  std::vector<uint32_t> order(layout.weights.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return layout.weights[a].bytes > layout.weights[b].bytes; });
  std::atomic<size_t> next{0};
  std::atomic<bool> loaded{true};
  workers.parallel(workers.count(), [&](size_t begin, size_t end, unsigned worker) {
    for (size_t i; begin < end && (i = next.fetch_add(1)) < order.size();) {
      const artifact::Weight &weight = *artifact.weights()->Get(order[i]);
      const RankLayout::Part &part = layout.weights[order[i]];
      cpu::WeightPlan plan = weightPlan(weight, mesh, rank);
      // Memory that nothing is loaded to is not touched, either: a rank without a share does not pay for it.
      if (!plan.isEmpty() && !loadWeight(weight, plan, files, {weights.data() + part.offset, part.bytes}))
        loaded = false;
      files[weight.file()].release(weight.offset(), weight.length());
      done += part.bytes;
      if (report && worker == 0)
        report();
    }
  });
  if (!loaded)
    throw Error(ErrorCode::WeightFileInvalid, "a weight of the artifact cannot be loaded; compile the model again");
}

void Executor::execute(const cpu::EmbeddingArgs &args, const Bound &command) {
  each(args.rows, command.parallel, [&](size_t begin, size_t end, unsigned) { cpu::embedding(args, begin, end); });
}

void Executor::execute(const cpu::LinearArgs &args, const Bound &command) {
  if (!args.weight) {
    std::fill_n(args.y, args.rows * args.n, 0.0f);
    return;
  }
  each(cpu::linearItems(args.n), command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::linear(args, begin, end); });
}

void Executor::execute(const cpu::LinearQuantizedArgs &args, const Bound &command) {
  if (!args.weight) {
    std::fill_n(args.y, args.rows * args.n, 0.0f);
    return;
  }
  if (args.format.activations == cpu::DType::I8)
    each(args.rows, command.parallel, [&](size_t begin, size_t end, unsigned) { cpu::roundRows(args, begin, end); });
  each(cpu::linearItems(args.n), command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::linearQuantized(args, begin, end); });
}

void Executor::execute(const cpu::EmbeddingQuantizedArgs &args, const Bound &command) {
  each(args.rows, command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::embeddingQuantized(args, begin, end); });
}

void Executor::execute(const cpu::KvAppendArgs &args, const Bound &command) {
  each(cpu::kvAppendItems(args), command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::kvAppend(args, begin, end); });
}

void Executor::execute(const cpu::AttentionArgs &args, const Bound &) {
  // What it touches depends on the lengths.
  uint64_t tokens = 0;
  for (uint32_t b = args.batchBegin; b < args.batchBegin + args.batchCount; ++b)
    tokens += uint64_t(args.qLen[b]) * (uint64_t(args.past[b]) + uint64_t(args.qLen[b]));
  uint64_t width = uint64_t(args.cache.keyDim + args.cache.valueDim) * cpu::elementBytes(args.cache.dtype);
  bool parallel = tokens / args.cache.kvp * args.cache.heads * width >= kParallelBytes;
  auto *floats = reinterpret_cast<float *>(scratch.data());
  size_t stride = layout.scratchBytes / sizeof(float);
  size_t parts = parallel ? workers.count() : 1;
  cpu::beginAttention(args);
  each(parts, parallel, [&](size_t begin, size_t end, unsigned worker) {
    for (size_t part = begin; part < end; ++part) {
      cpu::Range share = cpu::attentionShare(args, part, parts);
      cpu::partialAttention(args, share.begin, share.end, floats + worker * stride);
    }
  });
}

void Executor::execute(const MergeCall &call, const Bound &command) {
  cpu::MergeArgs args = call.args;
  args.chunks = call.chunks;
  each(cpu::mergeItems(args), command.parallel,
       [&](size_t begin, size_t end, unsigned) { cpu::mergeAttention(args, begin, end); });
}

void Executor::execute(const ConcatCall &call, const Bound &command) {
  cpu::ConcatArgs args = call.args;
  args.parts = call.parts;
  each(args.rows, command.parallel, [&](size_t begin, size_t end, unsigned) { cpu::concat(args, begin, end); });
}

void Executor::execute(const cpu::LastTokenArgs &args, const Bound &command) {
  each(args.batch, command.parallel, [&](size_t begin, size_t end, unsigned) { cpu::lastToken(args, begin, end); });
}

void Executor::execute(const KernelCall &call, const Bound &command) {
  each(call.groups, command.parallel, [&](size_t begin, size_t end, unsigned) {
    for (size_t group = begin; group < end; ++group)
      call.kernel(call.buffers.data(), nullptr, int64_t(group));
  });
}

const float *Executor::lastLogits(uint32_t slot) const {
  return reinterpret_cast<const float *>(last.data()) + slot * artifact.local_vocabulary();
}

} // namespace helix
