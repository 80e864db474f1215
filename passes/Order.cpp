//===- Order.cpp - Which commands are done when another starts -------------===//
#include "passes/Order.h"

using namespace mlir;

namespace helix {

Order::Order(plan::EntryOp entry) {
  issued.assign(entry.getBody().front().getOps<plan::CommandOpInterface>().begin(),
                entry.getBody().front().getOps<plan::CommandOpInterface>().end());
  for (plan::CommandOpInterface command : issued)
    streamCount = std::max(streamCount, streamOf(command) + 1);

  // Vector clocks: `now` is what each stream knows to be done, event by event what its record knew.
  SmallVector<SmallVector<int64_t>> now(streamCount, SmallVector<int64_t>(streamCount));
  DenseMap<uint64_t, SmallVector<int64_t>> events;
  for (plan::CommandOpInterface command : issued) {
    unsigned stream = streamOf(command);
    SmallVector<int64_t> &clock = now[stream];
    points[command] = {stream, clock[stream], clocks.size()};
    clocks.insert(clocks.end(), clock.begin(), clock.end());
    ++clock[stream];
    if (auto record = dyn_cast<plan::RecordOp>(*command)) {
      events[record.getEvent()] = clock;
    } else if (auto wait = dyn_cast<plan::WaitOp>(*command)) {
      for (auto [known, recorded] : llvm::zip(clock, events.lookup(wait.getEvent())))
        known = std::max(known, recorded);
    }
  }
}

} // namespace helix
