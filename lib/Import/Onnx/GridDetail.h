//===- GridDetail.h - What the parts of Grid.h share -----------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_GRIDDETAIL_H
#define HELIX_LIB_IMPORT_ONNX_GRIDDETAIL_H

#include "lib/Import/Onnx/Grid.h"

namespace helix::onnximport {

// No mask has more dimensions, and no list of lengths more elements.
inline constexpr size_t kMaxGridRank = 8;
inline constexpr int64_t kMaxGridIntegers = 65536;
// A causal window with bounds makes about five cells.
inline constexpr size_t kMaxCells = 64, kMaxConditions = 32;

/// The condition's opposite.
std::optional<Affine> negated(const Affine &condition);
/// A cell of one value, without conditions.
Cell constantCell(size_t rank, Grid::Type type, double value);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_GRIDDETAIL_H
