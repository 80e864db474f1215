//===- VerifyPlan.cpp - helix-verify-plan ----------------------------------===//
#include "helix/Errors.h"
#include "passes/Dependences.h"
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
  int64_t offsetA = placeOf(a).getOffset(), offsetB = placeOf(b).getOffset();
  if (a.arena != b.arena || offsetA + a.bytes <= offsetB || offsetB + b.bytes <= offsetA || !a.meets(b))
    return success();
  InFlightDiagnostic diagnostic = b.value.getOwner()->emitError(errorPrefix(ErrorCode::PlaceInvalid));
  diagnostic << "its value at offset " << offsetB << " of the " << stringifyArena(b.arena)
             << " arena lies over another that is still needed";
  if (a.arena == plan::Arena::Comm)
    diagnostic << ", if only by a peer";
  diagnostic.attachNote(a.value.getOwner()->getLoc()) << "the other, at offset " << offsetA;
  return diagnostic;
}

InFlightDiagnostic orderError(Operation *op) { return op->emitError(errorPrefix(ErrorCode::StreamsRace)); }

/// Every event is recorded once, and before any wait for it: then the order of issue is one in which the commands can
/// run, so that no wait can wait for itself.
LogicalResult verifyEvents(const Order &order) {
  DenseMap<uint64_t, plan::RecordOp> records;
  DenseSet<uint64_t> later;
  for (plan::CommandOpInterface command : order.commands())
    if (auto record = dyn_cast<plan::RecordOp>(*command))
      later.insert(record.getEvent());
  for (plan::CommandOpInterface command : order.commands()) {
    if (auto record = dyn_cast<plan::RecordOp>(*command)) {
      auto [known, isNew] = records.try_emplace(record.getEvent(), record);
      if (!isNew)
        return orderError(record) << "event " << record.getEvent() << " is recorded twice";
    }
    auto wait = dyn_cast<plan::WaitOp>(*command);
    if (!wait)
      continue;
    plan::RecordOp record = records.lookup(wait.getEvent());
    if (!record)
      return orderError(wait) << "waits for event " << wait.getEvent() << ", which is "
                              << (later.contains(wait.getEvent()) ? "recorded behind it: that could wait for ever"
                                                                  : "never recorded");
    if (order.stream(record) == order.stream(wait))
      return orderError(wait) << "waits for event " << wait.getEvent() << " on the stream that records it";
  }
  return success();
}

/// Every command is behind what makes its operands, every append behind all else that uses the cache it changes.
LogicalResult verifyDependences(plan::EntryOp entry, const Order &order) {
  Dependences dependences(entry);
  for (size_t i = 0; i < dependences.size(); ++i)
    for (size_t before : dependences.before(i)) {
      Operation *first = dependences.command(before), *second = dependences.command(i);
      if (order.before(first, second))
        continue;
      InFlightDiagnostic diagnostic = orderError(second);
      diagnostic << "may start on stream " << order.stream(second)
                 << " before a command that it needs is done on stream " << order.stream(first)
                 << "; an event must tell";
      diagnostic.attachNote(first->getLoc()) << "the other";
      return diagnostic;
    }
  return success();
}

/// Ranks meet in their collectives one after the other: where two had no order, one rank could start with the one and
/// its peer with the other.
LogicalResult verifyCollectives(const Order &order) {
  Operation *last = nullptr;
  for (plan::CommandOpInterface command : order.commands()) {
    if (!command.getExchangeAxis())
      continue;
    if (last && !order.before(last, command))
      return orderError(command) << "has no order with the collective issued before it, on stream "
                                 << order.stream(last) << "; ranks could come to them in different orders";
    last = command;
  }
  return success();
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
  for (Value value : entry.getReturned())
    if (!value.getDefiningOp<plan::CommandOpInterface>())
      return entry.emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "no command makes the logits or an output";
  Order order(entry);
  if (failed(verifyEvents(order)) || failed(verifyDependences(entry, order)) || failed(verifyCollectives(order)))
    return failure();
  SmallVector<Lifetime> lifetimes = lifetimesOf(entry, mesh, order);
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
