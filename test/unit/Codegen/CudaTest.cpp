//===- CudaTest.cpp - Generated CUDA kernels, emulated, against float64 ----===//
//
// Blocks run on the processor: the kernels that emitBlocks makes are compiled for it with calls in place of the three
// things that only a GPU has, and 256 fibers do what a block's threads do.
//
//===-----------------------------------------------------------------------===//
#include "lib/Codegen/Cuda/Cuda.h"

#include "dialects/Helix/Helix.h"
#include "helix-c/kernel.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ExecutionEngine/Orc/AbsoluteSymbols.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/ExecutionEngine/Orc/ThreadSafeModule.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <ucontext.h>

using namespace mlir;
using namespace helix;

namespace {

using Floats = std::vector<float>;

//===----------------------------------------------------------------------===//
// A block of fibers
//===----------------------------------------------------------------------===//

/// Threads take turns at barriers and exchanges: each runs up to its next one, and goes on when those that take part
/// have come to theirs.
struct Block {
  static constexpr int kThreads = HELIX_CUDA_THREADS, kWarp = 32;
  enum class State { Running, AtBarrier, AtShuffle, Done };
  struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    State state = State::Running;
    float value = 0;
  };
  std::vector<Thread> threads = std::vector<Thread>(kThreads);
  ucontext_t scheduler;
  int current = 0;
  int32_t number = 0;
  void (*body)(void *const *) = nullptr;
  void *const *buffers = nullptr;

  static Block *active;

  static void start() {
    active->body(active->buffers);
    Thread &self = active->threads[active->current];
    self.state = State::Done;
    swapcontext(&self.context, &active->scheduler);
  }

  void stopAt(State state) {
    Thread &self = threads[current];
    self.state = state;
    swapcontext(&self.context, &scheduler);
  }

  bool all(int begin, int end, State state) const {
    return std::all_of(threads.begin() + begin, threads.begin() + end,
                       [&](const Thread &it) { return it.state == state || it.state == State::Done; });
  }

  void run(int32_t block) {
    number = block;
    active = this;
    for (Thread &thread : threads) {
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = thread.stack.size();
      thread.context.uc_link = &scheduler;
      makecontext(&thread.context, start, 0);
      thread.state = State::Running;
    }
    while (!all(0, kThreads, State::Done)) {
      bool moved = false;
      for (current = 0; current < kThreads; ++current)
        if (threads[current].state == State::Running) {
          swapcontext(&scheduler, &threads[current].context);
          moved = true;
        }
      if (all(0, kThreads, State::AtBarrier))
        moved |= resume(0, kThreads, State::AtBarrier);
      // Values of a warp are read before any of its threads goes on: see exchange.
      for (int warp = 0; warp < kThreads; warp += kWarp)
        if (all(warp, warp + kWarp, State::AtShuffle))
          moved |= resume(warp, warp + kWarp, State::AtShuffle);
      if (!moved) {
        ADD_FAILURE() << "the block waits forever";
        return;
      }
    }
  }

  bool resume(int begin, int end, State from) {
    bool any = false;
    for (int t = begin; t < end; ++t)
      if (threads[t].state == from)
        threads[t].state = State::Running, any = true;
    return any;
  }

  float exchange(float value, int32_t distance) {
    threads[current].value = value;
    stopAt(State::AtShuffle);
    float other = threads[current ^ distance].value;
    stopAt(State::AtShuffle); // all have read
    return other;
  }
};
Block *Block::active = nullptr;

int32_t threadId() { return Block::active->current; }
int32_t blockId() { return Block::active->number; }
void barrier() { Block::active->stopAt(Block::State::AtBarrier); }
float butterfly(float value, int32_t distance) { return Block::active->exchange(value, distance); }

//===----------------------------------------------------------------------===//
// Kernels for it
//===----------------------------------------------------------------------===//

