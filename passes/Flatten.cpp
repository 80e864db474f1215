//===- Flatten.cpp - helix-flatten -----------------------------------------===//
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_FLATTEN
#include "passes/Passes.h.inc"

namespace {

struct FlattenPass : impl::FlattenBase<FlattenPass> {
  void runOnOperation() override {
    SmallVector<RegionOp> regions;
    getOperation().walk([&](RegionOp region) { regions.push_back(region); });
    for (RegionOp region : regions) {
      Block &body = region.getBody().front();
      Operation *yield = body.getTerminator();
      for (Operation &op : body.without_terminator())
        op.setAttr(kPhaseAttr, region.getPhaseAttr());
      region->replaceAllUsesWith(yield->getOperands());
      yield->erase();
      region->getBlock()->getOperations().splice(region->getIterator(), body.getOperations());
      region->erase();
      ++dissolved;
    }
  }
};

} // namespace
} // namespace helix
