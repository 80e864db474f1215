//===- Grid.cpp - Integers, masks and positions as formulas ------------------===//
#include "lib/Import/Onnx/GridDetail.h"

using llvm::ArrayRef;
using llvm::SmallVector;

namespace helix::onnximport {
namespace {

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
  return extreme(constant, total, range, hasIndex ? std::max(range.tokens, range.least) : range.least,
                 /*greatest=*/true);
}

} // namespace

std::optional<Affine> negated(const Affine &condition) {
  // not (x >= 0) is -x - 1 >= 0.
  std::optional<Affine> result = combine(condition, -1, {}, 0);
  if (!result || __builtin_sub_overflow(result->constant, 1, &result->constant))
    return std::nullopt;
  return result;
}

Cell constantCell(size_t rank, Grid::Type type, double value) {
  Cell cell;
  cell.form.slope.assign(rank, 0);
  if (type == Grid::Type::Float)
    cell.number = value;
  else
    cell.form.constant = static_cast<int64_t>(value);
  return cell;
}

std::optional<double> Grid::uniform() const {
  // Larger integers need not be numbers of f64.
  constexpr int64_t kExact = int64_t(1) << 53;
  if (cells.size() != 1 || !cells[0].isConstant() || cells[0].form.constant > kExact ||
      cells[0].form.constant < -kExact)
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

LengthRange narrowed(LengthRange range, ArrayRef<Affine> conditions) {
  for (const Affine &condition : conditions)
    if (condition.total < 0 && condition.constant >= 0 &&
        llvm::all_of(condition.slope, [](int64_t slope) { return slope == 0; }))
      range.context = std::min(range.context, condition.constant / -condition.total);
  return range;
}

bool restrict(Cell &cell, const Affine &condition, ArrayRef<LinearInt> shape, LengthRange range) {
  range = narrowed(range, cell.where);
  LengthRange whole = range;
  range = narrowed(range, condition);
  if (neverHolds(condition, shape, range))
    return false;
  if (alwaysHolds(condition, shape, whole) || llvm::is_contained(cell.where, condition))
    return true;
  for (const Affine &other : cell.where) {
    std::optional<Affine> sum = combine(condition, 1, other, 1);
    if (sum && neverHolds(*sum, shape, range))
      return false;
  }
  cell.where.push_back(condition);
  return true;
}

std::optional<Grid> gridOf(const IntTensor &ints) {
  Grid grid{.type = Grid::Type::Int};
  size_t rank = ints.shape.size();
  if (rank > kMaxGridRank)
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
    if (!dim.isConstant() || __builtin_mul_overflow(count, dim.constant, &count) || count > kMaxGridIntegers)
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
