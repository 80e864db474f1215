//===- Rows.cu - Rows of tokens, the cache's writes, merge, reduction ------===//
//
// Bound by memory, and small beside attention and products: one element per thread and step, consecutive threads on
// consecutive elements.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Codes.h"
#include "runtime/Cuda/Kernels/Arguments.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/Fragments.h"
#include "runtime/Cuda/Kernels/WithElement.h"

#include <cmath>
#include <type_traits>

namespace helix::cuda {
namespace {

constexpr float kLowest = -INFINITY;

/// Stores a row of the cache `step` elements apart, as cpu::kvAppend does; codes as multiples of `shared`, or of a
/// scale that the row's largest number chooses and that `own` keeps. All lanes of a warp call it.
template <typename T>
__device__ __forceinline__ void keep(const float *numbers, uint32_t count, float shared, float *own, T *to,
                                     uint64_t step) {
  constexpr bool isCode = std::is_same_v<T, cpu::Int8> || std::is_same_v<T, cpu::Fp8>;
  float scale = shared;
  if (isCode && own) {
    // Every warp finds it for itself. As integers, magnitudes are in order and NaN is above all numbers.
    uint32_t largest = 0;
    for (uint32_t i = threadIdx.x % 32; i < count; i += 32) {
      uint32_t magnitude = floatToBits(numbers[i]) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    }
    for (int mask = 16; mask != 0; mask /= 2) {
      uint32_t other = floatToBits(shuffleXor(bitsToFloat(largest), mask));
      largest = other > largest ? other : largest;
    }
    scale = bitsToFloat(largest) / (std::is_same_v<T, cpu::Int8> ? cpu::kLargestInt8 : cpu::kLargestFp8);
    if (threadIdx.x == 0)
      *own = scale;
  }
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x)
    fromFloat(!isCode ? numbers[i] : scale == 0 ? 0 : numbers[i] / scale, to[i * step]);
}

__device__ __forceinline__ uint64_t pageOf(const KvCache &cache, uint64_t slot, uint64_t local) {
  return uint64_t(cache.table[slot * cache.pagesPerSlot + local / cache.block]);
}

} // namespace

/// Grid: x rows, y runs of columns.
HELIX_KERNEL helix_embedding(EmbeddingArgs args) {
  size_t row = blockIdx.x, column = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.hidden)
    return;
  // Unsigned, so that one comparison refuses ids on either side, the extremes of int64 included.
  uint64_t local = uint64_t(args.ids[row]) - uint64_t(args.firstId);
  float value = 0;
  if (local < args.vocabulary)
    withElement(args.dtype, [&](auto element) {
      value = toFloat(static_cast<const decltype(element) *>(args.table)[local * args.stride + column]);
    });
  args.y[row * args.hidden + column] = value;
}

/// Grid: x rows, y runs of columns.
HELIX_KERNEL helix_embedding_quantized(cpu::EmbeddingQuantizedArgs args) {
  size_t row = blockIdx.x, column = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.hidden)
    return;
  const cpu::QuantFormat &format = args.format;
  uint64_t local = uint64_t(args.ids[row]) - uint64_t(args.firstId);
  float value = 0;
  if (local < args.vocabulary && column < args.share.count) {
    uint64_t panel = local / cpu::kPanelWidth, lane = local % cpu::kPanelWidth;
    uint64_t block = (args.share.first + column) / format.block, panelBytes = cpu::kPanelWidth * format.bits / 8;
    uint64_t byte = args.tied ? (panel * args.hidden + column) * panelBytes + lane % panelBytes
                              : local * ((args.hidden * format.bits + 7) / 8) + column * format.bits / 8;
    uint64_t shift = args.tied ? lane / panelBytes * format.bits : column * format.bits % 8;
    uint64_t at =
        args.tied ? (panel * args.layout.blocks + block) * cpu::kPanelWidth + lane : local * args.layout.blocks + block;
    uint32_t code = uint32_t(args.table[byte]) >> shift & ((1u << format.bits) - 1);
    withElement(format.scale, [&](auto element) {
      using Scale = decltype(element);
      const std::byte *zeros = args.table + args.layout.zeros;
      float zero = format.zero == cpu::ZeroPoint::Middle   ? float(1u << (format.bits - 1))
                   : format.zero == cpu::ZeroPoint::Packed ? float(uint32_t(zeros[at]))
                   : format.zero == cpu::ZeroPoint::Real   ? toFloat(reinterpret_cast<const Scale *>(zeros)[at])
                                                           : 0;
      float number = format.isFloat ? cpu::floatCode(format.bits, code) : float(code) - zero;
      value = number * toFloat(reinterpret_cast<const Scale *>(args.table + args.layout.scales)[at]);
    });
  }
  args.y[row * args.hidden + column] = value;
}

