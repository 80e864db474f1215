//===- Views.cpp - Activations as the graph sees them ----------------------===//
#include "lib/Import/Onnx/Views.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

int64_t productOf(ArrayRef<int64_t> sizes) {
  int64_t product = 1;
  for (int64_t size : sizes)
    product *= size;
  return product;
}

/// Reassociation of `from` into the fewer dimensions `to`, each a product of consecutive ones.
SmallVector<ReassociationIndices> reassociate(ArrayRef<int64_t> from, ArrayRef<int64_t> to) {
  SmallVector<ReassociationIndices> groups;
  size_t next = 0;
  for (int64_t size : to) {
    ReassociationIndices group = {static_cast<int64_t>(next)};
    int64_t product = from[next++];
    while (product < size) {
      product *= from[next];
      group.push_back(next++);
    }
    groups.push_back(group);
  }
  while (next < from.size())
    groups.back().push_back(next++);
  return groups;
}

/// Splits dimension `dim` of the value in two, the second of size `inner`.
Value splitDim(OpBuilder &builder, Location loc, Value value, unsigned dim, int64_t inner) {
  RankedTensorType type = typeOf(value);
  SmallVector<int64_t> shape(type.getShape());
  shape[dim] /= inner;
  shape.insert(shape.begin() + dim + 1, inner);
  SmallVector<ReassociationIndices> groups;
  for (int64_t d = 0, next = 0; d < type.getRank(); ++d) {
    groups.push_back({next++});
    if (d == dim)
      groups.back().push_back(next++);
  }
  return tensor::ExpandShapeOp::create(builder, loc, type.clone(shape), value, groups);
}

} // namespace

SmallVector<int64_t> View::shape() const {
  SmallVector<int64_t> shape;
  for (ArrayRef<unsigned> group : groups) {
    int64_t size = 1;
    for (unsigned d : group)
      size *= typeOf(value).getDimSize(d);
    shape.push_back(size);
  }
  return shape;
}

View identityView(Value value) {
  View view{.value = value};
  for (unsigned d = 0; d < typeOf(value).getRank(); ++d)
    view.groups.push_back({d});
  return view;
}

std::optional<View> reshapeView(OpBuilder &builder, Location loc, View view, ArrayRef<int64_t> shape) {
  SmallVector<unsigned> order;
  for (ArrayRef<unsigned> group : view.groups)
    order.append(group.begin(), group.end());
  View result{.value = view.value};
  size_t next = 0;
  for (int64_t size : shape) {
    SmallVector<unsigned, 2> group;
    int64_t product = 1;
    // What has one element belongs to the dimension before, so that a width stays a dimension of its own.
    while (size != 1 && !result.groups.empty() && next < order.size() &&
           typeOf(result.value).getDimSize(order[next]) == 1)
      result.groups.back().push_back(order[next++]);
    while (product < size || (size == 1 && group.empty())) {
      if (next == order.size()) {
        if (size != 1)
          return std::nullopt;
        break;
      }
      unsigned dim = order[next];
      int64_t have = typeOf(result.value).getDimSize(dim);
      if (size == 1 && have != 1)
        break;
      if (size % (product * have) == 0) {
        product *= have;
        group.push_back(dim);
        ++next;
        continue;
      }
      // The dimension is split: what is missing here, and the rest for what follows.
      int64_t missing = size / product;
      if (missing < 2 || size % product != 0 || have % missing != 0)
        return std::nullopt;
      result.value = splitDim(builder, loc, result.value, dim, have / missing);
      auto shift = [&](unsigned &d) { d += d > dim; };
      llvm::for_each(order, shift);
      llvm::for_each(group, shift);
      for (auto &done : result.groups)
        llvm::for_each(done, shift);
      order.insert(order.begin() + next + 1, dim + 1);
      group.push_back(dim);
      ++next;
      product = size;
    }
    result.groups.push_back(group);
  }
  for (; next < order.size(); ++next) {
    if (typeOf(result.value).getDimSize(order[next]) != 1 || result.groups.empty())
      return std::nullopt;
    result.groups.back().push_back(order[next]);
  }
  return result;
}

