//===- LinearQuantized.cu - Products of a few rows with a weight of codes --===//
//
// A block takes a panel of the weight, or a slice of its k; each of its warps has runs of k of its own. Their codes,
// scales and zero points are copied to shared memory, 16 bytes a lane, several runs ahead. There a lane takes of a row
// of codes the bytes of eight columns. code - zero, or the
// number that a code is, is exact in bf16 and x the exact sum of three bf16 numbers, so that
// tensor cores multiply without rounding; the scale comes after them. k is taken in an order in which a lane has four
// elements side by side.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Kernels/LinearShapes.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

#include "runtime/Cuda/Kernels/Fragments.h"
#include "runtime/Cuda/Kernels/LinearTile.h"
#include "runtime/Cuda/Kernels/LoadRow.h"
#include "runtime/Cuda/Kernels/WithElement.h"

#include <cmath>

namespace helix::cuda {
namespace {

using cpu::kPanelWidth;
using cpu::ZeroPoint;

constexpr uint32_t kStep = 16; ///< of k, that tensor cores take at once

/// The column of a panel that is number e of those that lanes of group g have.
template <uint32_t bits> __device__ __forceinline__ uint32_t columnOf(uint32_t g, uint32_t e) {
  return g * bits + e % bits + e / bits * 8 * bits;
}

/// Where element i of a run lies, so that lanes which read elements four apart do not meet in a bank.
__device__ __forceinline__ uint32_t placeOf(uint32_t i) { return i / 16 * 16 + i % 4 * 4 + i % 16 / 4; }

/// A run of k inside a block: its number in the panel, the elements of the share.
struct Run {
  uint64_t block, from, to;
};

__device__ __forceinline__ Run runOf(const LinearQuantizedArgs &args, uint32_t perBlock, uint64_t index) {
  uint64_t block = index / perBlock, within = index % perBlock * kQuantRun;
  uint64_t begin = block * args.format.block + within;
  uint64_t end = block * args.format.block +
                 (within + kQuantRun < args.format.block ? within + kQuantRun : uint64_t(args.format.block));
  uint64_t first = args.share.first, last = first + args.share.count;
  begin = begin > first ? begin : first;
  end = end < last ? end : last;
  return {block, begin - first, end > begin ? end - first : begin - first};
}

/// Warp: starts to copy a run.
template <uint32_t bits, bool isFloat>
__device__ __forceinline__ void copyRun(const LinearQuantizedArgs &args, const std::byte *weight, uint64_t panel,
                                        const Run &run, std::byte *to) {
  constexpr uint32_t rowBytes = kPanelWidth * bits / 8, chunks = rowBytes / 16;
  const uint32_t lane = threadIdx.x % 32, rows = uint32_t(run.to - run.from);
  const std::byte *codes = weight + (panel * args.k + run.from) * rowBytes;
#pragma unroll
  // Past the run's end x is zero, and what is left there from before may be NaN if codes are floats.
  for (uint32_t i = lane; i < kQuantRun * chunks; i += 32)
    if (isFloat || i / chunks < rows)
      copyAsync(to + placeOf(i / chunks) * rowBytes + i % chunks * 16, codes + i * 16, i / chunks < rows);
  uint64_t at = (panel * args.layout.blocks + run.block) * kPanelWidth;
  const uint32_t scaleBytes = args.format.scale == DType::F32 ? 4 : 2;
  const uint32_t zeroBytes = args.format.zero == ZeroPoint::Packed ? 1
                             : args.format.zero == ZeroPoint::Real ? scaleBytes
                                                                   : 0;
  std::byte *scales = to + kQuantRun * rowBytes;
  if (rows != 0 && lane < kPanelWidth * scaleBytes / 16)
    copyAsync(scales + lane * 16, weight + args.layout.scales + at * scaleBytes + lane * 16);
  if (rows != 0 && lane < kPanelWidth * zeroBytes / 16)
    copyAsync(scales + kQuantScaleBytes + lane * 16, weight + args.layout.zeros + at * zeroBytes + lane * 16);
}

/// What a lane reads of a row of codes.
template <uint32_t bits> struct Codes {
  using Word = uint32_t;
};
template <> struct Codes<2> {
  using Word = uint16_t;
};
template <> struct Codes<8> {
  using Word = uint64_t;
};

/// Floats' codes of two elements, in the halves of a word, as bf16: as numbers of the same fields they are too small by
/// the difference of the exponents' biases.
template <uint32_t bits> __device__ __forceinline__ uint32_t floatPair(uint32_t codes) {
  if constexpr (bits == 8) {
    uint32_t magnitude = codes & 0x007f007f, isNaN = (magnitude + 0x00010001) & 0x00800080;
    return multiplyPairs(magnitude << 4 | (codes & 0x00800080) << 8, 0x7b807b80) | (isNaN >> 7) * 0x7f80;
  } else {
    return multiplyPairs((codes & 0x00070007) << 6 | (codes & 0x00080008) << 12, 0x7e807e80);
  }
}

/// Of column number e and two elements of k in bf16: code - zero, or what a float's code means.
template <uint32_t bits, bool isFloat>
__device__ __forceinline__ uint32_t pairOf(typename Codes<bits>::Word first, typename Codes<bits>::Word second,
                                           uint32_t e, uint32_t zero) {
  if constexpr (bits == 8 && isFloat) {
    return floatPair<8>(uint32_t(first >> 8 * e & 0xff) | uint32_t(second >> 8 * e & 0xff) << 16);
  } else if constexpr (bits == 8) {
    // 2^23 + code as f32; what is left of the difference has eight bits.
    float offset = float(0x800000 + zero);
    uint32_t low = floatToBits(bitsToFloat(0x4b000000 | uint32_t(first >> 8 * e & 0xff)) - offset);
    uint32_t high = floatToBits(bitsToFloat(0x4b000000 | uint32_t(second >> 8 * e & 0xff)) - offset);
    return low >> 16 | (high & 0xffff0000);
  } else {
    uint32_t half = e % bits / 2 * 16, shift = e % 2 * 8 + e / bits * bits;
    uint32_t both = half == 0 ? (uint32_t(first) & 0xffff) | uint32_t(second) << 16
                              : uint32_t(first) >> 16 | (uint32_t(second) & 0xffff0000);
    constexpr uint32_t mask = ((1u << bits) - 1) * 0x10001;
    if constexpr (isFloat)
      return floatPair<bits>(both >> shift & mask);
    // 128 + code; bf16 has no fractions there.
    return subtractPairs((both >> shift & mask) | 0x43004300, (0x4300 | zero) * 0x10001);
  }
}

/// x as three parts of eight bits each, which bf16 holds; pairs of elements.
__device__ __forceinline__ void splitPairs(const float (&x)[4], uint32_t (&parts)[3][2]) {
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    float rest[2] = {x[2 * pair], x[2 * pair + 1]};
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      uint32_t high[2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        high[i] = takeBFloat(rest[i]);
      parts[part][pair] = high[0] >> 16 | high[1];
    }
  }
}

/// R tiles of 8 rows.
template <uint32_t bits, bool isFloat, uint32_t R, bool isGrouped = false>
__device__ __forceinline__ void multiply(const LinearQuantizedArgument &argument) {
  using Word = typename Codes<bits>::Word;
  constexpr uint32_t M = kPanelWidth / 16, rowBytes = kPanelWidth * bits / 8;
  const LinearQuantizedArgs &args = argument.args;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const size_t panel = blockIdx.y;
  const RowTile tileRows = rowTileOf<isGrouped, 8 * R>(argument);
  if (tileRows.row == tileRows.endRow)
    return;
  const float *x[R];
#pragma unroll
  for (uint32_t r = 0; r < R; ++r)
    x[r] = tileRows.xRow(args.x, args.k, r * 8 + g);
  const QuantRuns runs = quantRuns(args.format, args.share);
  const uint64_t perSlice = (runs.count + argument.slices - 1) / argument.slices, first = blockIdx.z * perSlice;
  const uint64_t end = !tileRows.weight ? first : first + perSlice < runs.count ? first + perSlice : runs.count;
  const bool isAligned = rowsAligned(args.x, args.k), isReal = args.format.zero == ZeroPoint::Real;
  constexpr uint32_t middle = 1u << (bits - 1);
  std::byte *stages = sharedMemory() + warp * kQuantDepth * quantRunBytes(bits);
  float total[M][R][4] = {};

  auto start = [&](uint64_t index, uint32_t stage) {
    if (index < end)
      copyRun<bits, isFloat>(args, tileRows.weight, panel, runOf(args, runs.perBlock, index),
                             stages + stage * quantRunBytes(bits));
    commitCopies();
  };
  uint64_t next = first + warp;
  uint32_t filled = 0, used = 0;
  for (; filled < kQuantDepth - 1; ++filled, next += kLinearWarps)
    start(next, filled);
  for (uint64_t index = first + warp; index < end; index += kLinearWarps, next += kLinearWarps) {
    start(next, filled);
    filled = (filled + 1) % kQuantDepth;
    waitCopies<kQuantDepth - 1>();
    __syncwarp();
    const Run run = runOf(args, runs.perBlock, index);
    const std::byte *codes = stages + used * quantRunBytes(bits), *scales = codes + kQuantRun * rowBytes;
    const std::byte *zeros = scales + kQuantScaleBytes;
    used = (used + 1) % kQuantDepth;
    uint32_t zero[8];
#pragma unroll
    for (uint32_t e = 0; e < 8; ++e)
      zero[e] = args.format.zero == ZeroPoint::Packed ? uint32_t(zeros[columnOf<bits>(g, e)])
                : args.format.zero == ZeroPoint::Zero ? 0
                                                      : middle;
    float sum[M][R][4] = {}, xSum[R] = {};
    for (uint32_t step = 0; run.from + step < run.to; step += kStep) {
      Word word[4];
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i)
        word[i] = *reinterpret_cast<const Word *>(codes + placeOf(step + 4 * t + i) * rowBytes + g * bits);
      uint32_t parts[R][3][2];
#pragma unroll
      for (uint32_t r = 0; r < R; ++r) {
        float four[4] = {};
        size_t from = run.from + step + 4 * t;
        if (x[r])
          loadRow(four, x[r], from, run.to, isAligned && from % 4 == 0);
        splitPairs(four, parts[r]);
        xSum[r] += (four[0] + four[1]) + (four[2] + four[3]);
      }
#pragma unroll
      for (uint32_t m = 0; m < M; ++m) {
        uint32_t a[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
          a[i] = pairOf<bits, isFloat>(word[i / 2 * 2], word[i / 2 * 2 + 1], 2 * m + i % 2, zero[2 * m + i % 2]);
#pragma unroll
        for (uint32_t r = 0; r < R; ++r)
#pragma unroll
          for (int part = 2; part >= 0; --part)
            multiplyAdd(sum[m][r], a, parts[r][part][0], parts[r][part][1], BFloat());
      }
    }
    if (run.from < run.to) {
      float scale[8], rest[8] = {};
      withElement(args.format.scale, [&](auto element) {
        using Scale = decltype(element);
#pragma unroll
        for (uint32_t e = 0; e < 8; ++e) {
          scale[e] = toFloat(reinterpret_cast<const Scale *>(scales)[columnOf<bits>(g, e)]);
          if (isReal)
            rest[e] = float(middle) - toFloat(reinterpret_cast<const Scale *>(zeros)[columnOf<bits>(g, e)]);
        }
      });
#pragma unroll
      for (uint32_t r = 0; r < R; ++r) {
        float sums[2] = {};
        if (isReal) {
          // Of rows 2t and 2t + 1.
          xSum[r] += shuffleXor(xSum[r], 1);
          xSum[r] += shuffleXor(xSum[r], 2);
          sums[0] = shuffle(xSum[r], int(8 * t));
          sums[1] = shuffle(xSum[r], int(8 * t + 4));
        }
#pragma unroll
        for (uint32_t m = 0; m < M; ++m)
#pragma unroll
          for (uint32_t i = 0; i < 4; ++i) {
            uint32_t e = 2 * m + i / 2;
            float value = isReal ? fmaf(rest[e], sums[i % 2], sum[m][r][i]) : sum[m][r][i];
            total[m][r][i] = fmaf(scale[e], value, total[m][r][i]);
          }
      }
    }
    __syncwarp();
  }

  waitCopies<0>();
  __syncthreads();
  auto *shared = reinterpret_cast<float *>(sharedMemory());
  constexpr uint32_t tile = kPanelWidth * 8 * R;
#pragma unroll
  for (uint32_t m = 0; m < M; ++m)
#pragma unroll
    for (uint32_t r = 0; r < R; ++r)
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i)
        shared[warp * tile + (r * 8 + 2 * t + i % 2) * kPanelWidth + columnOf<bits>(g, 2 * m + i / 2)] = total[m][r][i];
  __syncthreads();
  sumWarps<8 * R, kPanelWidth>(
      {argument.out + blockIdx.z * args.rows * args.n, tileRows.row, tileRows.endRow, panel * kPanelWidth, args.n});
}

} // namespace

/// Of codes q that are whole numbers and fp that are floats. Grid: x tiles of rows, y panels, z slices; of experts, x
/// rows in which tiles start. Shared: each warp's runs; then the warps' tiles.
#define HELIX_LINEAR_QUANTIZED(name, bits, isFloat)                                                                    \
  HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_##name##_1(LinearQuantizedArgument argument) {        \
    multiply<bits, isFloat, 1>(argument);                                                                              \
  }                                                                                                                    \
  HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_##name##_2(LinearQuantizedArgument argument) {        \
    multiply<bits, isFloat, 2>(argument);                                                                              \
  }                                                                                                                    \
  HELIX_KERNEL __launch_bounds__(kLinearWarps * 32) helix_linear_grouped_##name(LinearQuantizedArgument argument) {    \
    multiply<bits, isFloat, 1, true>(argument);                                                                        \
  }
HELIX_LINEAR_QUANTIZED(q2, 2, false)
HELIX_LINEAR_QUANTIZED(q4, 4, false)
HELIX_LINEAR_QUANTIZED(q8, 8, false)
HELIX_LINEAR_QUANTIZED(fp4, 4, true)
HELIX_LINEAR_QUANTIZED(fp8, 8, true)

} // namespace helix::cuda