/// Replaces what only a GPU has by calls.
void callEmulator(ModuleOp module) {
  MLIRContext *context = module.getContext();
  OpBuilder builder(module.getBodyRegion());
  Type i32 = builder.getI32Type(), f32 = builder.getF32Type();
  auto declare = [&](StringRef name, Type result, ArrayRef<Type> arguments) {
    return LLVM::LLVMFuncOp::create(builder, module.getLoc(), name, LLVM::LLVMFunctionType::get(result, arguments));
  };
  auto thread = declare("emulated_thread", i32, {}), block = declare("emulated_block", i32, {});
  auto wait = declare("emulated_barrier", LLVM::LLVMVoidType::get(context), {});
  auto exchange = declare("emulated_butterfly", f32, {f32, i32});
  module.walk([&](Operation *op) {
    builder.setInsertionPoint(op);
    auto call = [&](LLVM::LLVMFuncOp callee, ValueRange arguments) {
      auto made = LLVM::CallOp::create(builder, op->getLoc(), callee, arguments);
      op->replaceAllUsesWith(made);
      op->erase();
    };
    if (isa<NVVM::ThreadIdXOp>(op))
      call(thread, {});
    else if (isa<NVVM::BlockIdXOp>(op))
      call(block, {});
    else if (isa<NVVM::Barrier0Op>(op))
      call(wait, {});
    else if (auto shuffle = dyn_cast<NVVM::ShflOp>(op))
      call(exchange, {shuffle.getVal(), shuffle.getOffset()});
  });
}

/// A module in text, each of its functions as a kernel.
struct Kernels {
  MLIRContext context;
  std::vector<int64_t> groups;
  std::vector<std::string> names;
  std::unique_ptr<llvm::orc::LLJIT> jit;
  std::string ptx;

  explicit Kernels(const std::string &text) {
    DialectRegistry registry;
    registry.insert<HelixDialect>();
    codegen::registerCudaDialects(registry);
    context.appendDialectRegistry(registry);
    context.loadAllAvailableDialects();
    OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, &context);
    if (!module)
      return;
    OwningOpRef<ModuleOp> work = ModuleOp::create(module->getLoc());
    for (auto kernel : llvm::to_vector(module->getOps<func::FuncOp>())) {
      OwningOpRef<func::FuncOp> clone(kernel.clone());
      if (failed(codegen::lowerToLinalg(*clone)))
        return;
      FailureOr<int64_t> blocks = codegen::emitBlocks(*clone, *work);
      if (failed(blocks))
        return;
      groups.push_back(*blocks);
      names.push_back(kernel.getName().str());
    }
    if (failed(codegen::lowerToLlvm(*work)))
      return;
    OwningOpRef<ModuleOp> forGpu(work->clone());
    if (FailureOr<std::string> made = codegen::emitPtx(*forGpu, "sm_80", names); succeeded(made))
      ptx = *made;
    callEmulator(*work);
    compile(*work);
  }

  void compile(ModuleOp module) {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    auto owned = std::make_unique<llvm::LLVMContext>();
    std::unique_ptr<llvm::Module> code = translateModuleToLLVMIR(module, *owned, "kernels");
    ASSERT_TRUE(code);
    // One way to call each: with its pointers in an array.
    for (const std::string &name : names) {
      llvm::Function *kernel = code->getFunction(name);
      auto *type = llvm::FunctionType::get(llvm::Type::getVoidTy(*owned), {llvm::PointerType::get(*owned, 0)}, false);
      auto *wrapper = llvm::Function::Create(type, llvm::Function::ExternalLinkage, name + "_call", *code);
      llvm::IRBuilder<> ir(llvm::BasicBlock::Create(*owned, "", wrapper));
      SmallVector<llvm::Value *> arguments;
      for (size_t i = 0; i < kernel->arg_size(); ++i)
        arguments.push_back(ir.CreateLoad(ir.getPtrTy(), ir.CreateConstGEP1_64(ir.getPtrTy(), wrapper->getArg(0), i)));
      ir.CreateCall(kernel, arguments);
      ir.CreateRetVoid();
    }
    jit = llvm::cantFail(llvm::orc::LLJITBuilder().create());
    code->setDataLayout(jit->getDataLayout());
    llvm::orc::SymbolMap symbols;
    auto define = [&](const char *name, auto *function) {
      symbols[jit->mangleAndIntern(name)] = {llvm::orc::ExecutorAddr::fromPtr(function),
                                             llvm::JITSymbolFlags::Exported};
    };
    define("emulated_thread", threadId);
    define("emulated_block", blockId);
    define("emulated_barrier", barrier);
    define("emulated_butterfly", butterfly);
    llvm::cantFail(jit->getMainJITDylib().define(llvm::orc::absoluteSymbols(symbols)));
    llvm::cantFail(jit->addIRModule(llvm::orc::ThreadSafeModule(std::move(code), std::move(owned))));
  }

  /// Runs kernel `i`, its blocks in descending order.
  void run(size_t i, const std::vector<void *> &buffers) {
    ASSERT_TRUE(jit);
    auto body = llvm::cantFail(jit->lookup(names[i] + "_call")).toPtr<void (*)(void *const *)>();
    Block block;
    block.body = body;
    block.buffers = buffers.data();
    for (int64_t group = groups[i]; group-- > 0;)
      block.run(int32_t(group));
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
  static constexpr size_t kGuard = 64;
  Floats storage;
  size_t size;
  explicit Output(size_t size) : storage(size + 2 * kGuard, -12345.f), size(size) {}
  float *data() { return storage.data() + kGuard; }
  float operator[](size_t i) const { return storage[kGuard + i]; }
  ~Output() {
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(storage[i], -12345.f);
      EXPECT_EQ(storage[kGuard + size + i], -12345.f);
    }
  }
};

