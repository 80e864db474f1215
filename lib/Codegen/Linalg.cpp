//===- Linalg.cpp - Outlined kernels as linalg, for every target -----------===//
#include "lib/Codegen/Linalg.h"

#include "dialects/Helix/Helix.h"
#include "helix/Errors.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;

namespace helix::codegen {
namespace {

using Iterator = utils::IteratorType;

InFlightDiagnostic unsupported(Operation *op) {
  return op->emitError(errorPrefix(ErrorCode::KernelUnsupported))
         << "cannot generate code for " << op->getName() << ": ";
}

RankedTensorType tensorOf(Value value) { return cast<RankedTensorType>(value.getType()); }

bool isElementwise(Operation *op) {
  return OpTrait::hasElementwiseMappableTraits(op) && op->getNumResults() == 1 && op->getNumRegions() == 0;
}

/// The value of a constant of equal elements; null otherwise.
TypedAttr splatOf(Value value) {
  auto constant = value.getDefiningOp<arith::ConstantOp>();
  auto splat = constant ? dyn_cast<SplatElementsAttr>(constant.getValue()) : SplatElementsAttr();
  return splat ? cast<TypedAttr>(splat.getSplatValue<Attribute>()) : TypedAttr();
}

Value empty(OpBuilder &builder, Location loc, ArrayRef<int64_t> shape, Type element) {
  return tensor::EmptyOp::create(builder, loc, shape, element);
}

Value constant(OpBuilder &builder, Location loc, double value) {
  return arith::ConstantOp::create(builder, loc, builder.getF32FloatAttr(value));
}

struct Lowering {
  func::FuncOp kernel;
  OpBuilder builder;
  KernelCost cost;

  explicit Lowering(func::FuncOp kernel) : kernel(kernel), builder(kernel.getContext()) {}

  AffineExpr dim(unsigned d) { return builder.getAffineDimExpr(d); }
  AffineMap map(unsigned dims, ArrayRef<AffineExpr> exprs) {
    return AffineMap::get(dims, 0, exprs, builder.getContext());
  }

  /// A run of elementwise ops of one shape as one op.
  void elementwise(ArrayRef<Operation *> run) {
    llvm::SetVector<Operation *> members(run.begin(), run.end());
    llvm::SetVector<Value> inputs; // a broadcast one is read as what it repeats
    SmallVector<Value> results, inits;
    builder.setInsertionPointAfter(run.back());
    for (Operation *op : run) {
      for (Value operand : op->getOperands())
        if (!members.contains(operand.getDefiningOp()) && !splatOf(operand))
          inputs.insert(operand);
      if (llvm::any_of(op->getUsers(), [&](Operation *user) { return !members.contains(user); })) {
        results.push_back(op->getResult(0));
        RankedTensorType type = tensorOf(results.back());
        inits.push_back(empty(builder, op->getLoc(), type.getShape(), type.getElementType()));
      }
    }
    RankedTensorType type = tensorOf(run.front()->getResult(0));
    unsigned rank = type.getRank();
    SmallVector<AffineMap> maps(inputs.size() + results.size(), builder.getMultiDimIdentityMap(rank));
    SmallVector<Value> read(inputs.begin(), inputs.end());
    for (auto [value, map] : llvm::zip(read, maps))
      if (auto broadcast = value.getDefiningOp<BroadcastOp>()) {
        value = broadcast.getX();
        map = map.getMinorSubMap(tensorOf(value).getRank());
      }
    auto generic = linalg::GenericOp::create(
        builder, run.back()->getLoc(), TypeRange(ValueRange(inits)), read, inits, maps,
        SmallVector<Iterator>(rank, Iterator::parallel), [&](OpBuilder &b, Location loc, ValueRange arguments) {
          DenseMap<Value, Value> scalars;
          for (auto [input, argument] : llvm::zip(inputs, arguments))
            scalars[input] = argument;
          for (Operation *op : run) {
            OperationState state(op->getLoc(), op->getName());
            for (Value operand : op->getOperands()) {
              Value &scalar = scalars[operand];
              if (!scalar)
                scalar = arith::ConstantOp::create(b, op->getLoc(), splatOf(operand));
              state.addOperands(scalar);
            }
            state.addTypes(tensorOf(op->getResult(0)).getElementType());
            state.addAttributes(op->getAttrs());
            scalars[op->getResult(0)] = b.create(state)->getResult(0);
          }
          linalg::YieldOp::create(b, loc, llvm::map_to_vector(results, [&](Value result) { return scalars[result]; }));
        });
    cost.flops += double(type.getNumElements()) * run.size();
    for (auto [result, replacement] : llvm::zip(results, generic.getResults()))
      result.replaceAllUsesWith(replacement);
    for (Operation *op : llvm::reverse(run))
      op->erase();
  }

