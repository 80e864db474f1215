//===- Cases.cpp - Kernels to time, with the memory that they read ---------===//
#include "bench/cpu/Cases.h"
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"

#include <cmath>
#include <memory>
#include <numeric>

namespace helix::bench {
namespace {

constexpr uint64_t kBytes = uint64_t(1) << 30;

const char *nameOf(cpu::DType dtype) {
  switch (dtype) {
  case cpu::DType::F32:
    return "f32";
  case cpu::DType::F16:
    return "f16";
  case cpu::DType::BF16:
    return "bf16";
  case cpu::DType::I8:
    return "int8";
  case cpu::DType::F8E4M3:
    return "fp8";
  }
  return "";
}

/// Numbers of a long cycle between -1/2 and 1/2.
void fill(Workers &workers, const Mapping &memory, cpu::DType dtype) {
  cpu::withCacheElement(dtype, [&](auto element) {
    using Element = decltype(element);
    auto *to = reinterpret_cast<Element *>(memory.data());
    // Of the codes of int8, all.
    constexpr float range = std::is_same_v<Element, cpu::Int8> ? 254 : 1;
    workers.parallel(memory.size() / sizeof(Element), [&](size_t begin, size_t end, unsigned) {
      for (size_t i = begin; i < end; ++i)
        cpu::fromFloat((float(i * 2654435761u >> 12 & 1023) / 1024 - 0.5f) * range, to[i]);
    });
  });
}

std::vector<float> activations(size_t count) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i)
    x[i] = float(i * 37 % 64) / 64 - 0.5f;
  return x;
}

/// Products of `rows` activations with as many [k, n] matrices as it takes.
Prepared product(Workers &workers, cpu::DType dtype, size_t rows, size_t k, size_t n) {
  struct State {
    std::vector<float> x, y;
    std::vector<cpu::LinearArgs> calls;
  };
  auto state = std::make_shared<State>();
  uint64_t bytes = cpu::linearItems(n) * cpu::kPanelWidth * k * cpu::elementBytes(dtype);
  uint64_t matrices = (kBytes + bytes - 1) / bytes;
  Prepared result;
  result.memory = Mapping::zeros(matrices * bytes);
  fill(workers, result.memory, dtype);
  state->x = activations(rows * k);
  state->y.resize(rows * n);
  for (uint64_t i = 0; i < matrices; ++i)
    state->calls.push_back({state->x.data(), result.memory.data() + i * bytes, dtype, state->y.data(), rows, k, n});
  result.flops = 2.0 * double(rows * k * n * matrices);
  result.run = [state, &workers] {
    for (const cpu::LinearArgs &call : state->calls)
      workers.parallel(cpu::linearItems(call.n),
                       [&](size_t begin, size_t end, unsigned) { cpu::linear(call, begin, end); });
  };
  return result;
}

/// The same with weights of codes in blocks of 32 with f32 scales, as MatMulNBits has them; the memory holds the
/// scales, too. Any bytes are codes, and any numbers scales. Rounding the activations counts.
Prepared quantizedProduct(Workers &workers, uint32_t bits, cpu::DType activationType, size_t rows, size_t k, size_t n) {
  struct State {
    std::vector<float> x, y;
    Mapping rounded;
    std::vector<cpu::LinearQuantizedArgs> calls;
  };
  auto state = std::make_shared<State>();
  cpu::QuantFormat format;
  format.bits = bits;
  format.activations = activationType;
  cpu::WeightPlan plan;
  plan.use = cpu::WeightUse::Linear;
  plan.rank = 2;
  plan.transposed = true;
  plan.dims[0] = {n, 0, {0, n}, n};
  plan.dims[1] = {k, 0, {0, k}, k};
  cpu::QuantLayout layout = cpu::quantLayout(plan, format).value();
  uint64_t matrices = (kBytes + layout.bytes - 1) / layout.bytes;
  Prepared result;
  result.memory = Mapping::zeros(matrices * layout.bytes);
  fill(workers, result.memory, format.scale);
  state->x = activations(rows * k);
  state->y.resize(rows * n);
  for (uint64_t i = 0; i < matrices; ++i)
    state->calls.push_back({state->x.data(), result.memory.data() + i * layout.bytes, format, layout,
                            cpu::quantShare(plan, format), state->y.data(), rows, k, n});
  state->rounded = Mapping::zeros(cpu::roundedBytes(state->calls[0]));
  for (cpu::LinearQuantizedArgs &call : state->calls)
    call.rounded = state->rounded.data();
  result.flops = 2.0 * double(rows * k * n * matrices);
  result.run = [state, &workers] {
    for (const cpu::LinearQuantizedArgs &call : state->calls) {
      if (call.format.activations == cpu::DType::I8)
        cpu::roundRows(call, 0, call.rows);
      workers.parallel(cpu::linearItems(call.n),
                       [&](size_t begin, size_t end, unsigned) { cpu::linearQuantized(call, begin, end); });
    }
  };
  return result;
}

struct AttentionShape {
  uint32_t group, dim, kvHeads;
  uint64_t length;
  uint32_t batch = 1;
};