std::string shape(std::initializer_list<int64_t> sizes, const char *element = "f32") {
  std::string text = "tensor<";
  for (int64_t size : sizes)
    text += std::to_string(size) + "x";
  return text + element + ">";
}

void expectClose(float got, double want, double tolerance = 2e-6) {
  EXPECT_LE(std::abs(got - want), tolerance * std::max(1.0, std::abs(want)));
}

struct Sizes {
  int64_t batch, tokens, width;
};
// One element, less and more than a block's threads, less and more than they load at once, several blocks of a row.
const Sizes kSizes[] = {{1, 1, 1}, {3, 1, 72}, {1, 5, 257}, {2, 2, 1024}, {1, 2, 4099}};

TEST(Cuda, AddThenRmsNormWithTwoResults) {
  for (auto [batch, tokens, width] : kSizes) {
    std::string x = shape({batch, tokens, width}), s = shape({width});
    Kernels kernels("func.func private @addnorm(%x: " + x + ", %r: " + x + ", %s: " + s + ") -> (" + x + ", " + x +
                    ") { %h = arith.addf %x, %r : " + x + " %y = helix.rms_norm %h, %s {epsilon = 1.0e-06 : f64} : " +
                    x + ", " + s + " return %h, %y : " + x + ", " + x + " }");
    int64_t rows = batch * tokens;
    Floats a = randomFloats(rows * width, 1, 3), b = randomFloats(rows * width, 1, 4),
           scale = randomFloats(width, 1, 5);
    Output h(rows * width), y(rows * width);
    kernels.run(0, {a.data(), b.data(), scale.data(), h.data(), y.data()});
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        EXPECT_EQ(h[row * width + i], a[row * width + i] + b[row * width + i]);
        sum += double(h[row * width + i]) * h[row * width + i];
      }
      for (int64_t i = 0; i < width; ++i)
        expectClose(y[row * width + i], h[row * width + i] / std::sqrt(sum / width + 1e-6) * scale[i]);
    }
  }
}

TEST(Cuda, LayerNorm) {
  for (auto [batch, tokens, width] : kSizes) {
    std::string x = shape({batch, tokens, width}), s = shape({width});
    Kernels kernels("func.func private @norm(%x: " + x + ", %s: " + s + ", %b: " + s + ") -> " + x +
                    " { %y = helix.layer_norm %x, %s, %b {epsilon = 1.0e-05 : f64} : " + x + ", " + s + ", " + s +
                    " return %y : " + x + " }");
    int64_t rows = batch * tokens;
    Floats in = randomFloats(rows * width, 3, 1), scale = randomFloats(width, 1, 2), bias = randomFloats(width, 1, 3);
    Output out(rows * width);
    kernels.run(0, {in.data(), scale.data(), bias.data(), out.data()});
    for (int64_t row = 0; row < rows; ++row) {
      const float *v = in.data() + row * width;
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < width; ++i)
        mean += v[i] / double(width);
      for (int64_t i = 0; i < width; ++i)
        variance += (v[i] - mean) * (v[i] - mean) / width;
      for (int64_t i = 0; i < width; ++i)
        expectClose(out[row * width + i], (v[i] - mean) / std::sqrt(variance + 1e-5) * scale[i] + bias[i], 1e-5);
    }
  }
}

TEST(Cuda, SiluTimesUpInBlocksOfARow) {
  for (auto [batch, tokens, width] : kSizes) {
    std::string x = shape({batch, tokens, width});
    Kernels kernels("func.func private @gate(%g: " + x + ", %u: " + x + ") -> " + x +
                    " { %one = arith.constant dense<1.0> : " + x + " %n = arith.negf %g : " + x +
                    " %e = math.exp %n : " + x + " %d = arith.addf %one, %e : " + x + " %s = arith.divf %g, %d : " + x +
                    " %y = arith.mulf %s, %u : " + x + " return %y : " + x + " }");
    EXPECT_EQ(kernels.groups[0], batch * tokens * ((width + 1023) / 1024));
    size_t size = batch * tokens * width;
    Floats gate = randomFloats(size, 8, 6), up = randomFloats(size, 1, 7);
    Output out(size);
    kernels.run(0, {gate.data(), up.data(), out.data()});
    for (size_t i = 0; i < size; ++i)
      expectClose(out[i], double(gate[i]) / (1 + std::exp(-double(gate[i]))) * up[i]);
  }
}

