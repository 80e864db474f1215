//===- Pipelines.cpp - Passes in their order -------------------------------===//
#include "passes/Passes.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

namespace helix {

void buildModelPhase(OpPassManager &pm, const PipelineOptions &options) {
  pm.addPass(createRaise());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createVerifyModel());
  pm.addPass(createShard(options.shard));
}

void buildSpmdPhase(OpPassManager &pm, const PipelineOptions &options) {
  pm.addPass(createPartition());
  pm.addPass(createCSEPass());
  pm.addPass(createVerifySpmd());
  pm.addPass(createHopb(options.hopb));
  pm.addPass(createFlatten());
  pm.addPass(createFuse());
  pm.addPass(createCSEPass());
  pm.addPass(createSplitReduce(options.splitReduce));
  pm.addPass(createVerifySpmd());
}

void buildPlanPhase(OpPassManager &pm, const PipelineOptions &options) {
  pm.addPass(createCodegen(options.codegen));
  pm.addPass(createSchedule(options.schedule));
  pm.addPass(createPlace());
  pm.addPass(createVerifyPlan());
}

void buildHelixPipeline(OpPassManager &pm, const PipelineOptions &options) {
  buildModelPhase(pm, options);
  buildSpmdPhase(pm, options);
  buildPlanPhase(pm, options);
}

namespace {
struct ModelPhaseOptions : PassPipelineOptions<ModelPhaseOptions> {
  Option<int64_t> ranks{*this, "ranks", llvm::cl::desc("Number of ranks; 0: kvp * tpa"), llvm::cl::init(0)};
  Option<int64_t> kvp{*this, "kvp", llvm::cl::desc("Ranks along the KV sequence"), llvm::cl::init(0)};
  Option<int64_t> tpa{*this, "tpa", llvm::cl::desc("Ranks along the heads"), llvm::cl::init(0)};
  Option<int64_t> ep{*this, "ep", llvm::cl::desc("Ranks along the experts"), llvm::cl::init(0)};
  Option<int64_t> tpf{*this, "tpf", llvm::cl::desc("Ranks along the FFN columns"), llvm::cl::init(0)};
  Option<bool> kvReplicate{*this, "kv-replicate", llvm::cl::desc("Let tpa ranks hold copies of KV heads"),
                           llvm::cl::init(false)};
  Option<int64_t> ffnRanks{*this, "ffn-ranks", llvm::cl::desc("The first ranks, which alone hold the FFN"),
                           llvm::cl::init(0)};
};
struct SpmdPhaseOptions : PassPipelineOptions<SpmdPhaseOptions> {
  Option<int64_t> hopb{*this, "hopb", llvm::cl::desc("Chunks of an attention; 1: off; 0: by cost"), llvm::cl::init(1)};
  Option<int64_t> splitReduce{*this, "split-reduce", llvm::cl::desc("Chunks of a reduced product; 1: off; 0: by cost"),
                              llvm::cl::init(1)};
  Option<std::string> hardware{*this, "hardware", llvm::cl::desc("What to choose for"), llvm::cl::init("cpu")};
  Option<int64_t> context{*this, "context", llvm::cl::desc("Cached tokens to choose for"), llvm::cl::init(0)};
};
struct PlanPhaseOptions : PassPipelineOptions<PlanPhaseOptions> {
  Option<std::string> target{*this, "target", llvm::cl::desc("What to generate code for"), llvm::cl::init("cpu")};
  Option<std::string> features{*this, "cpu-features", llvm::cl::desc("x86-64-v3 or x86-64-v4"),
                               llvm::cl::init("x86-64-v3")};
  Option<std::string> archs{*this, "cuda-arch", llvm::cl::desc("CUDA architectures to assemble for"),
                            llvm::cl::init("sm_80,sm_90a,sm_100")};
  Option<bool> commStream{*this, "comm-stream", llvm::cl::desc("Give collectives a stream of their own"),
                          llvm::cl::init(false)};
  Option<std::string> hardware{*this, "hardware", llvm::cl::desc("What to schedule for"), llvm::cl::init("cpu")};
  Option<int64_t> context{*this, "context", llvm::cl::desc("Cached tokens to schedule for"), llvm::cl::init(0)};
};
} // namespace

void registerHelixPasses() {
  registerPasses();
  PassPipelineRegistration<ModelPhaseOptions>(
      "helix-model-phase", "Raise and shard, checked", [](OpPassManager &pm, const ModelPhaseOptions &flags) {
        PipelineOptions options;
        options.shard = {flags.ranks, flags.kvp, flags.tpa, flags.ep, flags.tpf, flags.kvReplicate, flags.ffnRanks};
        buildModelPhase(pm, options);
      });
  PassPipelineRegistration<SpmdPhaseOptions>("helix-spmd-phase",
                                             "Partition, hopb, flatten, fuse and split-reduce, checked",
                                             [](OpPassManager &pm, const SpmdPhaseOptions &flags) {
                                               PipelineOptions options;
                                               options.hopb = {flags.hopb, flags.hardware, flags.context};
                                               options.splitReduce = {flags.splitReduce, flags.hardware};
                                               buildSpmdPhase(pm, options);
                                             });
  PassPipelineRegistration<PlanPhaseOptions>("helix-plan-phase", "Codegen, schedule and place, checked",
                                             [](OpPassManager &pm, const PlanPhaseOptions &flags) {
                                               PipelineOptions options;
                                               options.codegen = {flags.target, flags.features, flags.archs};
                                               options.schedule = {flags.commStream, flags.hardware, flags.context};
                                               buildPlanPhase(pm, options);
                                             });
}

} // namespace helix
