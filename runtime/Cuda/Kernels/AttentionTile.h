//===- AttentionTile.h - Tiles of 16 query rows on tensor cores, on the device -===//
//
// Included by kernels, after Device.h or its emulation. A lane has rows g and g + 8 of a tile, g = lane / 4, t = lane
// % 4.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONTILE_H
#define HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONTILE_H

#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/AttentionWork.h"
#include "runtime/Cuda/Kernels/Fragments.h"

namespace helix::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

/// Local tokens that any row of a tile sees, and that all see.
struct Bounds {
  uint32_t low, high, allLow, allHigh;
};

/// Warp.
__device__ __forceinline__ Bounds boundsOf(const Work &work, const Row (&rows)[2]) {
  uint32_t low = work.end, high = work.begin, allLow = work.begin, allHigh = work.end;
  for (const Row &row : rows)
    if (row.isActive) {
      low = row.from < low ? row.from : low, high = row.seen > high ? row.seen : high;
      allLow = row.from > allLow ? row.from : allLow, allHigh = row.seen < allHigh ? row.seen : allHigh;
    }
  for (int mask = 4; mask < 32; mask *= 2) {
    auto other = [&](uint32_t x) { return shuffle(x, int(threadIdx.x % 32) ^ mask); };
    uint32_t x = other(low);
    low = x < low ? x : low;
    x = other(high);
    high = x > high ? x : high;
    x = other(allLow);
    allLow = x > allLow ? x : allLow;
    x = other(allHigh);
    allHigh = x < allHigh ? x : allHigh;
  }
  return {low, high, allLow, allHigh};
}

/// A tile's queries, each row divided by a power of two that brings its largest into [1, 2), if T is short of
/// exponents.
template <typename T, uint32_t D> struct TileQueries {
  const float *query[2]; ///< of the lane's rows; null if inactive
  float power[2];

  /// Warp.
  __device__ __forceinline__ TileQueries(const AttentionArgs &args, const Work &work, const Row (&rows)[2]) {
    for (int r = 0; r < 2; ++r) {
      query[r] = rows[r].isActive ? queryOf(args, work, rows[r]) : nullptr;
      float largest = 0;
      if (query[r])
        for (uint32_t i = threadIdx.x % 4; i < D; i += 4)
          largest = fmaxf(largest, fabsf(query[r][i]));
      largest = fmaxf(largest, shuffleXor(largest, 1));
      largest = fmaxf(largest, shuffleXor(largest, 2));
      power[r] = rowPower<T>(largest);
    }
  }

  /// Fragments a of 16 dimensions from 16 * step on.
  __device__ __forceinline__ void pack(uint32_t step, uint32_t (&high)[4], uint32_t (&low)[4]) const {
    for (uint32_t part = 0; part < 4; ++part) {
      uint32_t r = part % 2, column = step * 16 + 2 * (threadIdx.x % 4) + part / 2 * 8;
      float factor = 1 / power[r];
      float a = query[r] ? query[r][column] * factor : 0, b = query[r] ? query[r][column + 1] * factor : 0;
      high[part] = packHigh<T>(a, b);
      low[part] = packLow<T>(a, b, high[part]);
    }
  }
};

/// Whether one of the run's values that only some rows see is not finite. Rare, and only at the rows' bounds.
template <typename T, uint32_t D> __device__ __forceinline__ bool hasNonFinite(const std::byte *values, uint32_t lane) {
  bool found = false;
  constexpr uint32_t chunks = D * sizeof(T) / 16; // of a token
  for (uint32_t chunk = lane; chunk < chunks * kGroupTokens; chunk += 32) {
    Bits128 bits = load128(values + tensorValueOffset(D, sizeof(T), chunk / chunks) + chunk % chunks * 16);
    for (uint32_t word : bits.word)
      found |= isNonFinite<T>(word);
  }
  return anyLane(found);
}

/// Where elements of a run of T lie for a lane, g = lane / 4 and t = lane % 4: matrices whose transposes give fragments
/// b, and what of it columns of c are.
template <typename T, uint32_t D> struct Places {
  static constexpr uint32_t kElement = sizeof(T);

  /// The row of keys that the lane gives for 16 dimensions from 16 * step on. Lane 8 m + r gives row r of matrix m: of
  /// 16 bits, dimensions 8 (m % 2) + r, tokens from 8 (m / 2) on; of codes, for two steps, dimensions 8 m + r, all
  /// tokens.
  static __device__ __forceinline__ uint32_t keyRow(uint32_t lane, uint32_t step) {
    if constexpr (isCode<T>)
      return (step * 16 + lane) * 16;
    uint32_t d = step * 16 + lane / 8 % 2 * 8 + lane % 8;
    return d * 32 + (lane / 16 ^ (d / 4 % 2)) * 16;
  }
  /// Of values: of 16 bits, tokens 8 (m % 2) + r, dimensions from 8 (m / 2) on; of codes, for two steps, tokens
  /// 4 (r / 2) + 2 (m % 2) + r % 2, dimensions from 16 (m / 2) on.
  static __device__ __forceinline__ uint32_t valueRow(uint32_t lane, uint32_t step) {
    uint32_t r = lane % 8, m = lane / 8;
    uint32_t token = isCode<T> ? r / 2 * 4 + m % 2 * 2 + r % 2 : m % 2 * 8 + r;
    return tensorValueOffset(D, kElement, token) + step * 16 * kElement + m / 2 * 16;
  }
  /// Of codes, which of the lane's four tokens, which follow one another, score [i / 4][i % 4] is of.
  static __device__ __forceinline__ uint32_t codeOf(uint32_t i) { return i % 2 * 2 + i / 4; }
  /// The token of the run that the score is of.
  static __device__ __forceinline__ uint32_t tokenOf(uint32_t t, uint32_t i) {
    return isCode<T> ? 4 * t + codeOf(i) : i / 4 * 8 + 2 * t + i % 2;
  }
  /// The score that comes first of the two that register `part` of a fragment a of weights holds, and the second.
  static __device__ __forceinline__ uint32_t weightOf(uint32_t part, uint32_t second) {
    uint32_t row = part % 2 * 2, pair = part / 2;
    return isCode<T> ? second * 4 + row + pair : pair * 4 + row + second;
  }
  /// The dimension that output [n][2 r + e] is of.
  static __device__ __forceinline__ uint32_t dimensionOf(uint32_t t, uint32_t n, uint32_t e) {
    return isCode<T> ? n / 2 * 16 + 4 * t + 2 * e + n % 2 : n * 8 + 2 * t + e;
  }

  /// Warp: b[0..1] and b[2..3] of step `step`, steps in order. One load is of two steps of codes, which `words` hold;
  /// of an odd number the last reads on into what follows, and nobody uses it.
  static __device__ __forceinline__ void load(uint32_t (&b)[4], uint32_t (&words)[4], const std::byte *row,
                                              uint32_t step) {
    if constexpr (isCode<T>) {
      if (step % 2 == 0)
        loadMatricesTransposed(words, row);
      widen(words[step % 2 * 2], b[0], b[2], T());
      widen(words[step % 2 * 2 + 1], b[1], b[3], T());
    } else {
      loadMatricesTransposed(b, row);
    }
  }
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_ATTENTIONTILE_H
