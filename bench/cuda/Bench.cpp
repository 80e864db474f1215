//===- Bench.cpp - Times of the CUDA kernels alone -------------------------===//
//
//   helix-bench-cuda [--small] [--exchanges [I/4 RENDEZVOUS]]
//
// Prints a JSON object per line: the GPU; then for a copy on the device and for each kernel and shape `name`, `bytes`
// that it must move, `flops` that it must do, and `seconds`, a list. Rounds go through all of them in turns, each a
// graph that does the same on several operands, together larger than a second-level cache, which is cold when it
// begins.
// --small: shapes of a few elements, to try the program on an emulation. --exchanges: those of Exchanges.h instead.
//
//===-----------------------------------------------------------------------===//
#include "Exchanges.h"
#include "test/gpu/GpuMachine.h"

#include "runtime/Error.h"

#include <cmath>
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
  double bytes = 0, flops = 0; ///< of one
  uint32_t count = 1;          ///< operands
  std::vector<std::shared_ptr<void>> held = {};
  std::vector<Prepared> launches = {};
  HeldGraphExec graph = {};
  std::vector<double> seconds = {}; ///< of one

  /// Operands enough that none is in a cache when its turn comes.
  void setCount(bool small) {
    constexpr double kCold = 256 << 20;
    count = small ? 2 : uint32_t(std::ceil(kCold / bytes));
  }

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
  void add(std::vector<Prepared> more) { std::move(more.begin(), more.end(), std::back_inserter(launches)); }
  void add(const std::vector<Launch> &more) { add(gpuMachine().prepare(more)); }
  void finish() {
    graph = gpuMachine().capture([&](Stream stream) {
      for (const Prepared &each : launches)
        each.launch(stream);
    });
  }
};

Case copy(size_t bytes) {
  Case result{"copy", 2.0 * double(bytes)};
  auto from = reinterpret_cast<Address>(result.holdRandom(bytes));
  auto to = reinterpret_cast<Address>(result.hold<std::byte>(bytes));
  result.graph = gpuMachine().capture([=](Stream stream) { HELIX_CU(cuMemcpyDtoDAsync_v2, to, from, bytes, stream); });
  return result;
}

struct AttentionShape {
  uint32_t batch, length, heads, kvHeads, keyDim, valueDim;
};

/// A token of each sequence against its cache. Latents are keys whose first dimensions are the values: counted once.
Case attention(const AttentionShape &shape, bool small) {
  const auto [batch, length, heads, kvHeads, keyDim, valueDim] = shape;
  const DType dtype = DType::BF16;
  const uint32_t block = 16;
  const uint64_t slotPages = (length + block - 1) / block, pages = slotPages * batch;
  const bool isLatent = keyDim != valueDim;
  const double tokens = double(batch) * length;
  Case result{(isLatent ? "latents/bf16/b" : "attention/bf16/b") + std::to_string(batch) + "-h" +
                  std::to_string(heads) + "-kv" + std::to_string(kvHeads) + "-d" + std::to_string(keyDim) + "-s" +
                  std::to_string(length),
              tokens * kvHeads * (keyDim + (isLatent ? 0 : valueDim)) * double(cpu::elementBytes(dtype)),
              2 * tokens * heads * (keyDim + valueDim)};
  result.setCount(small);
  for (uint32_t i = 0; i < result.count; ++i) {
    std::vector<int32_t> table(pages);
    std::iota(table.begin(), table.end(), 0);
    AttentionArgs args;
    args.cache = {result.hold<std::byte>(cpu::kvKeyBytes(pages, kvHeads, block, keyDim, dtype)),
                  result.hold<std::byte>(cpu::kvValueBytes(pages, kvHeads, block, valueDim, dtype)),
                  result.hold(table),
                  slotPages,
                  pages,
                  block,
                  1,
                  0,
                  kvHeads,
                  keyDim,
                  valueDim,
                  dtype};
    for (uint32_t b = 0; b < batch; ++b)
      machine().launch(KvFillArgs{args.cache, b, length});
    args.q = result.hold(std::vector<float>(size_t(batch) * heads * keyDim, 0.1f));
    args.past = result.hold(std::vector<int32_t>(batch, int32_t(length) - 1));
    args.qLen = result.hold(std::vector<int32_t>(batch, 1));
    args.send = result.hold<float>(size_t(batch) * heads * (valueDim + 1));
    args.tokens = args.tokenCount = 1, args.batchCount = batch, args.heads = args.paddedHeads = heads;
    args.scale = 0.1f;
    args.scratch = reinterpret_cast<float *>(result.hold<std::byte>(attentionScratchBytes(args)));
    result.add(launches(args, machine().shape()));
  }
  result.finish();
  return result;
}

std::string shapeName(size_t k, size_t n, size_t rows) {
  return "/" + std::to_string(k) + "x" + std::to_string(n) + "-b" + std::to_string(rows);
}

