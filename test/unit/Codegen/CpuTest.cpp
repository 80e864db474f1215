//===- CpuTest.cpp - Generated kernels against float64 ---------------------===//
#include "lib/Codegen/Cpu/Cpu.h"

#include "dialects/Helix/Helix.h"

#include "mlir/Parser/Parser.h"
#include "llvm/Object/ELFObjectFile.h"
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

using namespace mlir;
using namespace helix;
using codegen::compileForCpu;

namespace {

using Floats = std::vector<float>;
using Kernel = void (*)(void *const *, const int64_t *, int64_t);

/// Kernels of a module in text, compiled and loaded into this process.
struct Loaded {
  codegen::Image image;
  void *library = nullptr;

  Loaded(const std::string &text, const std::string &features = "x86-64-v3") {
    DialectRegistry registry;
    registry.insert<HelixDialect>();
    codegen::registerCpuDialects(registry);
    MLIRContext context(registry);
    context.loadAllAvailableDialects();
    OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, &context);
    if (!module)
      return;
    SmallVector<func::FuncOp> kernels(module->getOps<func::FuncOp>());
    FailureOr<codegen::Image> compiled = compileForCpu(kernels, {features});
    if (failed(compiled))
      return;
    image = *compiled;
    int file = memfd_create("kernels", MFD_CLOEXEC);
    if (write(file, image.code.data(), image.code.size()) == static_cast<ssize_t>(image.code.size()))
      library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    close(file);
    if (!library)
      ADD_FAILURE() << dlerror();
  }
  ~Loaded() {
    if (library)
      dlclose(library);
  }

  /// Runs kernel `i`, its groups in descending order.
  void run(size_t i, const std::vector<void *> &buffers) {
    ASSERT_TRUE(library);
    auto kernel = reinterpret_cast<Kernel>(dlsym(library, image.kernels[i].symbol.c_str()));
    ASSERT_TRUE(kernel) << image.kernels[i].symbol;
    for (int64_t group = image.kernels[i].groups; group-- > 0;)
      kernel(buffers.data(), nullptr, group);
  }
};

Floats randomFloats(size_t size, double deviation, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  Floats values(size);
  for (float &value : values)
    value = normal(engine);
  return values;
}

/// Values that a kernel must overwrite, between guards that it must not.
struct Output {
  Floats storage;
  size_t size;
  static constexpr size_t kGuard = 64;
  explicit Output(size_t size) : storage(size + 2 * kGuard, -12345.f), size(size) {}
  float *data() { return storage.data() + kGuard; }
  float operator[](size_t i) const { return storage[kGuard + i]; }
  void expectGuards() const {
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(storage[i], -12345.f);
      EXPECT_EQ(storage[kGuard + size + i], -12345.f);
    }
  }
};

double ulpsOff(float got, double want) {
  if (std::isnan(want))
    return std::isnan(got) ? 0 : INFINITY;
  if (float(want) == got)
    return 0;
  double unit = std::ldexp(1.0, std::max(std::ilogb(float(want)) - 23, -149));
  return std::abs(got - want) / unit;
}

std::string shape(std::initializer_list<int64_t> sizes, const char *element = "f32") {
  std::string text = "tensor<";
  for (int64_t size : sizes)
    text += std::to_string(size) + "x";
  return text + element + ">";
}

struct Sizes {
  int64_t batch, tokens, width;
};
const Sizes kSizes[] = {{1, 1, 64}, {1, 1, 1}, {3, 1, 72}, {1, 17, 101}, {2, 5, 33}, {1, 2, 4096}, {65, 2, 40}};

