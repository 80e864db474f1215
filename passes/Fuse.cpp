//===- Fuse.cpp - helix-fuse -----------------------------------------------===//
#include "passes/Entries.h"
#include "passes/Passes.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_FUSE
#include "passes/Passes.h.inc"

namespace {

/// helix.ffn as its products and the gate between them; each keeps the name of the node it came from.
void decompose(FFNOp ffn) {
  OpBuilder builder(ffn);
  Location loc = ffn.getLoc(), gateLoc = loc, upLoc = loc, mulLoc = loc, downLoc = loc;
  if (auto fused = dyn_cast<FusedLoc>(loc); fused && fused.getLocations().size() == 4) {
    gateLoc = fused.getLocations()[0];
    upLoc = fused.getLocations()[1];
    mulLoc = fused.getLocations()[2];
    downLoc = fused.getLocations()[3];
  }
  SmallVector<int64_t> shape(cast<RankedTensorType>(ffn.getX().getType()).getShape());
  shape.back() = cast<RankedTensorType>(ffn.getGate().getType()).getDimSize(1);
  auto inner = RankedTensorType::get(shape, builder.getF32Type());
  Value g = LinearOp::create(builder, gateLoc, inner, ffn.getX(), ffn.getGate());
  Value u = LinearOp::create(builder, upLoc, inner, ffn.getX(), ffn.getUp());
  // silu(g) = g / (1 + exp(-g)): exp overflows to infinity for very negative g, and the quotient is then 0, as it
  // should.
  Value one = arith::ConstantOp::create(builder, mulLoc, DenseElementsAttr::get(inner, 1.0f));
  Value neg = arith::NegFOp::create(builder, mulLoc, g);
  Value exp = math::ExpOp::create(builder, mulLoc, neg);
  Value silu = arith::DivFOp::create(builder, mulLoc, g, arith::AddFOp::create(builder, mulLoc, one, exp));
  Value gated = arith::MulFOp::create(builder, mulLoc, silu, u);
  Value down = LinearOp::create(builder, downLoc, ffn.getResult().getType(), gated, ffn.getDown());
  if (Attribute phase = ffn->getAttr(kPhaseAttr))
    for (Value value : {g, u, one, neg, exp, silu, gated, down})
      value.getDefiningOp()->setAttr(kPhaseAttr, phase);
  ffn.replaceAllUsesWith(down);
  ffn.erase();
}

bool isSplatConstant(Value value) {
  auto constant = value.getDefiningOp<arith::ConstantOp>();
  return constant && isa<SplatElementsAttr>(constant.getValue());
}

/// Ops that compute every row [batch, token] of their result from the same row of their operands.
bool worksByRow(Operation &op) {
  if (op.getNumResults() != 1 || !isa<RankedTensorType>(op.getResult(0).getType()))
    return false;
  if (isa<RMSNormOp, RopeOp>(op))
    return true;
  StringRef dialect = op.getDialect() ? op.getDialect()->getNamespace() : StringRef();
  return (dialect == "arith" || dialect == "math") && OpTrait::hasElementwiseMappableTraits(&op);
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
      for (Cluster &cluster : clustersOf(entry.getBody().front()))
        outline(cluster, symbols);
    }
  }

  void outline(Cluster &cluster, SymbolTable &symbols) {
    llvm::SetVector<Value> operands;
    SmallVector<Value> results;
    for (Operation *op : cluster.ops) {
      for (Value operand : op->getOperands())
        if (!cluster.contains(operand.getDefiningOp()) && !isSplatConstant(operand))
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
        if (isSplatConstant(operand) && !map.contains(operand)) {
          Operation *constant = builder.clone(*operand.getDefiningOp(), map);
          constant->setLoc(unknown);
          constant->removeAttr(kPhaseAttr);
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