/// A token of each sequence attends in as many layers as it takes.
Prepared attention(Workers &workers, cpu::DType dtype, AttentionShape shape) {
  struct State {
    std::vector<float> q, send, scratch, partials;
    std::vector<int32_t> past, qLen, table;
    std::vector<cpu::AttentionArgs> calls;
    size_t stride;
  };
  auto state = std::make_shared<State>();
  constexpr uint32_t block = 16;
  uint64_t pages = shape.length / block * shape.batch;
  uint64_t area = pages * shape.kvHeads * block * shape.dim * cpu::elementBytes(dtype);
  uint64_t layers = (kBytes + 2 * area - 1) / (2 * area);
  Prepared result;
  result.memory = Mapping::zeros(layers * 2 * area + cpu::kKvSlackBytes);
  fill(workers, result.memory, dtype);
  uint32_t heads = shape.group * shape.kvHeads;
  state->q = activations(size_t(shape.batch) * heads * shape.dim);
  state->send.resize(size_t(shape.batch) * heads * (shape.dim + 1));
  state->past.assign(shape.batch, int32_t(shape.length) - 1);
  state->qLen.assign(shape.batch, 1);
  state->table.resize(pages);
  std::iota(state->table.begin(), state->table.end(), 0);
  for (uint64_t layer = 0; layer < layers; ++layer) {
    cpu::AttentionArgs args;
    args.q = state->q.data();
    args.past = state->past.data();
    args.qLen = state->qLen.data();
    args.send = state->send.data();
    args.cache.key = result.memory.data() + layer * 2 * area;
    args.cache.value = result.memory.data() + (layer * 2 + 1) * area;
    args.cache.table = state->table.data();
    args.cache.pagesPerSlot = shape.length / block;
    args.cache.pages = pages;
    args.cache.block = block;
    args.cache.heads = shape.kvHeads;
    args.cache.keyDim = args.cache.valueDim = shape.dim;
    args.cache.dtype = dtype;
    args.cache.keyTogether = cpu::kvKeyTogether(dtype, shape.dim);
    args.tokens = args.tokenCount = 1;
    args.batchCount = shape.batch;
    args.heads = args.paddedHeads = heads;
    args.scale = 1 / std::sqrt(float(shape.dim));
    state->calls.push_back(args);
  }
  state->stride = cpu::attentionScratch(state->calls[0]);
  state->scratch.resize(state->stride * workers.count());
  state->partials.resize(cpu::attentionPartials(state->calls[0]));
  for (cpu::AttentionArgs &call : state->calls)
    call.partials = state->partials.data();
  result.flops = 4.0 * double(shape.length) * shape.batch * heads * shape.dim * double(layers);
  result.run = [state, &workers] {
    for (const cpu::AttentionArgs &call : state->calls) {
      cpu::beginAttention(call);
      size_t parts = workers.count();
      workers.parallel(parts, [&](size_t begin, size_t end, unsigned worker) {
        for (size_t part = begin; part < end; ++part) {
          cpu::Range share = cpu::attentionShare(call, part, parts);
          cpu::partialAttention(call, share.begin, share.end, state->scratch.data() + worker * state->stride);
        }
      });
    }
  };
  return result;
}

} // namespace

std::vector<Case> allCases() {
  std::vector<Case> cases;
  auto products = [&](const std::string &type, auto prepare) {
    for (size_t rows : {1, 8})
      for (auto [k, n] : {std::pair<size_t, size_t>{2048, 8192}, {8192, 2048}})
        cases.push_back(
            {"matmul/" + type + "/" + std::to_string(k) + "x" + std::to_string(n) + "-b" + std::to_string(rows),
             [=](Workers &workers) { return prepare(workers, rows, k, n); }});
  };
  for (cpu::DType x : {cpu::DType::F32, cpu::DType::I8})
    for (uint32_t bits : {8, 4})
      products("int" + std::to_string(bits) + (x == cpu::DType::I8 ? "-a8" : ""),
               [=](Workers &workers, size_t rows, size_t k, size_t n) {
                 return quantizedProduct(workers, bits, x, rows, k, n);
               });
  for (cpu::DType dtype : {cpu::DType::BF16, cpu::DType::F16, cpu::DType::F32, cpu::DType::I8, cpu::DType::F8E4M3}) {
    std::string type = nameOf(dtype);
    if (cpu::elementBytes(dtype) != 1)
      products(type,
               [=](Workers &workers, size_t rows, size_t k, size_t n) { return product(workers, dtype, rows, k, n); });
    for (auto [group, dim, kvHeads] :
         {std::tuple<uint32_t, uint32_t, uint32_t>{4, 64, 8}, {4, 128, 8}, {8, 64, 8}, {8, 128, 8}, {4, 64, 1}})
      cases.push_back({"attention/" + type + "/g" + std::to_string(group) + "-d" + std::to_string(dim) + "-64k" +
                           (kvHeads == 1 ? "-one-kv-head" : ""),
                       [=](Workers &workers) { return attention(workers, dtype, {group, dim, kvHeads, 65536}); }});
  }
  return cases;
}

} // namespace helix::bench
