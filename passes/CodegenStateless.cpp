//===- CodegenStateless.cpp - Commands of stateless entries ----------------===//
#include "passes/CodegenStateless.h"

using namespace mlir;

namespace helix {
namespace {

ArrayRef<int64_t> shapeOf(Value value) { return cast<RankedTensorType>(value.getType()).getShape(); }

Value lookup(const IRMapping &map, Value value) { return value ? map.lookup(value) : Value(); }

} // namespace

Value commandOf(OpBuilder &builder, const IRMapping &map, DenseAttentionOp op) {
  ArrayRef<int64_t> q = shapeOf(op.getQ()), key = shapeOf(op.getKey());
  SmallVector<int64_t> mask = op.maskShape();
  return plan::DenseAttentionOp::create(
      builder, op.getLoc(), op.getType(), map.lookup(op.getQ()), map.lookup(op.getKey()), lookup(map, op.getValue()),
      lookup(map, op.getMask()), lookup(map, op.getLengths()), q[0], q[1], key[1], q[2], key[2], q[3],
      op.getValue() ? shapeOf(op.getValue())[3] : 0,
      mask.empty() ? DenseI64ArrayAttr() : builder.getDenseI64ArrayAttr(mask), op.getScale(), op.getSoftcapAttr(),
      op.getOffset(), op.getLeftAttr(), op.getRightAttr(), op.getStageAttr(), nullptr, nullptr, nullptr);
}

Value commandOf(OpBuilder &builder, const IRMapping &map, RotateOp op) {
  ArrayRef<int64_t> x = shapeOf(op.getX()), cos = shapeOf(op.getCos());
  int64_t half = cos.back(), rows = ShapedType::getNumElements(cos.drop_back());
  return plan::RotateOp::create(builder, op.getLoc(), op.getType(), map.lookup(op.getX()), map.lookup(op.getCos()),
                                map.lookup(op.getSin()), lookup(map, op.getPositions()), x[0], x[1], x[2], x[3], half,
                                rows, op.getInterleaved(), nullptr, nullptr, nullptr);
}

Value commandOf(OpBuilder &builder, const IRMapping &map, ScatterOp op) {
  ArrayRef<int64_t> cache = shapeOf(op.getCache());
  auto axis = static_cast<size_t>(op.getAxis());
  return plan::ScatterOp::create(builder, op.getLoc(), op.getType(), map.lookup(op.getUpdate()),
                                 map.lookup(op.getCache()), lookup(map, op.getIndices()), cache[0],
                                 ShapedType::getNumElements(cache.slice(1, axis - 1)), shapeOf(op.getUpdate())[axis],
                                 cache[axis], ShapedType::getNumElements(cache.drop_front(axis + 1)), op.getCircular(),
                                 nullptr, nullptr, nullptr);
}

Value commandOf(OpBuilder &builder, const IRMapping &map, TransposeOp op) {
  return plan::TransposeOp::create(builder, op.getLoc(), op.getType(), map.lookup(op.getX()), shapeOf(op.getX()),
                                   op.getPermutation(), nullptr, nullptr, nullptr);
}

ArrayAttr portsOf(ArrayAttr attributes) {
  if (!attributes)
    return {};
  SmallVector<Attribute> ports;
  for (Attribute each : attributes)
    if (Attribute port = cast<DictionaryAttr>(each).get(kIOAttr))
      ports.push_back(port);
  return ports.size() == attributes.size() ? ArrayAttr::get(attributes.getContext(), ports) : ArrayAttr();
}

void returnOutputs(OpBuilder &builder, const IRMapping &map, func::ReturnOp op) {
  SmallVector<Value> outputs;
  for (Value value : op.getOperands()) {
    Value output = map.lookup(value);
    auto type = cast<RankedTensorType>(value.getType());
    bool isOther = llvm::is_contained(outputs, output) && output.getType() != type;
    if (isa<BlockArgument>(output) || isOther)
      output = plan::ConcatOp::create(builder, op.getLoc(), type, output, /*rows=*/1, type.getNumElements(), nullptr,
                                      nullptr, nullptr);
    // Reshapes are no commands: what is returned has the type that it had behind them, which the artifact states.
    output.setType(type);
    outputs.push_back(output);
  }
  plan::ReturnOp::create(builder, op.getLoc(), outputs);
}

} // namespace helix
