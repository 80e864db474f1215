//===- Cache.cpp - One rank's share of a layer's KV cache --------------------===//
#include "lib/Interpreter/Cache.h"

#include "lib/Interpreter/Tensor.h"

#include <cmath>

using namespace helix;

Cache::Cache(KVType type, int64_t kvpRank, double unwritten)
    : type(type), kvpRank(kvpRank), unwritten(unwritten), keys(type.getSlots()), values(type.getSlots()),
      nothing(std::max(type.getKeyDim(), type.getValueDim()), unwritten) {}

/// Where `head` of `place` starts in a slot's storage of `dim` elements per head.
static int64_t start(KVType type, int64_t place, int64_t head, int64_t dim) {
  return (place * type.getHeads() + head) * dim;
}

const double *Cache::key(int64_t slot, int64_t place, int64_t head) const {
  size_t at = start(type, place, head, type.getKeyDim());
  return at < keys[slot].size() ? keys[slot].data() + at : nothing.data();
}

const double *Cache::value(int64_t slot, int64_t place, int64_t head) const {
  size_t at = start(type, place, head, type.getValueDim());
  return at < values[slot].size() ? values[slot].data() + at : nothing.data();
}

/// What a cache of codes keeps of the numbers of one head, as `#helix.kv_scale` defines it.
static std::vector<double> coded(KVType type, mlir::FloatAttr shared, llvm::ArrayRef<double> numbers) {
  bool isInteger = type.getElement().isInteger();
  const float largestCode = isInteger ? 127 : 448;
  float scale = shared ? static_cast<float>(shared.getValueAsDouble()) : 0;
  if (!shared) {
    for (double number : numbers)
      // A NaN stays; a comparison with it is false.
      if (!(std::fabs(static_cast<float>(number)) <= scale))
        scale = std::fabs(static_cast<float>(number));
    if (llvm::any_of(numbers, [](double number) { return std::isnan(number); }))
      scale = std::numeric_limits<float>::quiet_NaN();
    scale /= largestCode;
  }
  std::vector<double> kept;
  for (double number : numbers) {
    float quotient = scale == 0 ? 0 : static_cast<float>(number) / scale;
    double code = quotient;
    if (!std::isnan(quotient)) {
      code = std::clamp(quotient, -largestCode, largestCode);
      if (isInteger)
        code = std::nearbyint(code);
      else
        code = roundTo(type.getElement(), code);
    }
    kept.push_back(code * scale);
  }
  return kept;
}

void Cache::write(int64_t slot, int64_t place, int64_t head, const double *key, const double *value) {
  auto store = [&](std::vector<double> &storage, int64_t dim, const double *from) {
    size_t end = start(type, place + 1, 0, dim);
    if (storage.size() < end)
      storage.resize(end, unwritten);
    for (int64_t d = 0; d < dim; ++d)
      storage[start(type, place, head, dim) + d] = type.getScale() ? from[d] : roundTo(type.getElement(), from[d]);
  };
  KvScaleAttr scale = type.getScale();
  std::vector<double> keyCodes, valueCodes;
  if (scale) {
    keyCodes = coded(type, scale.getKey(), {key, static_cast<size_t>(type.getKeyDim())});
    valueCodes = coded(type, scale.getValue(), {value, static_cast<size_t>(type.getValueDim())});
  }
  store(keys[slot], type.getKeyDim(), scale ? keyCodes.data() : key);
  store(values[slot], type.getValueDim(), scale ? valueCodes.data() : value);
}

void Cache::truncate(int64_t slot, int64_t length) {
  // Places ascend with positions, so those to forget are the ones from the first forgotten position on.
  int64_t kept = 0;
  for (int64_t position = 0; position < length; ++position)
    kept += owner(type, position) == kvpRank;
  auto forget = [&](std::vector<double> &storage, int64_t dim) {
    storage.resize(std::min<size_t>(storage.size(), start(type, kept, 0, dim)));
  };
  forget(keys[slot], type.getKeyDim());
  forget(values[slot], type.getValueDim());
}
