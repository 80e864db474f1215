//===- RandomProgramTest.cpp - The runtime computes what the dialect means --===//
#include "test/unit/Interpreter/RandomProgram.h"

#include "dialects/Plan/Plan.h"
#include "helix-c/runtime.h"
#include "lib/Artifact/Writer.h"
#include "lib/Codegen/Cpu/Cpu.h"
#include "lib/Translate/PlanToHlx.h"
#include "passes/Passes.h"

#include "mlir/Pass/PassManager.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace helix;
using namespace helix::test;

namespace {

std::unique_ptr<MLIRContext> makeCompilerContext() {
  auto context = makeContext();
  DialectRegistry registry;
  registry.insert<plan::PlanDialect>();
  codegen::registerCpuDialects(registry);
  context->appendDialectRegistry(registry);
  return context;
}

/// Compiles a copy of `module`, whose weights lie in `directory`, into an artifact there.
bool compile(ModuleOp module, int64_t kvp, int64_t tpa, const std::string &directory, const std::string &path) {
  OwningOpRef<ModuleOp> copy(module.clone());
  PipelineOptions options;
  options.shard.kvp = kvp;
  options.shard.tpa = tpa;
  PassManager manager(module.getContext());
  buildHelixPipeline(manager, options);
  if (failed(manager.run(*copy)))
    return false;
  std::optional<artifact::ArtifactT> artifact = planToArtifact(*copy, {directory, directory, path});
  artifact::Error error;
  return artifact && artifact::writeArtifact(*artifact, path, error);
}

/// Ragged steps of prefill and decode with idle slots, and a slot that is used again.
struct Steps {
  Interpreter &reference;
  helix_session *session;
  std::mt19937_64 random;
  std::vector<uint32_t> slots;
  std::vector<int64_t> past;
  double error = 0, largest = 0;

  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); }

  void admit(size_t b) { ASSERT_EQ(helix_admit(session, b, &slots[b]), 0) << helix_last_error(); }

  void step() {
    StringRef name = pick(0, 2) == 0 ? "decode" : "prefill";
    EntryAttr entry = reference.entry(name);
    int64_t batch = entry.getBatch(), tokens = entry.getTokens();
    for (int64_t b = 0; b < batch; ++b)
      if (past[b] > 0 && pick(0, 7) == 0) {
        past[b] = pick(0, past[b] - 1);
        reference.truncate(b, past[b]);
        ASSERT_EQ(helix_truncate(session, slots[b], past[b]), 0) << helix_last_error();
      }
    std::vector<int64_t> ids(batch * tokens), qLen(batch);
    std::vector<helix_feed> feeds;
    for (int64_t &id : ids)
      id = pick(0, reference.vocabulary() - 1);
    for (int64_t b = 0; b < batch; ++b) {
      qLen[b] = pick(0, 4) == 0 ? 0 : std::min(pick(1, tokens), reference.capacity() - past[b]);
      if (qLen[b] > 0)
        feeds.push_back({slots[b], 0, &ids[b * tokens], static_cast<size_t>(qLen[b])});
    }
    FailureOr<Tensor> expected = reference.runEntry(name, ids, past, qLen);
    ASSERT_TRUE(succeeded(expected));
    if (feeds.empty())
      return;
    helix_status status = name == "decode" ? helix_decode(session, feeds.data(), feeds.size())
                                           : helix_prefill(session, feeds.data(), feeds.size());
    ASSERT_EQ(status, 0) << helix_last_error();
    for (int64_t b = 0; b < batch; ++b) {
      if (qLen[b] > 0)
        compare(*expected, b, entry.getLogits() == LogitRows::All ? qLen[b] - 1 : 0);
      past[b] += qLen[b];
    }
  }

  void compare(const Tensor &expected, int64_t b, int64_t row) {
    std::vector<float> logits(expected.width());
    ASSERT_EQ(helix_get_logits(session, slots[b], logits.data(), logits.size()), 0) << helix_last_error();
    for (int64_t i = 0; i < expected.width(); ++i) {
      double want = expected.at({b, row})[i], difference = std::abs(want - logits[i]);
      error = std::max(error, std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
      largest = std::max(largest, std::abs(want));
    }
  }
};

TEST(RandomPrograms, RunAsTheInterpreterSays) {
  for (uint64_t seed = 1000; seed < 1060; ++seed) {
    std::mt19937_64 random(seed);
    ProgramShape shape = randomShape(random);
    auto pick = [&](int64_t high) { return std::uniform_int_distribution<int64_t>(1, high)(random); };
    int64_t kvp = pick(5), tpa = pick(std::min<int64_t>(shape.kvHeads, 10 / kvp));
    shape.rowNorm = tpa == 1 && seed % 3 == 0;
    SCOPED_TRACE(describe(shape) + " seed " + std::to_string(seed) + " kvp " + std::to_string(kvp) + " tpa " +
                 std::to_string(tpa));
    TemporaryDirectory directory;
    auto context = makeCompilerContext();
    OwningOpRef<ModuleOp> module = makeProgram(*context, shape, random, directory.path());
    ASSERT_TRUE(module);
    std::string path = directory.path() + "/model.hlx";
    ASSERT_TRUE(compile(*module, kvp, tpa, directory.path(), path));

    auto reference = Interpreter::create(*module, directory.path());
    ASSERT_TRUE(succeeded(reference));
    helix_options options = {};
    options.size = sizeof(options);
    options.threads = static_cast<uint32_t>(kvp * tpa);
    helix_session *session = nullptr;
    ASSERT_EQ(helix_open(path.c_str(), &options, &session), 0) << helix_last_error();
    std::unique_ptr<helix_session, decltype(&helix_close)> closing(session, helix_close);
    ASSERT_EQ(helix_load(session, nullptr, nullptr), 0) << helix_last_error();

    Steps steps{**reference, session, std::mt19937_64(seed), std::vector<uint32_t>(shape.batch),
                std::vector<int64_t>(shape.batch, 0)};
    for (int64_t b = 0; b < shape.batch && !HasFatalFailure(); ++b)
      steps.admit(b);
    for (int i = 0; i < 12 && !HasFatalFailure(); ++i)
      steps.step();
    if (HasFatalFailure())
      return;
    EXPECT_LE(steps.error, 1e-5 * steps.largest);
  }
}

} // namespace
