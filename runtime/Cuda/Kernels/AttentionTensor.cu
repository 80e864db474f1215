//===- AttentionTensor.cu - Partial attention on tensor cores --------------===//
//
// A block has a tile of 16 query rows and a part of the tokens; each of its four warps takes every fourth run of 16
// tokens, through copies of its own under way while it computes, with running maxima, sums and outputs of its own; at
// the end the four are joined in order. Warps meet only there. Queries and weights enter as the sum of two 16-bit
// numbers, so that results are as of f32 queries and weights: decode waits for memory, not for the tensor cores.
//
// Codes of 8 bits become f16, which holds them all, in registers. A word of a transposed matrix of pairs of codes has
// two codes of one column and two of the next, so that its even bytes are one fragment's and its odd bytes another's:
// columns of keys are tokens, of values dimensions, and both come in an order of their own. Where each token has a
// scale of its own for values, its weights take part with the scale's logarithm in their exponent, under maxima of
// their own.
//
// Scores are in units of log 2 once scaled, capped and sloped.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cpu/Codes.h"
#include "runtime/Cuda/Kernels/Split.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/AttentionTile.h"

namespace helix::cuda {
namespace {

/// A warp's copies of runs of 16 tokens.
template <typename T, uint32_t D> struct Runs {
  static constexpr uint32_t kStages = tensorStages(D), kElement = sizeof(T), kChunk = 16 / kElement;
  const KvCache &cache;
  const Work &work;
  std::byte *stages;
  uint32_t lane, first, count; ///< of the part's runs, the warp's are first, first + 4, …
  uint32_t low, high;          ///< the tokens that any row of the tile sees
  uint32_t pages = 0;          ///< lane l: the page, counted from head 0's first, of the warp's run l of the present 32

  __device__ __forceinline__ uint32_t token(uint32_t i) const {
    return work.begin + (first + i * kTensorWarps) * kGroupTokens;
  }
  __device__ __forceinline__ std::byte *keys(uint32_t i) const {
    return stages + i % kStages * tensorStageBytes(D, kElement);
  }
  __device__ __forceinline__ std::byte *values(uint32_t i) const { return keys(i) + tensorKeyBytes(D, kElement); }
  /// Of codes, [16] of the keys, then of the values.
  __device__ __forceinline__ std::byte *scales(uint32_t i) const { return values(i) + tensorValueBytes(D, kElement); }

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
      // Dimension d's tokens 0 … 7 and 8 … 15, if they are two chunks, change places for every other four dimensions:
      // eight neighbouring rows of either half lie in different banks.
#pragma unroll
      for (uint32_t chunk = lane; chunk < D * kElement; chunk += 32) {
        uint32_t d = chunk / kElement, half = chunk % kElement;
        copyAsync(keys(i) + d * kElement * 16 + (kElement == 1 ? 0 : (half ^ (d / 4 % 2)) * 16),
                  key + size_t(d) * cache.block + half * kChunk);
      }
      // What no row sees must not be NaN: it meets weights of 0.
#pragma unroll
      for (uint32_t chunk = lane; chunk < D * kElement; chunk += 32) {
        uint32_t j = chunk / (D / kChunk), column = chunk % (D / kChunk);
        copyAsync(values(i) + tensorValueOffset(D, kElement, j) + column * 16, value + j * D + column * kChunk,
                  local + j >= low && local + j < high);
      }
      if constexpr (isCode<T>)
        if (cache.keyScales && lane < 8) {
          const float *from = lane < 4 ? cache.keyScales : cache.valueScales;
          copyAsync(scales(i) + lane * 16, from + cpu::kvScaleIndex(cache, page, 0) + offset + lane % 4 * 4);
        }
    }
    commitCopies();
  }
};

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

/// The queries as fragments, in shared memory.
template <typename T, uint32_t D>
__device__ __forceinline__ void storeQueries(const TileQueries<T, D> &tile, std::byte *shared) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (uint32_t step = warp; step < D / 16; step += kTensorWarps) {
    uint32_t high[4], low[4];
    tile.pack(step, high, low);
    auto *to = reinterpret_cast<uint32_t *>(shared + (step * 32 + lane) * 32);
    for (uint32_t part = 0; part < 4; ++part) {
      to[part] = high[part];
      to[4 + part] = low[part];
    }
  }
}

/// Turns scores of two rows into weights 2^(score - m), m the running maxima, and gives the factors of what rows had.
__device__ __forceinline__ void weigh(float (&x)[2][4], float (&maximum)[2], float (&rescale)[2]) {
  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i)
    largest[i % 4 / 2] = fmaxf(largest[i % 4 / 2], x[i / 4][i % 4]); // passes over NaN, which the weights then show
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    largest[r] = fmaxf(largest[r], shuffleXor(largest[r], 1));
    largest[r] = fmaxf(largest[r], shuffleXor(largest[r], 2));
    largest[r] = fmaxf(largest[r], maximum[r]);
    float shift = finiteShift(largest[r]);
    rescale[r] = exp2Fast(maximum[r] - shift);
    maximum[r] = largest[r];
    largest[r] = shift;
  }
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i)
    x[i / 4][i % 4] = exp2Fast(x[i / 4][i % 4] - largest[i % 4 / 2]);
}

