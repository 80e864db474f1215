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
                             int64_t valueDim, Type element, int64_t block, int64_t kvp, int64_t capacity) {
  for (int64_t size : {slots, heads, keyDim, valueDim, block, kvp, capacity})
    if (size < 1 || size > (int64_t{1} << 40))
      return emitError() << "every size of a KV cache is from 1 to 2^40, but one is " << size;
  if (!element.isF32() && !element.isF16() && !element.isBF16())
    return emitError() << "a KV cache holds f32, f16 or bf16, not " << element;
  if (capacity % (block * kvp) != 0)
    return emitError() << "capacity " << capacity << " must be a multiple of block * kvp = " << block * kvp;
  return success();
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
