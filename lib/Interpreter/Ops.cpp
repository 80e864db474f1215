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

/// The rows of `x` as codes of 8 bits times a scale for each block of the weight: see #helix.quant. Single precision
/// decides which codes they are.
static Tensor rounded(Tensor x, ArrayRef<int64_t> blockEnds) {
  for (int64_t row = 0; row < x.size(); row += x.width()) {
    int64_t begin = 0;
    for (int64_t end : blockEnds) {
      MutableArrayRef<double> block(&x.values[row + begin], end - begin);
      float largest = 0;
      for (double element : block)
        largest = std::isfinite(element) ? std::max(largest, std::fabs(static_cast<float>(element))) : NAN;
      float scale = largest / 127;
      for (double &element : block)
        element = scale == 0
                      ? 0
                      : double(scale) * std::nearbyint(std::clamp(static_cast<float>(element) / scale, -127.f, 127.f));
      begin = end;
    }
  }
  return x;
}

/// The last dimension of `given` times `weight` [K, N].
static Tensor product(const Tensor &given, const Tensor &weight) {
  Tensor narrow;
  if (!weight.blockEnds.empty())
    narrow = rounded(given, weight.blockEnds);
  const Tensor &x = weight.blockEnds.empty() ? given : narrow;
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

/// Adds `vector` to every row of `x`.
static void addToRows(Tensor &x, const Tensor &vector) {
  for (int64_t i = 0; i < x.size(); ++i)
    x.values[i] += vector.values[i % vector.size()];
}

static FailureOr<RankValue> linear(LinearOp op, Operands operands, int64_t) {
  Tensor result = product(*operands[0].tensor, *operands[1].tensor);
  if (op.getBias())
    addToRows(result, *operands[2].tensor);
  return RankValue(std::move(result));
}

static FailureOr<RankValue> broadcast(BroadcastOp op, Operands operands, int64_t) {
  Tensor result(cast<RankedTensorType>(op.getResult().getType()).getShape());
  addToRows(result, *operands[0].tensor);
  return RankValue(std::move(result));
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

static FailureOr<RankValue> layerNorm(LayerNormOp op, Operands operands, int64_t) {
  Tensor result = *operands[0].tensor;
  const Tensor &scale = *operands[1].tensor;
  int64_t width = result.width();
  for (int64_t start = 0; start < result.size(); start += width) {
    MutableArrayRef<double> row(&result.values[start], width);
    double mean = 0, variance = 0;
    for (double x : row)
      mean += x / width;
    for (double x : row)
      variance += (x - mean) * (x - mean) / width;
    double factor = 1 / std::sqrt(variance + op.getEpsilon().convertToDouble());
    for (int64_t i = 0; i < width; ++i)
      row[i] = (row[i] - mean) * factor * scale.values[i] + (op.getBias() ? operands[2].tensor->values[i] : 0);
  }
  return RankValue(std::move(result));
}

static FailureOr<RankValue> positionEmbedding(PositionEmbeddingOp op, Operands operands, int64_t) {
  const Tensor &table = *operands[0].tensor, &past = *operands[1].tensor;
  Tensor result(cast<RankedTensorType>(op.getResult().getType()).getShape());
  for (int64_t b = 0; b < result.shape[0]; ++b)
    for (int64_t t = 0; t < result.shape[1]; ++t) {
      int64_t row = std::clamp<int64_t>(static_cast<int64_t>(past.values[b]) + t, 0, table.shape[0] - 1);
      std::copy_n(table.at({row}), table.width(), result.at({b, t}));
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
  case Activation::Gelu:
    return x * std::erfc(-x / std::sqrt(2.)) / 2;
  case Activation::GeluTanh:
    return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
  case Activation::Relu:
    return std::isnan(x) ? x : std::max(x, 0.);
  }
  llvm_unreachable("an activation has a formula");
}

static FailureOr<RankValue> ffn(FFNOp op, Operands operands, int64_t) {
  // Operands that are there, in their order.
  size_t next = 0;
  auto take = [&](Value operand) { return operand ? operands[next++].tensor : TensorRef(); };
  TensorRef x = take(op.getX()), gate = take(op.getGate()), up = take(op.getUp()), down = take(op.getDown());
  TensorRef gateBias = take(op.getGateBias()), upBias = take(op.getUpBias()), downBias = take(op.getDownBias());
  auto biased = [](const Tensor &x, const Tensor &weight, const TensorRef &bias) {
    Tensor y = product(x, weight);
    if (bias)
      addToRows(y, *bias);
    return y;
  };
  Tensor inner = biased(*x, *up, upBias);
  if (gate) {
    Tensor gates = biased(*x, *gate, gateBias);
    for (auto [u, g] : llvm::zip(inner.values, gates.values))
      u *= activate(op.getActivation(), g);
  } else {
    for (double &u : inner.values)
      u = activate(op.getActivation(), u);
  }
  return RankValue(biased(inner, *down, downBias));
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
  addLocal<BroadcastOp>(table, broadcast);
  addLocal<RMSNormOp>(table, rmsNorm);
  addLocal<LayerNormOp>(table, layerNorm);
  addLocal<PositionEmbeddingOp>(table, positionEmbedding);
  addLocal<RopeOp>(table, rope);
  addLocal<FFNOp>(table, ffn);
  addLocal<LastTokenOp>(table, lastToken);
}
