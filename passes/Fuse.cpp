//===- Fuse.cpp - helix-fuse -----------------------------------------------===//
#include "passes/AttentionPattern.h"
#include "passes/Passes.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"

#include <cmath>

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_FUSE
#include "passes/Passes.h.inc"

namespace {

/// Part `i` of a location that was fused from `count` of them, or the location itself.
Location partOf(Location loc, unsigned i, unsigned count) {
  auto fused = dyn_cast<FusedLoc>(loc);
  return fused && fused.getLocations().size() == count ? fused.getLocations()[i] : loc;
}

/// A product with a bias as the product and a sum, which other ops may join.
void splitBias(LinearOp linear) {
  OpBuilder builder(linear);
  Location productLoc = partOf(linear.getLoc(), 0, 2), sumLoc = partOf(linear.getLoc(), 1, 2);
  Type type = linear.getResult().getType();
  auto product = LinearOp::create(builder, productLoc, type, linear.getX(), linear.getWeight());
  auto rows = BroadcastOp::create(builder, sumLoc, type, linear.getBias());
  auto sum = arith::AddFOp::create(builder, sumLoc, product.getResult(), rows);
  if (Attribute phase = linear->getAttr(kPhaseAttr))
    for (Operation *op : {product.getOperation(), rows.getOperation(), sum.getOperation()})
      op->setAttr(kPhaseAttr, phase);
  linear.replaceAllUsesWith(sum.getResult());
  linear.erase();
}

/// act(g) as arithmetic, elementwise.
Value activated(OpBuilder &builder, Location loc, Activation activation, Value g) {
  auto type = cast<RankedTensorType>(g.getType());
  auto number = [&](float value) -> Value {
    return arith::ConstantOp::create(builder, loc, DenseElementsAttr::get(type, value));
  };
  auto mul = [&](Value x, Value y) -> Value { return arith::MulFOp::create(builder, loc, x, y); };
  auto add = [&](Value x, Value y) -> Value { return arith::AddFOp::create(builder, loc, x, y); };
  switch (activation) {
  case Activation::Silu: {
    // g / (1 + exp(-g)): exp overflows to infinity for very negative g, and the quotient is then 0, as it should.
    Value one = number(1);
    Value neg = arith::NegFOp::create(builder, loc, g);
    Value exp = math::ExpOp::create(builder, loc, neg);
    return arith::DivFOp::create(builder, loc, g, add(one, exp));
  }
  case Activation::Gelu: {
    Value erf = math::ErfOp::create(builder, loc, mul(g, number(M_SQRT1_2)));
    return mul(mul(number(0.5), g), add(number(1), erf));
  }
  case Activation::GeluTanh: {
    Value cubic = mul(mul(number(0.044715), mul(g, g)), g);
    Value tanh = math::TanhOp::create(builder, loc, mul(number(M_SQRT1_2 * M_2_SQRTPI), add(g, cubic)));
    return mul(mul(number(0.5), g), add(number(1), tanh));
  }
  case Activation::Relu:
    return arith::MaximumFOp::create(builder, loc, g, number(0));
  }
  llvm_unreachable("an activation has a formula");
}

/// helix.ffn as its products and the activation between them; each keeps the name of the node it came from.
void decompose(FFNOp ffn) {
  OpBuilder builder(ffn);
  Operation *before = ffn->getPrevNode();
  // As helix-raise fuses them: gate, up, product of the two, down; without a gate: up, activation, down.
  unsigned parts = ffn.getGate() ? 4 : 3, up = parts - 3;
  auto locOf = [&](unsigned part) { return partOf(ffn.getLoc(), part, parts); };
  SmallVector<int64_t> shape(cast<RankedTensorType>(ffn.getX().getType()).getShape());
  shape.back() = cast<RankedTensorType>(ffn.getUp().getType()).getDimSize(1);
  auto inner = RankedTensorType::get(shape, builder.getF32Type());
  Value g, u, result;
  if (ffn.getGate())
    g = LinearOp::create(builder, locOf(0), inner, ffn.getX(), ffn.getGate(), ffn.getGateBias());
  u = LinearOp::create(builder, locOf(up), inner, ffn.getX(), ffn.getUp(), ffn.getUpBias());
  Value active = activated(builder, locOf(up + 1), ffn.getActivation(), g ? g : u);
  if (g)
    active = arith::MulFOp::create(builder, locOf(up + 1), active, u);
  result =
      LinearOp::create(builder, locOf(up + 2), ffn.getResult().getType(), active, ffn.getDown(), ffn.getDownBias());
  if (Attribute phase = ffn->getAttr(kPhaseAttr))
    for (Operation *op = before ? before->getNextNode() : &ffn->getBlock()->front(); op != ffn; op = op->getNextNode())
      op->setAttr(kPhaseAttr, phase);
  ffn.replaceAllUsesWith(result);
  ffn.erase();
}

/// Whether a kernel makes the value itself rather than to read it: one number everywhere, or a broadcast.
bool isRemade(Value value) {
  if (value.getDefiningOp<BroadcastOp>())
    return true;
  auto constant = value.getDefiningOp<arith::ConstantOp>();
  return constant && isa<SplatElementsAttr>(constant.getValue());
}

/// Ops that compute every row [batch, token] of their result from the same row of their operands.
bool worksByRow(Operation &op) {
  if (isa<LayerNormOp, PositionEmbeddingOp, RMSNormOp, RopeOp, RowStatisticOp>(op))
    return true;
  return isElementwise(&op);
}

ArrayRef<int64_t> rowsOf(Operation &op) {
  return cast<RankedTensorType>(op.getResult(0).getType()).getShape().take_front(2);
}

/// Ops of one entry that become one kernel, in program order; it stands where the last of them does.
struct Cluster {
  SmallVector<Operation *> ops;

