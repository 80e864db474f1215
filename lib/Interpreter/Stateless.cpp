//===- Stateless.cpp - Ops of stateless functions ----------------------------===//
#include "lib/Interpreter/Machine.h"

#include <array>
#include <cmath>

using namespace mlir;
using namespace helix;

static constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Operands that are there, in their order.
static auto taker(Operands operands) {
  return [operands, next = size_t(0)](Value operand) mutable -> const Tensor * {
    return operand ? operands[next++].tensor.get() : nullptr;
  };
}

static FailureOr<RankValue> denseAttention(DenseAttentionOp op, Operands operands, int64_t) {
  auto take = taker(operands);
  const Tensor &q = *take(op.getQ()), &key = *take(op.getKey());
  const Tensor *value = take(op.getValue()), *mask = take(op.getMask()), *lengths = take(op.getLengths());
  int64_t batch = q.shape[0], heads = q.shape[1], tokens = q.shape[2], width = q.shape[3], keys = key.shape[2];
  SmallVector<int64_t> maskShape = op.maskShape();
  bool isTruths = mask && cast<RankedTensorType>(op.getMask().getType()).getElementType().isInteger(1);
  double softcap = op.getSoftcap() ? op.getSoftcap()->convertToDouble() : 0;

  // What is added to the score of a key; -inf hides it.
  auto bias = [&](int64_t b, int64_t h, int64_t t, int64_t j) {
    int64_t p =
        t + (lengths ? static_cast<int64_t>(lengths->values[b]) - tokens : static_cast<int64_t>(op.getOffset()));
    if ((op.getLeft() && j < p - static_cast<int64_t>(*op.getLeft())) ||
        (op.getRight() && j > p + static_cast<int64_t>(*op.getRight())) || (lengths && j >= lengths->values[b]))
      return -kInfinity;
    if (!mask)
      return 0.;
    if (j >= maskShape[3])
      return -kInfinity;
    int64_t at = 0;
    for (auto [index, size] : llvm::zip(std::array<int64_t, 4>{b, h, t, j}, maskShape))
      at = at * size + (size == 1 ? 0 : index);
    if (isTruths)
      return mask->values[at] != 0 ? 0. : -kInfinity;
    return mask->values[at];
  };

  if (lengths)
    for (double length : lengths->values)
      if (length < 0 || length > keys)
        return op.emitOpError() << "has a length of " << length << " over " << keys << " keys";
  Tensor result(op.getType().getShape());
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t t = 0; t < tokens; ++t) {
        int64_t kvHead = h / (heads / key.shape[1]);
        std::vector<double> scores(keys), added(keys);
        double max = -kInfinity, sum = 0;
        for (int64_t j = 0; j < keys; ++j) {
          for (int64_t d = 0; d < width; ++d)
            scores[j] += q.at({b, h, t})[d] * key.at({b, kvHead, j})[d];
          scores[j] *= op.getScale().convertToDouble();
          if (softcap != 0 && op.getStage() != ScoreStage::Scaled)
            scores[j] = softcap * std::tanh(scores[j] / softcap);
          added[j] = bias(b, h, t, j);
        }
        double *row = result.at({b, h, t});
        if (op.getStage() == ScoreStage::Scaled || op.getStage() == ScoreStage::Capped) {
          llvm::copy(scores, row);
          continue;
        }
        for (int64_t j = 0; j < keys; ++j) {
          scores[j] = added[j] == -kInfinity ? -kInfinity : scores[j] + added[j];
          max = std::max(max, scores[j]);
        }
        if (op.getStage() == ScoreStage::Masked) {
          llvm::copy(scores, row);
          continue;
        }
        for (double &score : scores)
          sum += score = score == -kInfinity ? 0 : std::exp(score - max);
        for (int64_t j = 0; j < keys; ++j) {
          if (scores[j] == 0)
            continue;
          if (!value)
            row[j] = scores[j] / sum;
          for (int64_t d = 0; value && d < value->width(); ++d)
            row[d] += scores[j] / sum * value->at({b, kvHead, j})[d];
        }
      }
  return RankValue(std::move(result));
}

