//===- Partition.cpp - helix-partition -------------------------------------===//
#include "passes/AttentionPattern.h"
#include "passes/Levels.h"
#include "passes/Passes.h"

#include "mlir/IR/IRMapping.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_PARTITION
#include "passes/Passes.h.inc"

namespace {

RankedTensorType tensorOf(Value value) { return cast<RankedTensorType>(value.getType()); }

RankedTensorType withDim(RankedTensorType type, int64_t dim, int64_t size) {
  SmallVector<int64_t> shape(type.getShape());
  shape[dim] = size;
  return RankedTensorType::get(shape, type.getElementType());
}

/// Rewrites one entry in place, op by op, from whole values to a rank's.
struct EntryPartitioner {
  func::FuncOp entry;
  MeshAttr mesh;
  int64_t ffnRanks; ///< the first ranks, which alone hold the FFN; 0: all, along tpf
  int64_t exchanges = 0, reductions = 0;

  /// The share of `value`, a weight, with dimension `dim` cut by `splits`; `local` is its padded size.
  Value slice(OpBuilder &builder, Value value, int64_t dim, ArrayRef<SplitAttr> splits, int64_t local) {
    auto weight = value.getDefiningOp<WeightOp>();
    SmallVector<Attribute> kept;
    for (SplitAttr split : splits)
      if (mesh.size(split.getAxis()) > 1)
        kept.push_back(split);
    SmallVector<Attribute> dims(weight.getType().getRank(), builder.getArrayAttr({}));
    dims[weight.storedDim(dim)] = builder.getArrayAttr(kept);
    ArrayAttr sliceAttr = kept.empty() ? ArrayAttr() : builder.getArrayAttr(dims);
    return weight.part(builder, withDim(weight.getType(), dim, local).getShape(), weight.getWindowOffsetAttr(),
                       weight.getWindowSizeAttr(), sliceAttr);
  }

  SplitAttr split(Axis axis, int64_t chunk, int64_t replicas = 1) {
    return SplitAttr::get(entry.getContext(), axis, chunk, replicas);
  }

  PartialType partialSum(RankedTensorType type) {
    return PartialType::get(entry.getContext(), type, Reduction::Sum, {Axis::N});
  }

  Value reduce(OpBuilder &builder, Location loc, Value partial) {
    ++reductions;
    return AllReduceOp::create(builder, loc, cast<PartialType>(partial.getType()).getValue(), partial);
  }

  /// Rows of the vocabulary over n; ids of other ranks embed to zero.
  void embedding(EmbeddingOp op) {
    OpBuilder builder(op);
    int64_t local = ceilDiv(tensorOf(op.getTable()).getDimSize(0), mesh.ranks());
    Value table = slice(builder, op.getTable(), 0, split(Axis::N, local), local);
    Value partial = EmbeddingOp::create(builder, op.getLoc(), partialSum(tensorOf(op.getResult())), op.getIds(), table);
    op.replaceAllUsesWith(reduce(builder, op.getLoc(), partial));
    op.erase();
  }

  /// Columns over tpf in, rows over tpf out. On the first ranks alone, they are cut over n, coarsely enough that
  /// nothing is left for the others.
  void ffn(FFNOp op) {
    OpBuilder builder(op);
    int64_t local = ceilDiv(tensorOf(op.getUp()).getDimSize(1), ffnRanks ? ffnRanks : mesh.getTpf());
    SplitAttr columns = split(ffnRanks ? Axis::N : Axis::Tpf, local);
    Value gate = op.getGate() ? slice(builder, op.getGate(), 1, columns, local) : Value();
    Value up = slice(builder, op.getUp(), 1, columns, local);
    Value down = slice(builder, op.getDown(), 0, columns, local);
    Value gateBias = sliceVector(builder, op.getGateBias(), columns, local);
    Value upBias = sliceVector(builder, op.getUpBias(), columns, local);
    Value partial = FFNOp::create(builder, op.getLoc(), partialSum(tensorOf(op.getResult())), op.getX(), gate, up, down,
                                  gateBias, upBias, /*down_bias=*/Value(), op.getActivation());
    Value reduced = reduce(builder, op.getLoc(), partial);
    op.replaceAllUsesWith(addBias(builder, op.getLoc(), reduced, op.getDownBias()));
    op.erase();
  }

  /// The share of a vector, a bias or one number per head; none of none.
  Value sliceVector(OpBuilder &builder, Value vector, ArrayRef<SplitAttr> splits, int64_t local) {
    return vector ? slice(builder, vector, 0, splits, local) : Value();
  }