/// Norms of every head, then a rotation of the first 2 r of its dimensions.
TEST(Cuda, HeadNormsThenRope) {
  struct Case {
    int64_t batch, tokens, heads, dim, r;
    bool interleaved;
  };
  for (auto [batch, tokens, heads, dim, r, interleaved] :
       {Case{1, 1, 2, 8, 4, false}, Case{2, 3, 9, 64, 32, false}, Case{2, 2, 11, 40, 12, true}}) {
    std::string x = shape({batch, tokens, heads, dim}), s = shape({dim}), table = shape({32, r}),
                p = shape({batch}, "i32");
    Kernels kernels("func.func private @qk(%x: " + x + ", %s: " + s + ", %c: " + table + ", %i: " + table +
                    ", %p: " + p + ") -> " + x + " { %n = helix.rms_norm %x, %s {epsilon = 1.0e-06 : f64} : " + x +
                    ", " + s + " %y = helix.rope %n, %c, %i, %p" + (interleaved ? " {interleaved}" : "") + " : " + x +
                    ", " + table + ", " + p + " return %y : " + x + " }");
    ASSERT_TRUE(kernels.jit);
    size_t size = batch * tokens * heads * dim;
    Floats in = randomFloats(size, 2, 8), scale = randomFloats(dim, 1, 9), cosines(32 * r), sines(32 * r);
    for (int64_t i = 0; i < 32 * r; ++i) {
      cosines[i] = std::cos(0.1 * i);
      sines[i] = std::sin(0.1 * i);
    }
    std::vector<int32_t> past = {7, 30}; // the second runs past the table: its last row counts
    Output out(size);
    kernels.run(0, {in.data(), scale.data(), cosines.data(), sines.data(), past.data(), out.data()});
    for (int64_t row = 0; row < batch * tokens; ++row)
      for (int64_t h = 0; h < heads; ++h) {
        const float *v = in.data() + (row * heads + h) * dim;
        double sum = 0;
        std::vector<double> n(dim), want;
        for (int64_t i = 0; i < dim; ++i)
          sum += double(v[i]) * v[i];
        for (int64_t i = 0; i < dim; ++i)
          n[i] = v[i] / std::sqrt(sum / dim + 1e-6) * scale[i];
        want = n;
        int64_t position = std::min<int64_t>(past[row / tokens] + row % tokens, 31);
        for (int64_t i = 0; i < r; ++i) {
          int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + r;
          double c = cosines[position * r + i], s = sines[position * r + i];
          want[a] = n[a] * c - n[b] * s;
          want[b] = n[b] * c + n[a] * s;
        }
        for (int64_t i = 0; i < dim; ++i)
          expectClose(out[(row * heads + h) * dim + i], want[i]);
      }
  }
}

TEST(Cuda, NothingIsCalledThatNoOneDefines) {
  std::string x = shape({1, 1, 300});
  std::string text = "func.func private @all(%x: " + x + ") -> " + x + " { %0 = math.exp %x : " + x;
  int last = 0;
  for (const char *name : {"tanh", "erf", "log", "sqrt", "rsqrt", "absf", "sin", "cos", "log1p", "expm1"}) {
    std::string from = std::to_string(last++);
    text += " %" + std::to_string(last) + " = math." + name + " %" + from + " : " + x;
  }
  Kernels kernels(text + " return %" + std::to_string(last) + " : " + x + " }");
  EXPECT_NE(kernels.ptx.find(".entry all"), std::string::npos);
  EXPECT_EQ(kernels.ptx.find(".extern"), std::string::npos);
  EXPECT_EQ(kernels.ptx.find("call"), std::string::npos);
}

TEST(Cuda, WhatABlockCannotKeepIsRefused) {
  std::string x = shape({1, 1, 16384}), s = shape({16384});
  Kernels kernels("func.func private @wide(%x: " + x + ", %s: " + s + ") -> " + x +
                  " { %n = helix.rms_norm %x, %s {epsilon = 1.0e-06 : f64} : " + x + ", " + s +
                  " %m = helix.rms_norm %n, %s {epsilon = 1.0e-06 : f64} : " + x + ", " + s + " return %m : " + x +
                  " }");
  EXPECT_TRUE(kernels.groups.empty());
}

} // namespace
