//===- SymbolicGrids.cpp - Nodes on formulas -------------------------------===//
#include "lib/Import/Onnx/Symbolic.h"

using namespace mlir;

namespace helix::onnximport {

// No mask has more dimensions.
static constexpr size_t kMaxRank = 8;

/// Axes made non-negative, checked and sorted.
std::optional<SmallVector<int64_t>> normalAxes(ArrayRef<int64_t> axes, int64_t rank) {
  SmallVector<int64_t> result;
  for (int64_t axis : axes) {
    axis = axis < 0 ? axis + rank : axis;
    if (axis < 0 || axis >= rank || llvm::is_contained(result, axis))
      return std::nullopt;
    result.push_back(axis);
  }
  llvm::sort(result);
  return result;
}

std::optional<SmallVector<int64_t>> normalPerm(ArrayRef<int64_t> perm, int64_t rank) {
  if (perm.empty()) {
    SmallVector<int64_t> reversed;
    for (int64_t d = rank; d-- > 0;)
      reversed.push_back(d);
    return reversed;
  }
  std::optional<SmallVector<int64_t>> sorted = normalAxes(perm, rank);
  if (!sorted || static_cast<int64_t>(perm.size()) != rank || llvm::any_of(perm, [](int64_t d) { return d < 0; }))
    return std::nullopt;
  return SmallVector<int64_t>(perm);
}
namespace {

bool holds(const LinearInt &value, LengthRange range) {
  return alwaysHolds({.constant = value.constant, .total = value.total}, {}, range);
}

LinearInt minus(const LinearInt &a, const LinearInt &b) {
  // Lengths and bounds of slices: far from overflow, or the comparison that follows refuses them.
  return {.constant = static_cast<int64_t>(static_cast<uint64_t>(a.constant) - static_cast<uint64_t>(b.constant)),
          .total = static_cast<int64_t>(static_cast<uint64_t>(a.total) - static_cast<uint64_t>(b.total))};
}

/// A bound of a slice within 0 to size.
std::optional<LinearInt> clampBound(const LinearInt &given, const LinearInt &size, LengthRange range) {
  constexpr int64_t kFar = int64_t(1) << 31;
  if (given.rowFactor != 0)
    return std::nullopt;
  LinearInt bound = given;
  if (bound.isConstant() && bound.constant >= kFar - 1)
    return size;
  if (bound.isConstant() && bound.constant <= -kFar)
    return LinearInt{};
  if (holds(minus({.constant = -1}, bound), range)) {
    bound.constant += size.constant;
    bound.total += size.total;
  }
  if (!holds(bound, range))
    return size.isConstant() && bound.isConstant() ? std::optional(LinearInt{}) : std::nullopt;
  if (holds(minus(size, bound), range))
    return bound;
  return holds(minus(bound, size), range) ? std::optional(size) : std::nullopt;
}
} // namespace

std::optional<SmallVector<Cut>> cutsOf(const Parsed &parsed, ArrayRef<LinearInt> shape, LengthRange range) {
  std::optional<SmallVector<int64_t>> distinct = normalAxes(parsed.axes, shape.size());
  if (!distinct)
    return std::nullopt;
  SmallVector<Cut> cuts;
  for (size_t i = 0; i < parsed.axes.size(); ++i) {
    int64_t axis = parsed.axes[i] < 0 ? parsed.axes[i] + shape.size() : parsed.axes[i];
    std::optional<LinearInt> first = clampBound(parsed.starts->elements[i], shape[axis], range);
    std::optional<LinearInt> end = clampBound(parsed.ends->elements[i], shape[axis], range);
    int64_t step = parsed.steps[i];
    if (!first || !end || step < 1)
      return std::nullopt;
    LinearInt count = minus(*end, *first);
    if (step > 1 && !count.isConstant())
      return std::nullopt;
    count.constant = count.isConstant() ? count.constant / step + (count.constant % step > 0) : count.constant;
    // An empty slice is not something to compute with.
    if (!holds({.constant = count.constant - 1, .total = count.total}, range))
      return std::nullopt;
    cuts.push_back({axis, *first, count, step});
  }
  return cuts;
}
namespace {

std::optional<Grid> sliceGrid(const Grid &grid, ArrayRef<Cut> cuts, LengthRange range) {
  SmallVector<LinearInt, 4> shape = grid.shape;
  SmallVector<Affine> indices;
  for (size_t d = 0; d < shape.size(); ++d) {
    Affine index;
    index.slope.assign(shape.size(), 0);
    index.slope[d] = 1;
    indices.push_back(index);
  }
  for (const Cut &cut : cuts) {
    shape[cut.axis] = cut.count;
    indices[cut.axis].constant = cut.first.constant;
    indices[cut.axis].total = cut.first.total;
    indices[cut.axis].slope[cut.axis] = cut.count == LinearInt{.constant = 1} ? 0 : cut.step;
  }
  return substitute(grid, indices, shape, range);
}

std::optional<Grid> gatherGrid(const Grid &data, const Grid &index, int64_t axis, LengthRange range) {
  const Affine *form = index.affine();
  size_t inner = index.shape.size(), rank = data.shape.size() + inner - 1;
  if (rank > kMaxRank)
    return std::nullopt;
  SmallVector<LinearInt, 4> shape(data.shape.begin(), data.shape.begin() + axis);
  shape.append(index.shape.begin(), index.shape.end());
  shape.append(data.shape.begin() + axis + 1, data.shape.end());
  // Whatever the indices are, all elements are the same.
  if (std::optional<double> uniform = data.uniform())
    return uniformGrid(data.type, shape, *uniform);
  if (!form || index.type != Grid::Type::Int)
    return std::nullopt;
  Affine wrapped = *form;
  if (neverHolds(wrapped, index.shape, range)) {
    wrapped.constant += data.shape[axis].constant;
    wrapped.total += data.shape[axis].total;
  }
  std::optional<Affine> room = combine(sizeForm(data.shape[axis], inner), 1, wrapped, -1);
  if (!room)
    return std::nullopt;
  room->constant -= 1;
  if (!alwaysHolds(wrapped, index.shape, range) || !alwaysHolds(*room, index.shape, range))
    return std::nullopt;
  SmallVector<Affine> indices;
  for (size_t d = 0; d < data.shape.size(); ++d) {
    Affine position;
    position.slope.assign(rank, 0);
    if (static_cast<int64_t>(d) == axis) {
      position.constant = wrapped.constant;
      position.total = wrapped.total;
      for (size_t e = 0; e < inner; ++e)
        position.slope[axis + e] = wrapped.slope[e];
    } else {
      position.slope[static_cast<int64_t>(d) < axis ? d : d + inner - 1] = 1;
    }
    indices.push_back(position);
  }
  return substitute(data, indices, shape, range);
}

/// The product of sizes of which one at most counts S.
std::optional<LinearInt> productOf(ArrayRef<LinearInt> sizes) {
  LinearInt product{.constant = 1};
  for (const LinearInt &size : sizes) {
    const LinearInt &plain = size.isConstant() ? size : product, &other = size.isConstant() ? product : size;
    LinearInt next;
    if (!plain.isConstant() || other.rowFactor != 0 || other.unknown ||
        __builtin_mul_overflow(plain.constant, other.constant, &next.constant) ||
        __builtin_mul_overflow(plain.constant, other.total, &next.total))
      return std::nullopt;
    product = next;
  }
  return product;
}

} // namespace

std::optional<SmallVector<LinearInt, 4>> resolveSizes(ArrayRef<LinearInt> from, ArrayRef<LinearInt> given) {
  SmallVector<LinearInt, 4> sizes(given);
  const LinearInt open{.constant = -1};
  for (auto [d, size] : llvm::enumerate(sizes))
    if (size == LinearInt{}) {
      if (d >= from.size())
        return std::nullopt;
      size = from[d];
    }
  std::optional<LinearInt> have = productOf(from);
  auto *place = llvm::find(sizes, open);
  if (place != sizes.end()) {
    SmallVector<LinearInt, 4> others(sizes);
    others.erase(others.begin() + (place - sizes.begin()));
    std::optional<LinearInt> known = productOf(others);
    if (!have || !known)
      return std::nullopt;
    // Of two products with S the quotient is that of their factors.
    int64_t a = have->total != 0 ? have->total : have->constant, b = known->total != 0 ? known->total : known->constant;
    bool isRatio = have->total == 0 || have->constant == 0, isKnownRatio = known->total == 0 || known->constant == 0;
    if (!isRatio || !isKnownRatio || b < 1 || a % b != 0 || (known->total != 0 && have->total == 0))
      return std::nullopt;
    *place = have->total != 0 && known->total == 0 ? LinearInt{.total = a / b} : LinearInt{.constant = a / b};
  }
  std::optional<LinearInt> want = productOf(sizes);
  bool isValid = llvm::all_of(sizes, [](LinearInt s) { return !s.unknown && s.rowFactor == 0 && s != LinearInt{}; });
  if (!have || !want || *have != *want || !isValid || llvm::is_contained(sizes, open))
    return std::nullopt;
  return sizes;
}

namespace {

std::optional<Grid> reshapeGrid(const Grid &grid, ArrayRef<LinearInt> given) {
  std::optional<SmallVector<LinearInt, 4>> sizes = resolveSizes(grid.shape, given);
  if (!sizes)
    return std::nullopt;
  // Every shape of as many elements will do where all are the same.
  if (std::optional<double> uniform = grid.uniform())
    return uniformGrid(grid.type, *sizes, *uniform);
  const LinearInt one{.constant = 1};
  SmallVector<LinearInt, 4> oldSizes, newSizes;
  llvm::copy_if(grid.shape, std::back_inserter(oldSizes), [&](LinearInt s) { return s != one; });
  llvm::copy_if(*sizes, std::back_inserter(newSizes), [&](LinearInt s) { return s != one; });
  if (oldSizes != newSizes)
    return std::nullopt;
  // Only dimensions of size 1 come and go.
  SmallVector<int64_t> dropped, added;
  for (auto [d, size] : llvm::enumerate(grid.shape))
    if (size == one)
      dropped.push_back(d);
  for (auto [d, size] : llvm::enumerate(*sizes))
    if (size == one)
      added.push_back(d);
  std::optional<Grid> bare = squeeze(grid, dropped);
  return bare ? unsqueeze(*bare, added) : std::nullopt;
}

/// The sum of the elements up to each along an axis; all elements must be the same.
std::optional<Grid> cumulate(const Grid &grid, const Parsed &parsed) {
  std::optional<double> uniform = grid.uniform();
  std::optional<SmallVector<int64_t>> axes = normalAxes(parsed.numbers, grid.shape.size());
  if (!uniform || grid.type != Grid::Type::Int || !axes || axes->size() != 1)
    return std::nullopt;
  int64_t axis = axes->front(), value = static_cast<int64_t>(*uniform);
  Grid result{.type = grid.type, .shape = grid.shape};
  Affine count;
  count.slope.assign(grid.shape.size(), 0);
  if (parsed.reverse)
    count = sizeForm(grid.shape[axis], grid.shape.size());
  count.slope[axis] = parsed.reverse ? -1 : 1;
  count.constant += (parsed.reverse ? 0 : 1) - (parsed.exclusive ? 1 : 0);
  std::optional<Affine> form = combine(count, value, {}, 0);
  if (!form)
    return std::nullopt;
  result.cells.push_back({.form = *form});
  return result;
}

/// The greatest or least element along axes.
std::optional<Grid> extremeGrid(const Grid &grid, const Parsed &parsed, LengthRange range) {
  const Affine *form = grid.affine();
  SmallVector<int64_t> all(parsed.numbers);
  if (all.empty())
    all.append(llvm::to_vector(llvm::seq<int64_t>(0, grid.shape.size())));
  std::optional<SmallVector<int64_t>> axes = normalAxes(all, grid.shape.size());
  if (!form || !axes || grid.type != Grid::Type::Int)
    return std::nullopt;
  SmallVector<Cut> cuts;
  for (int64_t axis : *axes) {
    LinearInt last = grid.shape[axis];
    last.constant -= 1;
    bool wantsLast = (form->slope[axis] > 0) == (parsed.op == "ReduceMax");
    cuts.push_back({.axis = axis, .first = wantsLast ? last : LinearInt{}, .count = {.constant = 1}});
  }
  std::optional<Grid> result = sliceGrid(grid, cuts, range);
  return result && parsed.exclusive ? squeeze(*result, *axes) : result;
}

std::optional<Grid> rangeGrid(ArrayRef<Grid> operands) {
  const Affine *start = operands[0].affine(), *limit = operands[1].affine();
  std::optional<double> step = operands[2].uniform();
  bool scalars = llvm::all_of(operands, [](const Grid &g) { return g.shape.empty() && g.type == Grid::Type::Int; });
  if (!scalars || !start || !limit || step != 1.0)
    return std::nullopt;
  std::optional<Affine> count = combine(*limit, 1, *start, -1);
  if (!count || (count->total == 0 && count->constant < 1))
    return std::nullopt;
  Grid grid{.shape = {LinearInt{.constant = count->constant, .total = count->total}}};
  Affine form = *start;
  form.slope = {grid.shape[0] == LinearInt{.constant = 1} ? 0 : 1};
  grid.cells.push_back({.form = form});
  return grid;
}

} // namespace

std::optional<Grid> onGrids(const Parsed &parsed, ArrayRef<Grid> operands, LengthRange range) {
  StringRef op = parsed.op;
  if (parsed.sizes.size() > kMaxRank)
    return std::nullopt;
  if (op == "ConstantOfShape") {
    for (const LinearInt &size : parsed.sizes)
      if (size.rowFactor != 0 || !holds({.constant = size.constant - 1, .total = size.total}, range))
        return std::nullopt;
    if (*parsed.type == Dense::Type::Int && std::abs(parsed.fill) > 0x1p53)
      return std::nullopt;
    auto type = *parsed.type == Dense::Type::Bool  ? Grid::Type::Bool
                : *parsed.type == Dense::Type::Int ? Grid::Type::Int
                                                   : Grid::Type::Float;
    return uniformGrid(type, parsed.sizes, parsed.fill);
  }
  if (operands.empty())
    return std::nullopt;
  const Grid &first = operands[0];
  int64_t rank = first.shape.size();
  if (op == "Cast")
    return castGrid(first,
                    *parsed.type == Dense::Type::Bool  ? Grid::Type::Bool
                    : *parsed.type == Dense::Type::Int ? Grid::Type::Int
                                                       : Grid::Type::Float,
                    range);
  if (op == "Transpose") {
    std::optional<SmallVector<int64_t>> perm = normalPerm(parsed.numbers, rank);
    return perm ? transpose(first, *perm) : std::nullopt;
  }
  if (op == "Unsqueeze") {
    std::optional<SmallVector<int64_t>> axes = normalAxes(parsed.numbers, rank + parsed.numbers.size());
    return axes ? unsqueeze(first, *axes) : std::nullopt;
  }
  if (op == "Squeeze") {
    SmallVector<int64_t> given = parsed.numbers;
    for (auto [d, size] : llvm::enumerate(first.shape))
      if (parsed.numbers.empty() && size == LinearInt{.constant = 1})
        given.push_back(d);
    std::optional<SmallVector<int64_t>> axes = normalAxes(given, rank);
    return axes ? squeeze(first, *axes) : std::nullopt;
  }
  if (op == "Reshape")
    return reshapeGrid(first, parsed.sizes);
  if (op == "Flatten") {
    int64_t axis = parsed.numbers[0] + (parsed.numbers[0] < 0 ? rank : 0);
    if (axis < 0 || axis > rank)
      return std::nullopt;
    ArrayRef<LinearInt> shape = first.shape;
    std::optional<LinearInt> outer = productOf(shape.take_front(axis)), inner = productOf(shape.drop_front(axis));
    return outer && inner ? reshapeGrid(first, {*outer, *inner}) : std::nullopt;
  }
  if (op == "Expand") {
    std::optional<SmallVector<LinearInt, 4>> shape = broadcastShapes(first.shape, parsed.sizes);
    return shape ? broadcast(first, *shape) : broadcastAtStart(first, parsed.sizes, range);
  }
  if (op == "Tile") {
    // What is repeated has one element along the dimension.
    SmallVector<LinearInt, 4> shape = first.shape;
    if (parsed.sizes.size() != shape.size())
      return std::nullopt;
    for (auto [size, repeats] : llvm::zip_equal(shape, parsed.sizes)) {
      const LinearInt one{.constant = 1};
      if (repeats == one)
        continue;
      if (size != one || !repeats.isConstant() || repeats.constant < 1)
        return std::nullopt;
      size = repeats;
    }
    return broadcast(first, shape);
  }
  if (op == "Slice") {
    std::optional<SmallVector<Cut>> cuts = cutsOf(parsed, first.shape, range);
    return cuts ? sliceGrid(first, *cuts, range) : std::nullopt;
  }
  if (op == "Concat" || op == "Gather") {
    std::optional<SmallVector<int64_t>> axis = normalAxes(parsed.numbers, rank);
    if (!axis)
      return std::nullopt;
    if (op == "Concat")
      return concat(operands, axis->front(), range);
    return gatherGrid(first, operands[1], axis->front(), range);
  }
  if (op == "GatherND") {
    // Whatever the indices are, all elements are the same.
    std::optional<double> uniform = first.uniform();
    ArrayRef<LinearInt> index = operands[1].shape;
    if (!uniform || index.empty() || !index.back().isConstant() || index.back().constant < 1 ||
        index.back().constant > rank)
      return std::nullopt;
    SmallVector<LinearInt, 4> shape(index.drop_back());
    shape.append(first.shape.begin() + index.back().constant, first.shape.end());
    if (shape.size() > kMaxRank)
      return std::nullopt;
    return uniformGrid(first.type, shape, *uniform);
  }
  if (op == "CumSum")
    return cumulate(first, parsed);
  if (op == "ReduceMax" || op == "ReduceMin")
    return extremeGrid(first, parsed, range);
  if (op == "Trilu")
    return triangle(first, parsed.diagonal, parsed.upper, range);
  if (op == "Range")
    return rangeGrid(operands);
  if (op == "MatMul")
    return std::nullopt;
  if (std::optional<Grid> result = elementwise(op, operands, range))
    return result;
  // Indices that are no formula may still pick among elements that are all the same.
  std::optional<SmallVector<LinearInt, 4>> shape = first.shape;
  for (const Grid &operand : operands)
    shape = shape ? broadcastShapes(*shape, operand.shape) : std::nullopt;
  bool isIndex = llvm::all_of(operands, [](const Grid &g) { return g.type == Grid::Type::Int; }) &&
                 llvm::is_contained({"Add", "Sub", "Mul", "Div"}, op);
  return isIndex && shape ? std::optional(Grid{.shape = *shape}) : std::nullopt;
}

} // namespace helix::onnximport