TEST(Cpu, RmsNorm) {
  for (auto [batch, tokens, width] : kSizes) {
    std::string x = shape({batch, tokens, width}), s = shape({width});
    Loaded kernels("func.func private @norm(%x: " + x + ", %s: " + s + ") -> " + x +
                   " { %y = helix.rms_norm %x, %s {epsilon = 1.0e-05 : f64} : " + x + ", " + s + " return %y : " + x +
                   " }");
    int64_t rows = batch * tokens;
    Floats in = randomFloats(rows * width, 3, 1), scale = randomFloats(width, 1, 2);
    Output out(rows * width);
    kernels.run(0, {in.data(), scale.data(), out.data()});
    out.expectGuards();
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < width; ++i)
        sum += double(in[row * width + i]) * in[row * width + i];
      for (int64_t i = 0; i < width; ++i)
        EXPECT_LT(ulpsOff(out[row * width + i], in[row * width + i] / std::sqrt(sum / width + 1e-5) * scale[i]), 8)
            << "row " << row << ", element " << i << " of " << width;
    }
  }
}

TEST(Cpu, AddThenRmsNormWithTwoResults) {
  for (auto [batch, tokens, width] : kSizes) {
    std::string x = shape({batch, tokens, width}), s = shape({width});
    Loaded kernels("func.func private @addnorm(%x: " + x + ", %r: " + x + ", %s: " + s + ") -> (" + x + ", " + x +
                   ") { %h = arith.addf %x, %r : " + x + " %y = helix.rms_norm %h, %s {epsilon = 1.0e-06 : f64} : " +
                   x + ", " + s + " return %h, %y : " + x + ", " + x + " }");
    int64_t rows = batch * tokens;
    Floats a = randomFloats(rows * width, 1, 3), b = randomFloats(rows * width, 1, 4),
           scale = randomFloats(width, 1, 5);
    Output h(rows * width), y(rows * width);
    kernels.run(0, {a.data(), b.data(), scale.data(), h.data(), y.data()});
    h.expectGuards();
    y.expectGuards();
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        EXPECT_EQ(h[row * width + i], a[row * width + i] + b[row * width + i]);
        sum += double(h[row * width + i]) * h[row * width + i];
      }
      for (int64_t i = 0; i < width; ++i)
        EXPECT_LT(ulpsOff(y[row * width + i], h[row * width + i] / std::sqrt(sum / width + 1e-6) * scale[i]), 8);
    }
  }
}

std::string siluText(const std::string &x) {
  return "func.func private @gate(%g: " + x + ", %u: " + x + ") -> " + x +
         " { %one = arith.constant dense<1.0> : " + x + " %n = arith.negf %g : " + x + " %e = math.exp %n : " + x +
         " %d = arith.addf %one, %e : " + x + " %s = arith.divf %g, %d : " + x + " %y = arith.mulf %s, %u : " + x +
         " return %y : " + x + " }";
}

TEST(Cpu, SiluTimesUp) {
  for (auto [batch, tokens, width] : kSizes) {
    Loaded kernels(siluText(shape({batch, tokens, width})));
    size_t size = batch * tokens * width;
    Floats gate = randomFloats(size, 8, 6), up = randomFloats(size, 1, 7);
    Output out(size);
    kernels.run(0, {gate.data(), up.data(), out.data()});
    out.expectGuards();
    for (size_t i = 0; i < size; ++i)
      EXPECT_LT(ulpsOff(out[i], double(gate[i]) / (1 + std::exp(-double(gate[i]))) * up[i]), 8) << gate[i];
  }
}

TEST(Cpu, SiluAtTheEnds) {
  Floats gate = {0.f, -0.f, 200.f, -200.f, 88.f, -88.f, -104.f, 3e38f, -3e38f, INFINITY, NAN, 1e-30f};
  Loaded kernels(siluText(shape({1, 1, int64_t(gate.size())})));
  Floats up(gate.size(), 1.f);
  Output out(gate.size());
  kernels.run(0, {gate.data(), up.data(), out.data()});
  for (size_t i = 0; i < gate.size(); ++i) {
    double want = double(gate[i]) / (1 + std::exp(-double(gate[i])));
    if (std::isnan(gate[i]))
      EXPECT_TRUE(std::isnan(out[i]));
    else if (std::isinf(want))
      EXPECT_EQ(out[i], want);
    else // What is far below the smallest normal number may be zero.
      EXPECT_NEAR(out[i], want, std::max(std::abs(want) * 1e-6, 1e-35)) << gate[i];
  }
}