  bool contains(Operation *op) const { return llvm::is_contained(ops, op); }

  /// Whether `op`, behind all of the cluster, may join: same rows, and nobody else reads the cluster before it.
  bool admits(Operation &op) const {
    if (rowsOf(*ops.front()) != rowsOf(op))
      return false;
    return llvm::all_of(ops, [&](Operation *member) {
      return llvm::all_of(member->getUsers(),
                          [&](Operation *user) { return contains(user) || !user->isBeforeInBlock(&op); });
    });
  }
};

SmallVector<Cluster> clustersOf(Block &block) {
  SmallVector<Cluster> clusters;
  for (Operation &op : block) {
    if (!worksByRow(op) || isa<arith::ConstantOp>(op))
      continue;
    if (clusters.empty() || !clusters.back().admits(op))
      clusters.emplace_back();
    clusters.back().ops.push_back(&op);
  }
  return clusters;
}

/// "kernel_addf_rms_norm": the ops' names, repetitions once, cut where it gets long.
std::string nameOf(const Cluster &cluster) {
  std::string name = "kernel";
  StringRef last;
  for (Operation *op : cluster.ops) {
    StringRef mnemonic = op->getName().stripDialect();
    if (mnemonic != last && name.size() + mnemonic.size() < 40)
      name += "_" + mnemonic.str();
    last = mnemonic;
  }
  return name;
}

struct FusePass : impl::FuseBase<FusePass> {
  llvm::StringMap<func::FuncOp> known; ///< printed body → kernel

  void runOnOperation() override {
    known.clear();
    SymbolTable symbols(getOperation());
    for (func::FuncOp entry : entriesOf(getOperation())) {
      SmallVector<FFNOp> ffns(entry.getOps<FFNOp>());
      for (FFNOp ffn : ffns)
        decompose(ffn);
      SmallVector<LinearOp> linears(entry.getOps<LinearOp>());
      for (LinearOp linear : linears)
        if (linear.getBias())
          splitBias(linear);
      for (Cluster &cluster : clustersOf(entry.getBody().front()))
        outline(cluster, symbols);
      // The kernels have their own.
      SmallVector<BroadcastOp> broadcasts(entry.getOps<BroadcastOp>());
      for (BroadcastOp broadcast : broadcasts)
        if (broadcast.use_empty())
          broadcast.erase();
    }
  }

  void outline(Cluster &cluster, SymbolTable &symbols) {
    llvm::SetVector<Value> operands;
    SmallVector<Value> results;
    for (Operation *op : cluster.ops) {
      for (Value operand : op->getOperands())
        if (auto broadcast = operand.getDefiningOp<BroadcastOp>())
          operands.insert(broadcast.getX());
        else if (!cluster.contains(operand.getDefiningOp()) && !isRemade(operand))
          operands.insert(operand);
      if (llvm::any_of(op->getUsers(), [&](Operation *user) { return !cluster.contains(user); }))
        results.push_back(op->getResult(0));
    }
    if (results.empty())
      return;

    // The kernel, built beside the module and kept only if it is new.
    OpBuilder builder(&getContext());
    Location unknown = builder.getUnknownLoc();
    auto type = FunctionType::get(&getContext(), TypeRange(operands.getArrayRef()), TypeRange(ValueRange(results)));
    func::FuncOp kernel = func::FuncOp::create(unknown, "kernel", type);
    kernel->setAttr(kKernelAttr, builder.getUnitAttr());
    kernel.setPrivate();
    Block *body = kernel.addEntryBlock();
    builder.setInsertionPointToStart(body);
    IRMapping map;
    for (auto [operand, argument] : llvm::zip(operands, body->getArguments()))
      map.map(operand, argument);
    for (Operation *op : cluster.ops) {
      for (Value operand : op->getOperands())
        if (isRemade(operand) && !map.contains(operand)) {
          Operation *remade = builder.clone(*operand.getDefiningOp(), map);
          remade->setLoc(unknown);
          remade->removeAttr(kPhaseAttr);
        }
      Operation *clone = builder.clone(*op, map);
      clone->setLoc(unknown);
      clone->removeAttr(kPhaseAttr);
    }
    func::ReturnOp::create(builder, unknown,
                           llvm::map_to_vector(results, [&](Value value) { return map.lookup(value); }));

    std::string text;
    llvm::raw_string_ostream(text) << kernel;
    auto [it, isNew] = known.try_emplace(text, kernel);
    if (isNew) {
      kernel.setName(nameOf(cluster));
      symbols.insert(kernel);
      ++kernels;
    } else {
      kernel.erase();
    }

    Operation *last = cluster.ops.back();
    builder.setInsertionPoint(last);
    auto call = func::CallOp::create(builder, cluster.ops.front()->getLoc(), it->second, operands.getArrayRef());
    if (Attribute phase = cluster.ops.front()->getAttr(kPhaseAttr))
      call->setAttr(kPhaseAttr, phase);
    for (auto [value, result] : llvm::zip(results, call.getResults()))
      value.replaceAllUsesWith(result);
    for (Operation *op : llvm::reverse(cluster.ops))
      op->erase();
    ++outlined;
  }
};

} // namespace
} // namespace helix
