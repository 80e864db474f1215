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

/// Operand `index` as a tensor of `type`, where a constant of one element is repeated.
FailureOr<Value> broadcastOperand(Entry &entry, const onnx::NodeProto &node, int index, RankedTensorType type) {
  auto shapeError = [&](ArrayRef<int64_t> shape) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << index << ' ' << quoted(node.input(index)) << " has shape " << shapeText(shape)
        << " and the other " << shapeText(type.getShape())
        << "; shapes must be equal, or one operand a constant of one element";
    return failure();
  };
  const GraphValue *value = operand(entry, node, index);
  if (value && value->kind == GraphValue::Kind::Weight && value->weight->floatType(entry.context)) {
    const StoredTensor &stored = *value->weight;
    if (stored.elements != 1 || stored.shape.size() > static_cast<size_t>(type.getRank()))
      return shapeError(stored.shape);
    FailureOr<APFloat> scalar = scalarOf(entry, stored);
    if (failed(scalar))
      return failure();
    return splat(entry, type, *scalar);
  }
  FailureOr<Value> tensor = activation(entry, node, index);
  if (failed(tensor))
    return failure();
  if (tensor->getType() != type)
    return shapeError(typeOf(*tensor).getShape());
  return tensor;
}

} // namespace

LogicalResult importBinary(Entry &entry, const onnx::NodeProto &node) {
  if (isInteger(entry, node, 0) && isInteger(entry, node, 1))
    return foldBinary(entry, node);
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  // The operand that is not a constant gives the shape.
  const GraphValue *first = operand(entry, node, 0);
  FailureOr<Value> shaped = activation(entry, node, first && first->kind == GraphValue::Kind::Weight ? 1 : 0);
  if (failed(shaped))
    return failure();
  RankedTensorType type = typeOf(*shaped);
  FailureOr<Value> lhs = broadcastOperand(entry, node, 0, type);
  if (failed(lhs))
    return failure();
  FailureOr<Value> rhs = broadcastOperand(entry, node, 1, type);
  if (failed(rhs))
    return failure();
  OpBuilder &b = entry.builder;
  StringRef op = node.op_type();
  Value result;
  if (op == "Add")
    result = arith::AddFOp::create(b, entry.loc, *lhs, *rhs);
  else if (op == "Sub")
    result = arith::SubFOp::create(b, entry.loc, *lhs, *rhs);
  else if (op == "Mul")
    result = arith::MulFOp::create(b, entry.loc, *lhs, *rhs);
  else
    result = arith::DivFOp::create(b, entry.loc, *lhs, *rhs);
  defineTensor(entry, node, 0, result);
  return success();
}

/// 1 / (1 + exp(-x)): the one form of a sigmoid at model level, which helix-raise knows.
LogicalResult importSigmoid(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<Value> x = activation(entry, node, 0);
  if (failed(x))
    return failure();
  OpBuilder &b = entry.builder;
  Value one = splat(entry, typeOf(*x), APFloat(1.0f));
  Value negated = arith::NegFOp::create(b, entry.loc, *x);
  Value exponential = math::ExpOp::create(b, entry.loc, negated);
  Value denominator = arith::AddFOp::create(b, entry.loc, exponential, one);
  defineTensor(entry, node, 0, arith::DivFOp::create(b, entry.loc, one, denominator));
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
  switch (value->kind) {
  case GraphValue::Kind::Tensor:
    fine = to == onnx::TensorProto::FLOAT;
    break;
  case GraphValue::Kind::Weight: // Widening is exact.
    fine = value->weight->floatType(entry.context) && to == onnx::TensorProto::FLOAT;
    break;
  case GraphValue::Kind::Mask:
  case GraphValue::Kind::Positions:
    fine = toInteger;
    break;
  default:
    break;
  }
  if (!fine)
    return nodeError(entry.context, node, ErrorCode::TypeUnsupported)
           << "casts to " << typeText(to) << ", which would change the values; export the model in float32";
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