TEST(Cpu, ExpIsWithinFourUlp) {
  constexpr int64_t kWidth = 1 << 17;
  std::string x = shape({1, 1, kWidth});
  Loaded kernels("func.func private @exp(%x: " + x + ") -> " + x + " { %y = math.exp %x : " + x + " return %y : " + x +
                 " }");
  Floats in(kWidth);
  for (int64_t i = 0; i < kWidth; ++i)
    in[i] = -87.3 + (88.7 + 87.3) * i / (kWidth - 1);
  Output out(kWidth);
  kernels.run(0, {in.data(), out.data()});
  double worst = 0;
  for (int64_t i = 0; i < kWidth; ++i)
    worst = std::max(worst, ulpsOff(out[i], std::exp(double(in[i]))));
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_LT(worst, 4);
}

struct RopeSizes {
  int64_t batch, tokens, heads, dim, pairs, positions;
};

TEST(Cpu, Rope) {
  for (bool interleaved : {false, true})
    for (auto [batch, tokens, heads, dim, pairs, positions] : {RopeSizes{1, 1, 2, 16, 8, 64},
                                                               {3, 4, 3, 80, 40, 50},
                                                               {2, 17, 1, 64, 16, 40},
                                                               {1, 2, 5, 6, 3, 9},
                                                               {2, 1, 2, 10, 1, 7}}) {
      std::string x = shape({batch, tokens, heads, dim}), table = shape({positions, pairs});
      std::string past = shape({batch}, "i32");
      Loaded kernels("func.func private @rope(%x: " + x + ", %c: " + table + ", %s: " + table + ", %p: " + past +
                     ") -> " + x + " { %y = helix.rope %x, %c, %s, %p " + (interleaved ? "{interleaved} " : "") + ": " +
                     x + ", " + table + ", " + past + " return %y : " + x + " }");
      size_t size = batch * tokens * heads * dim;
      Floats in = randomFloats(size, 1, 8), cos(positions * pairs), sin(positions * pairs);
      for (int64_t p = 0; p < positions; ++p)
        for (int64_t i = 0; i < pairs; ++i) {
          cos[p * pairs + i] = std::cos(p * std::pow(0.3, i));
          sin[p * pairs + i] = std::sin(p * std::pow(0.3, i));
        }
      // Past the table's end and before its start too: those clamp.
      std::vector<int32_t> pasts = {int32_t(positions) - 3, 5, -9};
      Output out(size);
      kernels.run(0, {in.data(), cos.data(), sin.data(), pasts.data(), out.data()});
      out.expectGuards();
      for (int64_t row = 0; row < batch * tokens; ++row)
        for (int64_t h = 0; h < heads; ++h) {
          int64_t p = std::clamp<int64_t>(pasts[row / tokens] + row % tokens, 0, positions - 1);
          const float *head = &in[(row * heads + h) * dim];
          std::vector<double> want(head, head + dim);
          for (int64_t i = 0; i < pairs; ++i) {
            int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + pairs;
            double c = cos[p * pairs + i], s = sin[p * pairs + i];
            want[first] = head[first] * c - head[second] * s;
            want[second] = head[second] * c + head[first] * s;
          }
          for (int64_t i = 0; i < dim; ++i)
            EXPECT_NEAR(out[(row * heads + h) * dim + i], want[i], 1e-6) << "row " << row << ", element " << i;
        }
    }
}

