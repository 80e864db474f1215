//===- GridShapes.cpp - Formulas given other shapes --------------------------===//
#include "lib/Import/Onnx/GridDetail.h"

using llvm::ArrayRef;
using llvm::SmallVector;

namespace helix::onnximport {

std::optional<SmallVector<LinearInt, 4>> broadcastShapes(ArrayRef<LinearInt> a, ArrayRef<LinearInt> b) {
  if (a.size() < b.size())
    std::swap(a, b);
  SmallVector<LinearInt, 4> shape(a);
  for (size_t i = 0; i < b.size(); ++i) {
    LinearInt &dim = shape[a.size() - b.size() + i];
    if (dim == b[i] || b[i] == LinearInt{.constant = 1})
      continue;
    if (dim != LinearInt{.constant = 1})
      return std::nullopt;
    dim = b[i];
  }
  return shape;
}

std::optional<Grid> broadcast(const Grid &grid, ArrayRef<LinearInt> shape) {
  std::optional<SmallVector<LinearInt, 4>> common = broadcastShapes(grid.shape, shape);
  if (!common || ArrayRef<LinearInt>(*common) != shape || shape.size() > kMaxGridRank)
    return std::nullopt;
  size_t added = shape.size() - grid.shape.size();
  Grid result{.type = grid.type, .shape = *common, .cells = grid.cells};
  auto widen = [&](Affine &form) {
    // The only index of a dimension of size 1 is 0, so its slope must not count where the dimension is repeated.
    for (auto [d, slope] : llvm::enumerate(form.slope))
      if (grid.shape[d] == LinearInt{.constant = 1})
        slope = 0;
    form.slope.insert(form.slope.begin(), added, 0);
  };
  for (Cell &cell : result.cells) {
    widen(cell.form);
    llvm::for_each(cell.where, widen);
  }
  return result;
}

std::optional<Grid> broadcastAtStart(const Grid &grid, ArrayRef<LinearInt> shape, LengthRange range) {
  const LinearInt tokens{.constant = range.tokens}, all{.total = 1};
  Grid result = grid;
  bool isBound = false;
  for (size_t i = 1; i <= std::min(shape.size(), grid.shape.size()); ++i) {
    LinearInt &size = result.shape[grid.shape.size() - i];
    if (range.tokens > 1 && size == tokens && shape[shape.size() - i] == all) {
      size = all;
      isBound = true;
    }
  }
  std::optional<SmallVector<LinearInt, 4>> common = broadcastShapes(result.shape, shape);
  if (!isBound || !common)
    return std::nullopt;
  Affine bound{.constant = range.tokens, .total = -1};
  bound.slope.assign(grid.shape.size(), 0);
  for (Cell &cell : result.cells)
    cell.where.push_back(bound);
  return broadcast(result, *common);
}

std::optional<Grid> substitute(const Grid &grid, ArrayRef<Affine> indices, ArrayRef<LinearInt> shape,
                               LengthRange range) {
  if (shape.size() > kMaxGridRank)
    return std::nullopt;
  auto rewrite = [&](const Affine &form) -> std::optional<Affine> {
    std::optional<Affine> result = Affine{.constant = form.constant, .total = form.total};
    result->slope.assign(shape.size(), 0);
    for (auto [slope, index] : llvm::zip_equal(form.slope, indices))
      if (result && slope != 0)
        result = combine(*result, 1, index, slope);
    return result;
  };
  Grid result{.type = grid.type, .shape = SmallVector<LinearInt, 4>(shape)};
  for (const Cell &cell : grid.cells) {
    Cell moved{.number = cell.number};
    std::optional<Affine> form = rewrite(cell.form);
    if (!form)
      return std::nullopt;
    moved.form = *form;
    bool possible = true;
    for (const Affine &condition : cell.where) {
      std::optional<Affine> rewritten = rewrite(condition);
      if (!rewritten)
        return std::nullopt;
      possible = possible &&restrict(moved, *rewritten, shape, range);
    }
    if (possible)
      result.cells.push_back(std::move(moved));
  }
  if (result.cells.empty() && !grid.isOpaque())
    return std::nullopt;
  return result;
}

namespace {

/// Moves dimension `order[d]` of the grid (none if -1: a new one of size 1) to d.
Grid reorder(const Grid &grid, ArrayRef<int64_t> order) {
  Grid result{.type = grid.type, .cells = grid.cells};
  for (int64_t from : order)
    result.shape.push_back(from < 0 ? LinearInt{.constant = 1} : grid.shape[from]);
  auto move = [&](Affine &form) {
    SmallVector<int64_t, 4> slope;
    for (int64_t from : order)
      slope.push_back(from < 0 ? 0 : form.slope[from]);
    form.slope = slope;
  };
  for (Cell &cell : result.cells) {
    move(cell.form);
    llvm::for_each(cell.where, move);
  }
  return result;
}

} // namespace

std::optional<Grid> transpose(const Grid &grid, ArrayRef<int64_t> perm) { return reorder(grid, perm); }

std::optional<Grid> unsqueeze(const Grid &grid, ArrayRef<int64_t> axes) {
  SmallVector<int64_t> order;
  size_t rank = grid.shape.size() + axes.size();
  if (rank > kMaxGridRank)
    return std::nullopt;
  int64_t next = 0;
  for (size_t d = 0; d < rank; ++d)
    order.push_back(llvm::is_contained(axes, static_cast<int64_t>(d)) ? -1 : next++);
  return reorder(grid, order);
}

std::optional<Grid> squeeze(const Grid &grid, ArrayRef<int64_t> axes) {
  SmallVector<int64_t> order;
  for (auto [d, dim] : llvm::enumerate(grid.shape)) {
    if (!llvm::is_contained(axes, static_cast<int64_t>(d)))
      order.push_back(d);
    else if (dim != LinearInt{.constant = 1})
      return std::nullopt;
  }
  return reorder(grid, order);
}

std::optional<Grid> concat(ArrayRef<Grid> grids, int64_t axis, LengthRange range) {
  Grid result{.type = grids[0].type, .shape = grids[0].shape};
  size_t rank = result.shape.size();
  Affine start;
  start.slope.assign(rank, 0);
  for (const Grid &grid : grids) {
    if (grid.type != result.type || grid.shape.size() != rank || grid.isOpaque())
      return std::nullopt;
    for (size_t d = 0; d < rank; ++d)
      if (static_cast<int64_t>(d) != axis && grid.shape[d] != result.shape[d])
        return std::nullopt;
    std::optional<Affine> next = combine(start, 1, sizeForm(grid.shape[axis], rank), 1);
    if (!next)
      return std::nullopt;
    start = *next;
  }
  result.shape[axis] = {.constant = start.constant, .total = start.total};

  start = Affine{};
  start.slope.assign(rank, 0);
  for (const Grid &grid : grids) {
    // Index i of the result is i - start of this part, where that is from 0 to its size - 1.
    SmallVector<Affine> indices;
    for (size_t d = 0; d < rank; ++d) {
      Affine index;
      index.slope.assign(rank, 0);
      index.slope[d] = 1;
      indices.push_back(index);
    }
    std::optional<Affine> shifted = combine(indices[axis], 1, start, -1);
    std::optional<Affine> last = shifted ? combine(sizeForm(grid.shape[axis], rank), 1, *shifted, -1) : std::nullopt;
    std::optional<Affine> next = combine(start, 1, sizeForm(grid.shape[axis], rank), 1);
    if (!shifted || !last || !next)
      return std::nullopt;
    last->constant -= 1;
    indices[axis] = *shifted;
    std::optional<Grid> moved = substitute(grid, indices, result.shape, range);
    if (!moved)
      return std::nullopt;
    for (Cell &cell : moved->cells)
      if (restrict(cell, *shifted, result.shape, range) &&restrict(cell, *last, result.shape, range))
        result.cells.push_back(std::move(cell));
    start = *next;
  }
  if (result.cells.empty() || result.cells.size() > kMaxCells)
    return std::nullopt;
  const Cell &first = result.cells.front();
  if (llvm::all_of(result.cells, [&](const Cell &c) { return c.form == first.form && c.number == first.number; })) {
    result.cells.resize(1);
    result.cells[0].where.clear();
  }
  return result;
}

std::optional<Grid> triangle(const Grid &grid, const LinearInt &k, bool upper, LengthRange range) {
  size_t rank = grid.shape.size();
  if (rank < 2 || grid.isOpaque())
    return std::nullopt;
  // Row i and column j are kept where j - i <= k, or >= k if `upper`.
  Affine condition{.constant = upper ? -k.constant : k.constant, .total = upper ? -k.total : k.total};
  condition.slope.assign(rank, 0);
  condition.slope[rank - 1] = upper ? 1 : -1;
  condition.slope[rank - 2] = upper ? -1 : 1;
  std::optional<Affine> otherwise = negated(condition);
  if (!otherwise)
    return std::nullopt;
  Grid result{.type = grid.type, .shape = grid.shape};
  Cell outside = constantCell(rank, grid.type, 0);
  if (restrict(outside, *otherwise, grid.shape, range))
    result.cells.push_back(outside);
  for (Cell cell : grid.cells)
    if (restrict(cell, condition, grid.shape, range))
      result.cells.push_back(std::move(cell));
  return result;
}

} // namespace helix::onnximport
