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

void buildSpmdPhase(OpPassManager &pm) {
  pm.addPass(createPartition());
  pm.addPass(createCSEPass());
  pm.addPass(createVerifySpmd());
  pm.addPass(createFlatten());
  pm.addPass(createFuse());
  pm.addPass(createCSEPass());
  pm.addPass(createVerifySpmd());
}

void buildPlanPhase(OpPassManager &pm, const PipelineOptions &options) {
  pm.addPass(createCodegen(options.codegen));
  pm.addPass(createSchedule());
  pm.addPass(createPlace());
  pm.addPass(createVerifyPlan());
}

void buildHelixPipeline(OpPassManager &pm, const PipelineOptions &options) {
  buildModelPhase(pm, options);
  buildSpmdPhase(pm);
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
struct PlanPhaseOptions : PassPipelineOptions<PlanPhaseOptions> {
  Option<std::string> target{*this, "target", llvm::cl::desc("What to generate code for"), llvm::cl::init("cpu")};
  Option<std::string> features{*this, "cpu-features", llvm::cl::desc("x86-64-v3 or x86-64-v4"),
                               llvm::cl::init("x86-64-v3")};
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
  PassPipelineRegistration<>("helix-spmd-phase", "Partition, flatten and fuse, checked", buildSpmdPhase);
  PassPipelineRegistration<PlanPhaseOptions>("helix-plan-phase", "Codegen, schedule and place, checked",
                                             [](OpPassManager &pm, const PlanPhaseOptions &flags) {
                                               PipelineOptions options;
                                               options.codegen = {flags.target, flags.features};
                                               buildPlanPhase(pm, options);
                                             });
}

} // namespace helix
