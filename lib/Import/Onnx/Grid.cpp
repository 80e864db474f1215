//===- Grid.cpp - Integers, masks and positions as formulas ----------------===//
#include "lib/Import/Onnx/Grid.h"

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"

#include <cmath>
#include <limits>

using llvm::ArrayRef;
using llvm::SmallVector;
using llvm::StringRef;

namespace helix::onnximport {
namespace {

// A causal window with bounds makes about five cells.
constexpr size_t kMaxCells = 64, kMaxConditions = 32;
constexpr size_t kMaxRank = 8;
constexpr int64_t kMaxIntegers = 65536;

/// The least or the greatest value of a form without slopes, or nothing if it is unbounded.
std::optional<int64_t> extreme(int64_t constant, int64_t total, LengthRange range, int64_t least, bool greatest) {
  int64_t length = (total > 0) == greatest ? range.context : least;
  int64_t scaled, sum;
  if (__builtin_mul_overflow(total, length, &scaled) || __builtin_add_overflow(constant, scaled, &sum))
    return std::nullopt;
  return sum;
}

/// An upper bound of a form over all indices and lengths.
std::optional<int64_t> upperBound(const Affine &form, ArrayRef<LinearInt> shape, LengthRange range) {
  int64_t constant = form.constant, total = form.total;
  bool hasIndex = false;
  for (auto [d, slope] : llvm::enumerate(form.slope)) {
    if (slope == 0)
      continue;
    hasIndex = true;
    // The greatest index is size - 1, the least 0.
    int64_t part;
    if (slope > 0 &&
        (__builtin_mul_overflow(slope, shape[d].constant - 1, &part) ||
         __builtin_add_overflow(constant, part, &constant) || __builtin_mul_overflow(slope, shape[d].total, &part) ||
         __builtin_add_overflow(total, part, &total)))
      return std::nullopt;
  }
  return extreme(constant, total, range, hasIndex ? range.tokens : 1, /*greatest=*/true);
}

std::optional<Affine> negated(const Affine &condition) {
  // not (x >= 0) is -x - 1 >= 0.
  std::optional<Affine> result = combine(condition, -1, {}, 0);
  if (!result || __builtin_sub_overflow(result->constant, 1, &result->constant))
    return std::nullopt;
  return result;
}

double toFloat(double value) {
  if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
    // Half a unit in the last place above the greatest float rounds to infinity.
    constexpr double kHalfUnit = 0x1p103;
    if (std::abs(value) >= static_cast<double>(std::numeric_limits<float>::max()) + kHalfUnit)
      return std::copysign(std::numeric_limits<double>::infinity(), value);
    return std::copysign(static_cast<double>(std::numeric_limits<float>::max()), value);
  }
  return static_cast<float>(value);
}

/// A cell's value alone, no conditions.
Cell constantCell(size_t rank, Grid::Type type, double value) {
  Cell cell;
  cell.form.slope.assign(rank, 0);
  if (type == Grid::Type::Float)
    cell.number = value;
  else
    cell.form.constant = static_cast<int64_t>(value);
  return cell;
}

/// The cells of one op on one combination of operand cells: conditions beyond those of the operands, and the value.
using Combine = llvm::function_ref<std::optional<std::vector<Cell>>(ArrayRef<const Cell *>)>;

std::optional<Grid> combineCells(Grid::Type type, ArrayRef<LinearInt> shape, ArrayRef<Grid> operands, LengthRange range,
                                 Combine function) {
  Grid result{.type = type, .shape = SmallVector<LinearInt, 4>(shape)};
  if (llvm::any_of(operands, [](const Grid &g) { return g.isOpaque(); }))
    return result;
  SmallVector<size_t> choice(operands.size(), 0);
  for (bool more = true; more;) {
    Cell together;
    SmallVector<const Cell *> cells;
    bool possible = true;
    for (auto [operand, index] : llvm::zip_equal(operands, choice)) {
      const Cell &cell = operand.cells[index];
      cells.push_back(&cell);
      for (const Affine &condition : cell.where)
        possible = possible &&restrict(together, condition, shape, range);
    }
    if (possible) {
      std::optional<std::vector<Cell>> parts = function(cells);
      if (!parts)
        return std::nullopt;
      for (Cell &part : *parts) {
        Cell cell = together;
        cell.form = part.form;
        cell.number = type == Grid::Type::Float ? toFloat(part.number) : part.number;
        if (llvm::all_of(part.where, [&](const Affine &c) { return restrict(cell, c, shape, range); }))
          result.cells.push_back(std::move(cell));
      }
      if (result.cells.size() > kMaxCells || together.where.size() > kMaxConditions)
        return std::nullopt;
    }
    more = false;
    for (size_t i = 0; i < choice.size() && !more; ++i) {
      more = ++choice[i] < operands[i].cells.size();
      if (!more)
        choice[i] = 0;
    }
  }
  if (result.cells.empty())
    return std::nullopt;
  // One cell is enough where all agree.
  const Cell &first = result.cells.front();
  if (llvm::all_of(result.cells, [&](const Cell &c) { return c.form == first.form && c.number == first.number; })) {
    result.cells.resize(1);
    result.cells[0].where.clear();
  }
  return result;
}

using Cells = std::optional<std::vector<Cell>>;

/// 1 where the condition holds, else 0.
Cells truth(const Affine &condition, size_t rank) {
  std::optional<Affine> otherwise = negated(condition);
  if (!otherwise)
    return std::nullopt;
  Cell yes = constantCell(rank, Grid::Type::Bool, 1), no = constantCell(rank, Grid::Type::Bool, 0);
  yes.where.push_back(condition);
  no.where.push_back(*otherwise);
  return std::vector<Cell>{yes, no};
}

Cells compare(StringRef op, const Cell &a, const Cell &b, size_t rank) {
  if (a.isConstant() && b.isConstant()) {
    double x = a.constant(), y = b.constant();
    bool holds = op == "Less"             ? x < y
                 : op == "LessOrEqual"    ? x <= y
                 : op == "Greater"        ? x > y
                 : op == "GreaterOrEqual" ? x >= y
                                          : x == y;
    return std::vector<Cell>{constantCell(rank, Grid::Type::Bool, holds)};
  }
  // Integers in floating point compare as integers do, but against other numbers they do not.
  if (a.number != 0 || b.number != 0)
    return std::nullopt;
  bool isLess = op.starts_with("Less"), isStrict = op == "Less" || op == "Greater";
  std::optional<Affine> difference = combine(b.form, isLess ? 1 : -1, a.form, isLess ? -1 : 1);
  if (!difference)
    return std::nullopt;
  if (op != "Equal") {
    if (isStrict && __builtin_sub_overflow(difference->constant, 1, &difference->constant))
      return std::nullopt;
    return truth(*difference, rank);
  }
  std::optional<Affine> opposite = combine(*difference, -1, {}, 0);
  std::optional<Affine> below = negated(*difference), above = opposite ? negated(*opposite) : std::nullopt;
  if (!below || !above)
    return std::nullopt;
  Cell yes = constantCell(rank, Grid::Type::Bool, 1), no = constantCell(rank, Grid::Type::Bool, 0), other = no;
  yes.where = {*difference, *opposite};
  no.where = {*below};
  other.where = {*above};
  return std::vector<Cell>{yes, no, other};
}

/// The greater or the lesser of two forms: one where it is, else the other.
Cells extremes(const Cell &a, const Cell &b, bool greater) {
  std::optional<Affine> difference = combine(a.form, greater ? 1 : -1, b.form, greater ? -1 : 1);
  std::optional<Affine> otherwise = difference ? negated(*difference) : std::nullopt;
  if (!otherwise)
    return std::nullopt;
  return std::vector<Cell>{Cell{.where = {*difference}, .form = a.form}, Cell{.where = {*otherwise}, .form = b.form}};
}

/// Arithmetic on integers, as forms.
std::optional<Cell> integerArithmetic(StringRef op, const Cell &a, const Cell &b) {
  Cell cell;
  std::optional<Affine> form;
  if (op == "Add" || op == "Sub") {
    form = combine(a.form, 1, b.form, op == "Add" ? 1 : -1);
  } else if (op == "Mul") {
    if (a.isConstant())
      form = combine(b.form, a.form.constant, {}, 0);
    else if (b.isConstant())
      form = combine(a.form, b.form.constant, {}, 0);
  } else if (a.isConstant() && b.isConstant()) {
    int64_t x = a.form.constant, y = b.form.constant;
    form = Affine{.slope = a.form.slope};
    if (op == "Div") {
      if (y == 0 || (x == INT64_MIN && y == -1))
        return std::nullopt;
      form->constant = x / y;
    } else {
      form->constant = op == "Min" ? std::min(x, y) : std::max(x, y);
    }
  }
  if (!form)
    return std::nullopt;
  cell.form = *form;
  return cell;
}

std::optional<Cell> floatArithmetic(StringRef op, const Cell &a, const Cell &b, size_t rank) {
  if (!a.isConstant() || !b.isConstant())
    return std::nullopt;
  double x = a.constant(), y = b.constant(), value;
  if (op == "Add")
    value = x + y;
  else if (op == "Sub")
    value = x - y;
  else if (op == "Mul")
    value = x * y;
  else if (op == "Div")
    value = x / y;
  else
    value = op == "Min" ? std::min(x, y) : std::max(x, y);
  return constantCell(rank, Grid::Type::Float, value);
}

/// Reads each shape of the pattern of Where and binary ops.
std::optional<SmallVector<LinearInt, 4>> commonShape(ArrayRef<Grid> operands) {
  std::optional<SmallVector<LinearInt, 4>> shape = SmallVector<LinearInt, 4>(operands[0].shape);
  for (const Grid &operand : operands.drop_front())
    if (shape)
      shape = broadcastShapes(*shape, operand.shape);
  return shape;
}

} // namespace