TEST(Cpu, NormPerHeadThenRope) {
  constexpr int64_t kTokens = 3, kHeads = 5, kDim = 24, kPairs = 12, kPositions = 8;
  Loaded kernels(R"(
    func.func private @qk(%x: tensor<1x3x5x24xf32>, %w: tensor<24xf32>, %c: tensor<8x12xf32>, %s: tensor<8x12xf32>,
                          %p: tensor<1xi32>) -> tensor<1x3x5x24xf32> {
      %n = helix.rms_norm %x, %w {epsilon = 1.0e-05 : f64} : tensor<1x3x5x24xf32>, tensor<24xf32>
      %y = helix.rope %n, %c, %s, %p : tensor<1x3x5x24xf32>, tensor<8x12xf32>, tensor<1xi32>
      return %y : tensor<1x3x5x24xf32>
    })");
  Floats in = randomFloats(kTokens * kHeads * kDim, 2, 9), scale = randomFloats(kDim, 1, 10);
  Floats cos = randomFloats(kPositions * kPairs, 1, 11), sin = randomFloats(kPositions * kPairs, 1, 12);
  int32_t past = 2;
  Output out(in.size());
  kernels.run(0, {in.data(), scale.data(), cos.data(), sin.data(), &past, out.data()});
  out.expectGuards();
  for (int64_t row = 0; row < kTokens * kHeads; ++row) {
    const float *head = &in[row * kDim], *c = &cos[(past + row / kHeads) * kPairs],
                *s = &sin[(past + row / kHeads) * kPairs];
    double sum = 0;
    for (int64_t i = 0; i < kDim; ++i)
      sum += double(head[i]) * head[i];
    double factor = 1 / std::sqrt(sum / kDim + 1e-5);
    for (int64_t i = 0; i < kPairs; ++i) {
      double a = head[i] * factor * scale[i], b = head[i + kPairs] * factor * scale[i + kPairs];
      EXPECT_NEAR(out[row * kDim + i], a * c[i] - b * s[i], 1e-5);
      EXPECT_NEAR(out[row * kDim + i + kPairs], b * c[i] + a * s[i], 1e-5);
    }
  }
}

TEST(Cpu, ARowIsTheSameInEveryBatch) {
  Floats in = randomFloats(17 * 333, 1, 13), scale = randomFloats(333, 1, 14);
  auto run = [&](int64_t batch, int64_t tokens, size_t firstRow) {
    std::string x = shape({batch, tokens, 333}), s = shape({333});
    Loaded kernels("func.func private @norm(%x: " + x + ", %s: " + s + ") -> " + x +
                   " { %y = helix.rms_norm %x, %s {epsilon = 1.0e-05 : f64} : " + x + ", " + s + " return %y : " + x +
                   " }");
    Floats out(batch * tokens * 333);
    kernels.run(0, {in.data() + firstRow * 333, scale.data(), out.data()});
    return out;
  };
  Floats whole = run(1, 17, 0);
  for (size_t row : {0, 7, 16})
    EXPECT_EQ(0, memcmp(run(1, 1, row).data(), whole.data() + row * 333, 333 * sizeof(float)));
  EXPECT_EQ(0, memcmp(run(4, 4, 1).data(), whole.data() + 333, 16 * 333 * sizeof(float)));
}

TEST(Cpu, ImagesAreReproducibleAndNeedNothing) {
  // One kernel of each kind, and functions that LLVM would like to find in libm.
  std::string text = R"(
    func.func private @norm(%x: tensor<2x3x72xf32>, %s: tensor<72xf32>) -> tensor<2x3x72xf32> {
      %y = helix.rms_norm %x, %s {epsilon = 1.0e-05 : f64} : tensor<2x3x72xf32>, tensor<72xf32>
      return %y : tensor<2x3x72xf32>
    }
    func.func private @rope(%x: tensor<2x3x4x24xf32>, %c: tensor<8x6xf32>, %s: tensor<8x6xf32>, %p: tensor<2xi32>)
        -> tensor<2x3x4x24xf32> {
      %y = helix.rope %x, %c, %s, %p {interleaved} : tensor<2x3x4x24xf32>, tensor<8x6xf32>, tensor<2xi32>
      return %y : tensor<2x3x4x24xf32>
    }
    func.func private @copies(%x: tensor<1x1x64x512xf32>, %c: tensor<8x4xf32>, %s: tensor<8x4xf32>, %p: tensor<1xi32>)
        -> tensor<1x1x64x512xf32> {
      %y = helix.rope %x, %c, %s, %p : tensor<1x1x64x512xf32>, tensor<8x4xf32>, tensor<1xi32>
      return %y : tensor<1x1x64x512xf32>
    }
    func.func private @activations(%x: tensor<2x3x4096xf32>) -> (tensor<2x3x4096xf32>, tensor<2x3x4096xf32>) {
      %a = math.exp %x : tensor<2x3x4096xf32>
      %b = math.tanh %a : tensor<2x3x4096xf32>
      %c = math.erf %b : tensor<2x3x4096xf32>
      %d = math.rsqrt %c : tensor<2x3x4096xf32>
      %e = arith.addf %x, %x : tensor<2x3x4096xf32>
      return %d, %e : tensor<2x3x4096xf32>, tensor<2x3x4096xf32>
    })";
  for (const char *features : {"x86-64-v3", "x86-64-v4"}) {
    Loaded first(text, features), second(text, features);
    ASSERT_FALSE(first.image.code.empty());
    EXPECT_EQ(first.image.code, second.image.code);
    auto object = cantFail(llvm::object::ObjectFile::createObjectFile(llvm::MemoryBufferRef(first.image.code, "image"),
                                                                      llvm::file_magic::elf_shared_object));
    auto *elf = llvm::cast<llvm::object::ELFObjectFileBase>(object.get());
    std::vector<std::string> exported;
    for (llvm::object::ELFSymbolRef symbol : elf->getDynamicSymbolIterators()) {
      std::string name = cantFail(symbol.getName()).str();
      uint32_t flags = cantFail(symbol.getFlags());
      EXPECT_FALSE(flags & llvm::object::SymbolRef::SF_Undefined) << name;
      exported.push_back(name);
    }
    llvm::sort(exported);
    EXPECT_EQ(exported, (std::vector<std::string>{"activations", "copies", "norm", "rope"}));
  }
}

