//===- Collectives.cpp - What ranks exchange ---------------------------------===//
#include "lib/Interpreter/Machine.h"

using namespace mlir;
using namespace helix;

SmallVector<int64_t> Machine::group(int64_t rank, ArrayRef<Axis> axes) const {
  if (!mesh)
    return {rank};
  SmallVector<Axis> others;
  for (Axis axis : {Axis::Tpa, Axis::Kvp, Axis::Ep, Axis::Tpf})
    if (viewOf(axis) == viewOf(axes.front()) && !llvm::is_contained(axes, axis))
      others.push_back(axis);
  SmallVector<int64_t> group;
  for (int64_t peer = 0; peer < ranks(); ++peer)
    if (llvm::all_of(others, [&](Axis axis) { return mesh.coordinate(axis, peer) == mesh.coordinate(axis, rank); }))
      group.push_back(peer);
  return group;
}

static FailureOr<RankValues> allReduce(AllReduceOp op, ArrayRef<RankValues> operands, Machine &machine) {
  RankValues result;
  for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
    Tensor sum(cast<RankedTensorType>(op.getResult().getType()).getShape());
    for (int64_t peer : machine.group(rank, op.getInput().getType().getAxes()))
      for (auto [total, part] : llvm::zip(sum.values, operands[0][peer].tensor->values))
        total += part;
    result.push_back(std::move(sum));
  }
  return result;
}

static FailureOr<RankValues> allToAll(AllToAllOp op, ArrayRef<RankValues> operands, Machine &machine) {
  RankValues result;
  for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
    SmallVector<int64_t> peers = machine.group(rank, Axis::Kvp);
    int64_t mine = llvm::find(peers, rank) - peers.begin();
    Tensor stacked(op.getResult().getType().getValue().getShape());
    if (stacked.shape[0] != static_cast<int64_t>(peers.size()))
      return op.emitOpError() << "stacks " << stacked.shape[0] << " peers, but kvp has " << peers.size() << " ranks";
    int64_t heads = stacked.shape[3], width = stacked.width() - 1;
    for (auto [j, peer] : llvm::enumerate(peers))
      for (int64_t b = 0; b < stacked.shape[1]; ++b)
        for (int64_t t = 0; t < stacked.shape[2]; ++t)
          for (int64_t h = 0; h < heads; ++h) {
            const RankValue &sent = operands[0][peer];
            double *row = stacked.at({static_cast<int64_t>(j), b, t, h});
            std::copy_n(sent.tensor->at({b, t, mine * heads + h}), width, row);
            row[width] = *sent.lse->at({b, t, mine * heads + h});
          }
    result.push_back(std::move(stacked));
  }
  return result;
}

void helix::addCollectives(OpTable &table) {
  addJoint<AllReduceOp>(table, allReduce);
  addJoint<AllToAllOp>(table, allToAll);
}
