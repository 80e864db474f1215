//===- Sampling.cu - First tokens, and lists to draw the next one from -----===//
//
// A list is the largest of 64-bit keys: the bits of a logit or of a score, so that they order as integers, and below
// them the token, so that of equal ones the smaller id is larger. A warp has 64 of them in registers; lists of a row's
// chunks are merged to the row's. Scores are rounded: the host scores what is listed again (runtime/Core/Sampler.h).
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Noise.h"
#include "runtime/Cuda/Kernels/Arguments.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include <cmath>

namespace helix::cuda {

namespace {

/// cpu::comesBefore: larger values first, equal ones by id, NaN before every number.
__device__ __forceinline__ bool comesBefore(float a, int64_t aId, float b, int64_t bId) {
  bool aNaN = a != a, bNaN = b != b;
  if (aNaN || bNaN)
    return aNaN && bNaN ? aId < bId : aNaN;
  return a != b ? a > b : aId < bId;
}

constexpr float kLowest = -INFINITY;

} // namespace

/// Grid: x rows. Shared: a value and an id per thread; a power of two of threads.
HELIX_KERNEL helix_best_token(BestTokenArgs args) {
  const float *row = args.logits + blockIdx.x * args.stride;
  auto *ids = reinterpret_cast<int64_t *>(sharedMemory());
  auto *values = reinterpret_cast<float *>(ids + blockDim.x);
  float value = kLowest;
  int64_t id = INT64_MAX;
  // One block reads a row: only loads that do not wait for each other are fast.
#pragma unroll 8
  for (size_t i = threadIdx.x; i < args.count; i += blockDim.x)
    if (comesBefore(row[i], int64_t(i), value, id)) {
      value = row[i];
      id = int64_t(i);
    }
  values[threadIdx.x] = value;
  ids[threadIdx.x] = id;
  for (uint32_t half = blockDim.x / 2; half != 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half &&
        comesBefore(values[threadIdx.x + half], ids[threadIdx.x + half], values[threadIdx.x], ids[threadIdx.x])) {
      values[threadIdx.x] = values[threadIdx.x + half];
      ids[threadIdx.x] = ids[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    args.value[blockIdx.x] = values[0];
    args.id[blockIdx.x] = args.firstId + ids[0];
  }
}

namespace {

/// Keys of a warp; lane l has those of numbers l and l + 32. 0 is no token.
struct Keys {
  uint64_t low = 0, high = 0;
};

/// As integers they are in the order of the numbers: both zeros are equal, and NaN is above all.
__device__ __forceinline__ uint32_t ordered(float x) {
  if (x != x)
    return 0xffffffff;
  uint32_t bits = floatToBits(x == 0 ? 0 : x);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

/// cpu::gumbelNoise to 1e-5.
__device__ __forceinline__ float noise(const cpu::Draw &draw, uint32_t id) {
  // Twice u, and twice 1 - u, in units of 2^-52.
  uint64_t twice = 2 * cpu::noiseBits(draw.seed, draw.sequence, draw.position, id) + 1;
  constexpr uint64_t one = uint64_t(1) << 53;
  float minusLog = twice < one / 2 ? -logf(float(twice) * 0x1p-53f) : -log1pf(float(one - twice) * -0x1p-53f);
  return -logf(minusLog);
}

__device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/// A step of a bitonic sort of runs of `run` keys, falling and rising in turn.
__device__ __forceinline__ uint64_t exchanged(uint64_t key, uint32_t number, uint32_t step, uint32_t run) {
  uint64_t other = shuffleXor(key, int(step));
  bool keepsLarger = ((number & step) == 0) == ((number & run) == 0);
  return (other > key) == keepsLarger ? other : key;
}

__device__ __forceinline__ void exchange(Keys &keys, uint32_t step, uint32_t run) {
  uint32_t lane = threadIdx.x % 32;
  if (step == 32)
    keys = {larger(keys.low, keys.high), keys.low < keys.high ? keys.low : keys.high};
  else
    keys = {exchanged(keys.low, lane, step, run), exchanged(keys.high, lane + 32, step, run)};
}

/// Warp: sorts, the largest first.
__device__ __forceinline__ void sort(Keys &keys) {
  for (uint32_t run = 2; run <= cpu::kListed; run *= 2)
    for (uint32_t step = run / 2; step != 0; step /= 2)
      exchange(keys, step, run);
}

/// Warp: the largest of two that are sorted, sorted.
__device__ __forceinline__ Keys merge(const Keys &a, const Keys &b) {
  // One falls where the other, read from its end, rises: of each pair the larger is among the largest.
  Keys keys = {larger(a.low, shuffleXor(b.high, 31)), larger(a.high, shuffleXor(b.low, 31))};
  for (uint32_t step = cpu::kListed / 2; step != 0; step /= 2)
    exchange(keys, step, cpu::kListed);
  return keys;
}

__device__ __forceinline__ Keys loadKeys(const uint64_t *from) {
  return {from[threadIdx.x % 32], from[threadIdx.x % 32 + 32]};
}
__device__ __forceinline__ void storeKeys(const Keys &keys, uint64_t *to) {
  to[threadIdx.x % 32] = keys.low;
  to[threadIdx.x % 32 + 32] = keys.high;
}

/// Block: warp 0 gets the largest of all warps'. Shared: the keys of half of them.
__device__ __forceinline__ Keys largestOfWarps(Keys keys) {
  auto *others = reinterpret_cast<uint64_t *>(sharedMemory());
  uint32_t warp = threadIdx.x / 32;
  for (uint32_t half = kDrawThreads / 64; half != 0; half /= 2) {
    __syncthreads();
    if (warp >= half && warp < 2 * half)
      storeKeys(keys, others + (warp - half) * cpu::kListed);
    __syncthreads();
    if (warp < half)
      keys = merge(keys, loadKeys(others + warp * cpu::kListed));
  }
  return keys;
}

/// Block: thread 0 gets the sums, in a fixed order. Shared: one per thread.
__device__ __forceinline__ DrawSum sumOfThreads(DrawSum sum) {
  auto *sums = reinterpret_cast<DrawSum *>(sharedMemory());
  __syncthreads();
  sums[threadIdx.x] = sum;
  for (uint32_t half = kDrawThreads / 2; half != 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      sums[threadIdx.x].weight += sums[threadIdx.x + half].weight;
      sums[threadIdx.x].count += sums[threadIdx.x + half].count;
    }
  }
  return sums[0];
}

} // namespace

/// Grid: x chunks of a row, y rows. Shared: a sum per thread.
HELIX_KERNEL helix_draw_chunk(DrawArgs args) {
  const cpu::Draw draw = args.draws[blockIdx.y];
  const float *row = args.logits + blockIdx.y * args.stride;
  const size_t chunk = blockIdx.y * size_t(gridDim.x) + blockIdx.x, begin = size_t(blockIdx.x) * kDrawChunk;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  constexpr uint32_t kOfWarp = kDrawChunk / (kDrawThreads / 32);
  for (uint32_t list = 0; list < 2; ++list) {
    if (!(list == 0 ? draw.firsts : draw.likeliest))
      continue;
    auto key = [&](size_t at) -> uint64_t {
      if (at >= args.count)
        return 0;
      float value = row[at];
      if (list == 1)
        value = float(double(value) * draw.scale + noise(draw, uint32_t(args.firstId + int64_t(at))));
      return uint64_t(ordered(value)) << 32 | uint32_t(~uint32_t(at));
    };
    Keys best;
    for (uint32_t i = 0; i < kOfWarp; i += cpu::kListed) {
      size_t at = begin + warp * kOfWarp + i + lane;
      Keys keys = {key(at), key(at + 32)};
      sort(keys);
      best = i == 0 ? keys : merge(best, keys);
    }
    best = largestOfWarps(best);
    if (warp == 0)
      storeKeys(best, args.keys + (chunk * 2 + list) * cpu::kListed);
  }
  if (!draw.shares)
    return;
  const double largest = args.largest[blockIdx.y];
  DrawSum sum;
  for (uint32_t i = threadIdx.x; i < kDrawChunk; i += blockDim.x) {
    size_t at = begin + i;
    if (at >= args.count || !comesBefore(row[at], args.firstId + int64_t(at), draw.boundValue, draw.boundId))
      continue;
    // Where all are -inf they weigh nothing.
    sum.weight += largest == kLowest ? 0 : exp((double(row[at]) - largest) * draw.scale);
    ++sum.count;
  }
  sum = sumOfThreads(sum);
  if (threadIdx.x == 0)
    args.sums[chunk] = sum;
}

/// Grid: x rows. Shared: a sum per thread.
HELIX_KERNEL helix_draw_row(DrawArgs args) {
  const cpu::Draw draw = args.draws[blockIdx.x];
  const float *row = args.logits + blockIdx.x * args.stride;
  const size_t chunks = drawChunks(args.count), first = blockIdx.x * chunks;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t list = 0; list < 2; ++list) {
    if (!(list == 0 ? draw.firsts : draw.likeliest))
      continue;
    Keys best;
    for (size_t chunk = warp; chunk < chunks; chunk += kDrawThreads / 32) {
      Keys keys = loadKeys(args.keys + ((first + chunk) * 2 + list) * cpu::kListed);
      best = chunk == warp ? keys : merge(best, keys);
    }
    best = largestOfWarps(best);
    if (warp == 0)
      for (uint32_t half = 0; half < 2; ++half)
        if (uint64_t key = half == 0 ? best.low : best.high; key != 0) {
          uint32_t at = ~uint32_t(key);
          args.lists[(size_t(blockIdx.x) * 2 + list) * cpu::kListed + half * 32 + lane] = {row[at],
                                                                                           args.firstId + int64_t(at)};
        }
  }
  if (!draw.shares)
    return;
  DrawSum sum;
  for (size_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    sum.weight += args.sums[first + chunk].weight;
    sum.count += args.sums[first + chunk].count;
  }
  sum = sumOfThreads(sum);
  if (threadIdx.x == 0)
    args.shares[blockIdx.x] = {{args.largest[blockIdx.x], sum.weight}, sum.count};
}

} // namespace helix::cuda
