//===- VerifySpmd.cpp - helix-verify-spmd ----------------------------------===//
#include "passes/Entries.h"
#include "passes/Passes.h"
#include "passes/VerifyCaches.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_VERIFYSPMD
#include "passes/Passes.h.inc"

namespace {

/// A cache, stacked value or all-to-all that disagrees with the mesh.
LogicalResult verifyAgainstMesh(Operation *op, MeshAttr mesh) {
  for (Type type : llvm::concat<const Type>(op->getOperandTypes(), op->getResultTypes())) {
    if (auto cache = dyn_cast<KVType>(type); cache && cache.getKvp() != mesh.getKvp())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << type << " is spread over " << cache.getKvp() << " ranks, but the mesh has kvp = " << mesh.getKvp();
    if (auto stacked = dyn_cast<StackedType>(type);
        stacked && stacked.getValue().getDimSize(0) != mesh.size(stacked.getAxis()))
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << type << " stacks " << stacked.getValue().getDimSize(0) << " peers, but the mesh has "
             << mesh.size(stacked.getAxis()) << " along " << stringifyAxis(stacked.getAxis());
  }
  return success();
}

/// The shares of all ranks cover the window, each element once per replica; that is, no split leaves a tail uncovered.
LogicalResult verifySlice(WeightOp weight, MeshAttr mesh) {
  if (!weight.getSlice())
    return success();
  SmallVector<int64_t> size = weight.windowSize();
  for (unsigned d = 0; d < size.size(); ++d) {
    int64_t covered = size[d];
    for (SplitAttr split : weight.splits(d)) {
      if (split.getChunk() < ceilDiv(covered, mesh.size(split.getAxis())))
        return weight.emitError(errorPrefix(ErrorCode::LevelInvalid))
               << "dimension " << d << ": " << mesh.size(split.getAxis()) << " chunks of " << split.getChunk()
               << " do not cover " << covered << " elements";
      covered = std::min(covered, split.getChunk());
    }
  }
  return success();
}

LogicalResult verifyOp(Operation *op, MeshAttr mesh) {
  if (isa<AttentionOp>(op))
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << op->getName() << " belongs to the model level";
  for (Value result : op->getResults())
    if (isa<PartialType, StackedType>(result.getType()) && !result.hasOneUse())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << "partial result " << result.getType() << " must be completed by exactly one op, but has "
             << std::distance(result.use_begin(), result.use_end()) << " uses";
  if (auto weight = dyn_cast<WeightOp>(op))
    return verifySlice(weight, mesh);
  return verifyAgainstMesh(op, mesh);
}

struct VerifySpmdPass : impl::VerifySpmdBase<VerifySpmdPass> {
  void runOnOperation() override {
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    SmallVector<func::FuncOp> entries = entriesOf(getOperation());
    if (!mesh || entries.empty()) {
      getOperation().emitError(errorPrefix(ErrorCode::LevelInvalid))
          << "the module needs " << kMeshAttr << " and a function with " << kEntryAttr;
      return signalPassFailure();
    }
    for (func::FuncOp entry : entries) {
      if (failed(verifyEntry(entry)))
        return signalPassFailure();
      WalkResult walk = entry.walk([&](Operation *op) { return WalkResult(verifyOp(op, mesh)); });
      if (walk.wasInterrupted())
        return signalPassFailure();
    }
  }
};

} // namespace
} // namespace helix