std::optional<double> Grid::uniform() const {
  if (cells.size() != 1 || !cells[0].isConstant())
    return std::nullopt;
  return cells[0].constant();
}

const Affine *Grid::affine() const { return cells.size() == 1 && cells[0].number == 0 ? &cells[0].form : nullptr; }

std::optional<Affine> combine(const Affine &a, int64_t aScale, const Affine &b, int64_t bScale) {
  Affine result;
  auto sum = [&](int64_t x, int64_t y, int64_t &out) {
    int64_t xs, ys;
    return !__builtin_mul_overflow(x, aScale, &xs) && !__builtin_mul_overflow(y, bScale, &ys) &&
           !__builtin_add_overflow(xs, ys, &out);
  };
  if (!sum(a.constant, b.constant, result.constant) || !sum(a.total, b.total, result.total))
    return std::nullopt;
  result.slope.assign(std::max(a.slope.size(), b.slope.size()), 0);
  for (size_t d = 0; d < result.slope.size(); ++d)
    if (!sum(d < a.slope.size() ? a.slope[d] : 0, d < b.slope.size() ? b.slope[d] : 0, result.slope[d]))
      return std::nullopt;
  return result;
}

Affine sizeForm(const LinearInt &dim, size_t rank) {
  Affine form{.constant = dim.constant, .total = dim.total};
  form.slope.assign(rank, 0);
  return form;
}