/// A product of bf16, with `prepare` the launches of one set of operands, whose scratch is theirs to hold.
Case product(const std::string &kind, size_t rows, size_t k, size_t n, bool small,
             const std::function<std::vector<Prepared>(Case &, LinearArgs &)> &prepare) {
  const DType dtype = DType::BF16;
  Case result{kind + "/bf16" + shapeName(k, n, rows), double(linearBytes(k, n, dtype)), 2.0 * double(rows * k * n)};
  result.setCount(small);
  for (uint32_t i = 0; i < result.count; ++i) {
    LinearArgs args{result.hold(std::vector<float>(rows * k, 0.1f)),
                    result.holdRandom(linearBytes(k, n, dtype)),
                    dtype,
                    result.hold<float>(rows * n),
                    nullptr,
                    rows,
                    k,
                    n};
    result.add(prepare(result, args));
  }
  result.finish();
  return result;
}

Case linear(size_t rows, size_t k, size_t n, bool small) {
  return product("linear", rows, k, n, small, [](Case &held, LinearArgs &args) {
    args.scratch = held.hold<std::byte>(linearScratchBytes(args));
    return gpuMachine().prepare(launches(args, machine().shape()));
  });
}

/// A product of many rows, with x exact or rounded to the weight's type.
Case prefill(bool rounds, size_t rows, size_t k, size_t n, bool small) {
  return product(rounds ? "prefill_rounded" : "prefill_exact", rows, k, n, small, [=](Case &held, LinearArgs &args) {
    args.scratch = held.hold<std::byte>(gpuMachine().scratchBytes(args, rounds));
    return gpuMachine().prepare(args, rounds);
  });
}

/// Every token with `top` of the experts, each with as many as the next; of experts without tokens nothing must be
/// read. Each set of operands has other experts of the same weight.
Case grouped(size_t tokens, size_t top, size_t experts, size_t k, size_t n, bool small) {
  const size_t rows = tokens * top, hit = std::min(rows, experts), bytes = linearBytes(k, n, DType::BF16);
  Case result{"grouped/bf16/e" + std::to_string(experts) + "-top" + std::to_string(top) + "-" +
                  shapeName(k, n, tokens).substr(1),
              double(hit * bytes), 2.0 * double(rows * k * n)};
  result.setCount(small);
  LinearGroupedArgs args;
  args.weight = result.holdRandom(experts * bytes);
  args.dtype = DType::BF16;
  args.rows = rows, args.k = k, args.n = n;
  for (uint32_t set = 0; set < result.count; ++set) {
    std::vector<int32_t> of(rows), xRows(rows);
    for (size_t i = 0; i < rows; ++i)
      of[i] = int32_t((i * hit / rows * (experts / hit) + set) % experts), xRows[i] = int32_t(i % tokens);
    args.x = result.hold(std::vector<float>(tokens * k, 0.1f));
    args.y = result.hold<float>(rows * n);
    args.groups = {result.hold(of), result.hold(xRows), uint32_t(experts), bytes};
    args.scratch = result.hold<std::byte>(linearScratchBytes(args));
    result.add(launches(args, machine().shape()));
  }
  result.finish();
  return result;
}

/// Blocks of 32 with scales of 16 bits; of whole numbers packed zero points.
Case quantized(bool isFloat, uint32_t bits, size_t rows, size_t k, size_t n, bool small) {
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
              double(args.layout.bytes), 2.0 * double(rows * k * n)};
  result.setCount(small);
  for (uint32_t i = 0; i < result.count; ++i) {
    args.x = result.hold(std::vector<float>(rows * k, 0.1f));
    args.weight = result.holdRandom(args.layout.bytes);
    args.y = result.hold<float>(rows * n);
    args.scratch = result.hold<std::byte>(linearScratchBytes(args));
    result.add(launches(args, machine().shape()));
  }
  result.finish();
  return result;
}

/// What a step does with logits of a vocabulary: the first tokens alone, and lists to draw from.
Case sampling(const std::string &kind, const cpu::Draw &draw, size_t rows, size_t count, bool small) {
  Case result{"sampling/" + kind + "/v" + std::to_string(count) + "-b" + std::to_string(rows),
              double(rows * count * sizeof(float))};
  result.setCount(small);
  std::vector<float> logits(rows * count);
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0, 3);
  for (float &logit : logits)
    logit = normal(engine);
  DrawArgs draws;
  draws.draws = result.hold(std::vector<cpu::Draw>(rows, draw));
  draws.keys = result.hold<uint64_t>(rows * drawChunks(count) * 2 * cpu::kListed);
  draws.sums = result.hold<DrawSum>(rows * drawChunks(count));
  draws.lists = result.hold<cpu::Candidate>(rows * 2 * cpu::kListed);
  draws.shares = result.hold<cpu::Share>(rows);
  draws.rows = rows, draws.count = draws.stride = count;
  auto *largest = result.hold<float>(rows);
  draws.largest = largest;
  for (uint32_t i = 0; i < result.count; ++i) {
    draws.logits = result.hold(logits);
    result.add(launches(BestTokenArgs{draws.logits, largest, result.hold<int64_t>(rows), rows, count, count, 0},
                        machine().shape()));
    result.add(launches(draws, machine().shape()));
  }
  result.finish();
  return result;
}

