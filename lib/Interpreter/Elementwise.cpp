//===- Elementwise.cpp - arith and math on tensors ---------------------------===//
#include "lib/Interpreter/Machine.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace helix;

/// Enters an op that computes `formula` of each element.
template <typename Op> static void addUnary(OpTable &table, double (*formula)(double)) {
  addLocal<Op>(table, [formula](Op, Operands operands, int64_t) -> FailureOr<RankValue> {
    Tensor result = *operands[0].tensor;
    for (double &x : result.values)
      x = formula(x);
    return RankValue(std::move(result));
  });
}

/// Enters an op that computes `formula` of each pair of elements.
template <typename Op> static void addBinary(OpTable &table, double (*formula)(double, double)) {
  addLocal<Op>(table, [formula](Op, Operands operands, int64_t) -> FailureOr<RankValue> {
    Tensor result = *operands[0].tensor;
    for (auto [x, y] : llvm::zip(result.values, operands[1].tensor->values))
      x = formula(x, y);
    return RankValue(std::move(result));
  });
}

static double number(const APFloat &value) {
  APFloat wide = value;
  bool losesInfo;
  wide.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &losesInfo);
  return wide.convertToDouble();
}

static FailureOr<RankValue> constant(arith::ConstantOp op, Operands, int64_t) {
  if (auto scalar = dyn_cast<FloatAttr>(op.getValue()))
    return RankValue(Tensor({}, number(scalar.getValue())));
  if (auto scalar = dyn_cast<IntegerAttr>(op.getValue()))
    return RankValue(Tensor({}, scalar.getValue().getSExtValue()));
  auto elements = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!elements)
    return op.emitOpError("has a value that the interpreter does not read");
  Tensor result(elements.getType().getShape());
  if (isa<FloatType>(elements.getElementType()))
    for (auto [x, value] : llvm::zip(result.values, elements.getValues<APFloat>()))
      x = number(value);
  else
    for (auto [x, value] : llvm::zip(result.values, elements.getValues<APInt>()))
      x = value.getSExtValue();
  return RankValue(std::move(result));
}

void helix::addElementwiseOps(OpTable &table) {
  addLocal<arith::ConstantOp>(table, constant);
  addBinary<arith::AddFOp>(table, [](double x, double y) { return x + y; });
  addBinary<arith::SubFOp>(table, [](double x, double y) { return x - y; });
  addBinary<arith::MulFOp>(table, [](double x, double y) { return x * y; });
  addBinary<arith::DivFOp>(table, [](double x, double y) { return x / y; });
  // Unlike fmax, arith.maximumf gives NaN if either is NaN.
  addBinary<arith::MaximumFOp>(table, [](double x, double y) { return x > y || std::isnan(x) ? x : y; });
  addUnary<arith::NegFOp>(table, [](double x) { return -x; });
  addBinary<math::PowFOp>(table, [](double x, double y) { return std::pow(x, y); });
  addUnary<math::ErfOp>(table, [](double x) { return std::erf(x); });
  addUnary<math::ExpOp>(table, [](double x) { return std::exp(x); });
  addUnary<math::SqrtOp>(table, [](double x) { return std::sqrt(x); });
  addUnary<math::RsqrtOp>(table, [](double x) { return 1 / std::sqrt(x); });
  addUnary<math::TanhOp>(table, [](double x) { return std::tanh(x); });
}