Grid uniformGrid(Grid::Type type, ArrayRef<LinearInt> shape, double value) {
  Grid grid{.type = type, .shape = SmallVector<LinearInt, 4>(shape)};
  grid.cells.push_back(constantCell(shape.size(), type, value));
  return grid;
}

bool neverHolds(const Affine &condition, ArrayRef<LinearInt> shape, LengthRange range) {
  std::optional<int64_t> bound = upperBound(condition, shape, range);
  return bound && *bound < 0;
}

bool alwaysHolds(const Affine &condition, ArrayRef<LinearInt> shape, LengthRange range) {
  std::optional<Affine> otherwise = negated(condition);
  return otherwise && neverHolds(*otherwise, shape, range);
}

bool restrict(Cell &cell, const Affine &condition, ArrayRef<LinearInt> shape, LengthRange range) {
  if (neverHolds(condition, shape, range))
    return false;
  if (alwaysHolds(condition, shape, range) || llvm::is_contained(cell.where, condition))
    return true;
  for (const Affine &other : cell.where) {
    std::optional<Affine> sum = combine(condition, 1, other, 1);
    if (sum && neverHolds(*sum, shape, range))
      return false;
  }
  cell.where.push_back(condition);
  return true;
}

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
  if (!common || ArrayRef<LinearInt>(*common) != shape || shape.size() > kMaxRank)
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

