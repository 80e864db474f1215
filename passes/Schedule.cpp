//===- Schedule.cpp - helix-schedule ---------------------------------------===//
#include "helix/Errors.h"
#include "passes/Dependences.h"
#include "passes/Passes.h"
#include "passes/Pricing.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_SCHEDULE
#include "passes/Passes.h.inc"

namespace {

constexpr unsigned kComputeStream = 0, kCommStream = 1, kStreams = 2;

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

void setStream(plan::CommandOpInterface command, unsigned stream) {
  command.setStreamAttr(IntegerAttr::get(IntegerType::get(command->getContext(), 64), stream));
}

/// When commands start, and in which order.
struct ListSchedule {
  SmallVector<size_t> issued; ///< ascending in start
  SmallVector<double> start, end;
};

/// Each stream takes, whenever it is free, the command that can start first, and of those the one with the longest
/// chain of commands behind it.
ListSchedule listSchedule(const Dependences &dependences, ArrayRef<double> seconds, ArrayRef<unsigned> stream) {
  size_t count = dependences.size();
  SmallVector<double> urgency(seconds), ready(count);
  for (size_t i = count; i-- > 0;)
    for (size_t next : dependences.behind(i))
      urgency[i] = std::max(urgency[i], seconds[i] + urgency[next]);

  ListSchedule schedule{{}, SmallVector<double>(count), SmallVector<double>(count)};
  SmallVector<size_t> missing(count), candidates;
  for (size_t i = 0; i < count; ++i)
    if ((missing[i] = dependences.before(i).size()) == 0)
      candidates.push_back(i);
  double free[kStreams] = {};
  while (!candidates.empty()) {
    auto start = [&](size_t i) { return std::max(ready[i], free[stream[i]]); };
    auto *first = llvm::min_element(candidates, [&](size_t a, size_t b) {
      return std::tuple(start(a), -urgency[a], a) < std::tuple(start(b), -urgency[b], b);
    });
    size_t next = *first;
    candidates.erase(first);
    schedule.issued.push_back(next);
    schedule.start[next] = start(next);
    double end = free[stream[next]] = schedule.end[next] = start(next) + seconds[next];
    for (size_t behind : dependences.behind(next)) {
      ready[behind] = std::max(ready[behind], end);
      if (--missing[behind] == 0)
        candidates.push_back(behind);
    }
  }
  return schedule;
}

/// Takes the collectives beside which nothing runs back to the compute stream: going over to another stream and back
/// takes time, and hides nothing.
void keepExposed(const ListSchedule &schedule, MutableArrayRef<unsigned> stream) {
  SmallVector<size_t> compute, exposed;
  for (size_t i : schedule.issued)
    if (stream[i] == kComputeStream)
      compute.push_back(i);
  // Commands of one stream start and end in the order of issue.
  auto *next = compute.begin();
  for (size_t i : schedule.issued) {
    if (stream[i] != kCommStream)
      continue;
    while (next != compute.end() && schedule.end[*next] <= schedule.start[i])
      ++next;
    if (next == compute.end() || schedule.start[*next] >= schedule.end[i])
      exposed.push_back(i);
  }
  for (size_t i : exposed)
    stream[i] = kComputeStream;
}

/// Puts the commands of an entry into the order `issued`, with a record and a wait wherever a command needs one of
/// another stream that its own is not known to be behind. Collectives need each other: ranks meet in them one after the
/// other. Returns the number of events.
int64_t issue(plan::EntryOp entry, const Dependences &dependences, ArrayRef<size_t> issued, ArrayRef<unsigned> stream) {
  using Clock = std::array<int64_t, kStreams>; ///< per stream, its commands that are known to be done
  Clock known[kStreams] = {};
  SmallVector<int64_t> position(dependences.size());
  SmallVector<Clock> reached(dependences.size()); ///< what is known to be done once a command is
  DenseMap<size_t, int64_t> events;               ///< command → its event
  std::optional<size_t> collective;               ///< the last one
  OpBuilder builder(entry.getContext());
  Operation *end = entry.getBody().front().getTerminator();
  for (size_t i : issued) {
    Operation *op = dependences.command(i);
    // A weight comes along with the command that reads it first.
    for (Value operand : op->getOperands())
      if (auto weight = operand.getDefiningOp<plan::GetWeightOp>())
        weight->moveBefore(end);
    op->moveBefore(end);
    Clock &clock = known[stream[i]];
    SmallVector<size_t> needs(dependences.before(i));
    if (dependences.command(i).getExchangeAxis()) {
      if (collective)
        needs.push_back(*collective);
      collective = i;
    }
    std::optional<size_t> last;
    for (size_t before : needs)
      if (stream[before] != stream[i] && clock[stream[before]] <= position[before] &&
          (!last || position[*last] < position[before]))
        last = before;
    if (last) {
      auto [event, isNew] = events.try_emplace(*last, events.size());
      if (isNew) {
        Operation *recorded = dependences.command(*last);
        builder.setInsertionPointAfter(recorded);
        setStream(plan::RecordOp::create(builder, recorded->getLoc(), event->second, nullptr, nullptr, nullptr),
                  stream[*last]);
      }
      builder.setInsertionPoint(op);
      setStream(plan::WaitOp::create(builder, op->getLoc(), event->second, nullptr, nullptr, nullptr), stream[i]);
      for (unsigned s = 0; s < kStreams; ++s)
        clock[s] = std::max(clock[s], reached[*last][s]);
    }
    position[i] = clock[stream[i]]++;
    reached[i] = clock;
    setStream(dependences.command(i), stream[i]);
  }
  return events.size();
}

struct SchedulePass : impl::ScheduleBase<SchedulePass> {
  using ScheduleBase::ScheduleBase;

