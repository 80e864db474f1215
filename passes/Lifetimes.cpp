//===- Lifetimes.cpp - From when to when a value needs its bytes -----------===//
#include "passes/Lifetimes.h"

using namespace mlir;

namespace helix {
namespace {

struct Exchange {
  int64_t position;
  Axis axis;
};

/// Whether all peers along `inner` are peers along `outer` too.
bool covers(MeshAttr mesh, Axis outer, Axis inner) { return outer == inner || mesh.size(outer) == mesh.ranks(); }

} // namespace

SmallVector<Lifetime> lifetimesOf(plan::EntryOp entry, MeshAttr mesh) {
  DenseMap<Operation *, int64_t> positions;
  SmallVector<Exchange> exchanges;
  SmallVector<plan::CommandOpInterface> commands(entry.getBody().front().getOps<plan::CommandOpInterface>());
  for (auto [position, command] : llvm::enumerate(commands)) {
    positions[command] = position;
    if (std::optional<Axis> axis = command.getExchangeAxis())
      exchanges.push_back({static_cast<int64_t>(position), *axis});
  }
  int64_t last = static_cast<int64_t>(commands.size());
  positions[entry.getBody().front().getTerminator()] = last;

  /// When all peers of the exchange at `position` are known to be done with it.
  auto peersDone = [&](int64_t position, Axis axis) {
    if (mesh.size(axis) == 1)
      return position;
    for (const Exchange &later : exchanges)
      if (later.position > position && covers(mesh, later.axis, axis))
        return later.position;
    return last;
  };

  SmallVector<Lifetime> lifetimes;
  for (plan::CommandOpInterface command : commands)
    for (OpResult result : command->getResults()) {
      if (!isa<RankedTensorType>(result.getType()))
        continue;
      int64_t begin = positions[command];
      Lifetime lifetime{result, plan::Arena::Device, plan::bytesOf(result.getType()), begin, begin};
      auto touch = [&](Operation *op) {
        int64_t position = positions[op];
        lifetime.end = std::max(lifetime.end, position);
        auto user = dyn_cast<plan::CommandOpInterface>(op);
        if (std::optional<Axis> axis = user ? user.getExchangeAxis() : std::nullopt) {
          lifetime.arena = plan::Arena::Comm;
          lifetime.end = std::max(lifetime.end, peersDone(position, *axis));
        }
      };
      touch(command);
      for (Operation *user : result.getUsers())
        touch(user);
      lifetimes.push_back(lifetime);
    }
  return lifetimes;
}

} // namespace helix