std::optional<Grid> elementwise(StringRef op, ArrayRef<Grid> given, LengthRange range) {
  std::optional<SmallVector<LinearInt, 4>> shape = commonShape(given);
  if (!shape || shape->size() > kMaxRank)
    return std::nullopt;
  std::vector<Grid> operands;
  for (const Grid &operand : given) {
    std::optional<Grid> wide = broadcast(operand, *shape);
    if (!wide)
      return std::nullopt;
    operands.push_back(std::move(*wide));
  }
  size_t rank = shape->size();
  Grid::Type first = operands[0].type;
  auto constants = [](ArrayRef<const Cell *> cells) {
    return llvm::all_of(cells, [](const Cell *c) { return c->isConstant(); });
  };

  if (op == "Where") {
    if (first != Grid::Type::Bool || operands[1].type != operands[2].type)
      return std::nullopt;
    return combineCells(operands[1].type, *shape, operands, range, [&](ArrayRef<const Cell *> cells) -> Cells {
      Cell chosen = *cells[cells[0]->constant() != 0 ? 1 : 2];
      chosen.where.clear();
      return std::vector<Cell>{chosen};
    });
  }
  if (operands.size() == 2 && first != operands[1].type)
    return std::nullopt;
  if (op == "Less" || op == "LessOrEqual" || op == "Greater" || op == "GreaterOrEqual" || op == "Equal")
    return combineCells(Grid::Type::Bool, *shape, operands, range,
                        [&](ArrayRef<const Cell *> cells) { return compare(op, *cells[0], *cells[1], rank); });
  if (op == "And" || op == "Or" || op == "Xor" || op == "Not") {
    if (first != Grid::Type::Bool)
      return std::nullopt;
    return combineCells(first, *shape, operands, range, [&](ArrayRef<const Cell *> cells) -> Cells {
      bool a = cells[0]->constant() != 0, b = cells.size() > 1 && cells[1]->constant() != 0;
      bool value = op == "And" ? a && b : op == "Or" ? a || b : op == "Xor" ? a != b : !a;
      return std::vector<Cell>{constantCell(rank, first, value)};
    });
  }
  if (op == "IsNaN")
    return combineCells(Grid::Type::Bool, *shape, operands, range, [&](ArrayRef<const Cell *> cells) -> Cells {
      bool isNan = cells[0]->isConstant() && std::isnan(cells[0]->constant());
      return std::vector<Cell>{constantCell(rank, Grid::Type::Bool, isNan)};
    });
  if (first == Grid::Type::Bool)
    return std::nullopt;
  if (op == "Neg")
    return combineCells(first, *shape, operands, range, [&](ArrayRef<const Cell *> cells) -> Cells {
      std::optional<Affine> form = combine(cells[0]->form, -1, {}, 0);
      if (!form)
        return std::nullopt;
      Cell cell{.form = *form, .number = -cells[0]->number};
      return std::vector<Cell>{cell};
    });
  if (op != "Add" && op != "Sub" && op != "Mul" && op != "Div" && op != "Min" && op != "Max")
    return std::nullopt;
  return combineCells(first, *shape, operands, range, [&](ArrayRef<const Cell *> cells) -> Cells {
    if ((op == "Min" || op == "Max") && first == Grid::Type::Int && !constants(cells))
      return extremes(*cells[0], *cells[1], op == "Max");
    std::optional<Cell> cell = first == Grid::Type::Int ? integerArithmetic(op, *cells[0], *cells[1])
                               : constants(cells)       ? floatArithmetic(op, *cells[0], *cells[1], rank)
                                                        : std::nullopt;
    if (!cell)
      return std::nullopt;
    return std::vector<Cell>{*cell};
  });
}

std::optional<Grid> castGrid(const Grid &grid, Grid::Type type, LengthRange range) {
  if (type == grid.type)
    return grid;
  if (type == Grid::Type::Bool) {
    std::optional<Grid> isZero = elementwise("Equal", {grid, uniformGrid(grid.type, ArrayRef<LinearInt>(), 0)}, range);
    return isZero ? elementwise("Not", {*isZero}, range) : std::nullopt;
  }
  Grid result = grid;
  result.type = type;
  for (Cell &cell : result.cells) {
    if (type == Grid::Type::Int) {
      // Truncation of what has a fraction or may not fit is not followed.
      if (cell.number != std::floor(cell.number) || std::abs(cell.number) > 0x1p53)
        return std::nullopt;
      if (__builtin_add_overflow(cell.form.constant, static_cast<int64_t>(cell.number), &cell.form.constant))
        return std::nullopt;
      cell.number = 0;
    } else if (cell.isConstant()) {
      cell.number = toFloat(static_cast<double>(cell.form.constant));
      cell.form.constant = 0;
    }
  }
  return result;
}

