//===- AttentionLatent.cu - Partial attention of latents on tensor cores ---===//
//
// Keys of 576 dimensions and values of 512 in 16 bits, many query heads on one KV head. A block has a tile of 16 query
// rows and a part of the tokens, 16 at a time: each of its eight warps multiplies every eighth 16 dimensions of queries
// and keys, the block's 256 threads add the warps' sums up, in order, and make weights of them, a thread each, and each
// warp has 64 dimensions of the output. Queries and weights enter as the sum of two 16-bit numbers.
//
// The portable path, untuned: per token 2176 bytes stand against 2 * 2 * 16 * 1088 operations of a tile, twice what a
// single number would cost, and the tiles of a KV head read the same tokens, from the second-level cache at best.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Kernels/Split.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/AttentionTile.h"

namespace helix::cuda {
namespace {

constexpr uint32_t kThreads = kLatentWarps * 32, kSteps = (kLatentKeyDim / 16 + kLatentWarps - 1) / kLatentWarps;
constexpr uint32_t kWarpTiles = kLatentValueDim / 8 / kLatentWarps; ///< of eight dimensions of the output
static_assert(kThreads == kTensorRows * kGroupTokens);

/// Starts to copy the 16 tokens from `local` on.
template <typename T>
__device__ __forceinline__ void startRun(const KvCache &cache, const Work &work, const Bounds &bounds, std::byte *stage,
                                         uint32_t local) {
  uint64_t page = uint64_t(cache.table[work.b * cache.pagesPerSlot + local / cache.block]);
  uint32_t offset = local % cache.block;
  const T *key = static_cast<const T *>(cache.key) + cpu::kvKeyIndex(cache, page, work.kvHead, offset);
  const T *value = static_cast<const T *>(cache.value) + cpu::kvValueIndex(cache, page, work.kvHead, offset);
  // As Runs of AttentionTensor.cu.
  for (uint32_t chunk = threadIdx.x; chunk < kLatentKeyDim * 2; chunk += kThreads) {
    uint32_t d = chunk / 2, half = chunk % 2;
    copyAsync(stage + d * 32 + (half ^ (d / 4 % 2)) * 16, key + size_t(d) * cache.block + half * 8);
  }
  for (uint32_t chunk = threadIdx.x; chunk < kLatentValueDim * 2; chunk += kThreads) {
    uint32_t j = chunk / (kLatentValueDim / 8), column = chunk % (kLatentValueDim / 8);
    copyAsync(stage + tensorKeyBytes(kLatentKeyDim, 2) + tensorValueOffset(kLatentValueDim, 2, j) + column * 16,
              value + j * kLatentValueDim + column * 8, local + j >= bounds.low && local + j < bounds.high);
  }
}

template <typename T> __device__ __forceinline__ void attendLatent(const AttentionArgument &argument) {
  using At = Places<T, kLatentValueDim>;
  const AttentionArgs &args = argument.args;
  const KvCache &cache = args.cache;
  const uint32_t thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
  const uint32_t mine = thread / kGroupTokens, column = thread % kGroupTokens; // the thread's score: row, token
  auto *before = reinterpret_cast<uint32_t *>(sharedMemory());
  std::byte *stages = sharedMemory() + ((args.batchCount + 1) * 4 + 127) / 128 * 128;
  auto *sums = reinterpret_cast<float *>(stages + kLatentStages * kLatentStageBytes); // [warp][row][token]
  float *weights = sums + kLatentWarps * kTensorRows * kGroupTokens;                  // [row][token]
  float *rescales = weights + kTensorRows * kGroupTokens, *powers = rescales + kTensorRows;
  const bool isPlain = args.softcap == 0 && !args.slopes;
  const float unit = args.scale * (isPlain ? kLog2E : 1);

  countWork(argument, before);
  for (uint32_t item = blockIdx.x; item < before[args.batchCount]; item += gridDim.x) {
    Work work = workOf(argument, before, item);
    auto tileRow = [&](uint32_t r) { return rowOf(args, work, work.tile * kTensorRows + r); };
    const Row rows[2] = {tileRow(g), tileRow(g + 8)}, row = tileRow(mine);
    const Bounds bounds = boundsOf(work, rows);
    const uint32_t first = work.begin + (bounds.low - work.begin) / kGroupTokens * kGroupTokens;
    const uint32_t count = bounds.low < bounds.high ? (bounds.high - first + kGroupTokens - 1) / kGroupTokens : 0;
    auto stageOf = [&](uint32_t i) { return stages + i % kLatentStages * kLatentStageBytes; };
    auto start = [&](uint32_t i) {
      if (i < count)
        startRun<T>(cache, work, bounds, stageOf(i), first + i * kGroupTokens);
      commitCopies();
    };
    for (uint32_t i = 0; i + 1 < kLatentStages; ++i)
      start(i);

    uint32_t high[kSteps][4], low[kSteps][4];
    {
      TileQueries<T, kLatentKeyDim> tile(args, work, rows);
      if (warp == 0 && t == 0)
        powers[g] = tile.power[0], powers[g + 8] = tile.power[1];
#pragma unroll
      for (uint32_t i = 0; i < kSteps; ++i)
        if (uint32_t step = warp + i * kLatentWarps; step < kLatentKeyDim / 16)
          tile.pack(step, high[i], low[i]);
    }
    float maximum = -INFINITY, sum = 0; // of the thread's row, the same in all that have it
    float output[kWarpTiles][4];
#pragma unroll
    for (uint32_t n = 0; n < kWarpTiles; ++n)
      for (float &x : output[n])
        x = 0;
    for (uint32_t i = 0; i < count; ++i) {
      waitCopies<kLatentStages - 2>();
      __syncthreads(); // the run is there, and the one before is done with
      start(i + kLatentStages - 1);
      const uint32_t local = first + i * kGroupTokens;
      const std::byte *keys = stageOf(i), *values = keys + tensorKeyBytes(kLatentKeyDim, 2);
      float score[2][4] = {};
#pragma unroll
      for (uint32_t j = 0; j < kSteps; ++j)
        if (uint32_t step = warp + j * kLatentWarps; step < kLatentKeyDim / 16) {
          uint32_t b[4];
          loadMatricesTransposed(b, keys + At::keyRow(lane, step));
          multiplyAdd(score[0], high[j], b[0], b[1], T());
          multiplyAdd(score[1], high[j], b[2], b[3], T());
          multiplyAdd(score[0], low[j], b[0], b[1], T());
          multiplyAdd(score[1], low[j], b[2], b[3], T());
        }
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j)
        sums[(warp * kTensorRows + g + j % 4 / 2 * 8) * kGroupTokens + At::tokenOf(t, j)] = score[j / 4][j % 4];
      __syncthreads();

      const uint32_t token = local + column;
      float s = 0;
      for (uint32_t w = 0; w < kLatentWarps; ++w)
        s += sums[w * kThreads + thread];
      s *= unit * powers[mine];
      if (!isPlain) {
        if (args.softcap != 0)
          s = args.softcap * tanhf(s / args.softcap);
        if (args.slopes && row.isActive)
          s += slopeTerm(args, work, row, token);
        s *= kLog2E;
      }
      if (token < row.from || token >= row.seen)
        s = -INFINITY;
      float largest = s; // passes over NaN, which the weights then show
      for (int mask = kGroupTokens / 2; mask != 0; mask /= 2)
        largest = fmaxf(largest, shuffleXor(largest, mask));
      largest = fmaxf(largest, maximum);
      float shift = finiteShift(largest), rescale = exp2Fast(maximum - shift), weight = exp2Fast(s - shift);
      float added = weight;
      for (int mask = kGroupTokens / 2; mask != 0; mask /= 2)
        added += shuffleXor(added, mask);
      maximum = largest;
      sum = sum * rescale + added;
      weights[thread] = weight;
      if (column == 0)
        rescales[mine] = rescale;
      __syncthreads();

      const float rescaleOf[2] = {rescales[g], rescales[g + 8]};
      if (anyLane(rescaleOf[0] != 1 || rescaleOf[1] != 1))
#pragma unroll
        for (uint32_t n = 0; n < kWarpTiles; ++n)
          for (int j = 0; j < 4; ++j)
            output[n][j] *= rescaleOf[j / 2];
      if (!(local >= bounds.allLow && local + kGroupTokens <= bounds.allHigh) &&
          hasNonFinite<T, kLatentValueDim>(values, lane)) {
        // Term by term, so that 0 · NaN stays out of rows that do not see the NaN.
        for (uint32_t j = 0; j < kGroupTokens; ++j)
#pragma unroll
          for (int r = 0; r < 2; ++r)
            if (local + j >= rows[r].from && local + j < rows[r].seen)
#pragma unroll
              for (uint32_t n = 0; n < kWarpTiles; ++n)
                for (uint32_t e = 0; e < 2; ++e) {
                  const auto *value = reinterpret_cast<const T *>(values + tensorValueOffset(kLatentValueDim, 2, j));
                  float &x = output[n][2 * r + e];
                  x = fmaf(weights[(g + r * 8) * kGroupTokens + j],
                           toFloat(value[At::dimensionOf(t, warp * kWarpTiles + n, e)]), x);
                }
        continue;
      }
      uint32_t weightHigh[4], weightLow[4];
#pragma unroll
      for (uint32_t part = 0; part < 4; ++part) {
        const float *two = weights + (g + part % 2 * 8) * kGroupTokens + part / 2 * 8 + 2 * t;
        weightHigh[part] = packHigh<T>(two[0], two[1]);
        weightLow[part] = packLow<T>(two[0], two[1], weightHigh[part]);
      }
#pragma unroll
      for (uint32_t n = 0; n < kWarpTiles / 2; ++n) {
        uint32_t b[4];
        loadMatricesTransposed(b, values + At::valueRow(lane, warp * kWarpTiles / 2 + n));
        multiplyAdd(output[2 * n], weightHigh, b[0], b[1], T());
        multiplyAdd(output[2 * n + 1], weightHigh, b[2], b[3], T());
        multiplyAdd(output[2 * n], weightLow, b[0], b[1], T());
        multiplyAdd(output[2 * n + 1], weightLow, b[2], b[3], T());
      }
    }
    waitCopies<0>();
    __syncthreads();
    if (column == 0)
      weights[mine] = sum;
    if (column == 0 && row.isActive)
      destinationOf(argument, work, row).writeLse(maximum * kLn2, sum);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!rows[r].isActive)
        continue;
      Destination to = destinationOf(argument, work, rows[r]);
      float total = weights[g + r * 8];
#pragma unroll
      for (uint32_t n = 0; n < kWarpTiles; ++n)
        for (uint32_t e = 0; e < 2; ++e)
          to.writeOutput(At::dimensionOf(t, warp * kWarpTiles + n, e), output[n][2 * r + e], total);
    }
    __syncthreads();
  }
}

} // namespace

/// Grid: x blocks that share out the items.
HELIX_KERNEL __launch_bounds__(kThreads, kLatentBlocks) helix_attention_f16_latent(AttentionArgument argument) {
  attendLatent<Half>(argument);
}
HELIX_KERNEL __launch_bounds__(kThreads, kLatentBlocks) helix_attention_bf16_latent(AttentionArgument argument) {
  attendLatent<BFloat>(argument);
}

} // namespace helix::cuda
