//===- Shape.cpp - tensor ops -------------------------------------------------===//
#include "lib/Interpreter/Ops.h"

#include <functional>
#include <numeric>

using namespace mlir;
using namespace helix;

/// The same elements in another shape.
template <typename Op> static FailureOr<RankValue> reshape(Op op, Operands operands, int64_t) {
  return RankValue(Tensor(op.getResultType().getShape(), operands[0].tensor->values));
}

static FailureOr<RankValue> extractSlice(tensor::ExtractSliceOp op, Operands operands, int64_t) {
  const Tensor &source = *operands[0].tensor;
  if (operands.size() != 1)
    return op.emitOpError("has offsets, sizes or strides that are not constants");
  ArrayRef<int64_t> offsets = op.getStaticOffsets(), sizes = op.getStaticSizes(), strides = op.getStaticStrides();
  // In the source's rank: a result of lower rank has the same elements in the same order.
  Tensor slice{sizes};
  for (int64_t flat = 0; flat < slice.size(); ++flat) {
    SmallVector<int64_t> index(sizes.size());
    int64_t rest = flat;
    for (int64_t d = sizes.size() - 1; d >= 0; --d) {
      index[d] = offsets[d] + rest % sizes[d] * strides[d];
      rest /= sizes[d];
      if (index[d] < 0 || index[d] >= source.shape[d])
        return op.emitOpError() << "reads index " << index[d] << " of dimension " << d << ", which has "
                                << source.shape[d] << " elements";
    }
    slice.values[flat] = *source.at(index);
  }
  return RankValue(Tensor(op.getType().getShape(), std::move(slice.values)));
}

Tensor helix::concat(ArrayRef<Tensor> parts, unsigned dim) {
  Tensor result;
  result.shape = parts.front().shape;
  result.shape[dim] = 0;
  // Elements of a part behind each index of the dimensions before `dim`.
  SmallVector<int64_t> runs;
  for (const Tensor &part : parts) {
    result.shape[dim] += part.shape[dim];
    runs.push_back(std::accumulate(part.shape.begin() + dim, part.shape.end(), int64_t{1}, std::multiplies<>()));
  }
  for (int64_t outer = 0, count = parts.front().size() / runs.front(); outer < count; ++outer)
    for (auto [part, run] : llvm::zip(parts, runs))
      result.values.insert(result.values.end(), &part.values[outer * run], &part.values[outer * run] + run);
  return result;
}

static FailureOr<RankValue> concatenate(tensor::ConcatOp op, Operands operands, int64_t) {
  return RankValue(
      concat(llvm::map_to_vector(operands, [](const RankValue &part) { return *part.tensor; }), op.getDim()));
}

static FailureOr<RankValue> empty(tensor::EmptyOp op, Operands, int64_t) {
  return RankValue(Tensor(op.getType().getShape(), std::numeric_limits<double>::quiet_NaN()));
}

static FailureOr<RankValue> splat(tensor::SplatOp op, Operands operands, int64_t) {
  return RankValue(Tensor(op.getType().getShape(), operands[0].tensor->values.front()));
}

void helix::addShapeOps(OpTable &table) {
  addLocal<tensor::ExpandShapeOp>(table, reshape<tensor::ExpandShapeOp>);
  addLocal<tensor::CollapseShapeOp>(table, reshape<tensor::CollapseShapeOp>);
  addLocal<tensor::ExtractSliceOp>(table, extractSlice);
  addLocal<tensor::ConcatOp>(table, concatenate);
  addLocal<tensor::EmptyOp>(table, empty);
  addLocal<tensor::SplatOp>(table, splat);
}