/// Grid: x sequences, y runs of columns.
HELIX_KERNEL helix_last_token(cpu::LastTokenArgs args) {
  size_t b = blockIdx.x, column = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.hidden)
    return;
  int64_t used = args.qLen[b];
  used = used < int64_t(args.tokens) ? used : int64_t(args.tokens);
  args.y[b * args.hidden + column] =
      used <= 0 ? 0 : args.x[(b * args.tokens + size_t(used) - 1) * args.hidden + column];
}

/// Grid: x sequences, y runs of columns.
HELIX_KERNEL helix_keep_logits(KeepLogitsArgs args) {
  size_t b = blockIdx.x, column = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
  int64_t used = args.qLen[b];
  if (column >= args.vocabulary || used <= 0)
    return;
  used = used < int64_t(args.tokens) ? used : int64_t(args.tokens);
  args.last[b * args.vocabulary + column] =
      args.logits[(b * args.tokens + size_t(used) - 1) * args.vocabulary + column];
}

/// Grid: x rows, y parts.
HELIX_KERNEL helix_concat(ConcatArgument args) {
  const ConcatArgument::Part &part = args.parts[blockIdx.y];
  const float *from = part.x + blockIdx.x * part.width;
  float *to = args.y + blockIdx.x * args.width + part.column;
  for (size_t i = threadIdx.x; i < part.width; i += blockDim.x)
    to[i] = from[i];
}

/// Grid: x (sequence, token), token fastest; y KV heads.
HELIX_KERNEL helix_kv_append(cpu::KvAppendArgs args) {
  const KvCache &cache = args.cache;
  size_t item = blockIdx.x, head = blockIdx.y, b = item / args.tokens, t = item % args.tokens;
  uint64_t position = uint64_t(args.past[b]) + t;
  if (int64_t(t) >= args.qLen[b] || cpu::kvOwner(position, cache.block, cache.kvp) != cache.rank)
    return;
  uint64_t local = cpu::kvLocal(position, cache.block, cache.kvp), page = pageOf(cache, b, local);
  const float *key = args.key + (item * cache.heads + head) * cache.keyDim;
  const float *value = args.value + (item * cache.heads + head) * cache.valueDim;
  uint64_t keyAt = cpu::kvKeyIndex(cache, page, head, local % cache.block);
  uint64_t valueAt = cpu::kvValueIndex(cache, page, head, local % cache.block);
  uint64_t scaleAt = cpu::kvScaleIndex(cache, page, head) + local % cache.block;
  withCacheElement(cache.dtype, [&](auto element) {
    keep(key, cache.keyDim, cache.keyScale, cache.keyScales ? cache.keyScales + scaleAt : nullptr,
         static_cast<decltype(element) *>(cache.key) + keyAt, cache.block);
    keep(value, cache.valueDim, cache.valueScale, cache.valueScales ? cache.valueScales + scaleAt : nullptr,
         static_cast<decltype(element) *>(cache.value) + valueAt, 1);
  });
}

