//===- VerifyModel.cpp - helix-verify-model --------------------------------===//
#include "passes/Entries.h"
#include "passes/Passes.h"
#include "passes/VerifyCaches.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_VERIFYMODEL
#include "passes/Passes.h.inc"

namespace {

LogicalResult verifyOp(Operation *op) {
  if (isa<RegionOp, PartialAttentionOp, AllToAllOp, MergeAttentionOp, AllReduceOp>(op))
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << op->getName() << " belongs to the SPMD level";
  for (Type type : op->getResultTypes()) {
    if (isa<PartialType, StackedType>(type))
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << type << " belongs to the SPMD level";
    if (auto shaped = dyn_cast<ShapedType>(type); shaped && !shaped.hasStaticShape())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << "result " << type << " has a dynamic shape; bind it when importing";
    if (auto cache = dyn_cast<KVType>(type); cache && cache.getKvp() != 1)
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << type << " is sharded at model level";
  }
  if (auto weight = dyn_cast<WeightOp>(op); weight && weight.getSlice())
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << "weight has a slice at model level";
  return success();
}

struct VerifyModelPass : impl::VerifyModelBase<VerifyModelPass> {
  void runOnOperation() override {
    SmallVector<func::FuncOp> entries = entriesOf(getOperation());
    if (entries.empty()) {
      getOperation().emitError(errorPrefix(ErrorCode::NotADecoder)) << "the module has no function with " << kEntryAttr;
      return signalPassFailure();
    }
    for (func::FuncOp entry : entries) {
      if (failed(verifyEntry(entry)))
        return signalPassFailure();
      WalkResult walk = entry.walk([](Operation *op) { return WalkResult(verifyOp(op)); });
      if (walk.wasInterrupted())
        return signalPassFailure();
    }
  }
};

} // namespace
} // namespace helix