  void runOnOperation() override {
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    std::optional<perf::Hardware> target;
    if (commStream) {
      FailureOr<perf::Hardware> named = hardwareFor(getOperation(), hardware);
      if (failed(named))
        return signalPassFailure();
      target = *named;
      if (!mesh) {
        getOperation().emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "the module has no " << kMeshAttr;
        return signalPassFailure();
      }
    }
    for (auto entry : getOperation().getOps<plan::EntryOp>()) {
      Block &body = entry.getBody().front();
      for (BlockArgument argument : body.getArguments())
        if (isa<KVType>(argument.getType()) && failed(verifyOrder(argument)))
          return signalPassFailure();
      for (auto command : body.getOps<plan::CommandOpInterface>())
        for (Value result : command->getResults())
          if (isa<KVType>(result.getType()) && failed(verifyOrder(result)))
            return signalPassFailure();
      if (target)
        schedule(entry, mesh, *target);
      else
        for (auto command : body.getOps<plan::CommandOpInterface>()) {
          setStream(command, kComputeStream);
          ++scheduled;
        }
    }
  }

  void schedule(plan::EntryOp entry, MeshAttr mesh, const perf::Hardware &target) {
    Dependences dependences(entry);
    SmallVector<double> seconds;
    SmallVector<unsigned> streams;
    double tokens = context;
    if (!context)
      for (BlockArgument argument : entry.getBody().front().getArguments())
        if (auto cache = dyn_cast<KVType>(argument.getType()))
          tokens = std::max(tokens, double(cache.getCapacity()));
    for (size_t i = 0; i < dependences.size(); ++i) {
      plan::CommandOpInterface command = dependences.command(i);
      seconds.push_back(secondsOf(command, mesh, tokens, target));
      streams.push_back(command.getExchangeAxis() ? kCommStream : kComputeStream);
    }
    scheduled += dependences.size();
    ListSchedule schedule = listSchedule(dependences, seconds, streams);
    keepExposed(schedule, streams);
    events += issue(entry, dependences, schedule.issued, streams);
  }
};

} // namespace
} // namespace helix
