//===- Activations.cpp - Recognising an activation by what it computes -----===//
#include "passes/Activations.h"
#include "passes/AttentionPattern.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/ADT/TypeSwitch.h"

#include <cmath>

using namespace mlir;

namespace helix {
namespace {

/// No activation is written with more ops.
constexpr size_t kMaxOps = 32;
/// By how much a formula with constants in f32 may differ, relative to x.
constexpr double kTolerance = 5e-7;

/// The elementwise ops that lead from `x` to a value, in order.
struct Expression {
  Value x;
  SmallVector<Operation *> ops;
  DenseMap<Value, double> constants;

  /// Collects what `value` is computed from; false if that is more than one value, or too much.
  bool collect(Value value) {
    if (value == x || constants.contains(value) || llvm::is_contained(ops, value.getDefiningOp()))
      return true;
    Operation *op = value.getDefiningOp();
    if (auto constant = dyn_cast_or_null<arith::ConstantOp>(op)) {
      auto splat = dyn_cast<SplatElementsAttr>(constant.getValue());
      if (!splat || !splat.getElementType().isF32())
        return false;
      constants[value] = splat.getSplatValue<APFloat>().convertToFloat();
      return true;
    }
    if (isa_and_nonnull<LinearOp>(op)) {
      if (x)
        return false;
      x = value;
      return true;
    }
    if (!op || !isElementwise(op) || ops.size() > kMaxOps)
      return false;
    for (Value operand : op->getOperands())
      if (!collect(operand))
        return false;
    ops.push_back(op);
    return true;
  }

  /// The last op's value at `at`; NaN if an op is not known.
  double evaluate(double at) const {
    DenseMap<Value, double> values = constants;
    values[x] = at;
    double result = at;
    for (Operation *op : ops) {
      double a = values.lookup(op->getOperand(0)), b = values.lookup(op->getOperands().back());
      result = llvm::TypeSwitch<Operation *, double>(op)
                   .Case([&](arith::AddFOp) { return a + b; })
                   .Case([&](arith::SubFOp) { return a - b; })
                   .Case([&](arith::MulFOp) { return a * b; })
                   .Case([&](arith::DivFOp) { return a / b; })
                   .Case([&](arith::MaximumFOp) { return std::max(a, b); })
                   .Case([&](arith::MaxNumFOp) { return std::max(a, b); })
                   .Case([&](arith::NegFOp) { return -a; })
                   .Case([&](math::ExpOp) { return std::exp(a); })
                   .Case([&](math::TanhOp) { return std::tanh(a); })
                   .Case([&](math::ErfOp) { return std::erf(a); })
                   .Case([&](math::PowFOp) { return std::pow(a, b); })
                   .Default([](Operation *) { return std::nan(""); });
      values[op->getResult(0)] = result;
    }
    return result;
  }
};

double formula(Activation activation, double x) {
  switch (activation) {
  case Activation::Silu:
    return x / (1 + std::exp(-x));
  case Activation::Gelu:
    return x * (1 + std::erf(x / std::sqrt(2.))) / 2;
  case Activation::GeluTanh:
    return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
  case Activation::Relu:
    return std::max(x, 0.);
  }
  llvm_unreachable("an activation has a formula");
}

bool agrees(const Expression &expression, Activation activation) {
  auto agreesAt = [&](double x) {
    return std::abs(expression.evaluate(x) - formula(activation, x)) <= kTolerance * std::abs(x);
  };
  for (double x : {1e-20, 1e-6, 1e-3, 0.02, 20., 50., 88., 200., 1e3, 1e4})
    if (!agreesAt(x) || !agreesAt(-x))
      return false;
  for (int i = -80; i <= 80; ++i)
    if (!agreesAt(0.1237 * i))
      return false;
  return true;
}

} // namespace

std::optional<ActivationOf> matchActivation(Value value) {
  Expression expression;
  if (!expression.collect(value) || !expression.x || expression.ops.empty())
    return std::nullopt;
  for (Activation activation : {Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu})
    if (agrees(expression, activation))
      return ActivationOf{activation, expression.x};
  return std::nullopt;
}

} // namespace helix