TEST(Cpu, WiderVectorsGiveTheSameBits) {
  if (!__builtin_cpu_supports("x86-64-v4"))
    GTEST_SKIP() << "this processor has no AVX-512";
  std::string text = siluText(shape({1, 3, 101})) + R"(
    func.func private @norm(%x: tensor<1x3x101xf32>, %s: tensor<101xf32>) -> tensor<1x3x101xf32> {
      %y = helix.rms_norm %x, %s {epsilon = 1.0e-05 : f64} : tensor<1x3x101xf32>, tensor<101xf32>
      return %y : tensor<1x3x101xf32>
    })";
  Floats a = randomFloats(303, 4, 17), b = randomFloats(303, 1, 18), results[2][2];
  for (int wide : {0, 1}) {
    Loaded kernels(text, wide ? "x86-64-v4" : "x86-64-v3");
    for (int i : {0, 1}) {
      results[wide][i].resize(303);
      kernels.run(i, {a.data(), b.data(), results[wide][i].data()});
    }
  }
  EXPECT_EQ(results[0][0], results[1][0]);
  EXPECT_EQ(results[0][1], results[1][1]);
}

TEST(Cpu, GroupsPartTheRows) {
  constexpr size_t kRows = 150, kWidth = 20;
  Loaded kernels(siluText(shape({1, kRows, kWidth})));
  Floats gate = randomFloats(kRows * kWidth, 1, 15), up = randomFloats(kRows * kWidth, 1, 16);
  ASSERT_TRUE(kernels.library);
  auto kernel = reinterpret_cast<Kernel>(dlsym(kernels.library, "gate"));
  std::vector<int> writers(kRows);
  for (int64_t group = 0; group < kernels.image.kernels[0].groups; ++group) {
    Output out(kRows * kWidth);
    void *buffers[] = {gate.data(), up.data(), out.data()};
    kernel(buffers, nullptr, group);
    out.expectGuards();
    for (size_t row = 0; row < kRows; ++row)
      writers[row] += out[row * kWidth] != -12345.f;
  }
  EXPECT_EQ(writers, std::vector<int>(kRows, 1));
}

TEST(Cpu, OneKernelForManyRowsHasGroups) {
  for (auto [rows, groups] : {std::pair{1, 1}, {17, 17}, {64, 64}, {1000, 64}}) {
    Loaded kernels(siluText(shape({1, rows, 8})));
    ASSERT_EQ(kernels.image.kernels.size(), 1u);
    EXPECT_EQ(kernels.image.kernels[0].groups, groups);
  }
}

} // namespace
