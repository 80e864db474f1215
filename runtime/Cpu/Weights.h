//===- Weights.h - From a model's file to the form a kernel reads ----------===//
#ifndef HELIX_RUNTIME_CPU_WEIGHTS_H
#define HELIX_RUNTIME_CPU_WEIGHTS_H

#include "runtime/Cpu/KvLayout.h"
#include "runtime/Cpu/Range.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace helix::cpu {

/// How a kernel reads a weight, numbered as in lib/Artifact/Artifact.fbs: Table row-major, Linear in panels
/// (Kernels.h), Vector row-major f32.
enum class WeightUse : uint8_t { Table = 0, Linear = 1, Vector = 2 };

/// [lo, hi) becomes [lo + c * chunk, min(lo + (c + 1) * chunk, hi)), empty where that starts at or past hi; c is the
/// rank's coordinate along the split's axis. Fold it over a dimension's splits, from [0, window size).
Range splitRange(Range range, uint64_t chunk, uint64_t coordinate);

/// One dimension: indices share.begin … share.end - 1 of the window that starts at windowOffset of the stored tensor
/// are the first of `local` ones; the others are zero. The window is in one piece, or, with a run, in pieces of `run`
/// indices every `stride`.
struct WeightDim {
  uint64_t stored = 1;
  uint64_t windowOffset = 0;
  Range share;
  uint64_t local = 1;
  uint64_t run = 0, stride = 0;

  /// Where index i of the share is in the stored tensor.
  constexpr uint64_t at(uint64_t i) const {
    uint64_t index = share.begin + i;
    return windowOffset + (run == 0 ? index : index / run * stride + index % run);
  }
  /// How many indices from i of the share on lie side by side.
  constexpr uint64_t sideBySide(uint64_t i) const {
    uint64_t left = share.size() - i;
    return run == 0 ? left : std::min(left, run - (share.begin + i) % run);
  }
};

/// Whether the share lies in the stored tensor and fits the local size, and pieces do not overlap.
bool isConsistent(const WeightDim &dim);

struct WeightPlan {
  DType stored = DType::F32; ///< type in the file
  DType dtype = DType::F32;  ///< type in memory; f32 for Vector
  WeightUse use = WeightUse::Table;
  uint32_t rank = 1; ///< 1 or 2 dimensions
  WeightDim dims[2];
  bool transposed = false; ///< packed as the transpose of what dims say; Linear only

  /// Whether the rank holds nothing but padding.
  bool isEmpty() const { return dims[0].share.size() == 0 || (rank == 2 && dims[1].share.size() == 0); }
};

/// Bytes of the packed weight; nothing if the plan is inconsistent: a share outside the stored tensor or larger than
/// the local size, rank other than 1 or 2, a Linear weight of rank 1, a transposed one that is not Linear, a Vector
/// that is not f32, a size beyond 2^63 bytes.
std::optional<uint64_t> packedBytes(const WeightPlan &plan);

/// Packs the rank's share of the row-major stored tensor into `packed` (packedBytes long, aligned to 64), rounding to
/// nearest even between types; infinities and NaNs stay what they are. Reads only the share. False, and `packed` is as
/// it was, if the plan is inconsistent or a span does not have the plan's size.
bool loadWeight(const WeightPlan &plan, std::span<const std::byte> stored, std::span<std::byte> packed);

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_WEIGHTS_H
