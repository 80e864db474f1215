//===- Attention.cpp - Appending to caches, attention over them, merging -----===//
#include "lib/Interpreter/Ops.h"

#include <cmath>

using namespace mlir;
using namespace helix;

static constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The cache of a value, if the value is the cache's newest version.
static FailureOr<Cache *> current(Operation *op, const RankValue &value) {
  if (value.version != value.cache->version)
    return op->emitOpError("reads a cache that was appended to since");
  return value.cache;
}

static FailureOr<RankValues> append(KVAppendOp op, ArrayRef<RankValues> operands, Machine &machine) {
  KVType type = op.getCache().getType();
  SmallVector<Cache *> caches;
  for (const RankValue &value : operands[4]) {
    FailureOr<Cache *> cache = current(op, value);
    if (failed(cache))
      return failure();
    caches.push_back(*cache);
  }

  RankValues result;
  // Per rank and token, whether the rank wrote it.
  std::vector<std::vector<bool>> wrote(machine.ranks());
  for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
    const Tensor &key = *operands[0][rank].tensor, &value = *operands[1][rank].tensor;
    const Tensor &past = *operands[2][rank].tensor, &qLen = *operands[3][rank].tensor;
    Cache &cache = *caches[rank];
    for (int64_t b = 0; b < key.shape[0]; ++b)
      for (int64_t t = 0; t < std::min<int64_t>(key.shape[1], qLen.values[b]); ++t) {
        int64_t position = past.values[b] + t;
        if (position < 0 || position >= type.getCapacity())
          return op.emitOpError() << "appends at position " << position << " of slot " << b << ", but the capacity is "
                                  << type.getCapacity();
        bool writes = owner(type, position) == cache.kvpRank;
        wrote[rank].push_back(writes);
        for (int64_t h = 0; writes && h < type.getHeads(); ++h)
          cache.write(b, local(type, position), h, key.at({b, t, h}), value.at({b, t, h}));
      }
    ++cache.version;
    result.push_back(RankValue(cache));
  }

  for (int64_t rank = 0; rank < machine.ranks(); ++rank)
    for (size_t token = 0; token < wrote[rank].size(); ++token) {
      int64_t writers =
          type.getKvp() == 1 ? wrote[rank][token] : llvm::count_if(machine.group(rank, Axis::Kvp), [&](int64_t peer) {
            return token < wrote[peer].size() && wrote[peer][token];
          });
      if (writers != 1)
        return op.emitOpError() << "token " << token << " of this append is written by " << writers << " ranks";
    }
  return result;
}

SmallVector<int64_t> helix::heldPlaces(const Cache &cache, int64_t length) {
  SmallVector<int64_t> places;
  for (int64_t position = 0; position < length; ++position)
    if (owner(cache.type, position) == cache.kvpRank)
      places.push_back(local(cache.type, position));
  return places;
}

helix::AttentionInputs::AttentionInputs(AttentionOp op, Operands operands)
    : q(*operands[0].tensor), cache(*operands[1].cache), past(*operands[2].tensor), qLen(*operands[3].tensor),
      scale(op.getScale().convertToDouble()), firstSequence(0), sequences(q.shape[0]), firstToken(0),
      tokens(q.shape[1]) {
  softcap = op.getSoftcap() ? op.getSoftcap()->convertToDouble() : 0;
  window = op.getWindow().value_or(0);
  slopes = op.getSlopes() ? operands[4].tensor.get() : nullptr;
  sinks = op.getSinks() ? operands.back().tensor.get() : nullptr;
}

helix::AttentionInputs::AttentionInputs(PartialAttentionOp op, Operands operands)
    : q(*operands[0].tensor), cache(*operands[1].cache), past(*operands[2].tensor), qLen(*operands[3].tensor),
      scale(op.getScale().convertToDouble()) {
  softcap = op.getSoftcap() ? op.getSoftcap()->convertToDouble() : 0;
  window = op.getWindow().value_or(0);
  slopes = op.getSlopes() ? operands[4].tensor.get() : nullptr;
  std::tie(firstSequence, sequences) = op.range(0);
  std::tie(firstToken, tokens) = op.range(1);
}

