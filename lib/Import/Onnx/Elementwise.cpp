//===- Elementwise.cpp - Arithmetic on activations -------------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include "llvm/Support/Endian.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

/// A tensor of `type` with one value everywhere.
Value splat(Entry &entry, RankedTensorType type, const APFloat &value) {
  return arith::ConstantOp::create(entry.builder, entry.loc, DenseElementsAttr::get(type, value));
}

/// A constant of one element as an f32 number.
FailureOr<APFloat> scalarOf(Entry &entry, const StoredTensor &stored) {
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return failure();
  auto type = cast<FloatType>(stored.floatType(entry.context));
  uint64_t bits = type.getWidth() == 32 ? llvm::support::endian::read32le(bytes->data())
                                        : llvm::support::endian::read16le(bytes->data());
  APFloat value(type.getFloatSemantics(), APInt(type.getWidth(), bits));
  bool lost = false;
  value.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven, &lost);
  return value;
}

/// The constants of one element that ops are written with.
Value number(Entry &entry, RankedTensorType type, double value) {
  return splat(entry, type, APFloat(static_cast<float>(value)));
}

/// x / (1 + exp(-scale x)) but for the x: 1 / (1 + exp(-x)) is the one form of a sigmoid at model level, which
/// helix-raise knows.
Value sigmoid(Entry &entry, Value x) {
  OpBuilder &b = entry.builder;
  Value one = splat(entry, typeOf(x), APFloat(1.0f));
  Value negated = arith::NegFOp::create(b, entry.loc, x);
  Value exponential = math::ExpOp::create(b, entry.loc, negated);
  Value denominator = arith::AddFOp::create(b, entry.loc, exponential, one);
  return arith::DivFOp::create(b, entry.loc, one, denominator);
}

/// A constant of one element; nothing if the operand is no constant. An error for one of more elements.
FailureOr<std::optional<APFloat>> scalarOperand(Entry &entry, const onnx::NodeProto &node, int index,
                                                ArrayRef<int64_t> other) {
  const GraphValue *value = operand(entry, node, index);
  if (!value || value->kind != GraphValue::Kind::Weight || !value->weight->floatType(entry.context))
    return std::optional<APFloat>();
  const StoredTensor &stored = *value->weight;
  if (stored.elements != 1 || stored.shape.size() > other.size()) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << index << ' ' << quoted(node.input(index)) << " has shape " << shapeText(stored.shape)
        << " and the other " << shapeText(other)
        << "; shapes must be equal, or one operand a constant of one element or of the last dimension";
    return failure();
  }
  FailureOr<APFloat> scalar = scalarOf(entry, stored);
  if (failed(scalar))
    return failure();
  return std::optional<APFloat>(*scalar);
}

} // namespace

LogicalResult importBinary(Entry &entry, const onnx::NodeProto &node) {
  if (isInteger(entry, node, 0) && isInteger(entry, node, 1))
    return foldBinary(entry, node);
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  // The operand that is not a constant gives the shape.
  const GraphValue *first = operand(entry, node, 0);
  int shaped = first && first->kind == GraphValue::Kind::Weight ? 1 : 0, other = 1 - shaped;
  FailureOr<View> view = viewOf(entry, node, shaped);
  if (failed(view))
    return failure();
  std::optional<Value> vector = broadcastVector(entry, node, other, *view);
  FailureOr<std::optional<APFloat>> scalar = std::optional<APFloat>();
  if (!vector)
    scalar = scalarOperand(entry, node, other, view->shape());
  if (failed(scalar))
    return failure();
  Value second;
  if (vector) {
    second = *vector;
  } else if (*scalar) {
    second = splat(entry, typeOf(view->value), **scalar);
  } else {
    FailureOr<View> another = viewOf(entry, node, other);
    if (failed(another))
      return failure();
    if (!sameOrder(*view, *another)) {
      FailureOr<Value> a = activation(entry, node, shaped), b = activation(entry, node, other);
      if (failed(a) || failed(b))
        return failure();
      *view = identityView(*a);
      *another = identityView(*b);
    }
    if (view->value.getType() != another->value.getType())
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "operand " << other << ' ' << quoted(node.input(other)) << " has shape " << shapeText(another->shape())
             << " and the other " << shapeText(view->shape())
             << "; shapes must be equal, or one operand a constant of one element or of the last dimension";
    second = another->value;
  }
  Value lhs = shaped == 0 ? view->value : second, rhs = shaped == 0 ? second : view->value;
  OpBuilder &b = entry.builder;
  StringRef op = node.op_type();
  if (op == "Add")
    view->value = arith::AddFOp::create(b, entry.loc, lhs, rhs);
  else if (op == "Sub")
    view->value = arith::SubFOp::create(b, entry.loc, lhs, rhs);
  else if (op == "Mul")
    view->value = arith::MulFOp::create(b, entry.loc, lhs, rhs);
  else
    view->value = arith::DivFOp::create(b, entry.loc, lhs, rhs);
  defineView(entry, node, 0, std::move(*view));
  return success();
}

