//===- Types.cpp - KV caches and partial values ----------------------------===//
#include "dialects/Helix/Helix.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace helix;

#define GET_TYPEDEF_CLASSES
#include "dialects/Helix/HelixTypes.cpp.inc"

void HelixDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/Helix/HelixTypes.cpp.inc"
      >();
}

LogicalResult KVType::verify(function_ref<InFlightDiagnostic()> emitError, int64_t slots, int64_t heads, int64_t keyDim,
                             int64_t valueDim, Type element, int64_t block, int64_t kvp, int64_t capacity,
                             KvScaleAttr scale) {
  for (int64_t size : {slots, heads, keyDim, valueDim, block, kvp, capacity})
    if (size < 1 || size > (int64_t{1} << 40))
      return emitError() << "every size of a KV cache is from 1 to 2^40, but one is " << size;
  bool isCode = element.isSignlessInteger(8) || isa<Float8E4M3FNType>(element);
  if (!element.isF32() && !element.isF16() && !element.isBF16() && !isCode)
    return emitError() << "a KV cache holds f32, f16, bf16, i8 or f8E4M3FN, not " << element;
  if (isCode != static_cast<bool>(scale))
    return emitError() << "a KV cache of " << element << (isCode ? " needs a scale" : " has no scale");
  if (capacity % (block * kvp) != 0)
    return emitError() << "capacity " << capacity << " must be a multiple of block * kvp = " << block * kvp;
  return success();
}

int64_t KVType::tokenBytes() const {
  int64_t own = getScale() && getScale().perToken() ? 2 * sizeof(float) : 0;
  return (getKeyDim() + getValueDim()) * (getElement().getIntOrFloatBitWidth() / 8) + own;
}

LogicalResult PartialType::verify(function_ref<InFlightDiagnostic()> emitError, RankedTensorType value,
                                  Reduction reduction, ArrayRef<Axis> axes) {
  if (!value.getElementType().isF32())
    return emitError() << "partial values are f32, not " << value.getElementType();
  if (axes.empty())
    return emitError() << "a partial value names the axes that its parts lie along";
  if (llvm::any_of(axes, [&](Axis axis) { return viewOf(axis) != viewOf(axes.front()); }))
    return emitError() << "the axes of a partial value must be of one view";
  if (reduction == Reduction::Lse) {
    if (axes != ArrayRef<Axis>{Axis::Kvp})
      return emitError() << "an lse partial lies along kvp alone";
    if (value.getRank() != 4)
      return emitError() << "an lse partial is [batch, tokens, heads, value_dim], not " << value;
  }
  return success();
}

LogicalResult StackedType::verify(function_ref<InFlightDiagnostic()> emitError, Axis axis, RankedTensorType value) {
  if (axis != Axis::Kvp)
    return emitError() << "partial attention is stacked along kvp, not " << stringifyAxis(axis);
  if (value.getRank() != 5 || !value.getElementType().isF32())
    return emitError() << "stacked partials are [peer, batch, tokens, heads, value_dim + 1] in f32, not " << value;
  return success();
}
