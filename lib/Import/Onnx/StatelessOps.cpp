//===- StatelessOps.cpp - Ops whose operands are plain tensors -------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Stateless.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

/// Gives a result the value, whose shape is the one that the graph sees.
void defineShaped(Entry &entry, const onnx::NodeProto &node, int index, Value value) {
  defineView(entry, node, index, rowsView(entry, value));
}

/// The scale or bias of a norm, `shape` of it, as a vector; null if it is left out.
FailureOr<Value> vectorAt(Entry &entry, const onnx::NodeProto &node, int index, ArrayRef<int64_t> shape) {
  const GraphValue *given = operand(entry, node, index);
  if (!given)
    return Value();
  if (given->kind == GraphValue::Kind::Weight && given->weight->shape == shape && shape.size() == 1 &&
      given->weight->floatType(entry.context))
    return weightOf(entry, *given->weight, Dtype::F32);
  FailureOr<Value> value = tensorAt(entry, node, index);
  if (failed(value))
    return failure();
  if (typeOf(*value).getShape() != shape) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << index << " has shape " << shapeText(typeOf(*value).getShape()) << ", but normalises over "
        << shapeText(shape);
    return failure();
  }
  return reshaped(entry, *value, {typeOf(*value).getNumElements()});
}

/// LayerNormalization and RMSNormalization, over the dimensions from `axis` on.
LogicalResult importNorm(Entry &entry, const onnx::NodeProto &node) {
  bool isCentered = node.op_type() == "LayerNormalization";
  Attributes attributes(entry.context, node);
  double epsilon = attributes.real("epsilon", 1e-5f);
  int64_t axis = attributes.integer("axis", -1);
  attributes.onlyInteger("stash_type", onnx::TensorProto::FLOAT, {onnx::TensorProto::FLOAT});
  FailureOr<Value> x = tensorAt(entry, node, 0);
  if (failed(attributes.finish()) || failed(x))
    return failure();
  ArrayRef<int64_t> shape = typeOf(*x).getShape();
  int64_t rank = shape.size();
  axis += axis < 0 ? rank : 0;
  if (axis < 0 || axis >= rank || !std::isfinite(epsilon) || epsilon < 0)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << "attribute 'axis' must be a dimension of " << shapeText(shape)
           << ", and 'epsilon' finite and not negative";
  SmallVector<int64_t> whole(shape), outer = whole;
  std::fill(outer.begin() + axis, outer.end(), 1);
  ArrayRef<int64_t> over = ArrayRef<int64_t>(whole).drop_front(axis);
  FailureOr<Value> scale = vectorAt(entry, node, 1, over);
  FailureOr<Value> bias = failed(scale) ? FailureOr<Value>(failure()) : vectorAt(entry, node, 2, over);
  if (failed(bias))
    return failure();
  if (!*scale)
    return operandError(entry, node, 1, "the scale");
  int64_t width = ShapedType::getNumElements(over), rows = ShapedType::getNumElements(whole) / width;
  OpBuilder &b = entry.builder;
  Value matrix = reshaped(entry, *x, {1, rows, width}), y;
  FloatAttr eps = b.getF64FloatAttr(epsilon);
  if (isCentered)
    y = LayerNormOp::create(b, entry.loc, matrix.getType(), matrix, *scale, *bias, eps);
  else
    y = RMSNormOp::create(b, entry.loc, matrix.getType(), matrix, *scale, eps);
  defineShaped(entry, node, 0, reshaped(entry, y, whole));
  for (auto [index, statistic] : {std::pair(1, Statistic::Mean), std::pair(2, Statistic::InverseDeviation)}) {
    if (index >= node.output_size() || node.output(index).empty())
      continue;
    auto type = RankedTensorType::get({1, rows, 1}, b.getF32Type());
    Value number =
        RowStatisticOp::create(b, entry.loc, type, StatisticAttr::get(entry.context, statistic), matrix, eps);
    defineShaped(entry, node, index, reshaped(entry, number, outer));
  }
  return success();
}