LogicalResult importSigmoid(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  view->value = sigmoid(entry, view->value);
  defineView(entry, node, 0, std::move(*view));
  return success();
}

LogicalResult importUnary(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  OpBuilder &b = entry.builder;
  Value &x = view->value;
  StringRef op = node.op_type();
  if (op == "Erf")
    x = math::ErfOp::create(b, entry.loc, x);
  else if (op == "Exp")
    x = math::ExpOp::create(b, entry.loc, x);
  else if (op == "Neg")
    x = arith::NegFOp::create(b, entry.loc, x);
  else if (op == "Sqrt")
    x = math::SqrtOp::create(b, entry.loc, x);
  else if (op == "Tanh")
    x = math::TanhOp::create(b, entry.loc, x);
  else if (op == "Relu")
    x = arith::MaximumFOp::create(b, entry.loc, x, number(entry, typeOf(x), 0));
  else
    x = arith::MulFOp::create(b, entry.loc, x, sigmoid(entry, x));
  defineView(entry, node, 0, std::move(*view));
  return success();
}

/// Gelu of ONNX and of com.microsoft, FastGelu: x/2 (1 + erf(x / sqrt 2)), or with tanh for an approximation.
LogicalResult importGelu(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  bool isTanh = node.op_type() == "FastGelu";
  if (node.domain() != "com.microsoft") {
    std::string kind = attributes.text("approximate", "none");
    isTanh = kind == "tanh";
    if (!isTanh && kind != "none")
      return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
             << "attribute 'approximate' is " << quoted(kind) << "; known are 'none' and 'tanh'";
  }
  if (failed(attributes.finish()))
    return failure();
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  OpBuilder &b = entry.builder;
  Location loc = entry.loc;
  Value x = view->value, inner;
  RankedTensorType type = typeOf(x);
  if (isTanh) {
    Value cube = arith::MulFOp::create(b, loc, arith::MulFOp::create(b, loc, x, x), x);
    Value scaled = arith::MulFOp::create(b, loc, cube, number(entry, type, 0.044715));
    Value sum = arith::AddFOp::create(b, loc, x, scaled);
    constexpr double kRootOf2ByPi = 0.79788456080286535588;
    inner = math::TanhOp::create(b, loc, arith::MulFOp::create(b, loc, sum, number(entry, type, kRootOf2ByPi)));
  } else {
    constexpr double kRootOfHalf = 0.70710678118654752440;
    inner = math::ErfOp::create(b, loc, arith::MulFOp::create(b, loc, x, number(entry, type, kRootOfHalf)));
  }
  Value half = arith::MulFOp::create(b, loc, x, number(entry, type, 0.5));
  Value gate = arith::AddFOp::create(b, loc, inner, number(entry, type, 1));
  view->value = arith::MulFOp::create(b, loc, half, gate);
  defineView(entry, node, 0, std::move(*view));
  return success();
}

