//===- AttentionTensor.cu - Partial attention of 16-bit caches on tensor cores -===//
//
// A block has a tile of 16 query rows and a part of the tokens; each of its four warps takes every fourth run of 16
// tokens, through copies of its own under way while it computes, with running maxima, sums and outputs of its own; at
// the end the four are joined in order. Warps meet only there. Queries and weights enter as the sum of two 16-bit
// numbers, so that results are as of f32 queries and weights: decode waits for memory, not for the tensor cores.
//
// Scores are in units of log 2 once scaled, capped and sloped.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Kernels/Split.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/AttentionWork.h"
#include "runtime/Cuda/Kernels/Fragments.h"

namespace helix::cuda {
namespace {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

/// A warp's copies of runs of 16 tokens.
template <typename T, uint32_t D> struct Runs {
  static constexpr uint32_t kStages = tensorStages(D), kStride = tensorValueStride(D);
  const KvCache &cache;
  const Work &work;
  std::byte *stages;
  uint32_t lane, first, count; ///< of the part's runs, the warp's are first, first + 4, …
  uint32_t low, high;          ///< the tokens that any row of the tile sees
  uint32_t pages = 0;          ///< lane l: the page, counted from head 0's first, of the warp's run l of the present 32

  __device__ __forceinline__ uint32_t token(uint32_t i) const {
    return work.begin + (first + i * kTensorWarps) * kGroupTokens;
  }
  __device__ __forceinline__ std::byte *keys(uint32_t i) const { return stages + i % kStages * tensorStageBytes(D); }
  __device__ __forceinline__ std::byte *values(uint32_t i) const { return keys(i) + tensorKeyBytes(D); }

  /// Starts to copy the warp's run i, if there is one.
  __device__ __forceinline__ void start(uint32_t i) {
    if (i < count) {
      if (i % 32 == 0) {
        uint32_t mine = i + lane < count ? i + lane : i;
        // 32 bits do: four billion pages of 16 tokens are more than any memory holds.
        pages = uint32_t(work.kvHead * cache.pages) +
                uint32_t(cache.table[work.b * cache.pagesPerSlot + token(mine) / cache.block]);
      }
      uint64_t page = shuffle(pages, int(i % 32));
      uint32_t local = token(i), offset = local % cache.block;
      const T *key = static_cast<const T *>(cache.key) + cpu::kvKeyIndex(cache, page, 0, offset);
      const T *value = static_cast<const T *>(cache.value) + cpu::kvValueIndex(cache, page, 0, offset);
      // Dimension d's tokens 0 … 7 and 8 … 15 change places for every other four dimensions: eight neighbouring rows of
      // either half lie in different banks.
#pragma unroll
      for (uint32_t chunk = lane; chunk < D * 2; chunk += 32) {
        uint32_t d = chunk / 2, half = chunk % 2;
        copyAsync(keys(i) + d * 32 + (half ^ (d / 4 % 2)) * 16, key + size_t(d) * cache.block + half * 8);
      }
      // What no row sees must not be NaN: it meets weights of 0.
#pragma unroll
      for (uint32_t chunk = lane; chunk < D * 2; chunk += 32) {
        uint32_t j = chunk / (D / 8), column = chunk % (D / 8);
        copyAsync(values(i) + j * kStride + column * 16, value + j * D + column * 8,
                  local + j >= low && local + j < high);
      }
    }
    commitCopies();
  }
};

/// The queries as fragments, in shared memory, each row times a power of two that brings its largest into [1, 2), if T
/// is short of exponents. Returns the inverse power for rows lane / 4 and lane / 4 + 8. All warps call it.
template <typename T, uint32_t D>
__device__ __forceinline__ void storeQueries(const AttentionArgs &args, const Work &work, const Row (&rows)[2],
                                             std::byte *shared, float (&power)[2]) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4;
  const float *query[2];
  for (int r = 0; r < 2; ++r) {
    query[r] = rows[r].isActive ? queryOf(args, work, rows[r]) : nullptr;
    float largest = 0;
    if (query[r])
      for (uint32_t i = t; i < D; i += 4)
        largest = fmaxf(largest, fabsf(query[r][i]));
    largest = fmaxf(largest, shuffleXor(largest, 1));
    largest = fmaxf(largest, shuffleXor(largest, 2));
    power[r] = rowPower<T>(largest);
  }
  for (uint32_t step = warp; step < D / 16; step += kTensorWarps) {
    uint32_t high[4], low[4];
    for (uint32_t part = 0; part < 4; ++part) {
      uint32_t r = part % 2, column = step * 16 + 2 * t + part / 2 * 8;
      float factor = 1 / power[r];
      float a = query[r] ? query[r][column] * factor : 0, b = query[r] ? query[r][column + 1] * factor : 0;
      high[part] = packHigh<T>(a, b);
      low[part] = packLow<T>(a, b, high[part]);
    }
    auto *to = reinterpret_cast<uint32_t *>(shared + (step * 32 + lane) * 32);
    for (uint32_t part = 0; part < 4; ++part) {
      to[part] = high[part];
      to[4 + part] = low[part];
    }
  }
}

/// A step of 16 dimensions of the queries.
struct Queries {
  uint32_t high[4], low[4];
  __device__ __forceinline__ void load(const std::byte *shared, uint32_t step) {
    const std::byte *from = shared + (step * 32 + threadIdx.x % 32) * 32;
    Bits128 a = load128(from), b = load128(from + 16);
    for (int part = 0; part < 4; ++part) {
      high[part] = a.word[part];
      low[part] = b.word[part];
    }
  }
};

/// Whether one of the run's values that only some rows see is not finite. Rare, and only at the rows' bounds.
template <typename T, uint32_t D> __device__ __forceinline__ bool hasNonFinite(const std::byte *values, uint32_t lane) {
  bool found = false;
  for (uint32_t chunk = lane; chunk < D * 2; chunk += 32) {
    Bits128 bits = load128(values + chunk / (D / 8) * tensorValueStride(D) + chunk % (D / 8) * 16);
    for (uint32_t word : bits.word)
      found |= isNonFinite<T>(word);
  }
  return anyLane(found);
}

template <typename T, uint32_t D> __device__ __forceinline__ void attendTensor(const AttentionArgument &argument) {
  const AttentionArgs &args = argument.args;
  const KvCache &cache = args.cache;
  using WarpRuns = Runs<T, D>;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  auto *before = reinterpret_cast<uint32_t *>(sharedMemory());
  std::byte *queries = sharedMemory() + ((args.batchCount + 1) * 4 + 127) / 128 * 128;
  std::byte *stages = queries + tensorQueryBytes(D);
  auto stagesOf = [&](uint32_t w) { return stages + w * WarpRuns::kStages * tensorStageBytes(D); };
  auto *weights = reinterpret_cast<float *>(stagesOf(kTensorWarps)) + warp * kTensorRows * kGroupTokens;
  auto *maximaOf = reinterpret_cast<float *>(stagesOf(kTensorWarps) + kTensorWarps * kTensorWeightBytes);
  float *sumsOf = maximaOf + kTensorWarps * kTensorRows; // [warp][16] each

  countWork(argument, before);
  for (uint32_t item = blockIdx.x; item < before[args.batchCount]; item += gridDim.x) {
    Work work = workOf(argument, before, item);
    Row rows[2] = {rowOf(args, work, work.tile * kTensorRows + g), rowOf(args, work, work.tile * kTensorRows + g + 8)};
    // The rows' bounds: what any sees, and what all see.
    uint32_t low = work.end, high = work.begin, allLow = work.begin, allHigh = work.end;
    for (const Row &row : rows)
      if (row.isActive) {
        low = row.from < low ? row.from : low, high = row.seen > high ? row.seen : high;
        allLow = row.from > allLow ? row.from : allLow, allHigh = row.seen < allHigh ? row.seen : allHigh;
      }
    for (int mask = 4; mask < 32; mask *= 2) {
      auto other = [&](uint32_t x) { return shuffle(x, int(lane) ^ mask); };
      uint32_t x = other(low);
      low = x < low ? x : low;
      x = other(high);
      high = x > high ? x : high;
      x = other(allLow);
      allLow = x > allLow ? x : allLow;
      x = other(allHigh);
      allHigh = x < allHigh ? x : allHigh;
    }

    // Runs are dealt by their place in the part, not in what this tile sees of it.
    uint32_t firstRun = (low - work.begin) / kGroupTokens,
             endRun = (high - work.begin + kGroupTokens - 1) / kGroupTokens;
    WarpRuns runs{cache, work, stagesOf(warp), lane, firstRun + (warp - firstRun) % kTensorWarps, 0, low, high};
    if (low < high && runs.first < endRun)
      runs.count = (endRun - runs.first + kTensorWarps - 1) / kTensorWarps;
#pragma unroll
    for (uint32_t i = 0; i + 1 < WarpRuns::kStages; ++i)
      runs.start(i);

    float power[2];
    storeQueries<T, D>(args, work, rows, queries, power);
    const bool isPlain = args.softcap == 0 && !args.slopes;
    const float unit = args.scale * (isPlain ? kLog2E : 1);
    const float factor[2] = {unit * power[0], unit * power[1]};
    __syncthreads();
    // They stay in registers if there are enough.
    constexpr bool isHeld = D <= 128;
    Queries held[isHeld ? D / 16 : 1];
    if constexpr (isHeld)
#pragma unroll
      for (uint32_t step = 0; step < D / 16; ++step)
        held[step].load(queries, step);

    float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    float output[D / 8][4];
#pragma unroll
    for (uint32_t i = 0; i < D / 8; ++i)
      for (float &x : output[i])
        x = 0;
    for (uint32_t i = 0; i < runs.count; ++i) {
      waitCopies<WarpRuns::kStages - 2>();
      __syncwarp();
      runs.start(i + WarpRuns::kStages - 1);
      const uint32_t local = runs.token(i);
      const std::byte *keys = runs.keys(i), *values = runs.values(i);
      // Lane 8 m + r gives row r of matrix m: of keys, dimensions 8 (m % 2) + r, tokens from 8 (m / 2) on; of values,
      // tokens 8 (m % 2) + r, dimensions from 8 (m / 2) on.
      const uint32_t matrixRow = lane / 8 % 2 * 8 + lane % 8, matrixColumn = lane / 16;

      float score[2][4] = {};
#pragma unroll
      for (uint32_t step = 0; step < D / 16; ++step) {
        if constexpr (!isHeld)
          held[0].load(queries, step);
        const Queries &query = held[isHeld ? step : 0];
        uint32_t b[4], d = step * 16 + matrixRow;
        loadMatricesTransposed(b, keys + d * 32 + (matrixColumn ^ (d / 4 % 2)) * 16);
        multiplyAdd(score[0], query.high, b[0], b[1], T());
        multiplyAdd(score[1], query.high, b[2], b[3], T());
        multiplyAdd(score[0], query.low, b[0], b[1], T());
        multiplyAdd(score[1], query.low, b[2], b[3], T());
      }
      const bool isWhole = local >= allLow && local + kGroupTokens <= allHigh;
      float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) {
        uint32_t r = j % 4 / 2, token = local + j / 4 * 8 + 2 * t + j % 2;
        float &s = score[j / 4][j % 4];
        s *= factor[r];
        if (!isPlain) {
          if (args.softcap != 0)
            s = args.softcap * tanhf(s / args.softcap);
          if (args.slopes && rows[r].isActive)
            s += slopeTerm(args, work, rows[r], token);
          s *= kLog2E;
        }
        if (!isWhole && (token < rows[r].from || token >= rows[r].seen))
          s = -INFINITY;
        largest[r] = fmaxf(largest[r], s); // passes over NaN, which the weights then show
      }
      float rescale[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        largest[r] = fmaxf(largest[r], shuffleXor(largest[r], 1));
        largest[r] = fmaxf(largest[r], shuffleXor(largest[r], 2));
        largest[r] = fmaxf(largest[r], maximum[r]);
        float shift = finiteShift(largest[r]);
        rescale[r] = exp2Fast(maximum[r] - shift);
        maximum[r] = largest[r];
        sum[r] *= rescale[r];
        largest[r] = shift;
      }
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) {
        uint32_t r = j % 4 / 2;
        float &p = score[j / 4][j % 4];
        p = exp2Fast(p - largest[r]);
        sum[r] += p;
      }
      if (anyLane(rescale[0] != 1 || rescale[1] != 1))
#pragma unroll
        for (uint32_t n = 0; n < D / 8; ++n)
          for (int j = 0; j < 4; ++j)
            output[n][j] *= rescale[j / 2];

      if (!isWhole && hasNonFinite<T, D>(values, lane)) {
        // Term by term, so that 0 · NaN stays out of rows that do not see the NaN.
        for (uint32_t j = 0; j < 8; ++j)
          weights[(g + j % 4 / 2 * 8) * kGroupTokens + j / 4 * 8 + 2 * t + j % 2] = score[j / 4][j % 4];
        __syncwarp();
        for (uint32_t j = 0; j < kGroupTokens; ++j)
#pragma unroll
          for (int r = 0; r < 2; ++r)
            if (local + j >= rows[r].from && local + j < rows[r].seen)
#pragma unroll
              for (uint32_t n = 0; n < D / 8; ++n)
                for (int e = 0; e < 2; ++e) {
                  const auto *row = reinterpret_cast<const T *>(values + j * WarpRuns::kStride);
                  float &x = output[n][2 * r + e];
                  x = fmaf(weights[(g + r * 8) * kGroupTokens + j], toFloat(row[n * 8 + 2 * t + e]), x);
                }
        __syncwarp();
        continue;
      }
      uint32_t weightHigh[4], weightLow[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        float a = score[part / 2][part % 2 * 2], b = score[part / 2][part % 2 * 2 + 1];
        weightHigh[part] = packHigh<T>(a, b);
        weightLow[part] = packLow<T>(a, b, weightHigh[part]);
      }
#pragma unroll
      for (uint32_t n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        loadMatricesTransposed(b, values + matrixRow * WarpRuns::kStride + n * 32 + matrixColumn * 16);
        multiplyAdd(output[2 * n], weightHigh, b[0], b[1], T());
        multiplyAdd(output[2 * n + 1], weightHigh, b[2], b[3], T());
        multiplyAdd(output[2 * n], weightLow, b[0], b[1], T());
        multiplyAdd(output[2 * n + 1], weightLow, b[2], b[3], T());
      }
    }
    waitCopies<0>();
    __syncwarp();