LogicalResult importRotation(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  bool interleaved = attributes.integer("interleaved", 0) != 0;
  int64_t heads = attributes.integer("num_heads", 0), rotated = attributes.integer("rotary_embedding_dim", 0);
  FailureOr<Value> x = tensorAt(entry, node, 0);
  if (failed(attributes.finish()) || failed(x))
    return failure();
  bool isFlat = typeOf(*x).getRank() == 3;
  FailureOr<Value> split = headsFirst(entry, node, *x, heads);
  FailureOr<Value> cos = failed(split) ? FailureOr<Value>(failure()) : tensorAt(entry, node, 1);
  FailureOr<Value> sin = failed(cos) ? FailureOr<Value>(failure()) : tensorAt(entry, node, 2);
  if (failed(sin))
    return failure();
  ArrayRef<int64_t> shape = typeOf(*split).getShape(), table = typeOf(*cos).getShape();
  FailureOr<Value> positions = integersAt(entry, node, 3, {shape[0], shape[2]});
  if (failed(positions))
    return failure();
  int64_t half = (rotated == 0 ? shape[3] : rotated) / 2;
  SmallVector<int64_t> want = {shape[0], shape[2], half};
  if (*positions)
    want = {table.front(), half};
  if (half < 1 || 2 * half > shape[3] || (rotated == 0 ? shape[3] : rotated) % 2 != 0 ||
      table != ArrayRef<int64_t>(want) || cos->getType() != sin->getType())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "rotates " << shapeText(shape) << " by " << shapeText(table) << " and "
           << shapeText(typeOf(*sin).getShape()) << "; cosines and sines must be " << shapeText(want);
  Value y = RotateOp::create(entry.builder, entry.loc, split->getType(), *split, *cos, *sin, *positions, interleaved);
  defineTensor(entry, node, 0, headsBack(entry, y, isFlat));
  return success();
}

LogicalResult importScatter(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t axis = attributes.integer("axis", -2);
  std::string mode = attributes.text("mode", "linear");
  FailureOr<Value> cache = tensorAt(entry, node, 0);
  FailureOr<Value> update = failed(cache) ? FailureOr<Value>(failure()) : tensorAt(entry, node, 1);
  if (failed(attributes.finish()) || failed(update))
    return failure();
  ArrayRef<int64_t> shape = typeOf(*cache).getShape();
  SmallVector<int64_t> fresh(typeOf(*update).getShape());
  int64_t rank = shape.size();
  axis += axis < 0 ? rank : 0;
  if (axis < 1 || axis >= rank || (mode != "linear" && mode != "circular"))
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << "attribute 'axis' must be a dimension of " << shapeText(shape)
           << " behind the first, and 'mode' linear or circular";
  bool fits = fresh.size() == shape.size() && fresh[axis] <= shape[axis];
  if (fits)
    fresh[axis] = shape[axis];
  if (!fits || ArrayRef<int64_t>(fresh) != shape)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "writes " << shapeText(typeOf(*update).getShape()) << " into " << shapeText(shape) << " along dimension "
           << axis;
  FailureOr<Value> indices = integersAt(entry, node, 2, {shape[0]});
  if (failed(indices))
    return failure();
  Value y = ScatterOp::create(entry.builder, entry.loc, cache->getType(), *update, *cache, *indices,
                              static_cast<uint64_t>(axis), mode == "circular");
  defineShaped(entry, node, 0, y);
  return success();
}

struct StatelessOp {
  StringRef name;
  int minInputs, maxInputs, maxOutputs;
  LogicalResult (*import)(Entry &, const onnx::NodeProto &);
};

const StatelessOp kOps[] = {
    {"Attention", 3, 7, 4, importDenseAttention}, {"LayerNormalization", 2, 3, 3, importNorm},
    {"RMSNormalization", 2, 2, 1, importNorm},    {"RotaryEmbedding", 3, 4, 1, importRotation},
    {"TensorScatter", 2, 3, 1, importScatter},
};

} // namespace

LogicalResult importStatelessNode(Entry &entry, const onnx::NodeProto &node) {
  const StatelessOp *op = llvm::find_if(kOps, [&](const StatelessOp &known) { return known.name == node.op_type(); });
  if (op == std::end(kOps) || !canonicalDomain(node.domain()).empty())
    return importNode(entry, node);
  if (node.input_size() < op->minInputs || node.input_size() > op->maxInputs || node.output_size() < 1 ||
      node.output_size() > op->maxOutputs)
    return nodeError(entry.context, node, ErrorCode::ArityWrong)
           << "has " << node.input_size() << " operands and " << node.output_size() << " results; the op takes "
           << op->minInputs << " to " << op->maxInputs << " and gives 1 to " << op->maxOutputs;
  entry.loc = NameLoc::get(StringAttr::get(entry.context, nodeName(node)));
  return op->import(entry, node);
}

} // namespace helix::onnximport
