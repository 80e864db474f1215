//===- AttentionPattern.cpp - What surrounds an attention that can be sharded ===//
#include "passes/AttentionPattern.h"

using namespace mlir;

namespace helix {
namespace {

InFlightDiagnostic shapeError(Operation *op) {
  return op->emitError(errorPrefix(ErrorCode::NotADecoder)) << "cannot shard " << op->getName() << ": ";
}

bool isWeight(Value value) { return value.getDefiningOp<WeightOp>() != nullptr; }

/// Whether the product's weight and bias can be sliced.
bool hasWeight(LinearOp linear) {
  return linear && isWeight(linear.getWeight()) && (!linear.getBias() || isWeight(linear.getBias()));
}

/// The norm of each head (rank 4) or of whole rows (rank 3): x, if `op` is one.
Value normOf(Operation *op, int64_t rank) {
  if (!isa_and_nonnull<RMSNormOp, LayerNormOp>(op) ||
      cast<RankedTensorType>(op->getResult(0).getType()).getRank() != rank)
    return {};
  return op->getOperand(0);
}

LogicalResult matchHeads(Value value, Operation *reader, MeshAttr mesh, SmallVectorImpl<Operation *> &heads) {
  Operation *op = value.getDefiningOp();
  if (!op || !(isa<RopeOp, tensor::ExpandShapeOp>(op) || normOf(op, 4)))
    return shapeError(reader) << "its operand comes from "
                              << (op ? op->getName().getStringRef() : StringRef("an argument"))
                              << ", where helix.rope, a norm of each head or tensor.expand_shape is expected";
  if (!value.hasOneUse())
    return shapeError(op) << "its result is split over heads for " << reader->getName()
                          << " but also used elsewhere, where it must be whole";
  heads.push_back(op);
  if (auto rope = dyn_cast<RopeOp>(op))
    return matchHeads(rope.getX(), op, mesh, heads);
  if (Value x = normOf(op, 4))
    return matchHeads(x, op, mesh, heads);
  auto expand = cast<tensor::ExpandShapeOp>(op);
  SmallVector<ReassociationIndices> groups = expand.getReassociationIndices();
  Value rows = expand.getSrc();
  if (Value x = normOf(rows.getDefiningOp(), 3); x && rows.hasOneUse()) {
    if (mesh.getTpa() > 1)
      return rows.getDefiningOp()->emitError(errorPrefix(ErrorCode::RowNormCut))
             << rows.getDefiningOp()->getName() << " reads all heads of a token at once, but tpa = " << mesh.getTpa()
             << " gives each rank a part of them. Take tpa = 1 and a larger kvp";
    heads.push_back(rows.getDefiningOp());
    rows = x;
  }
  auto linear = rows.getDefiningOp<LinearOp>();
  if (expand.getResultType().getRank() != 4 || groups.size() != 3 || groups[2].size() != 2)
    return shapeError(op) << "it must split [batch, tokens, heads * dim] into heads, but makes "
                          << expand.getResultType() << " of " << expand.getSrcType();
  if (!hasWeight(linear) || !isa<RankedTensorType>(linear.getResult().getType()) || !rows.hasOneUse())
    return shapeError(op) << "it must be the only reader of a helix.linear with a helix.weight";
  heads.push_back(linear);
  return success();
}

} // namespace

FailureOr<AttentionPattern> matchAttention(AttentionOp attention, MeshAttr mesh) {
  AttentionPattern pattern;
  pattern.append = attention.getCache().getDefiningOp<KVAppendOp>();
  if (!pattern.append)
    return shapeError(attention) << "its cache must come from helix.kv_append";
  for (Value perHead : {attention.getSlopes(), attention.getSinks()})
    if (perHead && !isWeight(perHead))
      return shapeError(attention) << "its slopes and sinks must be helix.weight, which can be sliced";
  if (failed(matchHeads(attention.getQ(), attention, mesh, pattern.heads)) ||
      failed(matchHeads(pattern.append.getKey(), pattern.append, mesh, pattern.heads)) ||
      failed(matchHeads(pattern.append.getValue(), pattern.append, mesh, pattern.heads)))
    return failure();
  Value result = attention.getResult();
  if (result.hasOneUse())
    pattern.collapse = dyn_cast<tensor::CollapseShapeOp>(*result.user_begin());
  if (pattern.collapse && pattern.collapse.getResult().hasOneUse())
    pattern.output = dyn_cast<LinearOp>(*pattern.collapse.getResult().user_begin());
  if (!hasWeight(pattern.output) || pattern.collapse.getResultType().getRank() != 3 ||
      !isa<RankedTensorType>(pattern.output.getResult().getType()))
    return shapeError(attention)
           << "its result must be collapsed to [batch, tokens, heads * dim] and read by one helix.linear alone";
  return pattern;
}

FailureOr<int64_t> kvReplicas(AttentionOp attention, AttentionPattern pattern, MeshAttr mesh) {
  int64_t kvHeads = cast<RankedTensorType>(pattern.append.getKey().getType()).getDimSize(2);
  if (mesh.getTpa() <= kvHeads)
    return 1;
  int64_t group = cast<RankedTensorType>(attention.getQ().getType()).getDimSize(2) / kvHeads;
  int64_t replicas = mesh.getTpa() / kvHeads;
  if (mesh.getTpa() % kvHeads == 0 && group % replicas == 0)
    return replicas;
  InFlightDiagnostic error = attention.emitError(errorPrefix(ErrorCode::KvReplicasMisfit));
  error << "tpa = " << mesh.getTpa() << " does not give each of " << kvHeads
        << " KV heads to as many ranks, and each of those an equal part of its " << group
        << " query heads; what fits above tpa = " << kvHeads << " is";
  bool none = true;
  for (int64_t copies = 2; copies <= group; ++copies)
    if (group % copies == 0) {
      error << (none ? " " : ", ") << kvHeads * copies;
      none = false;
    }
  return none ? error << " nothing" : error;
}

bool isElementwise(Operation *op) {
  StringRef dialect = op->getDialect() ? op->getDialect()->getNamespace() : StringRef();
  if ((dialect != "arith" && dialect != "math") || !OpTrait::hasElementwiseMappableTraits(op) ||
      op->getNumResults() != 1)
    return false;
  auto type = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  return type && type.getElementType().isF32();
}

bool isPerChannel(Value value) {
  if (auto broadcast = value.getDefiningOp<BroadcastOp>())
    return isWeight(broadcast.getX()) && cast<RankedTensorType>(broadcast.getX().getType()).getRank() == 1;
  auto constant = value.getDefiningOp<arith::ConstantOp>();
  return constant && isa<SplatElementsAttr>(constant.getValue());
}

FailureOr<HeadPattern> matchHead(func::FuncOp entry) {
  Value logits = entry.getBody().front().getTerminator()->getOperand(0);
  HeadPattern head;
  for (Value value = logits;;) {
    head.product = value.getDefiningOp<LinearOp>();
    Operation *op = value.getDefiningOp();
    bool isOnlyUser = llvm::all_equal(value.getUsers());
    if (head.product && hasWeight(head.product) && isOnlyUser)
      break;
    // One operand leads on; the others are the same for every token.
    Value next;
    if (op && isOnlyUser && isElementwise(op))
      for (Value operand : op->getOperands())
        if (!isPerChannel(operand))
          next = !next || next == operand ? operand : op->getResult(0);
    if (!next || next == value)
      return shapeError(entry) << "the logits must come straight from one helix.linear, or through ops that change "
                                  "each of them by itself";
    head.tail.push_back(op);
    value = next;
  }
  std::reverse(head.tail.begin(), head.tail.end());
  return head;
}

LogicalResult matchWeights(func::FuncOp entry) {
  WalkResult walk = entry.walk([](Operation *op) {
    if (!isa<EmbeddingOp, FFNOp>(op))
      return WalkResult::advance();
    unsigned firstWeight = 1; // behind the ids, or x
    for (Value weight : op->getOperands().drop_front(firstWeight))
      if (!isWeight(weight))
        return WalkResult(shapeError(op) << "its weights must be helix.weight, not computed");
    return WalkResult::advance();
  });
  return failure(walk.wasInterrupted());
}

} // namespace helix