  /// Sums `term(b, loc, [x, others…])` over the last dimension of `x`; the others are results of such sums.
  Value rowSum(Location loc, Value x, ValueRange others, function_ref<Value(OpBuilder &, Location, ValueRange)> term) {
    RankedTensorType type = tensorOf(x);
    AffineMap all = builder.getMultiDimIdentityMap(type.getRank()), outer = all.dropResult(type.getRank() - 1);
    SmallVector<Iterator> iterators(type.getRank(), Iterator::parallel);
    iterators.back() = Iterator::reduction;
    auto sumType = RankedTensorType::get(type.getShape().drop_back(), type.getElementType());
    Value zero = arith::ConstantOp::create(builder, loc, DenseElementsAttr::get(sumType, 0.0f));
    SmallVector<Value> inputs = {x};
    inputs.append(others.begin(), others.end());
    SmallVector<AffineMap> maps(inputs.size() + 1, outer);
    maps.front() = all;
    return linalg::GenericOp::create(builder, loc, TypeRange(sumType), inputs, zero, maps, iterators,
                                     [&](OpBuilder &b, Location loc, ValueRange arguments) {
                                       Value added = term(b, loc, arguments.drop_back());
                                       Value next = arith::AddFOp::create(b, loc, arguments.back(), added);
                                       linalg::YieldOp::create(b, loc, next);
                                     })
        .getResult(0);
  }

  /// `formula(b, loc, [x, sums…, vectors…])` of each element, its row's sums and its column's vectors.
  Value scaleRows(Location loc, Value x, ValueRange sums, ValueRange vectors,
                  function_ref<Value(OpBuilder &, Location, ValueRange)> formula) {
    RankedTensorType type = tensorOf(x);
    unsigned rank = type.getRank();
    AffineMap all = builder.getMultiDimIdentityMap(rank);
    SmallVector<Value> inputs = {x};
    SmallVector<AffineMap> maps = {all};
    inputs.append(sums.begin(), sums.end());
    maps.append(sums.size(), all.dropResult(rank - 1));
    inputs.append(vectors.begin(), vectors.end());
    maps.append(vectors.size(), map(rank, dim(rank - 1)));
    maps.push_back(all);
    return linalg::GenericOp::create(builder, loc, TypeRange(type), inputs,
                                     empty(builder, loc, type.getShape(), type.getElementType()), maps,
                                     SmallVector<Iterator>(rank, Iterator::parallel),
                                     [&](OpBuilder &b, Location loc, ValueRange arguments) {
                                       linalg::YieldOp::create(b, loc, formula(b, loc, arguments.drop_back()));
                                     })
        .getResult(0);
  }

  /// 1 / sqrt(sum / width + epsilon).
  static Value inverseRoot(OpBuilder &b, Location loc, Value sum, double width, double epsilon) {
    Value mean = arith::DivFOp::create(b, loc, sum, constant(b, loc, width));
    Value shifted = arith::AddFOp::create(b, loc, mean, constant(b, loc, epsilon));
    return arith::DivFOp::create(b, loc, constant(b, loc, 1), math::SqrtOp::create(b, loc, shifted));
  }

  void norm(RMSNormOp op) {
    builder.setInsertionPoint(op);
    RankedTensorType type = tensorOf(op.getX());
    double width = type.getShape().back(), epsilon = op.getEpsilon().convertToDouble();
    Value sum = rowSum(op.getLoc(), op.getX(), {}, [](OpBuilder &b, Location loc, ValueRange in) -> Value {
      return arith::MulFOp::create(b, loc, in[0], in[0]);
    });
    Value scaled =
        scaleRows(op.getLoc(), op.getX(), sum, op.getScale(), [&](OpBuilder &b, Location loc, ValueRange in) -> Value {
          Value factor = inverseRoot(b, loc, in[1], width, epsilon);
          Value normed = arith::MulFOp::create(b, loc, in[0], factor);
          return arith::MulFOp::create(b, loc, normed, in[2]);
        });
    cost.flops += 4.0 * type.getNumElements();
    op.replaceAllUsesWith(scaled);
    op.erase();
  }

