//===- LinearShapes.h - How a skinny product divides its work --------------===//
//
// For host and device. A block computes a tile of the weight's rows (the product's columns) for a tile of x's rows,
// over all of k or a slice of it. Its eight warps take every eighth run of 32 elements of k.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_LINEARSHAPES_H
#define HELIX_RUNTIME_CUDA_KERNELS_LINEARSHAPES_H

#include "runtime/Cuda/Kernels.h"

namespace helix::cuda {

inline constexpr uint32_t kLinearWarps = 8, kLinearRun = 32;

/// Runs that a warp loads before it multiplies.
inline constexpr uint32_t kLinearDepth = 4;

/// Of f32 weights: columns of a warp, lanes' elements of k, and x's rows of a tile.
inline constexpr uint32_t kPlainColumns = 4, kPlainRun = 128, kPlainRows = 4;

struct LinearShape {
  uint32_t columns = 16; ///< of a tile: 16 or 32; kLinearWarps * kPlainColumns for f32
  uint32_t rows = 8;     ///< of a tile: 8 or 16; kPlainRows for f32
  uint32_t slices = 1;   ///< of k; each writes a partial product, which are then summed in order
};

/// Slices of k: as many as make `tiles` at least `wanted` blocks, at most eight, and at most `most`.
constexpr uint32_t linearSlices(uint64_t tiles, uint64_t wanted, uint64_t most) {
  uint64_t slices = tiles == 0 ? 1 : (wanted + tiles - 1) / tiles;
  slices = slices < 8 ? slices : 8;
  slices = slices < most ? slices : most;
  return slices < 1 ? 1 : uint32_t(slices);
}

/// Depends on x's rows in `rows` alone, which no result depends on.
constexpr LinearShape linearShape(size_t rows, size_t k, size_t n, DType dtype) {
  LinearShape shape;
  if (dtype == DType::F32)
    return {kLinearWarps * kPlainColumns, kPlainRows, 1};
  shape.columns = n <= 8192 ? 16 : 32;
  shape.rows = rows <= 8 ? 8 : 16;
  // A narrow product alone would leave most of a GPU idle. A slice keeps every warp busy for kLinearDepth runs.
  size_t tiles = (n + shape.columns - 1) / shape.columns, most = k / (kLinearWarps * kLinearDepth * kLinearRun);
  shape.slices = tiles >= 64 ? 1 : linearSlices(tiles, 128, most);
  return shape;
}

struct LinearArgument {
  LinearArgs args;
  float *out; ///< y, or [slices, rows, n]
  uint32_t slices;
  LinearGroups groups; ///< of the kernels that have any
};

/// Of weights of codes: elements of k that a warp takes at a time, all of one block; how many such runs are on their
/// way; their bytes: codes, scales, zero points.
inline constexpr uint32_t kQuantRun = 32, kQuantDepth = 4;
inline constexpr uint32_t kQuantScaleBytes = cpu::kPanelWidth * sizeof(float);
constexpr uint32_t quantRunBytes(uint32_t bits) {
  return kQuantRun * cpu::kPanelWidth * bits / 8 + 2 * kQuantScaleBytes;
}

/// Runs of k. A block is divided from its start on, so that a share's first or last runs may be short or empty.
struct QuantRuns {
  uint32_t perBlock;
  uint64_t count;
};
constexpr QuantRuns quantRuns(const cpu::QuantFormat &format, const cpu::QuantShare &share) {
  uint32_t perBlock = (format.block + kQuantRun - 1) / kQuantRun;
  return {perBlock, share.count == 0 ? 0 : ((share.first + share.count - 1) / format.block + 1) * perBlock};
}

/// A tile is a panel's columns for 8 or 16 rows of x; only their number depends on x's rows.
constexpr LinearShape linearQuantizedShape(size_t rows, size_t n, uint64_t runs) {
  LinearShape shape;
  shape.columns = cpu::kPanelWidth;
  shape.rows = rows <= 8 ? 8 : 16;
  shape.slices = linearSlices(cpu::linearItems(n), 256, runs / (kLinearWarps * kQuantDepth));
  return shape;
}

struct LinearQuantizedArgument {
  LinearQuantizedArgs args;
  float *out; ///< y, or [slices, rows, n]
  uint32_t slices;
  LinearGroups groups;
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_LINEARSHAPES_H
