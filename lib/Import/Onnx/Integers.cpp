//===- Integers.cpp - Shapes and lengths, evaluated at import --------------===//
#include "lib/Import/Onnx/Integers.h"

#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/Mix.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

// Bounds what a chain of Concat or broadcasts can grow to.
constexpr int64_t kMaxElements = 65536;
constexpr size_t kMaxRank = 8;

LogicalResult lengthError(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::LengthsNotPlain) << reason;
}

/// Defines result 0, if it is not too large to be about shapes and lengths.
LogicalResult defineChecked(Entry &entry, const onnx::NodeProto &node, IntTensor ints) {
  if (ints.shape.size() > kMaxRank)
    return lengthError(entry, node, "its integer result has more than " + Twine(kMaxRank) + " dimensions");
  defineInts(entry, node, 0, std::move(ints));
  return success();
}

/// The product of a shape, or nothing if it is above kMaxElements.
std::optional<int64_t> boundedCount(ArrayRef<int64_t> shape) {
  int64_t count = 1;
  for (int64_t dim : shape)
    if (__builtin_mul_overflow(count, dim, &count) || count > kMaxElements)
      return std::nullopt;
  return count;
}

/// a + sign * b, or nothing if that is not a LinearInt of 64 bits.
std::optional<LinearInt> add(const LinearInt &a, const LinearInt &b, int64_t sign) {
  if (a.unknown || b.unknown || (a.rowFactor != 0 && b.rowFactor != 0 && a.row != b.row))
    return std::nullopt;
  LinearInt sum;
  auto combine = [&](int64_t x, int64_t y, int64_t &out) {
    int64_t scaled;
    return !__builtin_mul_overflow(y, sign, &scaled) && !__builtin_add_overflow(x, scaled, &out);
  };
  if (!combine(a.constant, b.constant, sum.constant) || !combine(a.total, b.total, sum.total) ||
      !combine(a.rowFactor, b.rowFactor, sum.rowFactor))
    return std::nullopt;
  sum.row = sum.rowFactor == 0 ? 0 : (a.rowFactor != 0 ? a.row : b.row);
  return sum;
}

std::optional<LinearInt> scale(const LinearInt &a, int64_t factor) {
  LinearInt product;
  if (a.unknown || __builtin_mul_overflow(a.constant, factor, &product.constant) ||
      __builtin_mul_overflow(a.total, factor, &product.total) ||
      __builtin_mul_overflow(a.rowFactor, factor, &product.rowFactor))
    return std::nullopt;
  product.row = product.rowFactor == 0 ? 0 : a.row;
  return product;
}

std::optional<LinearInt> evaluate(StringRef op, const LinearInt &a, const LinearInt &b) {
  if (op == "Add")
    return add(a, b, 1);
  if (op == "Sub")
    return add(a, b, -1);
  if (op == "Mul") {
    if (b.isConstant())
      return scale(a, b.constant);
    return a.isConstant() ? scale(b, a.constant) : std::nullopt;
  }
  // Division truncates; INT64_MIN / -1 overflows.
  if (!a.isConstant() || !b.isConstant() || b.constant == 0 || (a.constant == INT64_MIN && b.constant == -1))
    return std::nullopt;
  return LinearInt{.constant = a.constant / b.constant};
}

/// A constant operand of axes, each made non-negative and checked against `rank`.
FailureOr<SmallVector<int64_t>> axesOf(Entry &entry, const onnx::NodeProto &node, int index, int64_t rank) {
  FailureOr<IntTensor> ints = integers(entry, node, index);
  if (failed(ints))
    return failure();
  SmallVector<int64_t> axes;
  for (const LinearInt &element : ints->elements) {
    int64_t axis = element.constant < 0 ? element.constant + rank : element.constant;
    if (!element.isConstant() || axis < 0 || axis >= rank || llvm::is_contained(axes, axis)) {
      nodeError(entry.context, node, ErrorCode::ShapeMismatch)
          << "axes (operand " << index << ") must be distinct constants from " << -rank << " to " << rank - 1;
      return failure();
    }
    axes.push_back(axis);
  }
  return axes;
}

