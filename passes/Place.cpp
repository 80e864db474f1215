//===- Place.cpp - helix-place ---------------------------------------------===//
#include "helix/Errors.h"
#include "passes/Lifetimes.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_PLACE
#include "passes/Passes.h.inc"

namespace {

constexpr int64_t kAlignment = 64;

/// The lowest offset at which `value` meets none of `placed` (indices into `lifetimes`, ascending in offset).
int64_t lowestFit(const Lifetime &value, ArrayRef<Lifetime> lifetimes, ArrayRef<int64_t> offsets,
                  ArrayRef<size_t> placed) {
  int64_t offset = 0;
  for (size_t other : placed) {
    if (!lifetimes[other].meets(value))
      continue;
    if (offset + value.bytes <= offsets[other])
      break;
    offset = std::max(offset, static_cast<int64_t>(llvm::alignTo(offsets[other] + lifetimes[other].bytes, kAlignment)));
  }
  return offset;
}

/// Places the values of one arena, largest first, and returns its size in bytes. Without the comm arena's layout being
/// the same on every rank no rank could find its peers' values: it is, for there is one plan.
int64_t placeArena(plan::Arena arena, ArrayRef<Lifetime> lifetimes, MutableArrayRef<int64_t> offsets) {
  SmallVector<size_t> order;
  for (auto [i, lifetime] : llvm::enumerate(lifetimes))
    if (lifetime.arena == arena)
      order.push_back(i);
  llvm::sort(order,
             [&](size_t a, size_t b) { return std::pair(-lifetimes[a].bytes, a) < std::pair(-lifetimes[b].bytes, b); });
  SmallVector<size_t> placed;
  int64_t size = 0;
  for (size_t i : order) {
    offsets[i] = lowestFit(lifetimes[i], lifetimes, offsets, placed);
    size = std::max(size, offsets[i] + lifetimes[i].bytes);
    placed.insert(llvm::upper_bound(placed, offsets[i], [&](int64_t at, size_t other) { return at < offsets[other]; }),
                  i);
  }
  return llvm::alignTo(size, kAlignment);
}

struct PlacePass : impl::PlaceBase<PlacePass> {
  void runOnOperation() override {
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    if (!mesh) {
      getOperation().emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "the module has no " << kMeshAttr;
      return signalPassFailure();
    }
    for (auto entry : getOperation().getOps<plan::EntryOp>()) {
      Order order(entry);
      SmallVector<Lifetime> lifetimes = lifetimesOf(entry, mesh, order);
      SmallVector<int64_t> offsets(lifetimes.size());
      int64_t device = placeArena(plan::Arena::Device, lifetimes, offsets);
      int64_t comm = placeArena(plan::Arena::Comm, lifetimes, offsets);
      llvm::MapVector<Operation *, SmallVector<Attribute>> places;
      for (auto [lifetime, offset] : llvm::zip(lifetimes, offsets)) {
        places[lifetime.value.getOwner()].push_back(plan::PlaceAttr::get(&getContext(), lifetime.arena, offset));
        valueBytes += lifetime.bytes;
      }
      for (auto &[op, list] : places)
        cast<plan::CommandOpInterface>(op).setPlacesAttr(ArrayAttr::get(&getContext(), list));
      OpBuilder builder(&getContext());
      entry.setDeviceBytesAttr(builder.getI64IntegerAttr(device));
      entry.setCommBytesAttr(builder.getI64IntegerAttr(comm));
      arenaBytes += device + comm;
    }
  }
};

} // namespace
} // namespace helix
