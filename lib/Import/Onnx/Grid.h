//===- Grid.h - Integers, masks and positions as formulas ------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_GRID_H
#define HELIX_LIB_IMPORT_ONNX_GRID_H

#include "lib/Import/Onnx/Integers.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"

#include <optional>
#include <vector>

namespace helix::onnximport {

/// base + Σ slope[d] * index[d], where base may count S, the length of the sequence with its new tokens.
struct Affine {
  int64_t constant = 0, total = 0;
  llvm::SmallVector<int64_t, 4> slope = {};

  /// Neither S nor an index counts.
  bool isConstant() const {
    return total == 0 && llvm::all_of(slope, [](int64_t s) { return s == 0; });
  }
  bool operator==(const Affine &) const = default;
};

/// Where every one of `where` is at least 0, a grid's element is form + number.
struct Cell {
  llvm::SmallVector<Affine, 2> where = {};
  Affine form = {};
  double number = 0;

  bool isConstant() const { return form.isConstant(); }
  double constant() const { return static_cast<double>(form.constant) + number; }
};

/// A tensor whose elements are formulas in their indices and S: what models compute masks and positions with. Whatever
/// the dimensions (S may be one), it is a handful of cells, which together cover every index exactly once, at all lengths
/// at which the model has a meaning.
///
/// The attention mask that comes in counts as ones here, and S as the length of the one sequence that is looked at: a
/// sequence's logits are what the model computes for it alone. What this leaves out, the tokens behind the end of a
/// sequence that is shorter than the step, no causal mask lets another token see.
struct Grid {
  enum class Type { Bool, Int, Float };
  Type type = Type::Int;
  llvm::SmallVector<LinearInt, 4> shape = {};
  std::vector<Cell> cells = {};

  /// The one value of all elements, if there is one.
  std::optional<double> uniform() const;
  /// The formula of all elements, if it is one.
  const Affine *affine() const;
  /// No more than the shape is known.
  bool isOpaque() const { return cells.empty(); }
};

/// What is known of S: it is from `least` to `context`, and with the step's tokens at least `tokens`.
struct LengthRange {
  int64_t tokens = 1;
  int64_t context = INT64_MAX / 4;
  int64_t least = 1;
};

/// The lengths at which those of the conditions hold that no index counts in.
LengthRange narrowed(LengthRange range, llvm::ArrayRef<Affine> conditions);

// Each of these gives nothing where the result is no grid of bounded size or a number overflows.

/// The sum of scaled forms.
std::optional<Affine> combine(const Affine &a, int64_t aScale, const Affine &b, int64_t bScale);
/// The size of dimension `dim` as a form without slopes.
Affine sizeForm(const LinearInt &dim, size_t rank);

Grid uniformGrid(Grid::Type type, llvm::ArrayRef<LinearInt> shape, double value);
std::optional<Grid> gridOf(const IntTensor &ints);
/// Elements by index, for shapes without S.
std::optional<IntTensor> integersOf(const Grid &grid, LengthRange range);

/// Whether the condition fails (or holds) at every index and length.
bool neverHolds(const Affine &condition, llvm::ArrayRef<LinearInt> shape, LengthRange range);
bool alwaysHolds(const Affine &condition, llvm::ArrayRef<LinearInt> shape, LengthRange range);
/// Adds a condition to a cell. False if the cell is empty then.
bool restrict(Cell &cell, const Affine &condition, llvm::ArrayRef<LinearInt> shape, LengthRange range);

/// The sizes of two shapes broadcast.
std::optional<llvm::SmallVector<LinearInt, 4>> broadcastShapes(llvm::ArrayRef<LinearInt> a,
                                                               llvm::ArrayRef<LinearInt> b);
std::optional<Grid> broadcast(const Grid &grid, llvm::ArrayRef<LinearInt> shape);
/// The grid repeated to a shape that it fits only where the sequence has no more than the step's tokens: some of its
/// dimensions count these, where the shape's count S. Whatever comes of it has a meaning at these lengths alone, as in the
/// model itself.
std::optional<Grid> broadcastAtStart(const Grid &grid, llvm::ArrayRef<LinearInt> shape, LengthRange range);

/// An elementwise op of ONNX by its name, on operands that are broadcast.
std::optional<Grid> elementwise(llvm::StringRef op, llvm::ArrayRef<Grid> operands, LengthRange range);
std::optional<Grid> castGrid(const Grid &grid, Grid::Type type, LengthRange range);

/// Element i of dimension `to` takes the place of a form over the new dimensions in dimension `from` of the old ones.
std::optional<Grid> substitute(const Grid &grid, llvm::ArrayRef<Affine> indices, llvm::ArrayRef<LinearInt> shape,
                               LengthRange range);

std::optional<Grid> transpose(const Grid &grid, llvm::ArrayRef<int64_t> perm);
std::optional<Grid> unsqueeze(const Grid &grid, llvm::ArrayRef<int64_t> axes);
std::optional<Grid> squeeze(const Grid &grid, llvm::ArrayRef<int64_t> axes);
std::optional<Grid> concat(llvm::ArrayRef<Grid> grids, int64_t axis, LengthRange range);
/// The elements at or below (or above) diagonal `k` of the last two dimensions, zero elsewhere.
std::optional<Grid> triangle(const Grid &grid, const LinearInt &k, bool upper, LengthRange range);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_GRID_H