  /// `value` plus `bias` [N], if there is one: behind a reduction, so that it is added once.
  Value addBias(OpBuilder &builder, Location loc, Value value, Value bias) {
    if (!bias)
      return value;
    Value rows = BroadcastOp::create(builder, loc, value.getType(), bias);
    return arith::AddFOp::create(builder, loc, value, rows);
  }

  /// The final product and what follows it: columns of the vocabulary over n.
  void head(const HeadPattern &pattern) {
    LinearOp op = pattern.product;
    int64_t local = ceilDiv(tensorOf(op.getWeight()).getDimSize(1), mesh.ranks());
    SplitAttr columns = split(Axis::N, local);
    auto type = withDim(tensorOf(op.getResult()), 2, local);
    OpBuilder builder(op);
    Value weight = slice(builder, op.getWeight(), 1, columns, local);
    Value bias = sliceVector(builder, op.getBias(), columns, local);
    // The logits that were, and what a rank has of them.
    Value whole = op.getResult();
    Value value = LinearOp::create(builder, op.getLoc(), type, op.getX(), weight, bias);
    for (Operation *next : pattern.tail) {
      builder.setInsertionPoint(next);
      IRMapping map;
      map.map(whole, value);
      for (Value operand : next->getOperands())
        if (auto broadcast = operand.getDefiningOp<BroadcastOp>())
          map.map(operand, BroadcastOp::create(builder, broadcast.getLoc(), type,
                                               slice(builder, broadcast.getX(), 0, columns, local))
                               .getResult());
        else if (operand != whole)
          map.map(operand, splat(builder, operand, type));
      Operation *clone = builder.clone(*next, map);
      clone->getResult(0).setType(type);
      clone->removeAttr(kShardingAttr);
      whole = next->getResult(0);
      value = clone->getResult(0);
    }
    whole.replaceAllUsesWith(value);
  }

  /// The constant `value`, one number everywhere, as `type`.
  Value splat(OpBuilder &builder, Value value, RankedTensorType type) {
    auto constant = value.getDefiningOp<arith::ConstantOp>();
    auto elements = cast<SplatElementsAttr>(constant.getValue());
    return arith::ConstantOp::create(builder, constant.getLoc(), elements.resizeSplat(type));
  }

  /// Rebuilds the ops from a product to `value` [batch, tokens, heads, dim] with `heads` local heads, the same ones on
  /// `replicas` neighbours.
  Value localHeads(OpBuilder &builder, Value value, int64_t heads, int64_t replicas = 1) {
    Operation *op = value.getDefiningOp();
    int64_t width = tensorOf(value).getDimSize(3);
    if (auto rope = dyn_cast<RopeOp>(op)) {
      Value x = localHeads(builder, rope.getX(), heads, replicas);
      return RopeOp::create(builder, op->getLoc(), x, rope.getCos(), rope.getSin(), rope.getPast(),
                            rope.getInterleaved());
    }
    if (isa<RMSNormOp, LayerNormOp>(op)) {
      IRMapping map;
      map.map(op->getOperand(0), localHeads(builder, op->getOperand(0), heads, replicas));
      Operation *norm = builder.clone(*op, map);
      norm->getResult(0).setType(norm->getOperand(0).getType());
      norm->removeAttr(kShardingAttr);
      return norm->getResult(0);
    }
    auto expand = cast<tensor::ExpandShapeOp>(op);
    // A norm of whole rows is there with tpa = 1 only, where the rank has them.
    Operation *rowNorm = isa<LinearOp>(expand.getSrc().getDefiningOp()) ? nullptr : expand.getSrc().getDefiningOp();
    auto linear = (rowNorm ? rowNorm->getOperand(0) : expand.getSrc()).getDefiningOp<LinearOp>();
    int64_t columns = heads * width;
    SplitAttr part = split(Axis::Tpa, columns, replicas);
    Value weight = slice(builder, linear.getWeight(), 1, part, columns);
    Value product = LinearOp::create(builder, linear.getLoc(), withDim(tensorOf(linear.getResult()), 2, columns),
                                     linear.getX(), weight, sliceVector(builder, linear.getBias(), part, columns));
    if (rowNorm) {
      IRMapping map;
      map.map(rowNorm->getOperand(0), product);
      Operation *norm = builder.clone(*rowNorm, map);
      norm->removeAttr(kShardingAttr);
      product = norm->getResult(0);
    }
    return tensor::ExpandShapeOp::create(builder, op->getLoc(), withDim(tensorOf(value), 2, heads), product,
                                         expand.getReassociationIndices());
  }