/// Swish of ONNX, QuickGelu of com.microsoft: x sigmoid(alpha x).
LogicalResult importSwish(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  double alpha = attributes.real("alpha", node.op_type() == "Swish" ? 1 : 1.702f);
  if (failed(attributes.finish()))
    return failure();
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  Value x = view->value, scaled = x;
  if (alpha != 1)
    scaled = arith::MulFOp::create(entry.builder, entry.loc, x, number(entry, typeOf(x), alpha));
  view->value = arith::MulFOp::create(entry.builder, entry.loc, x, sigmoid(entry, scaled));
  defineView(entry, node, 0, std::move(*view));
  return success();
}

LogicalResult importCast(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t to = attributes.required("to");
  attributes.ignore("saturate"); // Concerns 8-bit floats alone.
  attributes.ignore("round_mode");
  if (failed(attributes.finish()))
    return failure();
  const GraphValue *value = operand(entry, node, 0);
  if (!value)
    return operandError(entry, node, 0, "a value");
  bool toInteger = to == onnx::TensorProto::INT32 || to == onnx::TensorProto::INT64;
  bool fine = false;
  if (isInteger(entry, node, 0) && toInteger) {
    FailureOr<IntTensor> ints = integers(entry, node, 0);
    if (failed(ints))
      return failure();
    // Lengths are counted in 32 bits; constants must fit.
    fine = to == onnx::TensorProto::INT64 ||
           llvm::all_of(ints->elements, [](const LinearInt &e) { return llvm::isInt<32>(e.constant); });
    if (fine) {
      defineInts(entry, node, 0, std::move(*ints));
      return success();
    }
  }
  bool isHalf = entry.half && (to == onnx::TensorProto::FLOAT16 || to == onnx::TensorProto::BFLOAT16);
  switch (value->kind) {
  case GraphValue::Kind::Tensor:
  case GraphValue::Kind::Mix: // A model in half precision is computed in f32.
    fine = to == onnx::TensorProto::FLOAT || isHalf;
    break;
  case GraphValue::Kind::Weight: // Widening is exact.
    fine = value->weight->floatType(entry.context) &&
           (to == onnx::TensorProto::FLOAT || to == value->weight->proto->data_type());
    break;
  case GraphValue::Kind::Mask:
  case GraphValue::Kind::Positions:
    fine = toInteger;
    break;
  default:
    break;
  }
  if (!fine)
    return castError(entry, node, to);
  define(entry, node, 0, GraphValue(*value));
  return success();
}

/// Operand 0 as it is, if operand 1 is of its type.
LogicalResult importCastLike(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  attributes.ignore("saturate");
  attributes.ignore("round_mode");
  if (failed(attributes.finish()))
    return failure();
  auto isFloat = [&](const GraphValue &value) {
    switch (value.kind) {
    case GraphValue::Kind::Tensor:
      return true;
    case GraphValue::Kind::Table:
    case GraphValue::Kind::Weight:
      return value.kind == GraphValue::Kind::Table || value.weight->proto->data_type() == onnx::TensorProto::FLOAT;
    case GraphValue::Kind::Grid:
      return value.grid.type == Grid::Type::Float;
    default:
      return false;
    }
  };
  const GraphValue *value = operand(entry, node, 0), *like = operand(entry, node, 1);
  if (!value || !like)
    return operandError(entry, node, value ? 1 : 0, "a value");
  if (!isFloat(*like) ||
      !(isFloat(*value) || (value->kind == GraphValue::Kind::Weight && value->weight->floatType(entry.context))))
    return nodeError(entry.context, node, ErrorCode::TypeUnsupported)
           << "casts between types of which one is not FLOAT; export the model in float32";
  define(entry, node, 0, GraphValue(*value));
  return success();
}

} // namespace helix::onnximport
