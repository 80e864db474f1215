//===- ProgramTest.cpp - Passes keep the meaning, mutants do not --------------===//
#include "test/unit/Interpreter/RandomProgram.h"

#include "passes/Passes.h"

#include "mlir/Pass/PassManager.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace helix;
using namespace helix::test;

namespace {

struct Mesh {
  int64_t kvp, tpa;
};

void PrintTo(const Mesh &mesh, std::ostream *os) { *os << "kvp " << mesh.kvp << " tpa " << mesh.tpa; }

LogicalResult run(ModuleOp module, std::unique_ptr<Pass> pass) {
  PassManager manager(module.getContext());
  manager.addPass(std::move(pass));
  return manager.run(module);
}

std::unique_ptr<Pass> shardPass(const Mesh &mesh) {
  ShardOptions options;
  options.kvp = mesh.kvp;
  options.tpa = mesh.tpa;
  return createShard(options);
}

/// `module` at SPMD level.
OwningOpRef<ModuleOp> partitioned(ModuleOp module, const Mesh &mesh) {
  OwningOpRef<ModuleOp> copy(module.clone());
  if (failed(run(*copy, createRaise())) || failed(run(*copy, shardPass(mesh))) || failed(run(*copy, createPartition())))
    return {};
  return copy;
}

/// What taking an activation for its formula, or the formula for kernels' arithmetic, may change: constants in f32.
double roundingOf(const ProgramShape &shape) { return shape.activation.starts_with("gelu") ? 1e-6 : 1e-12; }

/// After each pass, the module still computes what it did at first.
void checkPasses(ModuleOp module, const ProgramShape &shape, const Mesh &mesh, StringRef directory, uint64_t seed,
                 int64_t chunks) {
  OwningOpRef<ModuleOp> changed(module.clone()), reference(module.clone());
  std::pair<const char *, std::unique_ptr<Pass>> passes[] = {{"raise", createRaise()},
                                                             {"shard", shardPass(mesh)},
                                                             {"partition", createPartition()},
                                                             {"hopb", createHopb({chunks, "cpu", 0})},
                                                             {"flatten", createFlatten()},
                                                             {"fuse", createFuse()},
                                                             {"split-reduce", createSplitReduce({chunks, "cpu"})}};
  for (auto &[name, pass] : passes) {
    ASSERT_TRUE(succeeded(run(*changed, std::move(pass)))) << name;
    double error = maxRelativeError(*reference, *changed, directory, seed);
    bool rounds = name == StringRef("raise") || name == StringRef("fuse");
    ASSERT_GE(error, 0) << "cannot run after " << name;
    ASSERT_LE(error, rounds ? roundingOf(shape) : 1e-12) << "after " << name;
    if (rounds)
      reference = changed->clone();
  }
}

/// The pipelines as the compiler runs them, with clean-up and verifiers between.
void checkPipelines(ModuleOp module, const ProgramShape &shape, const Mesh &mesh, StringRef directory, uint64_t seed) {
  OwningOpRef<ModuleOp> changed(module.clone());
  PipelineOptions options;
  options.shard.kvp = mesh.kvp;
  options.shard.tpa = mesh.tpa;
  PassManager manager(module.getContext());
  buildModelPhase(manager, options);
  options.hopb.chunks = options.splitReduce.chunks = 3;
  buildSpmdPhase(manager, options);
  ASSERT_TRUE(succeeded(manager.run(*changed)));
  double error = maxRelativeError(module, *changed, directory, seed);
  ASSERT_GE(error, 0);
  ASSERT_LE(error, roundingOf(shape));
}

TEST(Passes, KeepTheMeaningOfRandomPrograms) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    ProgramShape shape = randomShape(random);
    auto pick = [&](int64_t high) { return std::uniform_int_distribution<int64_t>(1, high)(random); };
    Mesh mesh{pick(6), 1};
    mesh.tpa = pick(std::min<int64_t>(shape.kvHeads, 12 / mesh.kvp));
    shape.rowNorm = mesh.tpa == 1 && seed % 3 == 0;
    SCOPED_TRACE(describe(shape) + " seed " + std::to_string(seed) + " kvp " + std::to_string(mesh.kvp) + " tpa " +
                 std::to_string(mesh.tpa));
    TemporaryDirectory directory;
    auto context = makeContext();
    OwningOpRef<ModuleOp> module = makeProgram(*context, shape, random, directory.path());
    ASSERT_TRUE(module);
    checkPasses(*module, shape, mesh, directory.path(), seed, /*chunks=*/seed % 5);
    checkPipelines(*module, shape, mesh, directory.path(), seed);
    if (HasFatalFailure())
      return;
  }
}

