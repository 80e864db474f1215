//===- Linear.cu - Products of a few rows with a weight --------------------===//
//
// The weight is read once, 128 bits at a time, and every lane multiplies what it loaded: k is taken in an order in
// which lanes hold runs of eight elements, which is the same for both operands. Weights of 16 bits are exact in tf32; x
// enters as the sum of two tf32 numbers. What x's rows past the end and k past its end would hold is zero.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Kernels/LinearShapes.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/LinearTile.h"
#include "runtime/Cuda/Kernels/LoadRow.h"

#include <cmath>

namespace helix::cuda {
namespace {

/// The upper bits that tf32 keeps.
__device__ __forceinline__ float toTf32(float x) { return bitsToFloat(floatToBits(x) & 0xffffe000); }

/// Element i of eight of 16 bits.
template <typename T> __device__ __forceinline__ float elementOf(const Bits128 &bits, int i) {
  return toFloat(T{uint16_t(bits.word[i / 2] >> (i % 2 * 16))});
}

/// M tiles of 16 columns, R tiles of 8 rows.
template <typename T, uint32_t M, uint32_t R, bool isGrouped = false>
__device__ __forceinline__ void multiply(const LinearArgument &argument) {
  const LinearArgs &args = argument.args;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const size_t stride = linearStride(args.k, args.dtype), runs = (args.k + kLinearRun - 1) / kLinearRun;
  const size_t perSlice = (runs + argument.slices - 1) / argument.slices, firstRun = blockIdx.z * perSlice;
  const RowTile tileRows = rowTileOf<isGrouped, 8 * R>(argument);
  if (tileRows.row == tileRows.endRow)
    return;
  const size_t endRun = !tileRows.weight ? firstRun : firstRun + perSlice < runs ? firstRun + perSlice : runs;
  const size_t column = size_t(blockIdx.y) * 16 * M;
  const float *x[R];
#pragma unroll
  for (uint32_t r = 0; r < R; ++r)
    x[r] = tileRows.xRow(args.x, args.k, r * 8 + g);
  const bool isAligned = rowsAligned(args.x, args.k);
  const T *weight[M][2];
#pragma unroll
  for (uint32_t m = 0; m < M; ++m)
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      // What lies past the last column is computed from it, and dropped.
      size_t c = column + m * 16 + g + half * 8;
      weight[m][half] = reinterpret_cast<const T *>(tileRows.weight) + (c < args.n ? c : args.n - 1) * stride;
    }
  float sum[M][R][4] = {};
  for (size_t run = firstRun + warp; run < endRun; run += kLinearWarps * kLinearDepth) {
    Bits128 loaded[kLinearDepth][M][2];
#pragma unroll
    for (uint32_t depth = 0; depth < kLinearDepth; ++depth) {
      size_t at = run + depth * kLinearWarps, from = at * kLinearRun + t * 8;
#pragma unroll
      for (uint32_t m = 0; m < M; ++m)
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half)
          loaded[depth][m][half] = at < endRun && from < stride ? loadStreaming(weight[m][half] + from) : Bits128{};
    }
#pragma unroll
    for (uint32_t depth = 0; depth < kLinearDepth; ++depth) {
      size_t at = run + depth * kLinearWarps;
      if (at >= endRun)
        break;
      float a[M][2][8];
#pragma unroll
      for (uint32_t m = 0; m < M; ++m)
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half)
#pragma unroll
          for (int i = 0; i < 8; ++i)
            a[m][half][i] = elementOf<T>(loaded[depth][m][half], i);
#pragma unroll
      for (uint32_t r = 0; r < R; ++r) {
        float eight[8] = {};
        if (x[r])
          loadRow(eight, x[r], at * kLinearRun + t * 8, args.k, isAligned);
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
          float high[2], low[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            high[e] = toTf32(eight[i + e]);
            float rest = eight[i + e] - high[e];
            low[e] = fabsf(rest) < INFINITY ? toTf32(rest) : 0;
          }
#pragma unroll
          for (uint32_t m = 0; m < M; ++m) {
            float part[4] = {a[m][0][i], a[m][1][i], a[m][0][i + 1], a[m][1][i + 1]};
            multiplyAddTf32(sum[m][r], part, high[0], high[1]);
            multiplyAddTf32(sum[m][r], part, low[0], low[1]);
          }
        }
      }
    }
  }
  auto *shared = reinterpret_cast<float *>(sharedMemory());
  constexpr uint32_t width = 16 * M, tile = width * 8 * R;