/// Grid: x logical pages of the slot, y KV heads.
HELIX_KERNEL helix_kv_fill(KvFillArgs args) {
  const KvCache &cache = args.cache;
  uint64_t page = pageOf(cache, args.slot, uint64_t(blockIdx.x) * cache.block);
  // Numbers of a short cycle between -1/2 and 1/2, which every type holds.
  auto number = [](uint64_t i) { return float(int(i * 5 % 64) * 37 % 64 - 32) / 64; };
  withCacheElement(cache.dtype, [&](auto element) {
    auto *keys = static_cast<decltype(element) *>(cache.key) + cpu::kvKeyIndex(cache, page, blockIdx.y, 0);
    auto *values = static_cast<decltype(element) *>(cache.value) + cpu::kvValueIndex(cache, page, blockIdx.y, 0);
    for (uint64_t i = threadIdx.x; i < uint64_t(cache.block) * cache.keyDim; i += blockDim.x)
      fromFloat(number(i), keys[i]);
    for (uint64_t i = threadIdx.x; i < uint64_t(cache.block) * cache.valueDim; i += blockDim.x)
      fromFloat(number(i), values[i]);
  });
  for (float *scales : {cache.keyScales, cache.valueScales})
    for (uint32_t i = threadIdx.x; scales && i < cache.block; i += blockDim.x)
      scales[cpu::kvScaleIndex(cache, page, blockIdx.y) + i] = 1;
}

/// Grid: x (row of the chunks, head), head fastest. The chunks' rows are a run of sequences, or of every sequence's
/// tokens.
HELIX_KERNEL helix_merge_attention(MergeArgument args) {
  size_t head = blockIdx.x % args.heads, row = blockIdx.x / args.heads, width = args.valueDim;
  uint32_t first = args.chunks[0].begin;
  const MergeArgument::Chunk &final = args.chunks[args.chunkCount - 1];
  size_t rowTokens = args.alongTokens ? final.begin + final.count - first : args.tokens;
  size_t sequence = row / rowTokens, token = row % rowTokens;
  size_t &along = args.alongTokens ? token : sequence;
  along += first;
  size_t to = ((sequence * args.tokens + token) * args.heads + head) * width;
  uint32_t at = 0;
  while (along >= size_t(args.chunks[at].begin) + args.chunks[at].count)
    ++at;
  const MergeArgument::Chunk &chunk = args.chunks[at];
  along -= chunk.begin;
  size_t batch = args.alongTokens ? args.batch : chunk.count, tokens = args.alongTokens ? chunk.count : args.tokens;
  size_t rowSize = args.heads * (width + 1), peerStride = batch * tokens * rowSize;
  const float *partial = chunk.stacked + (sequence * tokens + token) * rowSize + head * (width + 1);
  float largest = args.sinks ? args.sinks[head] : kLowest;
  for (uint32_t peer = 0; peer < args.peers; ++peer)
    largest = fmaxf(largest, partial[peer * peerStride + width]); // passes over NaN, which the weights then show
  for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = 0, y = 0;
    bool empty = true;
    for (uint32_t peer = 0; peer < args.peers; ++peer) {
      const float *o = partial + peer * peerStride;
      if (o[width] == kLowest)
        continue;
      float weight = expf(o[width] - largest);
      // The first is assigned, not added to zero, which would lose the sign of a zero.
      y = empty ? weight * o[i] : y + weight * o[i];
      sum += weight;
      empty = false;
    }
    if (args.sinks)
      sum += expf(args.sinks[head] - largest);
    args.y[to + i] = empty ? 0 : y / sum;
  }
}

/// Grid: x runs of elements.
HELIX_KERNEL helix_reduce_ordered(ReduceArgument args) {
  size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= args.elements)
    return;
  float sum = args.buffers[0][i];
  for (uint32_t buffer = 1; buffer < args.count; ++buffer)
    sum += args.buffers[buffer][i];
  args.out[i] = sum;
}