/// Sizes of which none divides another: 9 heads over 3 KV heads, 13 FFN columns, 251 ids.
ProgramShape oddShape() {
  ProgramShape shape;
  shape.layers = 2;
  shape.hidden = 18;
  shape.heads = 9;
  shape.kvHeads = 3;
  shape.headDim = 4;
  shape.ffn = 13;
  shape.vocabulary = 251;
  shape.batch = 3;
  shape.chunk = 7;
  shape.packed = shape.decomposed = true;
  shape.softcap = 4;
  shape.window = 11;
  shape.sinks = true;
  return shape;
}

class Meshes : public testing::TestWithParam<Mesh> {};

TEST_P(Meshes, ComputeWhatTheModelDoes) {
  std::mt19937_64 random(11);
  TemporaryDirectory directory;
  auto context = makeContext();
  OwningOpRef<ModuleOp> module = makeProgram(*context, oddShape(), random, directory.path());
  ASSERT_TRUE(module);
  checkPasses(*module, oddShape(), GetParam(), directory.path(), 5, /*chunks=*/3);
}

INSTANTIATE_TEST_SUITE_P(Program, Meshes,
                         testing::Values(Mesh{1, 1}, Mesh{2, 1}, Mesh{1, 2}, Mesh{2, 2}, Mesh{4, 2}, Mesh{3, 1},
                                         Mesh{5, 1}, Mesh{4, 3}));

/// Rounding every result to f32 moves the logits by about as much as f32 can tell.
TEST(Interpreter, RoundsActivations) {
  std::mt19937_64 random(4);
  TemporaryDirectory directory;
  auto context = makeContext();
  OwningOpRef<ModuleOp> module = makeProgram(*context, oddShape(), random, directory.path());
  ASSERT_TRUE(module);
  InterpreterOptions options;
  options.roundActivations = true;
  double error = maxRelativeError(*module, *module, directory.path(), 4, options);
  EXPECT_GT(error, 1e-9);
  EXPECT_LT(error, 1e-5);
}

//===----------------------------------------------------------------------===//
// Mutants
//===----------------------------------------------------------------------===//

/// Whether a mutant bends what one rank does alone.
bool showsUnsharded(Mutant mutant) {
  switch (mutant) {
  case Mutant::NoRope:
  case Mutant::LostAppend:
  case Mutant::UniformAttention:
  case Mutant::HeadShift:
  case Mutant::SoftcapAfterMask:
    return true;
  default:
    return false;
  }
}

class Mutants : public testing::TestWithParam<StringRef> {};

TEST_P(Mutants, ChangeTheResult) {
  InterpreterOptions options;
  options.mutant = *symbolizeMutant(GetParam());
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::mt19937_64 random(seed);
    TemporaryDirectory directory;
    auto context = makeContext();
    ProgramShape shape = oddShape();
    OwningOpRef<ModuleOp> module = makeProgram(*context, shape, random, directory.path());
    ASSERT_TRUE(module);
    for (Mesh mesh : {Mesh{2, 1}, Mesh{2, 2}, Mesh{3, 1}, Mesh{5, 1}}) {
      OwningOpRef<ModuleOp> sharded = partitioned(*module, mesh);
      ASSERT_TRUE(sharded);
      EXPECT_GT(maxRelativeError(*module, *sharded, directory.path(), seed, options), 1e-3)
          << "kvp " << mesh.kvp << " tpa " << mesh.tpa << " seed " << seed;
      EXPECT_LE(maxRelativeError(*module, *sharded, directory.path(), seed), 1e-12);
    }
  }
}

/// A mutant of what ranks do together is no bug where there is one rank.
TEST_P(Mutants, ApplyWhereTheyClaimTo) {
  InterpreterOptions options;
  options.mutant = *symbolizeMutant(GetParam());
  std::mt19937_64 random(3);
  TemporaryDirectory directory;
  auto context = makeContext();
  OwningOpRef<ModuleOp> module = makeProgram(*context, oddShape(), random, directory.path());
  ASSERT_TRUE(module);
  double error = maxRelativeError(*module, *module, directory.path(), 3, options);
  if (showsUnsharded(options.mutant))
    EXPECT_GT(error, 1e-3);
  else
    EXPECT_EQ(error, 0);
}

INSTANTIATE_TEST_SUITE_P(Interpreter, Mutants, testing::ValuesIn(mutantNames().begin(), mutantNames().end()),
                         [](const testing::TestParamInfo<StringRef> &info) {
                           std::string name = info.param.str();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

} // namespace
