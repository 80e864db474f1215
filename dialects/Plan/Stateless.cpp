//===- Stateless.cpp - Commands of stateless entries -----------------------===//
#include "dialects/Plan/Plan.h"

#include <array>

using namespace mlir;

namespace helix::plan {
namespace {

/// Whether `value`, if it is there, holds exactly the product of `sizes` elements.
LogicalResult expect(Operation *op, StringRef what, Value value, ArrayRef<int64_t> sizes) {
  auto tensor = value ? cast<RankedTensorType>(value.getType()) : RankedTensorType();
  int64_t want = 1;
  bool fits = !tensor || tensor.hasStaticShape();
  for (int64_t size : sizes)
    fits = fits && size > 0 && !llvm::MulOverflow(want, size, want);
  if (!tensor || (fits && tensor.getNumElements() == want))
    return success();
  InFlightDiagnostic diagnostic = op->emitOpError() << what << " must have ";
  llvm::interleave(sizes, diagnostic, [&](int64_t size) { diagnostic << size; }, " * ");
  return diagnostic << " elements, but is " << tensor;
}

LogicalResult expectPlaces(CommandOpInterface command) {
  if (ArrayAttr places = command.getPlacesAttr(); places && places.size() != 1)
    return command->emitOpError() << "has " << places.size() << " places for 1 result";
  return success();
}

double total(Operation *op) {
  double bytes = 0;
  for (Type type : llvm::concat<const Type>(op->getOperandTypes(), op->getResultTypes()))
    bytes += bytesOf(type);
  return bytes;
}

} // namespace

LogicalResult DenseAttentionOp::verify() {
  int64_t batch = getBatch(), heads = getHeads(), kvHeads = getKvHeads(), tokens = getTokens(), keys = getKeys();
  int64_t keyDim = getKeyDim(), valueDim = getValueDim();
  bool isScores = getStage().has_value();
  if (heads % kvHeads != 0 || isScores == static_cast<bool>(getValue()) || isScores != (valueDim == 0))
    return emitOpError("needs whole groups of heads, and either a value with a value_dim or a stage");
  if (static_cast<bool>(getMask()) != getMaskShape().has_value())
    return emitOpError("has a mask_shape if it has a mask");
  if (getMask()) {
    ArrayRef<int64_t> mask = *getMaskShape();
    bool fits = mask.size() == 4 && mask[3] >= 1 && mask[3] <= keys;
    for (auto [size, whole] : llvm::zip(mask.take_front(3), std::array<int64_t, 3>{batch, heads, tokens}))
      fits = fits && (size == 1 || size == whole);
    if (!fits)
      return emitOpError() << "mask_shape [" << mask << "] does not repeat to [" << batch << ", " << heads << ", "
                           << tokens << ", up to " << keys << "]";
    if (failed(expect(*this, "mask", getMask(), mask)))
      return failure();
  }
  if (failed(expect(*this, "q", getQ(), {batch, heads, tokens, keyDim})) ||
      failed(expect(*this, "key", getKey(), {batch, kvHeads, keys, keyDim})) ||
      failed(expect(*this, "value", getValue(), {batch, kvHeads, keys, valueDim})) ||
      failed(expect(*this, "lengths", getLengths(), {batch})) ||
      failed(expect(*this, "result", getResult(), {batch, heads, tokens, isScores ? keys : valueDim})))
    return failure();
  return expectPlaces(*this);
}

Cost DenseAttentionOp::getCost() {
  double rows = double(getBatch()) * getHeads() * getTokens();
  return {.bytes = total(*this), .flops = 2.0 * rows * getKeys() * double(getKeyDim() + getValueDim())};
}

LogicalResult RotateOp::verify() {
  int64_t batch = getBatch(), heads = getHeads(), tokens = getTokens(), dim = getDim(), half = getHalf();
  for (auto [what, value] : {std::pair("x", Value(getX())), {"result", Value(getResult())}})
    if (failed(expect(*this, what, value, {batch, heads, tokens, dim})))
      return failure();
  if (half > dim / 2 || (!getPositions() && static_cast<int64_t>(getRows()) != batch * tokens))
    return emitOpError("rotates pairs within dim, and has a row for every token where there are no positions");
  for (auto [what, value] : {std::pair("cos", Value(getCos())), {"sin", Value(getSin())}})
    if (failed(expect(*this, what, value, {static_cast<int64_t>(getRows()), half})))
      return failure();
  if (failed(expect(*this, "positions", getPositions(), {batch, tokens})))
    return failure();
  return expectPlaces(*this);
}

Cost RotateOp::getCost() {
  return {.bytes = total(*this), .flops = 6.0 * getBatch() * getHeads() * getTokens() * getHalf()};
}

LogicalResult ScatterOp::verify() {
  int64_t batch = getBatch(), outer = getOuter(), inner = getInner();
  if (getTokens() > getCapacity())
    return emitOpError() << "writes " << getTokens() << " tokens into " << getCapacity();
  if (failed(expect(*this, "update", getUpdate(), {batch, outer, static_cast<int64_t>(getTokens()), inner})) ||
      failed(expect(*this, "cache", getCache(), {batch, outer, static_cast<int64_t>(getCapacity()), inner})) ||
      failed(expect(*this, "indices", getIndices(), {batch})) ||
      failed(expect(*this, "result", getResult(), {batch, outer, static_cast<int64_t>(getCapacity()), inner})))
    return failure();
  return expectPlaces(*this);
}

Cost ScatterOp::getCost() { return {.bytes = total(*this)}; }

LogicalResult TransposeOp::verify() {
  SmallVector<int64_t> sorted(getPermutation());
  llvm::sort(sorted);
  if (getShape().empty() || getShape().size() > 8 || !llvm::equal(sorted, llvm::seq<int64_t>(0, getShape().size())))
    return emitOpError("needs a permutation of 1 to 8 dimensions");
  for (auto [what, value] : {std::pair("x", Value(getX())), {"result", Value(getResult())}})
    if (failed(expect(*this, what, value, getShape())))
      return failure();
  return expectPlaces(*this);
}

Cost TransposeOp::getCost() { return {.bytes = total(*this)}; }

} // namespace helix::plan
