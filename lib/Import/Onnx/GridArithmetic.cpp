//===- GridArithmetic.cpp - Elementwise ops on formulas ----------------------===//
#include "lib/Import/Onnx/GridDetail.h"

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"

#include <cmath>
#include <limits>

using llvm::ArrayRef;
using llvm::SmallVector;
using llvm::StringRef;

namespace helix::onnximport {
namespace {

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

std::optional<Grid> elementwise(StringRef op, ArrayRef<Grid> given, LengthRange range) {
  std::optional<SmallVector<LinearInt, 4>> shape = commonShape(given);
  if (!shape || shape->size() > kMaxGridRank)
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

} // namespace helix::onnximport