  /// Attention on the rank's tokens and heads, the exchange, the merge and the output projection.
  void attention(AttentionOp op, const AttentionPattern &pattern, int64_t replicas) {
    KVAppendOp append = pattern.append;
    tensor::CollapseShapeOp collapse = pattern.collapse;
    LinearOp output = pattern.output;
    ArrayRef<int64_t> q = tensorOf(op.getQ()).getShape();
    auto cache = cast<KVType>(append.getCache().getType());
    // The cache's type is local already (retype()), the append's operands are not.
    int64_t kvHeads = cache.getHeads();
    int64_t group = q[2] / tensorOf(append.getKey()).getDimSize(2);
    int64_t heads = kvHeads * group / replicas;
    int64_t perPeer = ceilDiv(heads, mesh.getKvp());
    int64_t width = cache.getValueDim();

    // Where the attention stands, everything that it and the append need is defined.
    OpBuilder builder(op);
    auto merged = RankedTensorType::get({q[0], q[1], perPeer, width}, builder.getF32Type());
    auto region = RegionOp::create(builder, op.getLoc(), TypeRange{merged, cache}, Phase::Kvp);
    builder.createBlock(&region.getBody());
    Value query = localHeads(builder, op.getQ(), heads);
    Value key = localHeads(builder, append.getKey(), kvHeads, replicas);
    Value value = localHeads(builder, append.getValue(), kvHeads, replicas);
    Value appended = KVAppendOp::create(builder, append.getLoc(), cache, key, value, append.getPast(), append.getQLen(),
                                        append.getCache());
    auto partial = PartialType::get(
        builder.getContext(), RankedTensorType::get({q[0], q[1], perPeer * mesh.getKvp(), width}, builder.getF32Type()),
        Reduction::Lse, {Axis::Kvp});
    SplitAttr ofShard = split(Axis::Tpa, heads);
    Value part = PartialAttentionOp::create(builder, op.getLoc(), partial, query, appended, op.getPast(), op.getQLen(),
                                            sliceVector(builder, op.getSlopes(), ofShard, heads), op.getScaleAttr(),
                                            op.getSoftcapAttr(), op.getWindowAttr(), /*sequences=*/nullptr,
                                            /*query_tokens=*/nullptr);
    auto stacked =
        StackedType::get(builder.getContext(), Axis::Kvp,
                         RankedTensorType::get({mesh.getKvp(), q[0], q[1], perPeer, width + 1}, builder.getF32Type()));
    Value exchanged = AllToAllOp::create(builder, op.getLoc(), stacked, part);
    // Sinks enter here, once, and not on every rank that holds tokens.
    Value sinks = sliceVector(builder, op.getSinks(), {ofShard, split(Axis::Kvp, perPeer)}, perPeer);
    Value whole = MergeAttentionOp::create(builder, op.getLoc(), merged, exchanged, sinks);
    YieldOp::create(builder, op.getLoc(), ValueRange{whole, appended});
    ++exchanges;

    builder.setInsertionPoint(collapse);
    Value rows = tensor::CollapseShapeOp::create(
        builder, collapse.getLoc(), RankedTensorType::get({q[0], q[1], perPeer * width}, builder.getF32Type()),
        region.getResult(0), collapse.getReassociationIndices());
    builder.setInsertionPoint(output);
    Value weight = slice(builder, output.getWeight(), 0,
                         {split(Axis::Tpa, heads * width), split(Axis::Kvp, perPeer * width)}, perPeer * width);
    Value sum = LinearOp::create(builder, output.getLoc(), partialSum(tensorOf(output.getResult())), rows, weight);
    Value reduced = reduce(builder, output.getLoc(), sum);
    output.replaceAllUsesWith(addBias(builder, output.getLoc(), reduced, output.getBias()));
    output.erase();
    collapse.erase();
    append.getResult().replaceAllUsesExcept(region.getResult(1), op);
    op.erase();
  }

  /// Caches of the entry's signature become local: KV heads over tpa, tokens over kvp.
  void retype() {
    Block &body = entry.getBody().front();
    for (BlockArgument argument : body.getArguments().drop_front(kFirstCache)) {
      auto whole = cast<KVType>(argument.getType());
      int64_t quantum = whole.getBlock() * mesh.getKvp();
      argument.setType(KVType::get(entry.getContext(), whole.getSlots(), ceilDiv(whole.getHeads(), mesh.getTpa()),
                                   whole.getKeyDim(), whole.getValueDim(), whole.getElement(), whole.getBlock(),
                                   mesh.getKvp(), ceilDiv(whole.getCapacity(), quantum) * quantum, whole.getScale()));
    }
  }