#pragma unroll
  for (uint32_t m = 0; m < M; ++m)
#pragma unroll
    for (uint32_t r = 0; r < R; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        shared[warp * tile + (r * 8 + 2 * t + i % 2) * width + m * 16 + g + i / 2 * 8] = sum[m][r][i];
  __syncthreads();
  sumWarps<8 * R, width>(
      {argument.out + blockIdx.z * args.rows * args.n, tileRows.row, tileRows.endRow, column, args.n});
}

} // namespace

/// Grid: x tiles of rows, y tiles of columns, z slices. Shared: the warps' tiles.
#define HELIX_LINEAR(name, type, m, r)                                                                                 \
  HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_##name##_##m##_##r(LinearArgument argument) {         \
    multiply<type, m, r>(argument);                                                                                    \
  }
HELIX_LINEAR(f16, Half, 1, 1)
HELIX_LINEAR(f16, Half, 1, 2)
HELIX_LINEAR(f16, Half, 2, 1)
HELIX_LINEAR(f16, Half, 2, 2)
HELIX_LINEAR(bf16, BFloat, 1, 1)
HELIX_LINEAR(bf16, BFloat, 1, 2)
HELIX_LINEAR(bf16, BFloat, 2, 1)
HELIX_LINEAR(bf16, BFloat, 2, 2)

/// The same of experts. Grid: x rows, in which tiles start, y tiles of columns, z slices.
HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_grouped_f16(LinearArgument argument) {
  multiply<Half, 1, 1, true>(argument);
}
HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_grouped_bf16(LinearArgument argument) {
  multiply<BFloat, 1, 1, true>(argument);
}

namespace {

/// f32 weights: a warp has four columns.
template <bool isGrouped> __device__ __forceinline__ void multiplyPlain(const LinearArgument &argument) {
  const LinearArgs &args = argument.args;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const size_t stride = linearStride(args.k, DType::F32);
  const RowTile tile = rowTileOf<isGrouped, kPlainRows>(argument);
  if (tile.row == tile.endRow)
    return;
  const size_t column = (size_t(blockIdx.y) * kLinearWarps + warp) * kPlainColumns;
  const bool isAligned = rowsAligned(args.x, args.k);
  float sum[kPlainColumns][kPlainRows] = {};
  for (size_t from = tile.weight ? lane * 4 : stride; from < stride; from += kPlainRun) {
    Bits128 weight[kPlainColumns];
#pragma unroll
    for (uint32_t c = 0; c < kPlainColumns; ++c)
      weight[c] = column + c < args.n
                      ? loadStreaming(reinterpret_cast<const float *>(tile.weight) + (column + c) * stride + from)
                      : Bits128{};
#pragma unroll
    for (uint32_t r = 0; r < kPlainRows; ++r) {
      float x[4] = {};
      if (const float *row = tile.xRow(args.x, args.k, r))
        loadRow(x, row, from, args.k, isAligned);
#pragma unroll
      for (uint32_t c = 0; c < kPlainColumns; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sum[c][r] = fmaf(bitsToFloat(weight[c].word[i]), x[i], sum[c][r]);
    }
  }
#pragma unroll
  for (uint32_t c = 0; c < kPlainColumns; ++c)
#pragma unroll
    for (uint32_t r = 0; r < kPlainRows; ++r) {
#pragma unroll
      for (int mask = 16; mask != 0; mask /= 2)
        sum[c][r] += shuffleXor(sum[c][r], mask);
      if (lane == 0 && column + c < args.n && tile.row + r < tile.endRow)
        argument.out[(tile.row + r) * args.n + column + c] = sum[c][r];
    }
}

} // namespace

/// Grid: x tiles of rows, y tiles of columns.
HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_f32(LinearArgument argument) {
  multiplyPlain<false>(argument);
}
HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_grouped_f32(LinearArgument argument) {
  multiplyPlain<true>(argument);
}

} // namespace helix::cuda
