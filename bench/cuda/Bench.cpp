//===- Bench.cpp - Times of the CUDA kernels alone -------------------------===//
//
//   helix-bench-cuda [--small]
//
// Prints a JSON object per line: the GPU; then for a copy on the device and for each kernel and shape `name`, `bytes`
// that it must move, of prefill `operations` instead, and `seconds`, a list. Rounds go through all of them in turns,
// each time with a cold second-level cache. --small: shapes of a few elements, to try the program on an emulation.
//
//===-----------------------------------------------------------------------===//
#include "test/gpu/GpuMachine.h"

#include "runtime/Error.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

namespace helix::cuda::test {
namespace {

constexpr int kRounds = 21;

struct Case {
  std::string name;
  double bytes;
  std::vector<std::shared_ptr<void>> held;
  std::function<void(Stream)> work;
  std::vector<double> seconds = {};
  double operations = 0; ///< if they are the limit

  template <typename T> T *hold(size_t count) {
    auto buffer = std::make_shared<Buffer<T>>(count);
    held.push_back(buffer);
    return buffer->data();
  }
  template <typename T> T *hold(const std::vector<T> &values) {
    auto buffer = std::make_shared<Buffer<T>>(values);
    held.push_back(buffer);
    return buffer->data();
  }
  /// Bytes of no pattern: what a multiplication takes depends a little on its operands.
  std::byte *holdRandom(size_t bytes) {
    static const std::vector<uint64_t> block = [] {
      std::vector<uint64_t> words(1 << 20);
      std::mt19937_64 random(1);
      for (uint64_t &word : words)
        word = random();
      return words;
    }();
    auto *memory = hold<std::byte>(bytes);
    for (size_t at = 0; at < bytes; at += block.size() * sizeof(uint64_t))
      machine().upload(memory + at, block.data(), std::min(bytes - at, block.size() * sizeof(uint64_t)));
    return memory;
  }
  void launch(std::vector<Prepared> steps) {
    work = [steps = std::move(steps)](Stream stream) {
      for (const Prepared &each : steps)
        each.launch(stream);
    };
  }
  void launch(const std::vector<Launch> &launches) { launch(gpuMachine().prepare(launches)); }
};

Case copy(size_t bytes) {
  Case result{"copy", 2.0 * double(bytes), {}, {}, {}};
  auto from = reinterpret_cast<Address>(result.holdRandom(bytes));
  auto to = reinterpret_cast<Address>(result.hold<std::byte>(bytes));
  result.work = [=](Stream stream) { HELIX_CU(cuMemcpyDtoDAsync_v2, to, from, bytes, stream); };
  return result;
}

Case attention(DType dtype, uint32_t batch, uint32_t length, uint32_t heads, uint32_t kvHeads, uint32_t dim) {
  const uint32_t block = 16;
  const uint64_t slotPages = (length + block - 1) / block, pages = slotPages * batch;
  Case result{std::string("attention/") + (dtype == DType::BF16 ? "bf16" : "f16") + "/b" + std::to_string(batch) +
                  "-h" + std::to_string(heads) + "-kv" + std::to_string(kvHeads) + "-d" + std::to_string(dim) + "-s" +
                  std::to_string(length),
              2.0 * batch * length * kvHeads * dim * double(cpu::elementBytes(dtype)),
              {},
              {},
              {}};
  std::vector<int32_t> table(pages);
  std::iota(table.begin(), table.end(), 0);
  AttentionArgs args;
  args.cache = {result.hold<std::byte>(cpu::kvKeyBytes(pages, kvHeads, block, dim, dtype)),
                result.hold<std::byte>(cpu::kvValueBytes(pages, kvHeads, block, dim, dtype)),
                result.hold(table),
                slotPages,
                pages,
                block,
                1,
                0,
                kvHeads,
                dim,
                dim,
                dtype};
  for (uint32_t b = 0; b < batch; ++b)
    machine().launch(KvFillArgs{args.cache, b, length});
  args.q = result.hold(std::vector<float>(size_t(batch) * heads * dim, 0.1f));
  args.past = result.hold(std::vector<int32_t>(batch, int32_t(length) - 1));
  args.qLen = result.hold(std::vector<int32_t>(batch, 1));
  args.send = result.hold<float>(size_t(batch) * heads * (dim + 1));
  args.tokens = args.tokenCount = 1, args.batchCount = batch, args.heads = args.paddedHeads = heads;
  args.scratch = reinterpret_cast<float *>(result.hold<std::byte>(attentionScratchBytes(args)));
  result.launch(launches(args, machine().shape()));
  return result;
}

std::string shapeName(size_t k, size_t n, size_t rows) {
  return "/" + std::to_string(k) + "x" + std::to_string(n) + "-b" + std::to_string(rows);
}

/// A product without its scratch, and a case that holds its operands.
std::pair<Case, LinearArgs> product(const char *kind, DType dtype, size_t rows, size_t k, size_t n) {
  static constexpr const char *names[] = {"f32", "f16", "bf16"};
  Case result{kind + ("/" + std::string(names[size_t(dtype)])) + shapeName(k, n, rows),
              double(linearBytes(k, n, dtype)),
              {},
              {},
              {}};
  LinearArgs args{result.hold(std::vector<float>(rows * k, 0.1f)),
                  result.holdRandom(linearBytes(k, n, dtype)),
                  dtype,
                  result.hold<float>(rows * n),
                  nullptr,
                  rows,
                  k,
                  n};
  return {std::move(result), args};
}

Case linear(DType dtype, size_t rows, size_t k, size_t n) {
  auto [result, args] = product("linear", dtype, rows, k, n);
  args.scratch = result.hold<std::byte>(linearScratchBytes(args));
  result.launch(launches(args, machine().shape()));
  return std::move(result);
}

/// A product of many rows, with x exact or rounded to the weight's type.
Case prefill(bool rounds, DType dtype, size_t rows, size_t k, size_t n) {
  auto [result, args] = product(rounds ? "prefill_rounded" : "prefill_exact", dtype, rows, k, n);
  args.scratch = result.hold<std::byte>(gpuMachine().scratchBytes(args, rounds));
  result.operations = 2.0 * double(rows) * double(k) * double(n);
  result.launch(gpuMachine().prepare(args, rounds));
  return std::move(result);
}

/// Every token with `top` of the experts, each with as many as the next; of experts without tokens nothing must be
/// read.
Case grouped(size_t tokens, size_t top, size_t experts, size_t k, size_t n) {
  const size_t rows = tokens * top, hit = std::min(rows, experts), bytes = linearBytes(k, n, DType::BF16);
  Case result{"grouped/bf16/e" + std::to_string(experts) + "-top" + std::to_string(top) + "-" +
                  shapeName(k, n, tokens).substr(1),
              double(hit * bytes),
              {},
              {},
              {}};
  std::vector<int32_t> of(rows), xRows(rows);
  for (size_t i = 0; i < rows; ++i)
    of[i] = int32_t(i * hit / rows * (experts / hit)), xRows[i] = int32_t(i % tokens);
  LinearGroupedArgs args;
  args.x = result.hold(std::vector<float>(tokens * k, 0.1f));
  args.weight = result.holdRandom(experts * bytes);
  args.dtype = DType::BF16;
  args.y = result.hold<float>(rows * n);
  args.rows = rows, args.k = k, args.n = n;
  args.groups = {result.hold(of), result.hold(xRows), uint32_t(experts), bytes};
  args.scratch = result.hold<std::byte>(linearScratchBytes(args));
  result.launch(launches(args, machine().shape()));
  return result;
}

/// Blocks of 32 with scales of 16 bits; of whole numbers packed zero points.
Case quantized(bool isFloat, uint32_t bits, size_t rows, size_t k, size_t n) {
  cpu::WeightPlan plan;
  plan.use = cpu::WeightUse::Linear, plan.rank = 2, plan.transposed = true;
  plan.dims[0] = {n, 0, {0, n}, n};
  plan.dims[1] = {k, 0, {0, k}, k};
  LinearQuantizedArgs args;
  args.format = {bits, 32, DType::BF16, isFloat ? cpu::ZeroPoint::Zero : cpu::ZeroPoint::Packed};
  args.format.isFloat = isFloat;
  args.layout = cpu::quantLayout(plan, args.format).value();
  args.share = cpu::quantShare(plan, args.format);
  args.rows = rows, args.k = k, args.n = n;
  Case result{"linear/" + (isFloat ? "fp" + std::to_string(bits) : std::to_string(bits) + "bit") +
                  shapeName(k, n, rows),
              double(args.layout.bytes),
              {},
              {},
              {}};
  args.x = result.hold(std::vector<float>(rows * k, 0.1f));
  args.weight = result.holdRandom(args.layout.bytes);
  args.y = result.hold<float>(rows * n);
  args.scratch = result.hold<std::byte>(linearScratchBytes(args));
  result.launch(launches(args, machine().shape()));
  return result;
}

void run(bool small) {
  std::vector<Case> cases;
  cases.push_back(copy(size_t(small ? 1 : 512) << 20));
  // At least 100 MB of weights, and at least 1 GB of cache but for the batch of one.
  for (auto [k, n] : {std::pair<size_t, size_t>{4096, 28672}, {14336, 8192}})
    for (size_t rows : {1u, 8u, 16u}) {
      size_t less = small ? 128 : 1;
      cases.push_back(linear(DType::BF16, rows, k / less, n / less));
      for (uint32_t bits : {2u, 4u, 8u})
        cases.push_back(quantized(false, bits, rows, k / less, n * 4 / less));
      for (uint32_t bits : {4u, 8u})
        cases.push_back(quantized(true, bits, rows, k / less, n * 4 / less));
    }
  // The gate of DeepSeek-V3's experts, and of Mixtral-8x7B's.
  for (size_t tokens : {1u, 16u}) {
    cases.push_back(small ? grouped(tokens, 3, 7, 64, 40) : grouped(tokens, 8, 256, 7168, 2048));
    if (!small)
      cases.push_back(grouped(tokens, 2, 8, 4096, 14336));
  }
  for (bool rounds : {false, true})
    cases.push_back(small ? prefill(rounds, DType::BF16, 64, 64, 96) : prefill(rounds, DType::BF16, 2048, 4096, 28672));
  for (auto [batch, length] : {std::pair<uint32_t, uint32_t>{1, 4096}, {1, 32768}, {64, 4096}, {8, 32768}})
    cases.push_back(small ? attention(DType::BF16, batch > 1 ? 2 : 1, length / 64, 4, 1, 128)
                          : attention(DType::BF16, batch, length, 32, 8, 128));
  for (int round = 0; round < (small ? 1 : kRounds); ++round)
    for (Case &each : cases)
      each.seconds.push_back(gpuMachine().seconds(each.work));
  std::printf("{\"gpu\": \"%s\"}\n", gpuMachine().name().c_str());
  for (const Case &each : cases) {
    bool computes = each.operations != 0;
    std::printf("{\"name\": \"%s\", \"%s\": %.0f, \"seconds\": [", each.name.c_str(), computes ? "operations" : "bytes",
                computes ? each.operations : each.bytes);
    for (size_t i = 0; i < each.seconds.size(); ++i)
      std::printf("%s%.9g", i == 0 ? "" : ", ", each.seconds[i]);
    std::printf("]}\n");
  }
}

} // namespace
} // namespace helix::cuda::test

int main(int argc, char **argv) {
  bool small = argc == 2 && std::strcmp(argv[1], "--small") == 0;
  if (argc > 1 && !small) {
    std::fprintf(stderr, "usage: helix-bench-cuda [--small]\n");
    return 2;
  }
  try {
    helix::cuda::test::run(small);
    return 0;
  } catch (const helix::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
