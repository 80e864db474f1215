//===- Packed.cpp - Products whose result is cut into several --------------===//
#include "passes/Packed.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;

namespace helix {
namespace {

/// Columns offset + i / run * stride + i mod run, i from 0 to size - 1; in one piece if run is 0.
struct Columns {
  int64_t offset = 0, size = 1, run = 0, stride = 0;
};

struct Cut {
  tensor::ExtractSliceOp slice;
  Columns columns;
};

/// The columns that a box takes of a dimension that is seen as several; nothing if they are pieces of pieces.
std::optional<Columns> columnsOf(ArrayRef<int64_t> dims, ArrayRef<int64_t> offsets, ArrayRef<int64_t> sizes) {
  Columns columns;
  // Columns from one index of a dimension to the next.
  int64_t unit = 1;
  for (size_t d = dims.size(); d-- > 0; unit *= dims[d]) {
    columns.offset += offsets[d] * unit;
    if (sizes[d] == 1)
      continue;
    if (columns.run == 0 && columns.size < unit) {
      columns.run = columns.size;
      columns.stride = unit;
    } else if (columns.run != 0 && columns.size / columns.run * columns.stride != unit) {
      return std::nullopt;
    }
    columns.size *= sizes[d];
  }
  return columns;
}

/// What `slice` takes of a product's last dimension, which is split into those from `leading` on, if it takes all of
/// the others.
std::optional<Columns> columnsOf(tensor::ExtractSliceOp slice, int64_t leading) {
  RankedTensorType source = slice.getSourceType();
  ArrayRef<int64_t> offsets = slice.getStaticOffsets(), sizes = slice.getStaticSizes(), dims = source.getShape();
  bool isStatic = source.hasStaticShape() && llvm::none_of(offsets, ShapedType::isDynamic) &&
                  llvm::none_of(sizes, ShapedType::isDynamic) &&
                  llvm::all_of(slice.getStaticStrides(), [](int64_t stride) { return stride == 1; });
  if (!isStatic || sizes.take_front(leading) != dims.take_front(leading))
    return std::nullopt;
  std::optional<Columns> columns =
      columnsOf(dims.drop_front(leading), offsets.drop_front(leading), sizes.drop_front(leading));
  // Only dimensions of what was the last may have been dropped.
  ArrayRef<int64_t> shape = slice.getType().getShape();
  if (!columns || static_cast<int64_t>(shape.size()) <= leading ||
      shape.take_front(leading) != sizes.take_front(leading))
    return std::nullopt;
  return columns;
}

/// Whether the last dimension of `weight` can be cut further.
bool isPlain(WeightOp weight) {
  unsigned last = weight.getType().getRank() - 1;
  return !weight.getSlice() && weight.piecesOf(weight.storedDim(last)).first == 0;
}

/// Columns of `weight`, as a window of what is stored.
WeightOp windowOf(OpBuilder &builder, WeightOp weight, const Columns &columns) {
  SmallVector<int64_t> offset = weight.windowOffset(), size = weight.windowSize(), shape(weight.getType().getShape());
  unsigned dim = weight.storedDim(shape.size() - 1);
  offset[dim] += columns.offset;
  size[dim] = shape.back() = columns.size;
  SmallVector<int64_t> pieces(2 * shape.size(), 0);
  if (std::optional<ArrayRef<int64_t>> given = weight.getPieces())
    pieces.assign(given->begin(), given->end());
  pieces[2 * dim] = columns.run;
  pieces[2 * dim + 1] = columns.stride;
  bool hasPieces = llvm::any_of(pieces, [](int64_t number) { return number != 0; });
  WeightOp part = weight.part(builder, shape, builder.getDenseI64ArrayAttr(offset), builder.getDenseI64ArrayAttr(size),
                              ArrayAttr());
  part.setPiecesAttr(hasPieces ? builder.getDenseI64ArrayAttr(pieces) : DenseI64ArrayAttr());
  return part;
}

/// Whether `expand` leaves the first `leading` dimensions as they are.
bool keepsLeading(tensor::ExpandShapeOp expand, int64_t leading) {
  SmallVector<ReassociationIndices> groups = expand.getReassociationIndices();
  return static_cast<int64_t>(groups.size()) > leading &&
         llvm::all_of(ArrayRef(groups).take_front(leading), [](const auto &group) { return group.size() == 1; });
}

/// The cuts of `value`, a product whose last dimension is split into those from `leading` on, and the splits that lead
/// to them, the last first. False if it has other uses.
bool collect(Value value, int64_t leading, SmallVectorImpl<Cut> &cuts, SmallVectorImpl<Operation *> &splits) {
  for (Operation *user : value.getUsers()) {
    if (auto expand = dyn_cast<tensor::ExpandShapeOp>(user)) {
      if (!keepsLeading(expand, leading) || !collect(expand, leading, cuts, splits))
        return false;
      splits.push_back(expand);
      continue;
    }
    auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
    std::optional<Columns> columns = slice ? columnsOf(slice, leading) : std::nullopt;
    if (!columns)
      return false;
    cuts.push_back({slice, *columns});
  }
  return true;
}

/// The cut, or if it is only read through a join of its last dimensions, that join.
Operation *joined(tensor::ExtractSliceOp slice, RankedTensorType product) {
  auto join = slice->hasOneUse() ? dyn_cast<tensor::CollapseShapeOp>(*slice->user_begin()) : nullptr;
  int64_t leading = product.getRank() - 1;
  bool keeps = join && join.getResultType().getRank() > leading &&
               join.getResultType().getShape().take_front(leading) == product.getShape().take_front(leading);
  return keeps ? join.getOperation() : slice.getOperation();
}

} // namespace

bool unpack(LinearOp linear) {
  auto type = dyn_cast<RankedTensorType>(linear.getResult().getType());
  auto weight = linear.getWeight().getDefiningOp<WeightOp>();
  auto bias = linear.getBias() ? linear.getBias().getDefiningOp<WeightOp>() : WeightOp();
  if (!type || !weight || !isPlain(weight) || (linear.getBias() && (!bias || !isPlain(bias))) ||
      linear.getResult().use_empty())
    return false;
  SmallVector<Cut> cuts;
  SmallVector<Operation *> splits;
  if (!collect(linear.getResult(), type.getRank() - 1, cuts, splits) || cuts.empty())
    return false;
  OpBuilder builder(linear);
  for (auto &[slice, columns] : cuts) {
    SmallVector<int64_t> shape(type.getShape());
    shape.back() = columns.size;
    Value weightPart = windowOf(builder, weight, columns);
    Value biasPart = bias ? windowOf(builder, bias, columns).getResult() : Value();
    Value part =
        LinearOp::create(builder, linear.getLoc(), type.clone(shape), linear.getX(), weightPart, biasPart).getResult();
    Operation *last = joined(slice, type);
    auto wanted = cast<RankedTensorType>(last->getResult(0).getType());
    if (wanted != part.getType()) {
      SmallVector<ReassociationIndices> groups;
      for (int64_t d = 0; d < wanted.getRank(); ++d)
        if (d < type.getRank())
          groups.push_back({d});
        else
          groups.back().push_back(d);
      part = tensor::ExpandShapeOp::create(builder, slice.getLoc(), wanted, part, groups);
    }
    last->getResult(0).replaceAllUsesWith(part);
    if (last != slice)
      last->erase();
    slice.erase();
  }
  for (Operation *split : splits)
    split->erase();
  linear.erase();
  return true;
}

} // namespace helix