RankValue helix::attend(const AttentionInputs &in, int64_t heads, Places visible) {
  const Tensor &q = in.q;
  KVType type = in.cache.type;
  int64_t group = q.shape[2] / type.getHeads();
  Tensor o({in.sequences, in.tokens, heads, type.getValueDim()});
  Tensor lse({in.sequences, in.tokens, heads}, -kInfinity);
  for (int64_t row = 0; row < in.sequences; ++row) {
    int64_t b = in.firstSequence + row;
    int64_t used = std::min<int64_t>(in.tokens, static_cast<int64_t>(in.qLen.values[b]) - in.firstToken);
    for (int64_t column = 0; column < used; ++column) {
      int64_t t = in.firstToken + column;
      int64_t p = static_cast<int64_t>(in.past.values[b]) + t;
      bool capsMasked = in.capsMasked && in.softcap != 0;
      // The mask hides what is newer, and what is older than the window.
      int64_t length = capsMasked ? static_cast<int64_t>(in.past.values[b] + in.qLen.values[b]) : p + 1;
      SmallVector<int64_t> places = visible(in.cache, length);
      auto at = [&](int64_t place) { return position(type, in.cache.kvpRank, place); };
      auto isOld = [&](int64_t place) { return in.window != 0 && at(place) <= p - in.window; };
      if (!capsMasked)
        llvm::erase_if(places, isOld);
      for (int64_t h = 0; h < q.shape[2] && !places.empty(); ++h) {
        std::vector<double> scores;
        for (int64_t place : places) {
          const double *key = in.cache.key(b, place, h / group), *query = q.at({b, t, h});
          double score = 0;
          for (int64_t d = 0; d < type.getKeyDim(); ++d)
            score += query[d] * key[d];
          score *= in.scale;
          if (in.softcap != 0)
            score = capsMasked && (at(place) > p || isOld(place)) ? -in.softcap
                                                                  : in.softcap * std::tanh(score / in.softcap);
          if (in.slopes)
            score += in.slopes->values[h] * static_cast<double>(at(place) - p);
          scores.push_back(score);
        }
        double max = in.sinks ? in.sinks->values[h] : -kInfinity, sum = 0;
        for (double score : scores)
          max = std::max(max, score);
        if (in.sinks)
          sum = std::exp(in.sinks->values[h] - max);
        for (double score : scores)
          sum += std::exp(score - max);
        for (auto [place, score] : llvm::zip(places, scores)) {
          const double *value = in.cache.value(b, place, h / group);
          for (int64_t d = 0; d < type.getValueDim(); ++d)
            o.at({row, column, h})[d] += std::exp(score - max) / sum * value[d];
        }
        *lse.at({row, column, h}) = max + std::log(sum);
      }
    }
  }
  return RankValue(std::move(o), std::move(lse));
}

template <typename Op> static FailureOr<RankValue> attention(Op op, Operands operands, int64_t) {
  if (failed(current(op, operands[1])))
    return failure();
  auto shaped = llvm::cast<RankedTensorType>([&]() -> Type {
    if constexpr (std::is_same_v<Op, PartialAttentionOp>)
      return op.getResult().getType().getValue();
    else
      return op.getResult().getType();
  }());
  RankValue result = attend(AttentionInputs(op, operands), shaped.getDimSize(2), heldPlaces);
  if constexpr (std::is_same_v<Op, AttentionOp>)
    result.lse = nullptr;
  return result;
}

static Tensor mergeChunk(const Tensor &stacked, const Tensor *sinks, double (*weight)(double lse, double max),
                         bool sinkPerPeer) {
  int64_t peers = stacked.shape[0], width = stacked.width() - 1;
  Tensor result({stacked.shape[1], stacked.shape[2], stacked.shape[3], width});
  int64_t rows = result.size() / width;
  for (int64_t row = 0; row < rows; ++row) {
    auto part = [&](int64_t peer) { return &stacked.values[(peer * rows + row) * (width + 1)]; };
    double sink = sinks ? sinks->values[row % sinks->size()] : -kInfinity, max = sink, sum = 0;
    for (int64_t peer = 0; peer < peers; ++peer)
      max = std::max(max, part(peer)[width]);
    double *o = &result.values[row * width];
    for (int64_t peer = 0; peer < peers; ++peer) {
      double w = weight(part(peer)[width], max);
      if (w == 0)
        continue;
      sum += w;
      for (int64_t d = 0; d < width; ++d)
        o[d] += w * part(peer)[d];
    }
    if (sinks)
      sum += weight(sink, max) * static_cast<double>(sinkPerPeer ? peers : 1);
    for (int64_t d = 0; sum != 0 && d < width; ++d)
      o[d] /= sum;
  }
  return result;
}

Tensor helix::merge(MergeAttentionOp op, Operands operands, double (*weight)(double lse, double max),
                    bool sinkPerPeer) {
  const Tensor *sinks = op.getSinks() ? operands.back().tensor.get() : nullptr;
  return concat(llvm::map_to_vector(
                    operands.take_front(op.getInputs().size()),
                    [&](const RankValue &chunk) { return mergeChunk(*chunk.tensor, sinks, weight, sinkPerPeer); }),
                op.chunkedDim());
}

static double weightOf(double lse, double max) { return lse == -kInfinity ? 0 : std::exp(lse - max); }

static FailureOr<RankValue> mergeAttention(MergeAttentionOp op, Operands operands, int64_t) {
  return RankValue(merge(op, operands, weightOf));
}

void helix::addAttentionOps(OpTable &table) {
  addJoint<KVAppendOp>(table, append);
  addLocal<AttentionOp>(table, attention<AttentionOp>);
  addLocal<PartialAttentionOp>(table, attention<PartialAttentionOp>);
  addLocal<MergeAttentionOp>(table, mergeAttention);
}