std::optional<Grid> substitute(const Grid &grid, ArrayRef<Affine> indices, ArrayRef<LinearInt> shape,
                               LengthRange range) {
  if (shape.size() > kMaxRank)
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
  if (rank > kMaxRank)
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

std::optional<Grid> gridOf(const IntTensor &ints) {
  Grid grid{.type = Grid::Type::Int};
  size_t rank = ints.shape.size();
  if (rank > kMaxRank)
    return std::nullopt;
  for (int64_t dim : ints.shape)
    grid.shape.push_back({.constant = dim});
  auto formOf = [&](const LinearInt &element) {
    // A sequence's own length is S here.
    Affine form{.constant = element.constant, .total = element.total + element.rowFactor};
    form.slope.assign(rank, 0);
    return form;
  };
  size_t count = ints.elements.size();
  if (count == 0 || llvm::any_of(ints.elements, [](const LinearInt &e) { return e.unknown; }))
    return std::nullopt;
  Affine start = formOf(ints.elements[0]);
  auto strides = [&](size_t d) {
    int64_t stride = 1;
    for (size_t e = d + 1; e < rank; ++e)
      stride *= ints.shape[e];
    return stride;
  };
  // One form, if the elements grow evenly along each dimension.
  Affine form = start;
  bool even = true;
  for (size_t d = 0; d < rank; ++d)
    if (ints.shape[d] > 1) {
      Affine next = formOf(ints.elements[strides(d)]);
      even =
          even && next.total == start.total && !__builtin_sub_overflow(next.constant, start.constant, &form.slope[d]);
    }
  for (size_t i = 0; i < count && even; ++i) {
    Affine expected = start;
    for (size_t d = 0; d < rank; ++d) {
      int64_t step = 0;
      if (__builtin_mul_overflow(form.slope[d], static_cast<int64_t>(i) / strides(d) % ints.shape[d], &step) ||
          __builtin_add_overflow(expected.constant, step, &expected.constant))
        return std::nullopt;
    }
    even = formOf(ints.elements[i]) == expected;
  }
  if (even) {
    grid.cells.push_back({.form = form});
    return grid;
  }
  // Else a cell for each element of a short list.
  constexpr size_t kMaxListed = 16;
  if (rank != 1 || count > kMaxListed)
    return std::nullopt;
  for (size_t i = 0; i < count; ++i) {
    int64_t at = static_cast<int64_t>(i);
    Cell cell{.form = formOf(ints.elements[i])};
    cell.where = {Affine{.constant = -at, .slope = {1}}, Affine{.constant = at, .slope = {-1}}};
    grid.cells.push_back(std::move(cell));
  }
  return grid;
}

std::optional<IntTensor> integersOf(const Grid &grid, LengthRange range) {
  IntTensor ints;
  int64_t count = 1;
  for (const LinearInt &dim : grid.shape) {
    if (!dim.isConstant() || __builtin_mul_overflow(count, dim.constant, &count) || count > kMaxIntegers)
      return std::nullopt;
    ints.shape.push_back(dim.constant);
  }
  if (grid.type == Grid::Type::Float)
    return std::nullopt;
  auto at = [&](const Affine &form, ArrayRef<int64_t> index) -> std::optional<Affine> {
    std::optional<Affine> value = Affine{.constant = form.constant, .total = form.total};
    for (auto [slope, i] : llvm::zip_equal(form.slope, index))
      if (value)
        value = combine(*value, 1, Affine{.constant = slope}, i);
    return value;
  };
  for (int64_t i = 0; i < count; ++i) {
    SmallVector<int64_t> index(ints.shape.size());
    int64_t rest = i;
    for (size_t d = ints.shape.size(); d-- > 0; rest /= ints.shape[d])
      index[d] = rest % ints.shape[d];
    std::optional<LinearInt> element;
    for (const Cell &cell : grid.cells) {
      bool here = true, decided = true;
      for (const Affine &condition : cell.where) {
        std::optional<Affine> value = at(condition, index);
        if (!value)
          return std::nullopt;
        here &= alwaysHolds(*value, {}, range);
        decided &= alwaysHolds(*value, {}, range) || neverHolds(*value, {}, range);
      }
      if (!decided && !here)
        return std::nullopt;
      std::optional<Affine> value = here ? at(cell.form, index) : std::nullopt;
      if (value)
        element = LinearInt{.constant = value->constant, .total = value->total};
    }
    if (!element)
      return std::nullopt;
    ints.elements.push_back(*element);
  }
  return ints;
}

} // namespace helix::onnximport