/// The shape of a value, with lengths as they are known; an error if one is not.
FailureOr<IntTensor> shapeOf(Entry &entry, const onnx::NodeProto &node) {
  const GraphValue *value = operand(entry, node, 0);
  IntTensor result;
  auto push = [&](LinearInt element) { result.elements.push_back(element); };
  if (value && value->kind == GraphValue::Kind::Mask) {
    push({.constant = entry.batch()});
    push({.total = 1});
  } else if (value && (value->kind == GraphValue::Kind::Ids || value->kind == GraphValue::Kind::Positions)) {
    push({.constant = entry.batch()});
    push({.constant = entry.tokens});
  } else if (value && value->kind == GraphValue::Kind::Tensor) {
    View view = value->groups.empty() ? identityView(value->value) : View{value->value, value->groups};
    for (int64_t dim : view.shape())
      push({.constant = dim});
  } else if (value && value->kind == GraphValue::Kind::Mix) {
    for (int64_t dim : value->mix->shape())
      push({.constant = dim});
  } else if (value && value->kind == GraphValue::Kind::Table) {
    // A size of 1 may be one that the graph repeats.
    std::optional<Dense> row = value->table->row(0);
    for (auto [d, dim] : llvm::enumerate(row ? row->shape : decltype(row->shape)()))
      push(static_cast<int64_t>(d) == value->table->tokenAxis ? LinearInt{.constant = entry.tokens}
           : dim == 1                                         ? LinearInt{.unknown = true}
                                                              : LinearInt{.constant = dim});
  } else if (value && value->kind == GraphValue::Kind::Cached) {
    result.elements.append(value->cached->shape());
  } else if (value && value->kind == GraphValue::Kind::Scores) {
    ArrayRef<int64_t> q = typeOf(value->scores->q).getShape();
    SmallVector<int64_t, 3> dims = {q[0], q[2], q[1]};
    if (value->scores->flat)
      dims = {q[0] * q[2], q[1]};
    for (int64_t dim : dims)
      push({.constant = dim});
    push(value->scores->key.sizes[Cached::Token]);
  } else if (value && value->kind == GraphValue::Kind::Grid) {
    result.elements.append(value->grid.shape.begin(), value->grid.shape.end());
  } else if (value && (value->kind == GraphValue::Kind::Weight || value->kind == GraphValue::Kind::Ints)) {
    ArrayRef<int64_t> dims = value->kind == GraphValue::Kind::Weight ? value->weight->shape : value->ints.shape;
    for (int64_t dim : dims)
      push({.constant = dim});
  } else if (value && value->kind == GraphValue::Kind::Past) {
    ArrayRef<int64_t> dims = entry.pasts[value->cache].dims;
    for (int64_t dim : dims)
      push(dim == -1 ? LinearInt{.unknown = true} : LinearInt{.constant = dim});
    result.elements[0] = {.constant = entry.batch()};
    if (dims.size() == 4 && dims[2] == -1)
      result.elements[2] = {.constant = -entry.tokens, .total = 1};
  } else {
    (void)operandError(entry, node, 0, "activations, ids, the mask or a past key or value");
    return failure();
  }
  result.shape = {static_cast<int64_t>(result.elements.size())};
  return result;
}

} // namespace

LogicalResult foldBinary(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<IntTensor> a = integers(entry, node, 0), b = integers(entry, node, 1);
  if (failed(a) || failed(b))
    return failure();
  size_t rank = std::max(a->shape.size(), b->shape.size());
  SmallVector<int64_t> aShape(rank - a->shape.size(), 1), bShape(rank - b->shape.size(), 1), shape;
  aShape.append(a->shape);
  bShape.append(b->shape);
  for (auto [x, y] : llvm::zip_equal(aShape, bShape)) {
    if (x != y && x != 1 && y != 1)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "shapes " << shapeText(a->shape) << " and " << shapeText(b->shape) << " do not broadcast";
    shape.push_back(x == 1 ? y : x);
  }
  std::optional<int64_t> count = boundedCount(shape);
  if (!count)
    return lengthError(entry, node, "its integer result has shape " + shapeText(shape) + ", which is too large");

  IntTensor result;
  result.shape = shape;
  for (int64_t i = 0; i < *count; ++i) {
    int64_t aIndex = 0, bIndex = 0, aStride = 1, bStride = 1, rest = i;
    for (size_t d = rank; d-- > 0; rest /= shape[d]) {
      int64_t coordinate = rest % shape[d];
      aIndex += aShape[d] == 1 ? 0 : coordinate * aStride;
      bIndex += bShape[d] == 1 ? 0 : coordinate * bStride;
      aStride *= aShape[d];
      bStride *= bShape[d];
    }
    std::optional<LinearInt> element = evaluate(node.op_type(), a->elements[aIndex], b->elements[bIndex]);
    if (a->elements[aIndex].unknown || b->elements[bIndex].unknown)
      return lengthError(entry, node, "the number of KV heads or the head size is not stated by the cache input");
    if (!element)
      return lengthError(entry, node, "its result is not a sum of a constant and multiples of the lengths");
    result.elements.push_back(*element);
  }
  return defineChecked(entry, node, std::move(result));
}

LogicalResult foldGather(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  attributes.onlyInteger("axis", 0, {0});
  if (failed(attributes.finish()))
    return failure();
  FailureOr<IntTensor> data = integers(entry, node, 0), indices = integers(entry, node, 1);
  if (failed(data) || failed(indices))
    return failure();
  if (data->shape.size() != 1)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "gathers from integers of shape " << shapeText(data->shape) << "; they must have one dimension";
  int64_t size = data->shape[0];
  IntTensor result;
  result.shape = indices->shape;
  for (const LinearInt &index : indices->elements) {
    int64_t at = index.constant < 0 ? index.constant + size : index.constant;
    if (!index.isConstant() || at < 0 || at >= size)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "indices must be constants from " << -size << " to " << size - 1;
    result.elements.push_back(data->elements[at]);
  }
  return defineChecked(entry, node, std::move(result));
}

