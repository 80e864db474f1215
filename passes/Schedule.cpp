//===- Schedule.cpp - helix-schedule ---------------------------------------===//
#include "dialects/Plan/Plan.h"
#include "helix/Errors.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_SCHEDULE
#include "passes/Passes.h.inc"

namespace {

/// Every use of a version of a cache comes before the append that writes over it.
LogicalResult verifyOrder(Value cache) {
  Operation *append = nullptr;
  for (Operation *user : cache.getUsers())
    if (isa<plan::KVAppendOp>(user) && (!append || user->isBeforeInBlock(append)))
      append = user;
  for (Operation *user : cache.getUsers()) {
    if (!append || user == append || user->isBeforeInBlock(append))
      continue;
    return user->emitError(errorPrefix(ErrorCode::ScheduleIllegal))
           << "takes a version of a cache that an append before it has changed; take the result of that append";
  }
  return success();
}

struct SchedulePass : impl::ScheduleBase<SchedulePass> {
  void runOnOperation() override {
    // One stream, so the program's order is the schedule; what SSA does not say about it is the order around caches.
    IntegerAttr stream = IntegerAttr::get(IntegerType::get(&getContext(), 64), 0);
    for (auto entry : getOperation().getOps<plan::EntryOp>()) {
      Block &body = entry.getBody().front();
      for (BlockArgument argument : body.getArguments())
        if (isa<KVType>(argument.getType()) && failed(verifyOrder(argument)))
          return signalPassFailure();
      for (auto command : body.getOps<plan::CommandOpInterface>()) {
        for (Value result : command->getResults())
          if (isa<KVType>(result.getType()) && failed(verifyOrder(result)))
            return signalPassFailure();
        command.setStreamAttr(stream);
        ++scheduled;
      }
    }
  }
};

} // namespace
} // namespace helix
