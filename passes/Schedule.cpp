//===- Schedule.cpp - helix-schedule ---------------------------------------===//
#include "dialects/Plan/Plan.h"
#include "helix/Errors.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_SCHEDULE
#include "passes/Passes.h.inc"

namespace {

/// Every use of a version of a cache comes before the append that writes over it; there is one such append at most.
LogicalResult verifyOrder(Value cache) {
  plan::KVAppendOp append;
  for (Operation *user : cache.getUsers())
    if (auto next = dyn_cast<plan::KVAppendOp>(user)) {
      if (append)
        return user->emitError(errorPrefix(ErrorCode::ScheduleIllegal))
               << "appends to a cache that another plan.kv_append takes too; use its result instead";
      append = next;
    }
  for (Operation *user : cache.getUsers())
    if (append && user != append && append->isBeforeInBlock(user))
      return user->emitError(errorPrefix(ErrorCode::ScheduleIllegal))
             << "reads a cache behind the append that changes it; read the result of the append instead";
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