  /// From behind a layer's exchange to the last reduction before the next, and the sums behind that: residuals and
  /// biases, through a norm or a scale if there is one between.
  void formTpRegions() {
    Block &body = entry.getBody().front();
    SmallVector<RegionOp> regions(body.getOps<RegionOp>());
    for (RegionOp kvp : regions) {
      Operation *last = nullptr;
      bool isBehind = false;
      for (Operation *op = kvp->getNextNode(); op && !isa<RegionOp>(op); op = op->getNextNode()) {
        if (isa<AllReduceOp>(op))
          isBehind = true;
        else
          isBehind &= isa<WeightOp, BroadcastOp, RMSNormOp, LayerNormOp>(op) || isElementwise(op);
        if (isBehind && isa<AllReduceOp, arith::AddFOp>(op))
          last = op;
      }
      if (last)
        wrap(kvp->getNextNode(), last);
    }
  }

  /// Puts the ops from `first` to `last` into a tp region.
  void wrap(Operation *first, Operation *last) {
    Block *block = first->getBlock();
    auto begin = first->getIterator(), end = std::next(last->getIterator());
    SmallVector<Value> escaping;
    for (Operation &op : llvm::make_range(begin, end))
      for (Value result : op.getResults())
        if (llvm::any_of(result.getUsers(), [&](Operation *user) {
              Operation *inBlock = block->findAncestorOpInBlock(*user);
              return inBlock->isBeforeInBlock(first) || last->isBeforeInBlock(inBlock);
            }))
          escaping.push_back(result);
    OpBuilder builder(first);
    auto region = RegionOp::create(builder, last->getLoc(), TypeRange(ValueRange(escaping)), Phase::Tp);
    Block *inner = builder.createBlock(&region.getBody());
    inner->getOperations().splice(inner->end(), block->getOperations(), begin, end);
    builder.setInsertionPointToEnd(inner);
    YieldOp::create(builder, last->getLoc(), escaping);
    for (auto [value, result] : llvm::zip(escaping, region.getResults()))
      value.replaceUsesWithIf(result, [&](OpOperand &use) { return !region->isAncestor(use.getOwner()); });
  }

  LogicalResult run() {
    SmallVector<std::tuple<AttentionOp, AttentionPattern, int64_t>> attentions;
    for (auto op : entry.getBody().front().getOps<AttentionOp>()) {
      FailureOr<AttentionPattern> pattern = matchAttention(op, mesh);
      if (failed(pattern))
        return failure();
      FailureOr<int64_t> replicas = kvReplicas(op, *pattern, mesh);
      if (failed(replicas))
        return failure();
      attentions.emplace_back(op, *pattern, *replicas);
    }
    FailureOr<HeadPattern> logits = matchHead(entry);
    if (failed(logits) || failed(matchWeights(entry)))
      return failure();

    retype();
    for (auto &[op, pattern, replicas] : attentions)
      attention(op, pattern, replicas);
    for (auto op : llvm::to_vector(entry.getBody().front().getOps<EmbeddingOp>()))
      embedding(op);
    for (auto op : llvm::to_vector(entry.getBody().front().getOps<FFNOp>()))
      ffn(op);
    head(*logits);
    eraseDead();
    formTpRegions();
    Operation *terminator = entry.getBody().front().getTerminator();
    entry.setType(
        FunctionType::get(entry.getContext(), entry.getBody().getArgumentTypes(), terminator->getOperandTypes()));
    return success();
  }

  /// The whole weights and what led from them to attention.
  void eraseDead() {
    for (Operation &op : llvm::make_early_inc_range(llvm::reverse(entry.getBody().front())))
      if (isOpTriviallyDead(&op))
        op.erase();
  }
};

struct PartitionPass : impl::PartitionBase<PartitionPass> {
  void runOnOperation() override {
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    if (!mesh) {
      getOperation().emitError(errorPrefix(ErrorCode::LevelInvalid))
          << "the module has no " << kMeshAttr << "; run helix-shard first";
      return signalPassFailure();
    }
    if (failed(verifyModelLevel(getOperation())))
      return signalPassFailure();
    int64_t ffnRanks = 0;
    if (auto attr = getOperation()->getAttrOfType<IntegerAttr>(kFfnRanksAttr)) {
      ffnRanks = attr.getInt();
      if (ffnRanks < 1 || ffnRanks > mesh.ranks()) {
        getOperation().emitError(errorPrefix(ErrorCode::LevelInvalid))
            << kFfnRanksAttr << " = " << ffnRanks << " is not from 1 to the mesh's " << mesh.ranks() << " ranks";
        return signalPassFailure();
      }
    }
    for (func::FuncOp entry : entriesOf(getOperation())) {
      if (isStateless(entry))
        continue;
      EntryPartitioner partitioner{entry, mesh, ffnRanks};
      if (failed(partitioner.run()))
        return signalPassFailure();
      exchanges += partitioner.exchanges;
      reductions += partitioner.reductions;
    }
  }
};

} // namespace
} // namespace helix