  /// Two passes over the row, so that a large mean does not swallow the variance.
  void norm(LayerNormOp op) {
    builder.setInsertionPoint(op);
    RankedTensorType type = tensorOf(op.getX());
    double width = type.getShape().back(), epsilon = op.getEpsilon().convertToDouble();
    auto centred = [width](OpBuilder &b, Location loc, ValueRange in) -> Value {
      return arith::SubFOp::create(b, loc, in[0], arith::DivFOp::create(b, loc, in[1], constant(b, loc, width)));
    };
    Value sum = rowSum(op.getLoc(), op.getX(), {}, [](OpBuilder &, Location, ValueRange in) { return in[0]; });
    Value squares = rowSum(op.getLoc(), op.getX(), sum, [&](OpBuilder &b, Location loc, ValueRange in) -> Value {
      Value x = centred(b, loc, in);
      return arith::MulFOp::create(b, loc, x, x);
    });
    SmallVector<Value> vectors = {op.getScale()};
    if (op.getBias())
      vectors.push_back(op.getBias());
    Value scaled = scaleRows(op.getLoc(), op.getX(), {sum, squares}, vectors,
                             [&](OpBuilder &b, Location loc, ValueRange in) -> Value {
                               Value factor = inverseRoot(b, loc, in[2], width, epsilon);
                               Value normed = arith::MulFOp::create(b, loc, centred(b, loc, in), factor);
                               Value y = arith::MulFOp::create(b, loc, normed, in[3]);
                               return in.size() == 5 ? arith::AddFOp::create(b, loc, y, in[4]).getResult() : y;
                             });
    cost.flops += 7.0 * type.getNumElements();
    op.replaceAllUsesWith(scaled);
    op.erase();
  }

  void statistic(RowStatisticOp op) {
    builder.setInsertionPoint(op);
    RankedTensorType type = tensorOf(op.getX()), result = op.getType();
    double width = type.getShape().back(), epsilon = op.getEpsilon().convertToDouble();
    auto mean = [width](OpBuilder &b, Location loc, Value sum) -> Value {
      return arith::DivFOp::create(b, loc, sum, constant(b, loc, width));
    };
    bool isMean = op.getStatistic() == Statistic::Mean;
    Value sum = rowSum(op.getLoc(), op.getX(), {}, [](OpBuilder &, Location, ValueRange in) { return in[0]; });
    if (!isMean)
      sum = rowSum(op.getLoc(), op.getX(), sum, [&](OpBuilder &b, Location loc, ValueRange in) -> Value {
        Value x = arith::SubFOp::create(b, loc, in[0], mean(b, loc, in[1]));
        return arith::MulFOp::create(b, loc, x, x);
      });
    unsigned rank = type.getRank();
    AffineMap all = builder.getMultiDimIdentityMap(rank);
    auto each = linalg::GenericOp::create(
        builder, op.getLoc(), TypeRange(result), sum,
        empty(builder, op.getLoc(), result.getShape(), result.getElementType()), {all.dropResult(rank - 1), all},
        SmallVector<Iterator>(rank, Iterator::parallel), [&](OpBuilder &b, Location loc, ValueRange arguments) {
          Value value = arguments.front();
          linalg::YieldOp::create(b, loc, isMean ? mean(b, loc, value) : inverseRoot(b, loc, value, width, epsilon));
        });
    cost.flops += (isMean ? 1.0 : 4.0) * type.getNumElements();
    op.replaceAllUsesWith(each.getResult(0));
    op.erase();
  }

  /// The position of the row at hand of a linalg op, past[b] + t, clamped to a table of `rows`.
  static Value position(OpBuilder &b, Location loc, Value past, int64_t rows) {
    Value sequence = linalg::IndexOp::create(b, loc, 0);
    Value before = tensor::ExtractOp::create(b, loc, past, sequence);
    Value here = arith::AddIOp::create(b, loc, arith::IndexCastOp::create(b, loc, b.getIndexType(), before),
                                       linalg::IndexOp::create(b, loc, 1));
    Value first = arith::ConstantIndexOp::create(b, loc, 0);
    Value last = arith::ConstantIndexOp::create(b, loc, rows - 1);
    return arith::MinSIOp::create(b, loc, arith::MaxSIOp::create(b, loc, here, first), last);
  }