void run(bool small) {
  std::vector<Case> cases;
  cases.push_back(copy(size_t(small ? 1 : 512) << 20));
  // At least 100 MB of weights, and at least 1 GB of cache but for the batch of one.
  for (auto [k, n] : {std::pair<size_t, size_t>{4096, 28672}, {14336, 8192}})
    for (size_t rows : {1u, 8u, 16u}) {
      size_t less = small ? 128 : 1;
      cases.push_back(linear(rows, k / less, n / less, small));
      for (uint32_t bits : {2u, 4u, 8u})
        cases.push_back(quantized(false, bits, rows, k / less, n * 4 / less, small));
      for (uint32_t bits : {4u, 8u})
        cases.push_back(quantized(true, bits, rows, k / less, n * 4 / less, small));
    }
  // The gate of DeepSeek-V3's experts, and of Mixtral-8x7B's.
  for (size_t tokens : {1u, 16u}) {
    cases.push_back(small ? grouped(tokens, 3, 7, 64, 40, small) : grouped(tokens, 8, 256, 7168, 2048, small));
    if (!small)
      cases.push_back(grouped(tokens, 2, 8, 4096, 14336, small));
  }
  for (bool rounds : {false, true})
    cases.push_back(small ? prefill(rounds, 64, 64, 96, small) : prefill(rounds, 2048, 4096, 28672, small));
  // A vocabulary of Llama-3's size.
  for (size_t rows : {1u, 64u})
    for (auto [kind, draw] : {std::pair<const char *, cpu::Draw>{"greedy", {}},
                              {"all", {.likeliest = true}},
                              {"top_k", {.firsts = true}},
                              {"top_p", {.firsts = true, .likeliest = true, .shares = true}}})
      cases.push_back(sampling(kind, draw, small ? std::min<size_t>(rows, 2) : rows, small ? 300 : 128256, small));
  for (AttentionShape shape : {AttentionShape{1, 4096, 32, 8, 128, 128},
                               {1, 32768, 32, 8, 128, 128},
                               {64, 4096, 32, 8, 128, 128},
                               {8, 32768, 32, 8, 128, 128},
                               {16, 131072, 8, 1, 128, 128},
                               {16, 16384, 64, 8, 128, 128},
                               {64, 16384, 16, 1, 576, 512},
                               {64, 16384, 32, 1, 576, 512},
                               {64, 16384, 128, 1, 576, 512}}) {
    if (small)
      shape.batch = std::min(shape.batch, 2u), shape.length /= 256, shape.heads = 4 * shape.kvHeads;
    cases.push_back(attention(shape, small));
  }
  for (int round = 0; round < (small ? 1 : kRounds); ++round)
    for (Case &each : cases)
      each.seconds.push_back(gpuMachine().seconds(each.graph.get()) / each.count);
  std::printf("{\"gpu\": \"%s\"}\n", gpuMachine().name().c_str());
  for (const Case &each : cases) {
    std::printf("{\"name\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"seconds\": [", each.name.c_str(), each.bytes,
                each.flops);
    for (size_t i = 0; i < each.seconds.size(); ++i)
      std::printf("%s%.9g", i == 0 ? "" : ", ", each.seconds[i]);
    std::printf("]}\n");
  }
}

} // namespace
} // namespace helix::cuda::test

int main(int argc, char **argv) {
  bool small = false, exchanges = false;
  std::optional<helix::Processes> processes;
  for (int i = 1; i < argc; ++i) {
    helix::Processes given{.index = 0, .count = 0, .rendezvous = {}};
    if (std::strcmp(argv[i], "--small") == 0) {
      small = true;
    } else if (std::strcmp(argv[i], "--exchanges") == 0) {
      exchanges = true;
    } else if (exchanges && i + 1 < argc && std::sscanf(argv[i], "%u/4", &given.index) == 1 && given.index < 4) {
      given.count = 4, given.rendezvous = argv[++i];
      processes = given;
    } else {
      std::fprintf(stderr, "usage: helix-bench-cuda [--small] [--exchanges [I/4 RENDEZVOUS]]\n");
      return 2;
    }
  }
  try {
    if (exchanges)
      helix::cuda::test::benchExchanges(processes, small ? 2 : helix::cuda::test::kRounds);
    else
      helix::cuda::test::run(small);
    return 0;
  } catch (const helix::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
