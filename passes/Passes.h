//===- Passes.h - The passes of the compiler -------------------------------===//
#ifndef HELIX_PASSES_PASSES_H
#define HELIX_PASSES_PASSES_H

#include "dialects/Helix/Helix.h"
#include "dialects/Plan/Plan.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace helix {

#define GEN_PASS_DECL
#include "passes/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"

/// What the pipeline is told.
struct PipelineOptions {
  ShardOptions shard;             ///< the mesh
  HopbOptions hopb;               ///< attention beside its exchange
  SplitReduceOptions splitReduce; ///< products beside their reduction
  CodegenOptions codegen;         ///< the target
  ScheduleOptions schedule;       ///< streams
};

/// Model level: raise, shard, each checked.
void buildModelPhase(mlir::OpPassManager &pm, const PipelineOptions &options);
/// SPMD level: partition, hopb, flatten, fuse, split-reduce, each checked.
void buildSpmdPhase(mlir::OpPassManager &pm, const PipelineOptions &options);
/// Plan level: codegen, schedule, place, checked.
void buildPlanPhase(mlir::OpPassManager &pm, const PipelineOptions &options);
/// All three: what `helix-compile` runs from the imported module on.
void buildHelixPipeline(mlir::OpPassManager &pm, const PipelineOptions &options);

/// Registers every pass, and the pipelines `helix-model-phase`, `helix-spmd-phase` and `helix-plan-phase`.
void registerHelixPasses();

} // namespace helix

#endif // HELIX_PASSES_PASSES_H