  void positions(PositionEmbeddingOp op) {
    builder.setInsertionPoint(op);
    RankedTensorType type = cast<RankedTensorType>(op.getType());
    auto rows = linalg::GenericOp::create(
        builder, op.getLoc(), TypeRange(type), ValueRange(),
        empty(builder, op.getLoc(), type.getShape(), type.getElementType()), builder.getMultiDimIdentityMap(3),
        SmallVector<Iterator>(3, Iterator::parallel), [&](OpBuilder &b, Location loc, ValueRange) {
          Value row = position(b, loc, op.getPast(), tensorOf(op.getTable()).getDimSize(0));
          SmallVector<Value> at = {row, linalg::IndexOp::create(b, loc, 2)};
          linalg::YieldOp::create(b, loc, tensor::ExtractOp::create(b, loc, op.getTable(), at).getResult());
        });
    cost.bytes += 4.0 * type.getNumElements();
    op.replaceAllUsesWith(rows.getResult(0));
    op.erase();
  }

  void rope(RopeOp op) {
    builder.setInsertionPoint(op);
    Location loc = op.getLoc();
    RankedTensorType type = tensorOf(op.getX()), table = tensorOf(op.getCos());
    int64_t batch = type.getDimSize(0), tokens = type.getDimSize(1), r = table.getDimSize(1);

    // The angles of a row are the same for all heads.
    SmallVector<int64_t> angles = {batch, tokens, r};
    SmallVector<Value> inits(2);
    for (Value &init : inits)
      init = empty(builder, loc, angles, type.getElementType());
    AffineMap angleMap = builder.getMultiDimIdentityMap(3);
    auto rows = linalg::GenericOp::create(builder, loc, TypeRange(ValueRange(inits)), ValueRange(), inits,
                                          {angleMap, angleMap}, SmallVector<Iterator>(3, Iterator::parallel),
                                          [&](OpBuilder &b, Location loc, ValueRange) {
                                            Value row = position(b, loc, op.getPast(), table.getDimSize(0));
                                            Value i = linalg::IndexOp::create(b, loc, 2);
                                            SmallVector<Value> at = {row, i};
                                            Value cos = tensor::ExtractOp::create(b, loc, op.getCos(), at);
                                            Value sin = tensor::ExtractOp::create(b, loc, op.getSin(), at);
                                            linalg::YieldOp::create(b, loc, ValueRange{cos, sin});
                                          });
    cost.bytes += 8.0 * batch * tokens * r;

    // Side s of pair i; its partner is on the other side.
    AffineExpr b = dim(0), t = dim(1), h = dim(2), s = dim(3), i = dim(4);
    AffineExpr self = op.getInterleaved() ? i * 2 + s : s * r + i;
    AffineExpr partner = op.getInterleaved() ? i * 2 - s + 1 : i - s * r + r;
    Value sides = empty(builder, loc, {2}, builder.getI1Type()); // only its shape counts: it bounds s
    Value init = 2 * r == type.getDimSize(3) ? empty(builder, loc, type.getShape(), type.getElementType()) : op.getX();
    auto rotated = linalg::GenericOp::create(
        builder, loc, TypeRange(type), ValueRange{op.getX(), op.getX(), rows.getResult(0), rows.getResult(1), sides},
        init,
        {map(5, {b, t, h, self}), map(5, {b, t, h, partner}), map(5, {b, t, i}), map(5, {b, t, i}), map(5, s),
         map(5, {b, t, h, self})},
        SmallVector<Iterator>(5, Iterator::parallel), [](OpBuilder &b, Location loc, ValueRange arguments) {
          Value side = linalg::IndexOp::create(b, loc, 3);
          Value isFirst =
              arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, side, arith::ConstantIndexOp::create(b, loc, 0));
          Value sign = arith::SelectOp::create(b, loc, isFirst, constant(b, loc, -1), constant(b, loc, 1));
          Value own = arith::MulFOp::create(b, loc, arguments[0], arguments[2]);
          Value sin = arith::MulFOp::create(b, loc, arguments[3], sign);
          Value other = arith::MulFOp::create(b, loc, arguments[1], sin);
          Value result = arith::AddFOp::create(b, loc, own, other);
          linalg::YieldOp::create(b, loc, result);
        });
    cost.flops += 3.0 * type.getNumElements();
    op.replaceAllUsesWith(rotated.getResult(0));
    op.erase();
  }