LogicalResult importShape(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  FailureOr<IntTensor> shape = shapeOf(entry, node);
  if (failed(shape))
    return failure();
  int64_t rank = shape->shape[0];
  int64_t start = attributes.integer("start", 0), end = attributes.integer("end", rank);
  if (failed(attributes.finish()))
    return failure();
  auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank); };
  start = clamp(start);
  end = std::max(clamp(end), start);
  IntTensor result;
  result.shape = {end - start};
  result.elements.assign(shape->elements.begin() + start, shape->elements.begin() + end);
  return defineChecked(entry, node, std::move(result));
}

/// Ones in the rows of the attention mask: the length of each sequence, new tokens included.
LogicalResult importReduceSum(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  bool keep = attributes.integer("keepdims", 1) != 0;
  attributes.onlyInteger("noop_with_empty_axes", 0, {0, 1});
  if (failed(attributes.finish()))
    return failure();
  const GraphValue *mask = operand(entry, node, 0);
  if (!mask || mask->kind != GraphValue::Kind::Mask)
    return operandError(entry, node, 0, "the attention mask");
  FailureOr<SmallVector<int64_t>> axes = axesOf(entry, node, 1, 2);
  if (failed(axes))
    return failure();
  if (*axes != ArrayRef<int64_t>{1})
    return lengthError(entry, node, "sums the attention mask over axes " + shapeText(*axes) + "; it must be axis 1");
  IntTensor result;
  result.shape = {entry.batch()};
  if (keep)
    result.shape.push_back(1);
  for (int64_t row = 0; row < entry.batch(); ++row)
    result.elements.push_back({.rowFactor = 1, .row = row});
  return defineChecked(entry, node, std::move(result));
}

LogicalResult importSqueeze(Entry &entry, const onnx::NodeProto &node) {
  if (const GraphValue *value = operand(entry, node, 0); value && value->kind == GraphValue::Kind::Tensor)
    return importReshape(entry, node);
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<IntTensor> data = integers(entry, node, 0);
  if (failed(data))
    return failure();
  SmallVector<int64_t> axes, shape;
  if (operand(entry, node, 1)) {
    FailureOr<SmallVector<int64_t>> given = axesOf(entry, node, 1, data->shape.size());
    if (failed(given))
      return failure();
    axes = *given;
  } else {
    for (auto [d, dim] : llvm::enumerate(data->shape))
      if (dim == 1)
        axes.push_back(d);
  }
  for (auto [d, dim] : llvm::enumerate(data->shape)) {
    bool drop = llvm::is_contained(axes, static_cast<int64_t>(d));
    if (drop && dim != 1)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "squeezes dimension " << d << " of " << shapeText(data->shape);
    if (!drop)
      shape.push_back(dim);
  }
  data->shape = shape;
  return defineChecked(entry, node, std::move(*data));
}

LogicalResult importUnsqueeze(Entry &entry, const onnx::NodeProto &node) {
  if (const GraphValue *value = operand(entry, node, 0); value && value->kind == GraphValue::Kind::Tensor)
    return importReshape(entry, node);
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<IntTensor> data = integers(entry, node, 0), axesInts = integers(entry, node, 1);
  if (failed(data) || failed(axesInts))
    return failure();
  int64_t rank = data->shape.size() + axesInts->elements.size();
  FailureOr<SmallVector<int64_t>> axes = axesOf(entry, node, 1, rank);
  if (failed(axes))
    return failure();
  SmallVector<int64_t> shape;
  auto *next = data->shape.begin();
  for (int64_t d = 0; d < rank; ++d)
    shape.push_back(llvm::is_contained(*axes, d) ? 1 : *next++);
  data->shape = shape;
  return defineChecked(entry, node, std::move(*data));
}

LogicalResult importConcat(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  (void)attributes.required("axis");
  if (failed(attributes.finish()))
    return failure();
  IntTensor result;
  for (int i = 0; i < node.input_size(); ++i) {
    FailureOr<IntTensor> part = integers(entry, node, i);
    if (failed(part))
      return failure();
    if (part->shape.size() != 1)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "operand " << i << " has shape " << shapeText(part->shape) << "; it must have one dimension";
    result.elements.append(part->elements);
    if (static_cast<int64_t>(result.elements.size()) > kMaxElements)
      return lengthError(entry, node, "its integer result has more than " + Twine(kMaxElements) + " elements");
  }
  result.shape = {static_cast<int64_t>(result.elements.size())};
  return defineChecked(entry, node, std::move(result));
}

} // namespace helix::onnximport
