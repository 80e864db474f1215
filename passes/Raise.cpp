//===- Raise.cpp - helix-raise ---------------------------------------------===//
#include "passes/Activations.h"
#include "passes/AttentionPattern.h"
#include "passes/Packed.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/APFloat.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_RAISE
#include "passes/Passes.h.inc"

namespace {

/// x w + b with b broadcast from a weight, ending in `sum`, as one product.
bool raiseBias(arith::AddFOp sum) {
  for (auto [product, added] : {std::pair(sum.getLhs(), sum.getRhs()), std::pair(sum.getRhs(), sum.getLhs())}) {
    auto linear = product.getDefiningOp<LinearOp>();
    auto broadcast = added.getDefiningOp<BroadcastOp>();
    if (!linear || linear.getBias() || !linear.getResult().hasOneUse() || !broadcast ||
        !broadcast.getX().getDefiningOp<WeightOp>() || cast<ShapedType>(broadcast.getX().getType()).getRank() != 1)
      continue;
    OpBuilder builder(sum);
    // Both names survive, so that fusion can hand each part its own.
    Location loc = FusedLoc::get(sum.getContext(), {linear.getLoc(), sum.getLoc()});
    auto whole = LinearOp::create(builder, loc, sum.getType(), linear.getX(), linear.getWeight(), broadcast.getX());
    sum.replaceAllUsesWith(whole.getResult());
    sum.erase();
    linear.erase();
    return true;
  }
  return false;
}

/// Takes the last token before the row-wise ops and the product that it stands behind, so that they work on one row.
bool hoistLastToken(LastTokenOp last) {
  Operation *op = last.getX().getDefiningOp();
  if (!op || !last.getX().hasOneUse() || !(isa<LinearOp>(op) || isElementwise(op)))
    return false;
  OpBuilder builder(last);
  auto lastRow = [&](RankedTensorType type) {
    SmallVector<int64_t> shape(type.getShape());
    shape[1] = 1;
    return RankedTensorType::get(shape, type.getElementType());
  };
  IRMapping map;
  for (Value operand : op->getOperands()) {
    auto type = cast<RankedTensorType>(operand.getType());
    if (map.contains(operand) || type.getRank() < 3)
      continue; // a weight
    if (auto broadcast = operand.getDefiningOp<BroadcastOp>())
      map.map(operand, BroadcastOp::create(builder, broadcast.getLoc(), lastRow(type), broadcast.getX()).getResult());
    else if (auto constant = operand.getDefiningOp<arith::ConstantOp>(); constant && isPerChannel(operand))
      map.map(operand,
              arith::ConstantOp::create(builder, constant.getLoc(),
                                        cast<SplatElementsAttr>(constant.getValue()).resizeSplat(lastRow(type)))
                  .getResult());
    else
      map.map(operand, LastTokenOp::create(builder, last.getLoc(), lastRow(type), operand, last.getQLen()).getResult());
  }
  Operation *clone = builder.clone(*op, map);
  clone->getResult(0).setType(last.getType());
  last.replaceAllUsesWith(clone->getResult(0));
  last.erase();
  op->erase();
  return true;
}

/// The name of a product, also of one that was fused with its bias.
Location nameOf(LinearOp linear) {
  auto fused = dyn_cast<FusedLoc>(linear.getLoc());
  return fused ? fused.getLocations().front() : linear.getLoc();
}

/// Replaces `down` by the whole network that ends in it. The parts' names survive, so that fusion can hand each product
/// its own.
void raiseTo(LinearOp down, LinearOp gate, LinearOp up, Operation *active, Activation activation) {
  SmallVector<Location> names;
  if (gate)
    names.push_back(nameOf(gate));
  names.append({nameOf(up), active->getLoc(), nameOf(down)});
  OpBuilder builder(down);
  auto ffn = FFNOp::create(builder, FusedLoc::get(down.getContext(), names), down.getResult().getType(), up.getX(),
                           gate ? gate.getWeight() : Value(), up.getWeight(), down.getWeight(),
                           gate ? gate.getBias() : Value(), up.getBias(), down.getBias(), activation);
  down.replaceAllUsesWith(ffn.getResult());
  down.erase();
}

/// (act(x gate) * (x up)) down or act(x up) down, ending in `down`.
bool raiseFFN(LinearOp down) {
  if (!isa<RankedTensorType>(down.getResult().getType()) || !down.getX().getDefiningOp())
    return false;
  if (std::optional<ActivationOf> active = matchActivation(down.getX())) {
    raiseTo(down, LinearOp(), active->x.getDefiningOp<LinearOp>(), down.getX().getDefiningOp(), active->activation);
    return true;
  }
  auto mul = down.getX().getDefiningOp<arith::MulFOp>();
  if (!mul)
    return false;
  for (auto [activated, linear] : {std::pair(mul.getLhs(), mul.getRhs()), std::pair(mul.getRhs(), mul.getLhs())}) {
    auto up = linear.getDefiningOp<LinearOp>();
    std::optional<ActivationOf> active = up ? matchActivation(activated) : std::nullopt;
    auto gate = active ? active->x.getDefiningOp<LinearOp>() : LinearOp();
    if (!gate || gate.getX() != up.getX() || gate.getWeight().getType() != up.getWeight().getType())
      continue;
    raiseTo(down, gate, up, mul, active->activation);
    return true;
  }
  return false;
}

struct RaisePass : impl::RaiseBase<RaisePass> {
  void runOnOperation() override {
    SmallVector<arith::AddFOp> sums;
    getOperation().walk([&](arith::AddFOp op) { sums.push_back(op); });
    for (arith::AddFOp sum : sums)
      biases += raiseBias(sum);
    // Each step makes a new one, which may move on.
    for (bool moved = true; moved;) {
      SmallVector<LastTokenOp> lasts;
      getOperation().walk([&](LastTokenOp op) { lasts.push_back(op); });
      moved = false;
      for (LastTokenOp last : lasts)
        moved |= hoistLastToken(last);
    }
    SmallVector<LinearOp> linears;
    getOperation().walk([&](LinearOp op) { linears.push_back(op); });
    for (LinearOp &linear : linears)
      if (unpack(linear)) {
        linear = nullptr;
        ++unpacked;
      }
    linears.clear();
    getOperation().walk([&](LinearOp op) { linears.push_back(op); });
    for (LinearOp linear : linears)
      ffns += raiseFFN(linear);
    eraseDead();
  }

  /// What the raised ops have left without a use.
  void eraseDead() {
    SmallVector<Operation *> ops;
    getOperation().walk([&](Operation *op) { ops.push_back(op); });
    for (Operation *op : llvm::reverse(ops))
      if (isOpTriviallyDead(op))
        op->erase();
  }
};

} // namespace
} // namespace helix
