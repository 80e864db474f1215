//===- Raise.cpp - helix-raise ---------------------------------------------===//
#include "passes/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/APFloat.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_RAISE
#include "passes/Passes.h.inc"

namespace {

/// The range of the last dimension that a slice takes, if it takes all of the others and strides by one.
struct LastDimCut {
  int64_t offset, size;
};

std::optional<LastDimCut> cutOfLastDim(tensor::ExtractSliceOp slice) {
  RankedTensorType source = slice.getSourceType();
  if (slice.getType().getRank() != source.getRank() || !source.hasStaticShape() || !slice.getType().hasStaticShape())
    return std::nullopt;
  ArrayRef<int64_t> offsets = slice.getStaticOffsets(), sizes = slice.getStaticSizes();
  int64_t last = source.getRank() - 1;
  for (int64_t d = 0; d <= last; ++d) {
    if (ShapedType::isDynamic(offsets[d]) || slice.getStaticStrides()[d] != 1)
      return std::nullopt;
    if (d != last && (offsets[d] != 0 || sizes[d] != source.getDimSize(d)))
      return std::nullopt;
  }
  return LastDimCut{offsets[last], sizes[last]};
}

/// Columns [offset, offset + size) of `weight`, as a window of what is stored.
WeightOp columnsOf(OpBuilder &builder, WeightOp weight, LastDimCut cut) {
  SmallVector<int64_t> offset = weight.windowOffset(), size = weight.windowSize();
  offset.back() += cut.offset;
  size.back() = cut.size;
  auto type = RankedTensorType::get(size, weight.getType().getElementType());
  return WeightOp::create(builder, weight.getLoc(), type, weight.getNameAttr(), weight.getFileAttr(),
                          weight.getOffsetAttr(), weight.getLengthAttr(), weight.getStoredAttr(),
                          builder.getDenseI64ArrayAttr(offset), builder.getDenseI64ArrayAttr(size), ArrayAttr());
}

/// One product per cut of a packed product's result. Nothing changes unless every use is such a cut.
bool unpack(LinearOp linear) {
  auto weight = linear.getWeight().getDefiningOp<WeightOp>();
  if (!weight || weight.getSlice() || linear.getResult().use_empty())
    return false;
  SmallVector<std::pair<tensor::ExtractSliceOp, LastDimCut>> cuts;
  for (Operation *user : linear.getResult().getUsers()) {
    auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
    std::optional<LastDimCut> cut = slice ? cutOfLastDim(slice) : std::nullopt;
    if (!cut)
      return false;
    cuts.emplace_back(slice, *cut);
  }
  OpBuilder builder(linear);
  for (auto [slice, cut] : cuts) {
    WeightOp part = columnsOf(builder, weight, cut);
    auto product = LinearOp::create(builder, linear.getLoc(), slice.getType(), linear.getX(), part);
    slice.replaceAllUsesWith(product.getResult());
    slice.erase();
  }
  linear.erase();
  return true;
}

bool isOne(Value value) {
  DenseFPElementsAttr splat;
  if (matchPattern(value, m_Constant(&splat)) && splat.isSplat())
    return splat.getSplatValue<APFloat>().isExactlyValue(1.0);
  return false;
}

/// x, if `value` is 1 / (1 + exp(−x)).
Value sigmoidOperand(Value value) {
  auto div = value.getDefiningOp<arith::DivFOp>();
  if (!div || !isOne(div.getLhs()))
    return {};
  auto sum = div.getRhs().getDefiningOp<arith::AddFOp>();
  if (!sum)
    return {};
  Value term = isOne(sum.getLhs()) ? sum.getRhs() : isOne(sum.getRhs()) ? sum.getLhs() : Value();
  auto exp = term ? term.getDefiningOp<math::ExpOp>() : math::ExpOp();
  auto neg = exp ? exp.getOperand().getDefiningOp<arith::NegFOp>() : arith::NegFOp();
  return neg ? neg.getOperand() : Value();
}

/// x, if `value` is x * sigmoid(x).
Value siluOperand(Value value) {
  auto mul = value.getDefiningOp<arith::MulFOp>();
  if (!mul)
    return {};
  for (auto [factor, sigmoid] : {std::pair(mul.getLhs(), mul.getRhs()), std::pair(mul.getRhs(), mul.getLhs())})
    if (Value x = sigmoidOperand(sigmoid); x && x == factor)
      return x;
  return {};
}

/// (silu(x gate) * (x up)) down, ending in `down`.
bool raiseFFN(LinearOp down) {
  auto mul = down.getX().getDefiningOp<arith::MulFOp>();
  if (!mul || !isa<RankedTensorType>(down.getResult().getType()))
    return false;
  for (auto [activated, linear] : {std::pair(mul.getLhs(), mul.getRhs()), std::pair(mul.getRhs(), mul.getLhs())}) {
    Value gateProduct = siluOperand(activated);
    auto gate = gateProduct ? gateProduct.getDefiningOp<LinearOp>() : LinearOp();
    auto up = linear.getDefiningOp<LinearOp>();
    if (!gate || !up || gate.getX() != up.getX() || gate.getWeight().getType() != up.getWeight().getType())
      continue;
    // The parts' names survive, so that fusion can hand each product its own.
    Location loc = FusedLoc::get(down.getContext(), {gate.getLoc(), up.getLoc(), mul.getLoc(), down.getLoc()});
    OpBuilder builder(down);
    auto ffn = FFNOp::create(builder, loc, down.getResult().getType(), gate.getX(), gate.getWeight(), up.getWeight(),
                             down.getWeight(), Activation::Silu);
    down.replaceAllUsesWith(ffn.getResult());
    down.erase();
    return true;
  }
  return false;
}

struct RaisePass : impl::RaiseBase<RaisePass> {
  void runOnOperation() override {
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
