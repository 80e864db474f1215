//===- DenseAttention.cpp - Attention over plain keys and values -----------===//
#include "runtime/Cpu/Stateless.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace helix::cpu {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// What is added to the scores of one row; kHidden hides a key.
struct Bias {
  int64_t first, last; ///< keys that bounds and lengths let through
  const float *mask = nullptr;
  const uint8_t *truths = nullptr;
  int64_t maskKeys;

  Bias(const DenseAttentionArgs &args, size_t b, size_t h, size_t t) : maskKeys(args.keys) {
    int64_t length = args.lengths ? args.lengths[b] : int64_t(args.keys);
    int64_t position = int64_t(t) + (args.lengths ? length - int64_t(args.tokens) : args.offset);
    first = args.left < 0 ? 0 : std::max<int64_t>(0, position - args.left);
    last = std::min(length - 1, args.right < 0 ? length - 1 : position + args.right);
    if (!args.mask && !args.truths)
      return;
    const uint32_t *size = args.maskShape;
    auto index = [](size_t i, uint32_t n) { return n == 1 ? 0 : i; };
    size_t row = (index(b, size[0]) * size[1] + index(h, size[1])) * size[2] + index(t, size[2]);
    maskKeys = size[3];
    if (args.mask)
      mask = args.mask + row * size[3];
    else
      truths = args.truths + row * size[3];
  }

  float operator()(int64_t j) const {
    if (j < first || j > last || j >= maskKeys)
      return kHidden;
    return mask ? mask[j] : truths && truths[j] == 0 ? kHidden : 0.0f;
  }
};

} // namespace

void denseAttention(const DenseAttentionArgs &args, size_t begin, size_t end, float *scores) {
  size_t keys = args.keys, width = args.stage == ScoreStage::Values ? args.valueDim : keys;
  for (size_t item = begin; item < end; ++item) {
    size_t t = item % args.tokens, h = item / args.tokens % args.heads, b = item / args.tokens / args.heads;
    size_t kvHead = b * args.kvHeads + h / (args.heads / args.kvHeads);
    const float *q = args.q + item * args.keyDim, *key = args.key + kvHead * keys * args.keyDim;
    float *y = args.y + item * width;
    Bias bias(args, b, h, t);
    for (size_t j = 0; j < keys; ++j) {
      double dot = 0;
      for (size_t d = 0; d < args.keyDim; ++d)
        dot += double(q[d]) * double(key[j * args.keyDim + d]);
      scores[j] = float(dot * double(args.scale));
      if (args.softcap != 0 && args.stage != ScoreStage::Scaled)
        scores[j] = args.softcap * std::tanh(scores[j] / args.softcap);
    }
    if (args.stage == ScoreStage::Scaled || args.stage == ScoreStage::Capped) {
      std::copy_n(scores, keys, y);
      continue;
    }
    for (size_t j = 0; j < keys; ++j) {
      float added = bias(int64_t(j));
      scores[j] = added == kHidden ? kHidden : scores[j] + added;
    }
    if (args.stage == ScoreStage::Masked) {
      std::copy_n(scores, keys, y);
      continue;
    }
    // A NaN is passed on: it is neither hidden nor the largest.
    float most = kHidden;
    double sum = 0;
    for (size_t j = 0; j < keys; ++j)
      most = std::max(most, scores[j]);
    for (size_t j = 0; j < keys; ++j)
      if (scores[j] != kHidden)
        sum += std::exp(double(scores[j]) - double(most));
    auto weight = [&](size_t j) { return scores[j] == kHidden ? 0 : std::exp(double(scores[j]) - double(most)) / sum; };
    if (args.stage == ScoreStage::Probabilities) {
      for (size_t j = 0; j < keys; ++j)
        y[j] = float(weight(j));
      continue;
    }
    const float *value = args.value + kvHead * keys * args.valueDim;
    for (size_t j = 0; j < keys; ++j)
      if (scores[j] != kHidden)
        scores[j] = float(weight(j));
    for (size_t d = 0; d < width; ++d) {
      double total = 0;
      for (size_t j = 0; j < keys; ++j)
        if (scores[j] != kHidden)
          total += double(scores[j]) * double(value[j * width + d]);
      y[d] = float(total);
    }
  }
}

} // namespace helix::cpu