template <typename T, uint32_t D> __device__ __forceinline__ void attendTensor(const AttentionArgument &argument) {
  const AttentionArgs &args = argument.args;
  const KvCache &cache = args.cache;
  using WarpRuns = Runs<T, D>;
  using At = Places<T, D>;
  using Operand = OperandOf<T>;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  auto *before = reinterpret_cast<uint32_t *>(sharedMemory());
  std::byte *queries = sharedMemory() + ((args.batchCount + 1) * 4 + 127) / 128 * 128;
  std::byte *stages = queries + tensorQueryBytes(D);
  auto stagesOf = [&](uint32_t w) { return stages + w * WarpRuns::kStages * tensorStageBytes(D, sizeof(T)); };
  auto *weights = reinterpret_cast<float *>(stagesOf(kTensorWarps)) + warp * kTensorRows * kGroupTokens;
  auto *maximaOf = reinterpret_cast<float *>(stagesOf(kTensorWarps) + kTensorWarps * kTensorWeightBytes);
  float *sumsOf = maximaOf + kTensorWarps * kTensorRows; // [warp][16] each

  countWork(argument, before);
  for (uint32_t item = blockIdx.x; item < before[args.batchCount]; item += gridDim.x) {
    Work work = workOf(argument, before, item);
    Row rows[2] = {rowOf(args, work, work.tile * kTensorRows + g), rowOf(args, work, work.tile * kTensorRows + g + 8)};
    auto [low, high, allLow, allHigh] = boundsOf(work, rows);

    // Runs are dealt by their place in the part, not in what this tile sees of it.
    uint32_t firstRun = (low - work.begin) / kGroupTokens,
             endRun = (high - work.begin + kGroupTokens - 1) / kGroupTokens;
    WarpRuns runs{cache, work, stagesOf(warp), lane, firstRun + (warp - firstRun) % kTensorWarps, 0, low, high};
    if (low < high && runs.first < endRun)
      runs.count = (endRun - runs.first + kTensorWarps - 1) / kTensorWarps;
#pragma unroll
    for (uint32_t i = 0; i + 1 < WarpRuns::kStages; ++i)
      runs.start(i);

    TileQueries<Operand, D> tile(args, work, rows);
    storeQueries(tile, queries);
    const bool isPlain = args.softcap == 0 && !args.slopes;
    const float unit = args.scale * cache.keyScale * kWidened<T> * (isPlain ? kLog2E : 1);
    const bool hasScales = isCode<T> && cache.keyScales;
    const float factor[2] = {unit * tile.power[0], unit * tile.power[1]};
    __syncthreads();
    // They stay in registers if there are enough.
    constexpr bool isHeld = D <= 128;
    Queries held[isHeld ? D / 16 : 1];
    if constexpr (isHeld)
#pragma unroll
      for (uint32_t step = 0; step < D / 16; ++step)
        held[step].load(queries, step);

    float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    float valueMaximum[2] = {-INFINITY, -INFINITY}; // of weights times values' scales
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
      float score[2][4] = {};
      uint32_t b[4], words[4];
#pragma unroll
      for (uint32_t step = 0; step < D / 16; ++step) {
        if constexpr (!isHeld)
          held[0].load(queries, step);
        const Queries &query = held[isHeld ? step : 0];
        At::load(b, words, keys + At::keyRow(lane, step), step);
        multiplyAdd(score[0], query.high, b[0], b[1], Operand());
        multiplyAdd(score[1], query.high, b[2], b[3], Operand());
        multiplyAdd(score[0], query.low, b[0], b[1], Operand());
        multiplyAdd(score[1], query.low, b[2], b[3], Operand());
      }
      const bool isWhole = local >= allLow && local + kGroupTokens <= allHigh;
      auto sees = [&](uint32_t r, uint32_t token) {
        return isWhole || (token >= rows[r].from && token < rows[r].seen);
      };
      Bits128 keyScales, valueScales; // of the lane's four tokens
      if (hasScales) {
        keyScales = load128(runs.scales(i) + t * 16);
        valueScales = load128(runs.scales(i) + (4 + t) * 16);
      }
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) {
        uint32_t r = j % 4 / 2, token = local + At::tokenOf(t, j);
        float &s = score[j / 4][j % 4];
        s *= factor[r];
        if (hasScales)
          s *= bitsToFloat(keyScales.word[At::codeOf(j)]);
        if (!isPlain) {
          if (args.softcap != 0)
            s = args.softcap * tanhf(s / args.softcap);
          if (args.slopes && rows[r].isActive)
            s += slopeTerm(args, work, rows[r], token);
          s *= kLog2E;
        }
        if (!sees(r, token))
          s = -INFINITY;
      }
      float weight[2][4], rescale[2], valueRescale[2];
      if (hasScales) {
        float logarithm[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          logarithm[j] = log2f(bitsToFloat(valueScales.word[j]));
#pragma unroll
        for (uint32_t j = 0; j < 8; ++j)
          weight[j / 4][j % 4] =
              sees(j % 4 / 2, local + At::tokenOf(t, j)) ? score[j / 4][j % 4] + logarithm[At::codeOf(j)] : -INFINITY;
        weigh(weight, valueMaximum, valueRescale);
      }
      weigh(score, maximum, rescale);
#pragma unroll
      for (int r = 0; r < 2; ++r)
        sum[r] *= rescale[r];
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j)
        sum[j % 4 / 2] += score[j / 4][j % 4];
      if (!hasScales) {
#pragma unroll
        for (uint32_t j = 0; j < 8; ++j)
          weight[j / 4][j % 4] = score[j / 4][j % 4];
        for (int r = 0; r < 2; ++r)
          valueRescale[r] = rescale[r];
      }
      if (anyLane(valueRescale[0] != 1 || valueRescale[1] != 1))
#pragma unroll
        for (uint32_t n = 0; n < D / 8; ++n)
          for (int j = 0; j < 4; ++j)
            output[n][j] *= valueRescale[j / 2];

      if (!isWhole && hasNonFinite<T, D>(values, lane)) {
        // Term by term, so that 0 · NaN stays out of rows that do not see the NaN.
        for (uint32_t j = 0; j < 8; ++j)
          weights[(g + j % 4 / 2 * 8) * kGroupTokens + At::tokenOf(t, j)] = weight[j / 4][j % 4];
        __syncwarp();
        for (uint32_t j = 0; j < kGroupTokens; ++j)
#pragma unroll
          for (int r = 0; r < 2; ++r)
            if (local + j >= rows[r].from && local + j < rows[r].seen)
#pragma unroll
              for (uint32_t n = 0; n < D / 8; ++n)
                for (uint32_t e = 0; e < 2; ++e) {
                  const auto *row = reinterpret_cast<const T *>(values + tensorValueOffset(D, sizeof(T), j));
                  float value = toFloat(row[At::dimensionOf(t, n, e)]) * (1 / kWidened<T>);
                  float &x = output[n][2 * r + e];
                  x = fmaf(weights[(g + r * 8) * kGroupTokens + j], value, x);
                }
        __syncwarp();
        continue;
      }
      uint32_t weightHigh[4], weightLow[4];
#pragma unroll
      for (uint32_t part = 0; part < 4; ++part) {
        auto of = [&](uint32_t second) {
          uint32_t at = At::weightOf(part, second);
          return weight[at / 4][at % 4];
        };
        weightHigh[part] = packHigh<Operand>(of(0), of(1));
        weightLow[part] = packLow<Operand>(of(0), of(1), weightHigh[part]);
      }
#pragma unroll
      for (uint32_t n = 0; n < D / 16; ++n) {
        // Keeps loads from running so far ahead that registers are short.
        if (!isHeld && n % 4 == 0)
          __syncwarp();
        At::load(b, words, values + At::valueRow(lane, n), n);
        multiplyAdd(output[2 * n], weightHigh, b[0], b[1], Operand());
        multiplyAdd(output[2 * n + 1], weightHigh, b[2], b[3], Operand());
        multiplyAdd(output[2 * n], weightLow, b[0], b[1], Operand());
        multiplyAdd(output[2 * n + 1], weightLow, b[2], b[3], Operand());
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
      float toShared = hasScales ? exp2Fast(valueMaximum[r] - finiteShift(maximum[r])) : 1;
#pragma unroll
      for (uint32_t n = 0; n < D / 8; ++n)
        for (uint32_t e = 0; e < 2; ++e)
          outputs[(g + r * 8) * D + At::dimensionOf(t, n, e)] = output[n][2 * r + e] * toShared;
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
        to.writeOutput(d, x, total, cache.valueScale * kWidened<T>);
      }
      if (lane == 0)
        to.writeLse(joint * kLn2, total);
    }
    __syncthreads();
  }
}

} // namespace

/// Grid: x blocks that share out the items.
#define HELIX_ATTENTION_OF(name, type, dim)                                                                            \
  HELIX_KERNEL __launch_bounds__(kTensorWarps * 32, kTensorBlocks)                                                     \
      helix_attention_##name##_##dim(AttentionArgument argument) {                                                     \
    attendTensor<type, dim>(argument);                                                                                 \
  }
#define HELIX_ATTENTION(dim)                                                                                           \
  HELIX_ATTENTION_OF(f16, Half, dim)                                                                                   \
  HELIX_ATTENTION_OF(bf16, BFloat, dim)                                                                                \
  HELIX_ATTENTION_OF(int8, cpu::Int8, dim)                                                                             \
  HELIX_ATTENTION_OF(fp8, cpu::Fp8, dim)
HELIX_ATTENTION(64)
HELIX_ATTENTION(80)
HELIX_ATTENTION(96)
HELIX_ATTENTION(128)
HELIX_ATTENTION(256)

} // namespace helix::cuda
