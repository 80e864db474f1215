//===- Tensor.cpp - A tensor of doubles -------------------------------------===//
#include "lib/Interpreter/Tensor.h"

#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/APFloat.h"

#include <cassert>

using namespace mlir;
using namespace helix;

static int64_t elements(ArrayRef<int64_t> shape) {
  int64_t count = 1;
  for (int64_t size : shape)
    count *= size;
  return count;
}

Tensor::Tensor(ArrayRef<int64_t> shape, double fill) : shape(shape), values(elements(shape), fill) {}

Tensor::Tensor(ArrayRef<int64_t> shape, std::vector<double> values) : shape(shape), values(std::move(values)) {
  assert(elements(shape) == size());
}

int64_t Tensor::offset(ArrayRef<int64_t> index) const {
  int64_t offset = 0;
  for (int64_t d = 0; d < rank(); ++d) {
    int64_t i = d < static_cast<int64_t>(index.size()) ? index[d] : 0;
    assert(i >= 0 && i < shape[d]);
    offset = offset * shape[d] + i;
  }
  return offset;
}

double helix::roundTo(Type element, double value) {
  auto type = cast<FloatType>(element);
  if (type.getWidth() >= 32)
    return value;
  llvm::APFloat number(value);
  bool losesInfo;
  number.convert(type.getFloatSemantics(), llvm::APFloat::rmNearestTiesToEven, &losesInfo);
  return number.convertToDouble();
}