std::optional<View> cutView(OpBuilder &builder, Location loc, View view, int64_t axis, int64_t first, int64_t count,
                            bool drop, Value &part) {
  ArrayRef<unsigned> group = view.groups[axis];
  if (group.size() != 1 || group[0] < 2 || (drop && count != 1))
    return std::nullopt;
  unsigned dim = group[0];
  RankedTensorType type = typeOf(view.value);
  SmallVector<int64_t> offsets(type.getRank(), 0), strides(type.getRank(), 1), sizes(type.getShape());
  offsets[dim] = first;
  sizes[dim] = count;
  SmallVector<int64_t> shape(sizes);
  if (drop)
    shape.erase(shape.begin() + dim);
  if (!part)
    part = tensor::ExtractSliceOp::create(builder, loc, type.clone(shape), view.value, ValueRange(), ValueRange(),
                                          ValueRange(), offsets, sizes, strides);
  view.value = part;
  if (drop) {
    view.groups.erase(view.groups.begin() + axis);
    for (auto &other : view.groups)
      for (unsigned &d : other)
        d -= d > dim;
  }
  return view;
}

View transposeView(View view, ArrayRef<int64_t> perm) {
  View result{.value = view.value};
  for (int64_t from : perm)
    result.groups.push_back(view.groups[from]);
  return result;
}

bool sameOrder(const View &a, const View &b) {
  if (a.value.getType() != b.value.getType() || a.groups.size() != b.groups.size())
    return false;
  auto isUnit = [&](unsigned d) { return typeOf(a.value).getDimSize(d) == 1; };
  for (auto [x, y] : llvm::zip_equal(a.groups, b.groups)) {
    SmallVector<unsigned> left, right;
    llvm::copy_if(x, std::back_inserter(left), [&](unsigned d) { return !isUnit(d); });
    llvm::copy_if(y, std::back_inserter(right), [&](unsigned d) { return !isUnit(d); });
    if (left != right)
      return false;
  }
  return true;
}

std::optional<Value> materialise(OpBuilder &builder, Location loc, const View &view) {
  RankedTensorType type = typeOf(view.value);
  SmallVector<int64_t> shape = view.shape(), squeezed;
  SmallVector<unsigned> order;
  for (ArrayRef<unsigned> group : view.groups)
    llvm::copy_if(group, std::back_inserter(order), [&](unsigned d) { return type.getDimSize(d) != 1; });
  if (!llvm::is_sorted(order))
    return std::nullopt;
  if (type.getShape() == ArrayRef<int64_t>(shape))
    return view.value;
  Value value = view.value;
  auto isJoin = [](ArrayRef<int64_t> from, ArrayRef<int64_t> to) {
    if (to.empty() || to.size() > from.size())
      return false;
    size_t next = 0;
    for (int64_t size : to) {
      if (next == from.size())
        return false;
      int64_t product = from[next++];
      while (product < size && next < from.size())
        product *= from[next++];
      if (product != size)
        return false;
    }
    return productOf(from.drop_front(next)) == 1;
  };
  if (isJoin(type.getShape(), shape))
    return Value(
        tensor::CollapseShapeOp::create(builder, loc, type.clone(shape), value, reassociate(type.getShape(), shape)));
  if (isJoin(shape, type.getShape()))
    return Value(
        tensor::ExpandShapeOp::create(builder, loc, type.clone(shape), value, reassociate(shape, type.getShape())));
  // Dimensions of size 1 move: through a form without them.
  llvm::copy_if(shape, std::back_inserter(squeezed), [](int64_t size) { return size != 1; });
  if (squeezed.empty())
    squeezed.push_back(1);
  if (!isJoin(type.getShape(), squeezed) || !isJoin(shape, squeezed))
    return std::nullopt;
  value = tensor::CollapseShapeOp::create(builder, loc, type.clone(squeezed), value,
                                          reassociate(type.getShape(), squeezed));
  return Value(tensor::ExpandShapeOp::create(builder, loc, type.clone(shape), value, reassociate(shape, squeezed)));
}

} // namespace helix::onnximport
