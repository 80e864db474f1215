//===- Ops.cpp - What weights, products and norms compute --------------------===//
#include "lib/Interpreter/Ops.h"

#include <cmath>

using namespace mlir;
using namespace helix;

static FailureOr<RankValues> weight(WeightOp op, ArrayRef<RankValues>, Machine &machine) {
  RankValues result;
  for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
    FailureOr<TensorRef> share = machine.weights.load(op, machine.mesh, rank);
    if (failed(share))
      return failure();
    result.push_back(*share);
  }
  return result;
}

static FailureOr<RankValue> embedding(EmbeddingOp op, Operands operands, int64_t rank) {
  const Tensor &ids = *operands[0].tensor, &table = *operands[1].tensor;
  int64_t rows = table.shape[0], width = table.shape[1];
  int64_t first = isa<PartialType>(op.getResult().getType()) ? rank * rows : 0;
  Tensor result({ids.shape[0], ids.shape[1], width});
  for (int64_t i = 0; i < ids.size(); ++i) {
    int64_t row = static_cast<int64_t>(ids.values[i]) - first;
    if (row >= 0 && row < rows)
      std::copy_n(table.at({row}), width, &result.values[i * width]);
  }
  return RankValue(std::move(result));
}

/// The last dimension of `x` times `weight` [K, N].
static Tensor product(const Tensor &x, const Tensor &weight) {
  int64_t inner = weight.shape[0], width = weight.shape[1];
  SmallVector<int64_t> shape(x.shape);
  shape.back() = width;
  Tensor result(shape);
  for (int64_t row = 0; row < x.size() / inner; ++row)
    for (int64_t k = 0; k < inner; ++k) {
      double factor = x.values[row * inner + k];
      const double *from = &weight.values[k * width];
      double *to = &result.values[row * width];
      for (int64_t n = 0; n < width; ++n)
        to[n] += factor * from[n];
    }
  return result;
}

static FailureOr<RankValue> linear(LinearOp, Operands operands, int64_t) {
  return RankValue(product(*operands[0].tensor, *operands[1].tensor));
}

static FailureOr<RankValue> rmsNorm(RMSNormOp op, Operands operands, int64_t) {
  Tensor result = *operands[0].tensor;
  const Tensor &scale = *operands[1].tensor;
  int64_t width = result.width();
  for (int64_t start = 0; start < result.size(); start += width) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i)
      sum += result.values[start + i] * result.values[start + i];
    double factor = 1 / std::sqrt(sum / width + op.getEpsilon().convertToDouble());
    for (int64_t i = 0; i < width; ++i)
      result.values[start + i] *= factor * scale.values[i];
  }
  return RankValue(std::move(result));
}

Tensor helix::rotate(const Tensor &x, const Tensor &cos, const Tensor &sin, bool interleaved,
                     llvm::function_ref<int64_t(int64_t, int64_t)> position) {
  Tensor result = x;
  int64_t half = cos.width();
  for (int64_t b = 0; b < x.shape[0]; ++b)
    for (int64_t t = 0; t < x.shape[1]; ++t) {
      int64_t row = std::clamp<int64_t>(position(b, t), 0, cos.shape[0] - 1);
      for (int64_t h = 0; h < x.shape[2]; ++h)
        for (int64_t i = 0; i < half; ++i) {
          double *head = result.at({b, t, h});
          double &first = head[interleaved ? 2 * i : i], &second = head[interleaved ? 2 * i + 1 : i + half];
          double c = cos.at({row})[i], s = sin.at({row})[i];
          std::tie(first, second) = std::pair(first * c - second * s, second * c + first * s);
        }
    }
  return result;
}

static FailureOr<RankValue> rope(RopeOp op, Operands operands, int64_t) {
  const Tensor &past = *operands[3].tensor;
  return RankValue(rotate(*operands[0].tensor, *operands[1].tensor, *operands[2].tensor, op.getInterleaved(),
                          [&](int64_t b, int64_t t) { return static_cast<int64_t>(past.values[b]) + t; }));
}

static double activate(Activation activation, double x) {
  switch (activation) {
  case Activation::Silu:
    return x / (1 + std::exp(-x));
  }
  llvm_unreachable("an activation has a formula");
}

static FailureOr<RankValue> ffn(FFNOp op, Operands operands, int64_t) {
  const Tensor &x = *operands[0].tensor;
  Tensor gate = product(x, *operands[1].tensor), up = product(x, *operands[2].tensor);
  for (auto [g, u] : llvm::zip(gate.values, up.values))
    g = activate(op.getActivation(), g) * u;
  return RankValue(product(gate, *operands[3].tensor));
}

static FailureOr<RankValue> lastToken(LastTokenOp op, Operands operands, int64_t) {
  const Tensor &x = *operands[0].tensor, &qLen = *operands[1].tensor;
  Tensor result({x.shape[0], 1, x.shape[2]});
  for (int64_t b = 0; b < x.shape[0]; ++b) {
    int64_t used = qLen.values[b];
    if (used < 0 || used > x.shape[1])
      return op.emitOpError() << "sequence " << b << " has " << used << " of " << x.shape[1] << " tokens";
    if (used > 0)
      std::copy_n(x.at({b, used - 1}), x.width(), result.at({b}));
  }
  return RankValue(std::move(result));
}

void helix::addModelOps(OpTable &table) {
  addJoint<WeightOp>(table, weight);
  addLocal<EmbeddingOp>(table, embedding);
  addLocal<LinearOp>(table, linear);
  addLocal<RMSNormOp>(table, rmsNorm);
  addLocal<RopeOp>(table, rope);
  addLocal<FFNOp>(table, ffn);
  addLocal<LastTokenOp>(table, lastToken);
}
