//===- Rows.cpp - Embedding, last token, concat, append to the cache --------===//
#include "runtime/Cpu/Convert.h"
#include "runtime/Cpu/Kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace helix::cpu {

void embedding(const EmbeddingArgs &args, size_t begin, size_t end) {
  withElement(args.dtype, [&](auto element) {
    const auto *table = static_cast<const decltype(element) *>(args.table);
    for (size_t row = begin; row < end; ++row) {
      float *y = args.y + row * args.hidden;
      // Unsigned, so that one comparison refuses ids on either side, the extremes of int64 included.
      uint64_t local = uint64_t(args.ids[row]) - uint64_t(args.firstId);
      if (local >= args.vocabulary) {
        std::fill_n(y, args.hidden, 0.0f);
        continue;
      }
      const auto *from = args.tied ? table + local / kPanelWidth * args.hidden * kPanelWidth + local % kPanelWidth
                                   : table + local * args.hidden;
      size_t step = args.tied ? kPanelWidth : 1;
      for (size_t i = 0; i < args.hidden; ++i)
        y[i] = toFloat(from[i * step]);
    }
  });
}

void lastToken(const LastTokenArgs &args, size_t begin, size_t end) {
  for (size_t b = begin; b < end; ++b) {
    float *y = args.y + b * args.hidden;
    size_t used = std::clamp<int64_t>(args.qLen[b], 0, args.tokens);
    if (used == 0)
      std::fill_n(y, args.hidden, 0.0f);
    else
      std::copy_n(args.x + (b * args.tokens + used - 1) * args.hidden, args.hidden, y);
  }
}

void concat(const ConcatArgs &args, size_t begin, size_t end) {
  size_t width = 0;
  for (const ConcatPart &part : args.parts)
    width += part.width;
  float *y = args.y + begin * width;
  for (size_t row = begin; row < end; ++row)
    for (const ConcatPart &part : args.parts)
      y = std::copy_n(part.x + row * part.width, part.width, y);
}

/// What codes of `count` numbers are multiples of: the layer's scale, or one that the largest of them chooses. A NaN
/// chooses NaN.
static float scaleOf(const float *numbers, size_t count, float shared, float *own, float largestCode) {
  if (!own)
    return shared;
  float largest = 0;
  for (size_t i = 0; i < count; ++i) {
    float magnitude = std::fabs(numbers[i]);
    largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
    if (largest != largest)
      break;
  }
  return *own = largest / largestCode;
}

/// Stores `count` numbers, number i at index at(i).
template <typename Element, typename At>
static void keep(const float *numbers, size_t count, float shared, float *own, Element *to, const At &at) {
  if constexpr (std::is_same_v<Element, Int8> || std::is_same_v<Element, Fp8>) {
    constexpr float largest = std::is_same_v<Element, Int8> ? kLargestInt8 : kLargestFp8;
    float scale = scaleOf(numbers, count, shared, own, largest);
    for (size_t i = 0; i < count; ++i)
      fromFloat(scale == 0 ? 0 : numbers[i] / scale, to[at(i)]);
  } else {
    for (size_t i = 0; i < count; ++i)
      fromFloat(numbers[i], to[at(i)]);
  }
}

void kvAppend(const KvAppendArgs &args, size_t begin, size_t end) {
  const KvCache &cache = args.cache;
  withCacheElement(cache.dtype, [&](auto element) {
    auto *keys = static_cast<decltype(element) *>(cache.key);
    auto *values = static_cast<decltype(element) *>(cache.value);
    for (size_t item = begin; item < end; ++item) {
      size_t b = item / args.tokens, t = item % args.tokens;
      uint64_t position = uint64_t(args.past[b]) + t;
      if (int64_t(t) >= args.qLen[b] || kvOwner(position, cache.block, cache.kvp) != cache.rank)
        continue;
      uint64_t local = kvLocal(position, cache.block, cache.kvp), page = kvPage(cache, b, local);
      for (size_t head = 0; head < cache.heads; ++head) {
        const float *key = args.key + (item * cache.heads + head) * cache.keyDim;
        const float *value = args.value + (item * cache.heads + head) * cache.valueDim;
        uint64_t keyAt = kvKeyIndex(cache, page, head, local % cache.block);
        uint64_t valueAt = kvValueIndex(cache, page, head, local % cache.block);
        uint64_t scaleAt = kvScaleIndex(cache, page, head) + local % cache.block;
        keep(key, cache.keyDim, cache.keyScale, cache.keyScales ? cache.keyScales + scaleAt : nullptr, keys + keyAt,
             [&](size_t i) { return kvKeyStep(cache, i); });
        keep(value, cache.valueDim, cache.valueScale, cache.valueScales ? cache.valueScales + scaleAt : nullptr,
             values + valueAt, [](size_t i) { return i; });
      }
    }
  });
}

void kvFill(const KvCache &cache, uint64_t slot, uint64_t tokens) {
  withCacheElement(cache.dtype, [&](auto element) {
    // Numbers of a short cycle between -1/2 and 1/2, which every type holds.
    decltype(element) numbers[64];
    for (int i = 0; i < 64; ++i)
      fromFloat(float(i * 37 % 64 - 32) / 64, numbers[i]);
    auto fill = [&](void *area, uint64_t first, uint64_t count) {
      auto *to = static_cast<decltype(element) *>(area) + first;
      for (uint64_t i = 0; i < count; ++i)
        to[i] = numbers[i * 5 % 64];
    };
    uint64_t held = kvLocalLength(tokens, cache.rank, cache.block, cache.kvp);
    for (uint64_t head = 0; head < cache.heads; ++head)
      for (uint64_t local = 0; local < held; local += cache.block) {
        uint64_t page = kvPage(cache, slot, local);
        fill(cache.key, kvKeyIndex(cache, page, head, 0), uint64_t(cache.block) * cache.keyDim);
        fill(cache.value, kvValueIndex(cache, page, head, 0), uint64_t(cache.block) * cache.valueDim);
        for (float *scales : {cache.keyScales, cache.valueScales})
          if (scales)
            std::fill_n(scales + kvScaleIndex(cache, page, head), cache.block, 1.0f);
      }
  });
}

} // namespace helix::cpu