static FailureOr<RankValue> rotate(RotateOp op, Operands operands, int64_t) {
  auto take = taker(operands);
  Tensor result = *take(op.getX());
  const Tensor &cos = *take(op.getCos()), &sin = *take(op.getSin()), *positions = take(op.getPositions());
  int64_t half = cos.width(), tokens = result.shape[2];
  for (int64_t b = 0; b < result.shape[0]; ++b)
    for (int64_t t = 0; t < tokens; ++t) {
      int64_t row = b * tokens + t;
      if (positions) {
        row = static_cast<int64_t>(positions->values[row]);
        if (row < 0 || row >= cos.shape[0])
          return op.emitOpError() << "has position " << row << ", but " << cos.shape[0] << " rows";
      }
      for (int64_t h = 0; h < result.shape[1]; ++h)
        for (int64_t i = 0; i < half; ++i) {
          double *head = result.at({b, h, t});
          double &first = head[op.getInterleaved() ? 2 * i : i];
          double &second = head[op.getInterleaved() ? 2 * i + 1 : i + half];
          double c = cos.values[row * half + i], s = sin.values[row * half + i];
          std::tie(first, second) = std::pair(first * c - second * s, second * c + first * s);
        }
    }
  return RankValue(std::move(result));
}

static FailureOr<RankValue> scatter(ScatterOp op, Operands operands, int64_t) {
  auto take = taker(operands);
  const Tensor &update = *take(op.getUpdate());
  Tensor result = *take(op.getCache());
  const Tensor *indices = take(op.getIndices());
  auto axis = static_cast<size_t>(op.getAxis());
  int64_t tokens = update.shape[axis], capacity = result.shape[axis], inner = 1;
  for (int64_t size : ArrayRef(result.shape).drop_front(axis + 1))
    inner *= size;
  int64_t outer = update.size() / (tokens * inner), perSequence = outer / result.shape[0];
  for (int64_t row = 0; row < outer; ++row) {
    int64_t first = indices ? static_cast<int64_t>(indices->values[row / perSequence]) : 0;
    if (first < 0 || (!op.getCircular() && first > capacity - tokens))
      return op.emitOpError() << "writes " << tokens << " tokens from place " << first << " on into " << capacity;
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(&update.values[(row * tokens + t) * inner], inner,
                  &result.values[(row * capacity + (first + t) % capacity) * inner]);
  }
  return RankValue(std::move(result));
}

static FailureOr<RankValue> transpose(TransposeOp op, Operands operands, int64_t) {
  const Tensor &x = *operands[0].tensor;
  Tensor result(op.getResult().getType().getShape());
  SmallVector<int64_t> to(x.rank()), from(x.rank());
  for (int64_t flat = 0; flat < result.size(); ++flat) {
    int64_t rest = flat;
    for (int64_t d = x.rank() - 1; d >= 0; --d) {
      to[d] = rest % result.shape[d];
      rest /= result.shape[d];
    }
    for (auto [d, source] : llvm::enumerate(op.getPermutation()))
      from[source] = to[d];
    result.values[flat] = *x.at(from);
  }
  return RankValue(std::move(result));
}

static FailureOr<RankValue> rowStatistic(RowStatisticOp op, Operands operands, int64_t) {
  const Tensor &x = *operands[0].tensor;
  Tensor result(op.getType().getShape());
  int64_t width = x.width();
  for (int64_t row = 0; row < result.size(); ++row) {
    ArrayRef<double> values(&x.values[row * width], width);
    double mean = 0, variance = 0;
    for (double value : values)
      mean += value / width;
    for (double value : values)
      variance += (value - mean) * (value - mean) / width;
    result.values[row] =
        op.getStatistic() == Statistic::Mean ? mean : 1 / std::sqrt(variance + op.getEpsilon().convertToDouble());
  }
  return RankValue(std::move(result));
}

void helix::addStatelessOps(OpTable &table) {
  addLocal<DenseAttentionOp>(table, denseAttention);
  addLocal<RotateOp>(table, rotate);
  addLocal<ScatterOp>(table, scatter);
  addLocal<TransposeOp>(table, transpose);
  addLocal<RowStatisticOp>(table, rowStatistic);
}