    // The warps' results, each in place of its stages, then joined.
    auto *outputs = reinterpret_cast<float *>(stagesOf(warp)); // [16][D]
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += shuffleXor(sum[r], 1);
      sum[r] += shuffleXor(sum[r], 2);
      if (t == 0) {
        maximaOf[warp * kTensorRows + g + r * 8] = maximum[r];
        sumsOf[warp * kTensorRows + g + r * 8] = sum[r];
      }
#pragma unroll
      for (uint32_t n = 0; n < D / 8; ++n)
        for (int e = 0; e < 2; ++e)
          outputs[(g + r * 8) * D + n * 8 + 2 * t + e] = output[n][2 * r + e];
    }
    __syncthreads();
    for (uint32_t r = warp; r < kTensorRows; r += kTensorWarps) {
      Row row = rowOf(args, work, work.tile * kTensorRows + r);
      if (!row.isActive)
        continue;
      float joint = -INFINITY, total = 0, share[kTensorWarps];
      for (uint32_t w = 0; w < kTensorWarps; ++w)
        joint = fmaxf(joint, maximaOf[w * kTensorRows + r]);
#pragma unroll
      for (uint32_t w = 0; w < kTensorWarps; ++w) {
        share[w] = exp2Fast(maximaOf[w * kTensorRows + r] - finiteShift(joint));
        total += sumsOf[w * kTensorRows + r] * share[w];
      }
      Destination to = destinationOf(argument, work, row);
      for (uint32_t d = lane; d < D; d += 32) {
        float x = 0;
#pragma unroll
        for (uint32_t w = 0; w < kTensorWarps; ++w)
          x = fmaf(reinterpret_cast<const float *>(stagesOf(w))[r * D + d], share[w], x);
        to.output[d] = total == 0 ? 0 : x / total;
      }
      if (lane == 0)
        *to.lse = total == 0 ? -INFINITY : joint * kLn2 + logf(total);
    }
    __syncthreads();
  }
}

} // namespace

/// Grid: x blocks that share out the items.
#define HELIX_ATTENTION(name, type, dim)                                                                               \
  HELIX_KERNEL __launch_bounds__(kTensorWarps * 32) helix_attention_##name##_##dim(AttentionArgument argument) {       \
    attendTensor<type, dim>(argument);                                                                                 \
  }
HELIX_ATTENTION(f16, Half, 64)
HELIX_ATTENTION(f16, Half, 80)
HELIX_ATTENTION(f16, Half, 96)
HELIX_ATTENTION(f16, Half, 128)
HELIX_ATTENTION(f16, Half, 256)
HELIX_ATTENTION(bf16, BFloat, 64)
HELIX_ATTENTION(bf16, BFloat, 80)
HELIX_ATTENTION(bf16, BFloat, 96)
HELIX_ATTENTION(bf16, BFloat, 128)
HELIX_ATTENTION(bf16, BFloat, 256)

} // namespace helix::cuda
