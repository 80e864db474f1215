//===- StatelessVerifiers.cpp - What ops of stateless functions demand -----===//
#include "dialects/Helix/Helix.h"

#include <array>

using namespace mlir;
using namespace helix;

namespace {

ArrayRef<int64_t> shapeOf(Value value) { return cast<RankedTensorType>(value.getType()).getShape(); }

LogicalResult expectShape(Operation *op, StringRef what, Value value, ArrayRef<int64_t> shape) {
  if (shapeOf(value) == shape)
    return success();
  InFlightDiagnostic diagnostic = op->emitOpError() << what << " must have shape [";
  llvm::interleaveComma(shape, diagnostic);
  return diagnostic << "], but is " << value.getType();
}

LogicalResult expectStatic(Operation *op) {
  for (Type type : llvm::concat<const Type>(op->getOperandTypes(), op->getResultTypes()))
    if (!cast<RankedTensorType>(type).hasStaticShape())
      return op->emitOpError() << "needs static shapes, but has " << type;
  return success();
}

} // namespace

SmallVector<int64_t> DenseAttentionOp::maskShape() {
  if (!getMask())
    return {};
  SmallVector<int64_t> shape(shapeOf(getMask()));
  if (shape.size() < 4)
    shape.insert(shape.begin(), 4 - shape.size(), 1);
  return shape;
}

LogicalResult DenseAttentionOp::verify() {
  if (failed(expectStatic(*this)))
    return failure();
  ArrayRef<int64_t> q = shapeOf(getQ()), key = shapeOf(getKey());
  int64_t batch = q[0], heads = q[1], tokens = q[2], keys = key[2];
  if (key[0] != batch || key[3] != q[3] || key[1] < 1 || heads % key[1] != 0)
    return emitOpError() << "q [batch, heads, tokens, key_dim] and key [batch, KV heads, keys, key_dim] must agree, "
                         << "heads in whole groups, but are " << getQ().getType() << " and " << getKey().getType();
  if (static_cast<bool>(getValue()) == getStage().has_value())
    return emitOpError("takes a value or stops at a stage of the scores");
  if (getValue() && failed(expectShape(*this, "value", getValue(), {batch, key[1], keys, shapeOf(getValue())[3]})))
    return failure();
  if (getLengths() && (failed(expectShape(*this, "lengths", getLengths(), {batch})) || getOffset() != 0))
    return getOffset() == 0 ? failure() : emitOpError("takes an offset or lengths, which say where queries stand");
  if (getMask()) {
    SmallVector<int64_t> mask = maskShape();
    bool fits = mask.size() == 4 && mask[3] >= 1 && mask[3] <= keys;
    for (auto [size, whole] : llvm::zip(ArrayRef(mask).take_front(3), std::array<int64_t, 3>{batch, heads, tokens}))
      fits = fits && (size == 1 || size == whole);
    if (!fits)
      return emitOpError() << "mask must repeat to [" << batch << ", " << heads << ", " << tokens << ", up to " << keys
                           << "], but is " << getMask().getType();
  }
  if (getSoftcap() && !(getSoftcap()->isFinite() && getSoftcap()->convertToDouble() > 0))
    return emitOpError("softcap must be finite and positive");
  return expectShape(*this, "result", getResult(), {batch, heads, tokens, getValue() ? shapeOf(getValue())[3] : keys});
}

LogicalResult RotateOp::verify() {
  if (failed(expectStatic(*this)))
    return failure();
  ArrayRef<int64_t> x = shapeOf(getX()), cos = shapeOf(getCos());
  if (2 * cos.back() > x[3])
    return emitOpError() << "rotates " << 2 * cos.back() << " of a head's " << x[3] << " elements";
  if (!getPositions())
    return expectShape(*this, "cos", getCos(), {x[0], x[2], cos.back()});
  if (cos.size() != 2)
    return emitOpError("takes rows of cos and sin [rows, r] by position");
  return expectShape(*this, "positions", getPositions(), {x[0], x[2]});
}

LogicalResult ScatterOp::verify() {
  if (failed(expectStatic(*this)))
    return failure();
  SmallVector<int64_t> update(shapeOf(getUpdate()));
  ArrayRef<int64_t> cache = shapeOf(getCache());
  uint64_t axis = getAxis();
  if (axis < 1 || axis >= cache.size() || update.size() != cache.size() || update[axis] > cache[axis])
    return emitOpError() << "writes " << getUpdate().getType() << " along dimension " << axis << " of "
                         << getCache().getType() << ", which must be a dimension behind the first and hold it";
  if (getIndices() && failed(expectShape(*this, "indices", getIndices(), {cache[0]})))
    return failure();
  update[axis] = cache[axis];
  return expectShape(*this, "cache", getCache(), update);
}

LogicalResult TransposeOp::verify() {
  if (failed(expectStatic(*this)))
    return failure();
  ArrayRef<int64_t> x = shapeOf(getX());
  SmallVector<int64_t> shape, sorted(getPermutation());
  llvm::sort(sorted);
  if (!llvm::equal(sorted, llvm::seq<int64_t>(0, x.size())))
    return emitOpError() << "[" << getPermutation() << "] is no permutation of the dimensions of " << getX().getType();
  for (int64_t from : getPermutation())
    shape.push_back(x[from]);
  return expectShape(*this, "result", getResult(), shape);
}

LogicalResult RowStatisticOp::verify() {
  if (failed(expectStatic(*this)))
    return failure();
  SmallVector<int64_t> shape(shapeOf(getX()));
  if (shape.empty())
    return emitOpError("needs rows");
  shape.back() = 1;
  return expectShape(*this, "result", getResult(), shape);
}
