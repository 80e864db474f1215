//===- Lifetimes.cpp - From when to when a value needs its bytes -----------===//
#include "passes/Lifetimes.h"

using namespace mlir;

namespace helix {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

/// Whether all peers along `inner` are peers along `outer` too.
bool covers(MeshAttr mesh, Axis outer, Axis inner) { return outer == inner || mesh.size(outer) == mesh.ranks(); }

/// The first collective that tells that the peers of `exchange` are done with it; null if none does.
Operation *peersDone(plan::CommandOpInterface exchange, ArrayRef<plan::CommandOpInterface> exchanges, MeshAttr mesh,
                     const Order &order) {
  for (plan::CommandOpInterface later : exchanges)
    if (covers(mesh, *later.getExchangeAxis(), *exchange.getExchangeAxis()) && order.before(exchange, later))
      return later;
  return nullptr;
}

} // namespace

SmallVector<Lifetime> lifetimesOf(plan::EntryOp entry, MeshAttr mesh, const Order &order) {
  SmallVector<plan::CommandOpInterface> exchanges = llvm::filter_to_vector(
      order.commands(), [](plan::CommandOpInterface command) { return command.getExchangeAxis().has_value(); });
  // Of each collective, the one that ends it for all peers. Those are sought in order of issue, so the search goes on
  // where the last one ended.
  DenseMap<Operation *, Operation *> done;
  for (auto [i, exchange] : llvm::enumerate(exchanges))
    done[exchange] = mesh.size(*exchange.getExchangeAxis()) == 1
                         ? exchange.getOperation()
                         : peersDone(exchange, ArrayRef(exchanges).drop_front(i + 1), mesh, order);

  SmallVector<Lifetime> lifetimes;
  for (plan::CommandOpInterface command : order.commands())
    for (OpResult result : command->getResults()) {
      if (!isa<RankedTensorType>(result.getType()))
        continue;
      Lifetime lifetime{result, plan::Arena::Device, plan::bytesOf(result.getType()), order.doneBefore(command),
                        SmallVector<int64_t, 4>(order.streams())};
      auto extend = [&](Operation *last) {
        int64_t &end = lifetime.end[order.stream(last)];
        end = std::max(end, order.position(last) + 1);
      };
      auto touch = [&](Operation *op) {
        auto user = dyn_cast<plan::CommandOpInterface>(op);
        bool exchanged = user && user.getExchangeAxis();
        if (exchanged)
          lifetime.arena = plan::Arena::Comm;
        Operation *last = exchanged ? done.lookup(op) : op;
        // Behind the entry's end there is nothing.
        if (!user || !last)
          lifetime.end.assign(order.streams(), kNever);
        else
          extend(last);
      };
      touch(command);
      for (Operation *user : result.getUsers())
        touch(user);
      lifetimes.push_back(std::move(lifetime));
    }
  return lifetimes;
}

} // namespace helix
