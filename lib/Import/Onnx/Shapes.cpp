//===- Shapes.cpp - Reshape, Transpose and the like on activations ---------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, ArrayRef<int64_t> from, ArrayRef<int64_t> to) {
  return nodeError(entry.context, node, ErrorCode::OrderUnsupported)
         << "makes " << shapeText(to) << " of activations of shape " << shapeText(from)
         << ", for which numbers would have to move";
}

/// Axes from an operand, or before opset 13 an attribute, made non-negative.
FailureOr<SmallVector<int64_t>> axesOf(Entry &entry, const onnx::NodeProto &node, int64_t rank) {
  FailureOr<IntTensor> ints = integers(entry, node, 1);
  if (failed(ints))
    return failure();
  SmallVector<int64_t> axes;
  for (const LinearInt &element : ints->elements) {
    int64_t all = node.op_type() == "Unsqueeze" ? rank + static_cast<int64_t>(ints->elements.size()) : rank;
    int64_t axis = element.constant + (element.constant < 0 ? all : 0);
    if (!element.isConstant() || axis < 0 || axis >= all || llvm::is_contained(axes, axis)) {
      nodeError(entry.context, node, ErrorCode::ShapeMismatch)
          << "axes (operand 1) must be distinct constants from " << -all << " to " << all - 1;
      return failure();
    }
    axes.push_back(axis);
  }
  llvm::sort(axes);
  return axes;
}

/// The shape that a Reshape asks for.
FailureOr<SmallVector<int64_t>> targetOf(Entry &entry, const onnx::NodeProto &node, ArrayRef<int64_t> from) {
  FailureOr<IntTensor> sizes = reshapeSizes(entry, node);
  if (failed(sizes))
    return failure();
  auto bad = [&](const Twine &reason) -> FailureOr<SmallVector<int64_t>> {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "reshapes activations of shape " << shapeText(from) << ' ' << reason;
    return failure();
  };
  SmallVector<int64_t> to;
  int64_t count = 1, known = 1, *open = nullptr;
  for (int64_t dim : from)
    count *= dim;
  for (auto [d, size] : llvm::enumerate(sizes->elements)) {
    if (!size.isConstant())
      return bad("to a shape that depends on the sequence's length");
    if (size.constant == 0 && d >= from.size())
      return bad("keeping a dimension that it does not have");
    to.push_back(size.constant == 0 ? from[d] : size.constant);
  }
  for (int64_t &size : to) {
    if (size == -1 && !open)
      open = &size;
    else if (size < 1 || __builtin_mul_overflow(known, size, &known))
      return bad("to " + shapeText(to));
  }
  if (open ? count % known != 0 : count != known)
    return bad("to " + shapeText(to));
  if (open)
    *open = count / known;
  return to;
}

} // namespace

LogicalResult importShapeOfView(Entry &entry, const onnx::NodeProto &node, View view) {
  Attributes attributes(entry.context, node);
  StringRef op = node.op_type();
  SmallVector<int64_t> shape = view.shape();
  int64_t rank = shape.size();
  if (op == "Transpose") {
    SmallVector<int64_t> perm = attributes.integers("perm").value_or(SmallVector<int64_t>());
    SmallVector<int64_t> sorted(perm);
    llvm::sort(sorted);
    if (failed(attributes.finish()))
      return failure();
    if (sorted != llvm::to_vector(llvm::seq<int64_t>(0, rank)))
      return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
             << "attribute 'perm' must be a permutation of " << rank << " dimensions";
    defineView(entry, node, 0, transposeView(std::move(view), perm));
    return success();
  }
  if (op == "Reshape") {
    attributes.onlyInteger("allowzero", 0, {0, 1});
    if (failed(attributes.finish()))
      return failure();
    FailureOr<SmallVector<int64_t>> to = targetOf(entry, node, shape);
    if (failed(to))
      return failure();
    std::optional<View> shaped = reshapeView(entry.builder, entry.loc, view, *to);
    if (!shaped)
      return refuse(entry, node, shape, *to);
    defineView(entry, node, 0, std::move(*shaped));
    return success();
  }
  if (failed(attributes.finish()))
    return failure();
  FailureOr<SmallVector<int64_t>> axes = axesOf(entry, node, rank);
  if (failed(axes))
    return failure();
  SmallVector<int64_t> to(shape);
  if (op == "Unsqueeze") {
    for (int64_t axis : *axes) {
      view.groups.insert(view.groups.begin() + axis, SmallVector<unsigned, 2>());
      to.insert(to.begin() + axis, 1);
    }
    defineView(entry, node, 0, std::move(view));
    return success();
  }
  for (int64_t axis : llvm::reverse(*axes)) {
    if (to[axis] != 1 || to.size() == 1)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "squeezes dimension " << axis << " of " << shapeText(shape);
    to.erase(to.begin() + axis);
  }
  std::optional<View> shaped = reshapeView(entry.builder, entry.loc, view, to);
  if (!shaped)
    return refuse(entry, node, shape, to);
  defineView(entry, node, 0, std::move(*shaped));
  return success();
}

LogicalResult importReshape(Entry &entry, const onnx::NodeProto &node) {
  // Token ids given the shape that they have.
  const GraphValue *value = operand(entry, node, 0);
  if (value && value->kind == GraphValue::Kind::Ids && node.op_type() == "Reshape") {
    FailureOr<SmallVector<int64_t>> to = targetOf(entry, node, {entry.batch(), entry.tokens});
    if (failed(to))
      return failure();
    if (*to != ArrayRef<int64_t>({entry.batch(), entry.tokens}))
      return refuse(entry, node, {entry.batch(), entry.tokens}, *to);
    define(entry, node, 0, GraphValue(*value));
    return success();
  }
  if (value && node.op_type() == "Transpose" &&
      llvm::is_contained({GraphValue::Kind::Weight, GraphValue::Kind::Turned}, value->kind)) {
    Attributes attributes(entry.context, node);
    SmallVector<int64_t> perm = attributes.integers("perm").value_or(SmallVector<int64_t>{1, 0});
    if (failed(attributes.finish()))
      return failure();
    bool turns = perm == ArrayRef<int64_t>({1, 0});
    if (!turns && perm != ArrayRef<int64_t>({0, 1}))
      return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
             << "attribute 'perm' must be a permutation of 2 dimensions";
    bool isTurned = (value->kind == GraphValue::Kind::Turned) != turns;
    define(entry, node, 0,
           {.kind = isTurned ? GraphValue::Kind::Turned : GraphValue::Kind::Weight, .weight = value->weight});
    return success();
  }
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  return importShapeOfView(entry, node, std::move(*view));
}

} // namespace helix::onnximport
