//===- Entry.cpp - One function being imported: values, weights, operands --===//
#include "lib/Import/Onnx/Entry.h"

#include "llvm/Support/Endian.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

// Integer constants in a decoder are axes, shapes and the like; weights are never integers.
constexpr int64_t kMaxIntegers = 65536;

StringRef kindText(GraphValue::Kind kind) {
  switch (kind) {
  case GraphValue::Kind::Tensor:
    return "a tensor of activations";
  case GraphValue::Kind::Weight:
    return "a constant";
  case GraphValue::Kind::Ints:
    return "integers computed from shapes or lengths";
  case GraphValue::Kind::Ids:
    return "the token ids";
  case GraphValue::Kind::Mask:
    return "the attention mask";
  case GraphValue::Kind::Positions:
    return "the position ids";
  case GraphValue::Kind::Past:
    return "a KV cache input";
  case GraphValue::Kind::Present:
    return "a KV cache output";
  }
  return "";
}

FailureOr<IntTensor> readIntegers(Entry &entry, const StoredTensor &stored) {
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return failure();
  IntTensor ints;
  ints.shape = stored.shape;
  bool wide = stored.proto->data_type() == onnx::TensorProto::INT64;
  for (int64_t i = 0; i < stored.elements; ++i) {
    LinearInt element;
    element.constant = wide ? static_cast<int64_t>(llvm::support::endian::read64le(bytes->data() + 8 * i))
                            : static_cast<int32_t>(llvm::support::endian::read32le(bytes->data() + 4 * i));
    ints.elements.push_back(element);
  }
  return ints;
}

} // namespace

const GraphValue *operand(Entry &entry, const onnx::NodeProto &node, int index) {
  if (index >= node.input_size() || node.input(index).empty())
    return nullptr;
  auto found = entry.values.find(node.input(index));
  return found == entry.values.end() ? nullptr : &found->second;
}

LogicalResult operandError(Entry &entry, const onnx::NodeProto &node, int index, const Twine &expected) {
  InFlightDiagnostic diagnostic = nodeError(entry.context, node, ErrorCode::OperandUnsupported);
  diagnostic << "operand " << index;
  if (index < node.input_size() && !node.input(index).empty())
    diagnostic << ' ' << quoted(node.input(index));
  const GraphValue *value = operand(entry, node, index);
  diagnostic << " is " << (value ? kindText(value->kind) : "missing") << ", but must be " << expected;
  return diagnostic;
}

FailureOr<Value> activation(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (!value || value->kind != GraphValue::Kind::Tensor) {
    (void)operandError(entry, node, index, "a tensor of activations");
    return failure();
  }
  return value->value;
}

FailureOr<const StoredTensor *> constant(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (!value || value->kind != GraphValue::Kind::Weight || !value->weight->floatType(entry.context)) {
    (void)operandError(entry, node, index, "a constant of float, float16 or bfloat16");
    return failure();
  }
  return value->weight;
}

bool isInteger(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value && (value->kind == GraphValue::Kind::Ints ||
                   (value->kind == GraphValue::Kind::Weight && value->weight->isInteger()));
}

FailureOr<IntTensor> integers(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (value && value->kind == GraphValue::Kind::Ints)
    return value->ints;
  if (isInteger(entry, node, index) && value->weight->elements <= kMaxIntegers)
    return readIntegers(entry, *value->weight);
  (void)operandError(entry, node, index, "integers known at import");
  return failure();
}

Value weightOf(Entry &entry, const StoredTensor &stored, Dtype dtype) {
  Type element = elementType(entry.context, dtype);
  Value &known = entry.weights[{&stored, static_cast<int>(dtype)}];
  if (known)
    return known;
  OpBuilder &b = entry.builder;
  auto type = RankedTensorType::get(stored.shape, element);
  auto storedType = RankedTensorType::get(stored.shape, stored.floatType(entry.context));
  auto op = WeightOp::create(b, entry.loc, type, b.getStringAttr(stored.name), b.getStringAttr(stored.file),
                             b.getI64IntegerAttr(stored.offset), b.getI64IntegerAttr(stored.bytes),
                             TypeAttr::get(storedType), DenseI64ArrayAttr(), DenseI64ArrayAttr(), ArrayAttr());
  if (!stored.isExternal())
    entry.state.inlineWeights.emplace_back(op, &stored);
  return known = op;
}

void define(Entry &entry, const onnx::NodeProto &node, int index, GraphValue value) {
  if (index < node.output_size() && !node.output(index).empty())
    entry.values[node.output(index)] = std::move(value);
}

void defineTensor(Entry &entry, const onnx::NodeProto &node, int index, Value value) {
  define(entry, node, index, {.kind = GraphValue::Kind::Tensor, .value = value});
}

void defineInts(Entry &entry, const onnx::NodeProto &node, int index, IntTensor ints) {
  define(entry, node, index, {.kind = GraphValue::Kind::Ints, .ints = std::move(ints)});
}

LogicalResult refuseResult(Entry &entry, const onnx::NodeProto &node, int index) {
  if (index >= node.output_size() || node.output(index).empty())
    return success();
  return nodeError(entry.context, node, ErrorCode::ResultUnsupported)
         << "result " << index << ' ' << quoted(node.output(index)) << " is not supported";
}

RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

Type elementType(MLIRContext *context, Dtype dtype) {
  switch (dtype) {
  case Dtype::F32:
    return Float32Type::get(context);
  case Dtype::F16:
    return Float16Type::get(context);
  case Dtype::BF16:
    return BFloat16Type::get(context);
  }
  return {};
}

} // namespace helix::onnximport
