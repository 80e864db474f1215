//===- VerifyPlan.cpp - helix-verify-plan ----------------------------------===//
#include "helix/Errors.h"
#include "passes/Lifetimes.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_VERIFYPLAN
#include "passes/Passes.h.inc"

namespace {

constexpr int64_t kAlignment = 64;

plan::PlaceAttr placeOf(const Lifetime &lifetime) {
  ArrayAttr places = cast<plan::CommandOpInterface>(lifetime.value.getOwner()).getPlacesAttr();
  return cast<plan::PlaceAttr>(places[lifetime.value.getResultNumber()]);
}

LogicalResult verifyPlace(const Lifetime &lifetime, plan::EntryOp entry) {
  Operation *op = lifetime.value.getOwner();
  plan::PlaceAttr place = placeOf(lifetime);
  if (place.getArena() != lifetime.arena)
    return op->emitError(errorPrefix(ErrorCode::PlaceInvalid))
           << "a value of this command must live in the " << stringifyArena(lifetime.arena) << " arena, but is in "
           << stringifyArena(place.getArena());
  int64_t size = place.getArena() == plan::Arena::Comm ? *entry.getCommBytes() : *entry.getDeviceBytes();
  if (place.getOffset() < 0 || place.getOffset() % kAlignment != 0 || place.getOffset() > size - lifetime.bytes)
    return op->emitError(errorPrefix(ErrorCode::PlaceInvalid))
           << "a value of " << lifetime.bytes << " bytes at offset " << place.getOffset() << " must lie in the "
           << stringifyArena(place.getArena()) << " arena of " << size << " bytes, at a multiple of " << kAlignment;
  return success();
}

LogicalResult verifyApart(const Lifetime &a, const Lifetime &b) {
  if (a.arena != b.arena || !a.meets(b))
    return success();
  int64_t offsetA = placeOf(a).getOffset(), offsetB = placeOf(b).getOffset();
  if (offsetA + a.bytes <= offsetB || offsetB + b.bytes <= offsetA)
    return success();
  InFlightDiagnostic diagnostic = b.value.getOwner()->emitError(errorPrefix(ErrorCode::PlaceInvalid));
  diagnostic << "its value at offset " << offsetB << " of the " << stringifyArena(b.arena)
             << " arena lies over another that is still needed";
  if (a.arena == plan::Arena::Comm)
    diagnostic << ", if only by a peer";
  diagnostic.attachNote(a.value.getOwner()->getLoc()) << "the other, at offset " << offsetA;
  return diagnostic;
}

LogicalResult verifyEntry(plan::EntryOp entry, MeshAttr mesh) {
  if (!entry.getDeviceBytes() || !entry.getCommBytes())
    return entry.emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "the entry has no arenas; run helix-place";
  for (auto command : entry.getBody().front().getOps<plan::CommandOpInterface>()) {
    if (!command.getStreamAttr())
      return command->emitError(errorPrefix(ErrorCode::PlanIncomplete))
             << "the command is on no stream; run helix-schedule";
    bool hasValue = llvm::any_of(command->getResultTypes(), llvm::IsaPred<RankedTensorType>);
    if (hasValue && !command.getPlacesAttr())
      return command->emitError(errorPrefix(ErrorCode::PlanIncomplete))
             << "the command's results have no places; run helix-place";
  }
  if (!isa<OpResult>(entry.getLogits()) || !entry.getLogits().getDefiningOp<plan::CommandOpInterface>())
    return entry.emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "no command makes the logits";
  SmallVector<Lifetime> lifetimes = lifetimesOf(entry, mesh);
  for (const Lifetime &lifetime : lifetimes)
    if (failed(verifyPlace(lifetime, entry)))
      return failure();
  for (size_t b = 0; b < lifetimes.size(); ++b)
    for (size_t a = 0; a < b; ++a)
      if (failed(verifyApart(lifetimes[a], lifetimes[b])))
        return failure();
  return success();
}

struct VerifyPlanPass : impl::VerifyPlanBase<VerifyPlanPass> {
  void runOnOperation() override {
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    SmallVector<plan::EntryOp> entries(getOperation().getOps<plan::EntryOp>());
    if (!mesh || entries.empty()) {
      getOperation().emitError(errorPrefix(ErrorCode::PlanIncomplete))
          << "the module needs " << kMeshAttr << " and a plan.entry";
      return signalPassFailure();
    }
    for (plan::EntryOp entry : entries)
      if (failed(verifyEntry(entry, mesh)))
        return signalPassFailure();
  }
};

} // namespace
} // namespace helix