/// Grid: x rows. Shared: a float per thread; a power of two of threads.
HELIX_KERNEL helix_split_rows(SplitRowsArgs args) {
  const size_t row = blockIdx.x, stride = linearStride(args.k, args.dtype);
  const float *x = args.x + row * args.k;
  float power = 1;
  if (args.dtype == DType::F16) {
    auto *largest = reinterpret_cast<float *>(sharedMemory());
    float mine = 0;
    for (size_t i = threadIdx.x; i < args.k; i += blockDim.x)
      mine = fabsf(x[i]) < INFINITY ? fmaxf(mine, fabsf(x[i])) : mine;
    largest[threadIdx.x] = mine;
    for (uint32_t half = blockDim.x / 2; half != 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half)
        largest[threadIdx.x] = fmaxf(largest[threadIdx.x], largest[threadIdx.x + half]);
    }
    __syncthreads();
    // Brings the largest into [2^14, 2^15), so that little is too small for f16; the power has an inverse.
    power = bitsToFloat(floatToBits(fmaxf(largest[0], 0x1p-100f)) & 0x7f800000) * 0x1p-14f;
    if (threadIdx.x == 0)
      args.powers[row] = power;
  }
  const float factor = 1 / power;
  for (size_t i = threadIdx.x; i < stride; i += blockDim.x) {
    float rest = i < args.k ? x[i] * factor : 0;
    for (uint32_t part = 0; part < args.parts; ++part) {
      size_t at = (part * args.rows + row) * stride + i;
      if (args.dtype == DType::F16) {
        Half nearest;
        fromFloat(rest, nearest);
        static_cast<Half *>(args.to)[at] = nearest;
        rest = fabsf(rest) == INFINITY ? 0 : rest - toFloat(nearest);
      } else if (args.parts == 1) {
        fromFloat(rest, static_cast<BFloat *>(args.to)[at]);
      } else {
        static_cast<BFloat *>(args.to)[at].bits = uint16_t(takeBFloat(rest) >> 16);
      }
    }
  }
}

/// Grid: x rows, y runs of elements.
HELIX_KERNEL helix_scale_rows(ScaleRowsArgs args) {
  size_t row = blockIdx.x, i = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (i < args.n)
    args.y[row * args.n + i] *= args.factors[row];
}

/// Grid: x runs of 32 columns of `to`, y runs of 32 rows and so on; block 32 x 8.
HELIX_KERNEL helix_pack_weight(PackArgs args) {
  auto copy = [&](auto element) {
    using T = decltype(element);
    const T *from = static_cast<const T *>(args.from);
    T *to = static_cast<T *>(args.to), *tile = reinterpret_cast<T *>(sharedMemory()); // [32][33]
    size_t stride = linearStride(args.k, args.dtype), column = size_t(blockIdx.x) * 32;
    for (size_t row = size_t(blockIdx.y) * 32; row < args.n; row += size_t(gridDim.y) * 32) {
      for (uint32_t i = threadIdx.y; i < 32; i += 8) {
        // Neighbouring threads read neighbouring elements: of a row of `to`, or of a column of it.
        size_t n = row + (args.transposed ? i : threadIdx.x), k = column + (args.transposed ? threadIdx.x : i);
        T value = 0;
        if (n < args.n && k < args.k)
          value = args.transposed ? from[n * args.k + k] : from[k * args.n + n];
        tile[args.transposed ? i * 33 + threadIdx.x : threadIdx.x * 33 + i] = value;
      }
      __syncthreads();
      for (uint32_t i = threadIdx.y; i < 32; i += 8)
        if (row + i < args.n && column + threadIdx.x < stride)
          to[(row + i) * stride + column + threadIdx.x] = tile[i * 33 + threadIdx.x];
      __syncthreads();
    }
  };
  if (cpu::elementBytes(args.dtype) == 4)
    copy(uint32_t());
  else
    copy(uint16_t());
}

} // namespace helix::cuda