  LogicalResult checkOp(Operation &op) {
    if (isa<arith::ConstantOp>(op)) {
      if (!splatOf(op.getResult(0)))
        return unsupported(&op) << "its elements differ; pass it as an operand";
      return success();
    }
    if (!isa<BroadcastOp, LayerNormOp, PositionEmbeddingOp, RMSNormOp, RopeOp, RowStatisticOp>(op) &&
        !isElementwise(&op))
      return unsupported(&op)
             << "a kernel holds helix.rms_norm, helix.rope and elementwise ops, other norms, positions and broadcasts";
    if (isa<BroadcastOp>(op) && (!isa<BlockArgument>(op.getOperand(0)) || !llvm::all_of(op.getUsers(), isElementwise)))
      return unsupported(&op) << "it repeats an operand of the kernel, for elementwise ops alone";
    auto type = dyn_cast<RankedTensorType>(op.getResult(0).getType());
    if (!type || type.getRank() < 3 || type.getShape().take_front(2) != rowsOf().getShape().take_front(2))
      return unsupported(&op) << "its result must be [batch, tokens, ...] of the kernel's rows, but is "
                              << op.getResult(0).getType();
    return success();
  }

  RankedTensorType rowsOf() { return cast<RankedTensorType>(kernel.getResultTypes().front()); }

  LogicalResult check() {
    if (!kernel.getBody().hasOneBlock() || kernel.getNumResults() == 0)
      return unsupported(kernel) << "it must be one block with results";
    for (Type type : llvm::concat<const Type>(kernel.getArgumentTypes(), kernel.getResultTypes())) {
      auto tensor = dyn_cast<RankedTensorType>(type);
      if (!tensor || !tensor.hasStaticShape() || tensor.getNumElements() == 0 ||
          !(tensor.getElementType().isF32() || tensor.getElementType().isInteger(32)))
        return unsupported(kernel) << "operands and results must be tensors of f32 or i32 with static shapes, but one "
                                   << "is " << type;
    }
    for (Type type : kernel.getResultTypes())
      if (cast<RankedTensorType>(type).getRank() < 3 || !cast<RankedTensorType>(type).getElementType().isF32())
        return unsupported(kernel) << "results must be [batch, tokens, ...] of f32, but one is " << type;
    SmallPtrSet<Value, 4> returned;
    for (Value value : kernel.getBody().front().getTerminator()->getOperands())
      if (isa<BlockArgument>(value) || splatOf(value) || !returned.insert(value).second)
        return unsupported(kernel) << "every result must be computed by the kernel, and returned once";
    for (Operation &op : kernel.getBody().front().without_terminator())
      if (failed(checkOp(op)))
        return failure();
    return success();
  }

  LogicalResult run() {
    if (failed(check()))
      return failure();
    // Tables of angles and of positions are read by row; every other operand whole.
    for (BlockArgument argument : kernel.getArguments())
      if (!llvm::all_of(argument.getUses(), [](OpOperand &use) {
            return isa<PositionEmbeddingOp>(use.getOwner()) ||
                   (isa<RopeOp>(use.getOwner()) && use.getOperandNumber() > 0);
          }))
        cost.bytes += 4.0 * tensorOf(argument).getNumElements();
    for (Type type : kernel.getResultTypes())
      cost.bytes += 4.0 * cast<RankedTensorType>(type).getNumElements();

    SmallVector<Operation *> elementwiseRun;
    auto flush = [&] {
      if (!elementwiseRun.empty())
        elementwise(elementwiseRun);
      elementwiseRun.clear();
    };
    for (Operation &op : llvm::make_early_inc_range(kernel.getBody().front().without_terminator())) {
      if (isa<arith::ConstantOp, BroadcastOp>(op))
        continue;
      bool joins = isElementwise(&op) &&
                   (elementwiseRun.empty() ||
                    tensorOf(elementwiseRun.front()->getResult(0)).getShape() == tensorOf(op.getResult(0)).getShape());
      if (!joins)
        flush();
      if (auto rmsNorm = dyn_cast<RMSNormOp>(op))
        norm(rmsNorm);
      else if (auto layerNorm = dyn_cast<LayerNormOp>(op))
        norm(layerNorm);
      else if (auto embedding = dyn_cast<PositionEmbeddingOp>(op))
        positions(embedding);
      else if (auto ropeOp = dyn_cast<RopeOp>(op))
        rope(ropeOp);
      else if (auto statisticOp = dyn_cast<RowStatisticOp>(op))
        statistic(statisticOp);
      else
        elementwiseRun.push_back(&op);
    }
    flush();
    SmallVector<Operation *> ops =
        llvm::map_to_vector(kernel.getBody().front().without_terminator(), [](Operation &op) { return &op; });
    for (Operation *op : llvm::reverse(ops))
      if (isOpTriviallyDead(op))
        op->erase();
    return success();
  }
};

} // namespace

FailureOr<KernelCost> lowerToLinalg(func::FuncOp kernel) {
  Lowering lowering(kernel);
  if (failed(lowering.run()))
    return failure();
  return lowering.cost;
}

} // namespace helix::codegen
