//===- Attention.cu - Partial attention of any shape, and its last step ----===//
#include "runtime/Cpu/Codes.h"
#include "runtime/Cuda/Kernels/Split.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/AttentionWork.h"

namespace helix::cuda {
namespace {

/// Tokens of a step; a thread per (token, every other row).
constexpr uint32_t kStep = kPartUnit, kThreads = kAnyThreads;

template <typename T> __device__ __forceinline__ void attendAny(const AttentionArgument &argument) {
  const AttentionArgs &args = argument.args;
  const KvCache &cache = args.cache;
  auto *before = reinterpret_cast<uint32_t *>(sharedMemory());
  auto *query = reinterpret_cast<float *>(before + args.batchCount + 1); // [kAnyRows, keyDim]
  float *output = query + size_t(kAnyRows) * cache.keyDim;               // [kAnyRows, valueDim]
  float *scores = output + size_t(kAnyRows) * cache.valueDim;            // [kAnyRows, kStep]
  float *maxima = scores + kAnyRows * kStep, *sums = maxima + kAnyRows, *rescale = sums + kAnyRows;
  auto *rows = reinterpret_cast<Row *>(rescale + kAnyRows);
  const uint32_t thread = threadIdx.x, lane = thread % 32;
  countWork(argument, before);
  for (uint32_t item = blockIdx.x; item < before[args.batchCount]; item += gridDim.x) {
    Work work = workOf(argument, before, item);
    if (thread < kAnyRows) {
      rows[thread] = rowOf(args, work, work.tile * kAnyRows + thread);
      maxima[thread] = -INFINITY;
      sums[thread] = 0;
    }
    __syncthreads();
#pragma unroll 1
    for (uint32_t r = 0; r < kAnyRows; ++r) {
      const Row &of = rows[r];
      for (uint32_t i = thread; i < cache.keyDim; i += kThreads)
        query[r * cache.keyDim + i] = of.isActive ? queryOf(args, work, of)[i] : 0;
      for (uint32_t i = thread; i < cache.valueDim; i += kThreads)
        output[r * cache.valueDim + i] = 0;
    }
    // Rows are in order of tokens: the last active one sees the newest token, the first the oldest.
    uint32_t low = work.end, high = work.begin;
    for (uint32_t r = 0; r < kAnyRows; ++r) {
      const Row &of = rows[r];
      if (of.isActive) {
        low = of.from < low ? of.from : low;
        high = of.seen > high ? of.seen : high;
      }
    }
    __syncthreads();
    for (uint32_t step = work.begin + (low - work.begin) / kStep * kStep; step < high; step += kStep) {
      uint32_t local = step + thread % kStep;
#pragma unroll 1
      for (uint32_t r = thread / kStep; r < kAnyRows; r += kThreads / kStep) {
        const Row &of = rows[r];
        float score = -INFINITY;
        if (local >= of.from && local < of.seen) {
          uint64_t page = uint64_t(cache.table[work.b * cache.pagesPerSlot + local / cache.block]);
          const T *key =
              static_cast<const T *>(cache.key) + cpu::kvKeyIndex(cache, page, work.kvHead, local % cache.block);
          score = 0;
          for (uint32_t i = 0; i < cache.keyDim; ++i)
            score = fmaf(query[r * cache.keyDim + i], toFloat(key[size_t(i) * cache.block]), score);
          score *= args.scale * cache.keyScale;
          if (cache.keyScales)
            score *= cache.keyScales[cpu::kvScaleIndex(cache, page, work.kvHead) + local % cache.block];
          if (args.softcap != 0)
            score = args.softcap * tanhf(score / args.softcap);
          if (args.slopes)
            score += slopeTerm(args, work, of, local);
        }
        scores[r * kStep + thread % kStep] = score;
      }
      __syncthreads();
      for (uint32_t r = thread / 32; r < kAnyRows; r += kThreads / 32) {
        float a = scores[r * kStep + lane], b = scores[r * kStep + lane + 32], largest = fmaxf(a, b);
        for (int mask = 16; mask != 0; mask /= 2)
          largest = fmaxf(largest, shuffleXor(largest, mask));
        float maximum = fmaxf(maxima[r], largest), shift = finiteShift(maximum);
        a = expf(a - shift), b = expf(b - shift);
        float sum = a + b;
        for (int mask = 16; mask != 0; mask /= 2)
          sum += shuffleXor(sum, mask);
        const Row &of = rows[r];
        auto scaled = [&](float weight, uint32_t local) {
          if (!cache.valueScales || local < of.from || local >= of.seen)
            return weight;
          uint64_t page = uint64_t(cache.table[work.b * cache.pagesPerSlot + local / cache.block]);
          return weight * cache.valueScales[cpu::kvScaleIndex(cache, page, work.kvHead) + local % cache.block];
        };
        scores[r * kStep + lane] = scaled(a, step + lane);
        scores[r * kStep + lane + 32] = scaled(b, step + lane + 32);
        float factor = expf(maxima[r] - shift);
        __syncwarp();
        if (lane == 0) {
          rescale[r] = factor;
          sums[r] = sums[r] * factor + sum;
          maxima[r] = maximum;
        }
      }
      __syncthreads();
#pragma unroll 1
      for (uint32_t r = 0; r < kAnyRows; ++r) {
        const Row &of = rows[r];
        uint32_t from = of.from > step ? of.from : step, seen = of.seen < step + kStep ? of.seen : step + kStep;
        // A weight of 0 would let a NaN through that the row does not see.
        if (from >= seen)
          continue;
        for (uint32_t i = thread; i < cache.valueDim; i += kThreads) {
          float sum = output[r * cache.valueDim + i] * rescale[r];
          for (uint32_t local = from; local < seen; ++local) {
            uint64_t page = uint64_t(cache.table[work.b * cache.pagesPerSlot + local / cache.block]);
            const T *value =
                static_cast<const T *>(cache.value) + cpu::kvValueIndex(cache, page, work.kvHead, local % cache.block);
            sum = fmaf(scores[r * kStep + local - step], toFloat(value[i]), sum);
          }
          output[r * cache.valueDim + i] = sum;
        }
      }
      __syncthreads();
    }
    for (uint32_t r = 0; r < kAnyRows; ++r) {
      const Row &of = rows[r];
      if (!of.isActive)
        continue;
      Destination to = destinationOf(argument, work, of);
      float sum = sums[r];
      for (uint32_t i = thread; i < cache.valueDim; i += kThreads)
        to.writeOutput(i, output[r * cache.valueDim + i], sum, cache.valueScale);
      if (thread == 0)
        to.writeLse(maxima[r], sum);
    }
    __syncthreads();
  }
}

} // namespace

/// By the cache's type. Grid: x blocks that share out the items.
HELIX_KERNEL __launch_bounds__(kAnyThreads, kAnyBlocks) helix_attention_f32_any(AttentionArgument argument) {
  attendAny<float>(argument);
}
HELIX_KERNEL __launch_bounds__(kAnyThreads, kAnyBlocks) helix_attention_f16_any(AttentionArgument argument) {
  attendAny<Half>(argument);
}
HELIX_KERNEL __launch_bounds__(kAnyThreads, kAnyBlocks) helix_attention_bf16_any(AttentionArgument argument) {
  attendAny<BFloat>(argument);
}
HELIX_KERNEL __launch_bounds__(kAnyThreads, kAnyBlocks) helix_attention_int8_any(AttentionArgument argument) {
  attendAny<cpu::Int8>(argument);
}
HELIX_KERNEL __launch_bounds__(kAnyThreads, kAnyBlocks) helix_attention_fp8_any(AttentionArgument argument) {
  attendAny<cpu::Fp8>(argument);
}

/// Combines the parts of rows that have several, in order, and writes the rows that have none. Grid: x (sequence,
/// token) of the chunk, y heads with the padding. Block: x dimensions of the value, y shares of the parts. Shared: an
/// lse and a weight for each part, and an output for each y.
HELIX_KERNEL __launch_bounds__(kFinishThreads *kFinishShares) helix_attention_finish(AttentionArgument argument) {
  const AttentionArgs &args = argument.args;
  const uint32_t width = args.cache.valueDim, head = blockIdx.y, share = threadIdx.y;
  uint32_t b = args.batchBegin + blockIdx.x / args.tokenCount, t = args.tokenBegin + blockIdx.x % args.tokenCount;
  Split split = splitOf(args, args.past[b], args.qLen[b]);
  uint32_t parts = head < args.heads && int64_t(t) < args.qLen[b] ? split.parts : 0;
  if (parts == 1)
    return; // is there already
  float *send = args.send + sendIndex(args, b, t, head);
  auto *lse = reinterpret_cast<float *>(sharedMemory());
  float *weights = lse + argument.capacity, *outputs = weights + argument.capacity;
  size_t first = parts == 0 ? 0 : argument.scratchRow(b, t, head, 0);
  const uint32_t thread = threadIdx.x + threadIdx.y * kFinishThreads;
  for (uint32_t i = thread; i < parts; i += kFinishThreads * kFinishShares)
    lse[i] = args.scratch[argument.scratchRows() * width + first + i];
  __syncthreads();
  float largest = -INFINITY, sum = 0;
  bool isEmpty = true;
  for (uint32_t i = 0; i < parts; ++i) {
    largest = fmaxf(largest, lse[i]); // passes over NaN, which the weights then show
    isEmpty &= lse[i] == -INFINITY;
  }
  for (uint32_t i = thread; i < parts; i += kFinishThreads * kFinishShares)
    weights[i] = lse[i] == -INFINITY ? 0 : expf(lse[i] - finiteShift(largest));
  __syncthreads();
  for (uint32_t i = 0; i < parts; ++i)
    sum += weights[i];
  for (uint32_t column = threadIdx.x; column < width; column += kFinishThreads) {
    float output = 0;
#pragma unroll 8
    for (uint32_t i = share; i < parts; i += kFinishShares)
      output = fmaf(weights[i], args.scratch[(first + i) * width + column], output);
    outputs[share * width + column] = output;
  }
  __syncthreads();
  if (share != 0)
    return;
  for (uint32_t column = threadIdx.x; column < width; column += kFinishThreads) {
    float output = outputs[column];
    for (uint32_t i = 1; i < kFinishShares; ++i)
      output += outputs[i * width + column];
    send[column] = isEmpty ? 0 : output / sum;
  }
  if (thread == 0)
    send[width] = isEmpty ? -INFINITY : largest + logf(sum);
}

} // namespace helix::cuda
