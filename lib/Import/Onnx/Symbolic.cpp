//===- Symbolic.cpp - Nodes on formulas, constants and tables of positions -===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include "llvm/Support/Endian.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

constexpr StringRef kOps[] = {"Abs",    "Add",        "And",       "Cast",        "Concat",  "ConstantOfShape",
                              "Cos",    "CumSum",     "Div",       "Equal",       "Erf",     "Exp",
                              "Expand", "Floor",      "Gather",    "GatherND",    "Greater", "GreaterOrEqual",
                              "IsNaN",  "Less",       "Log",       "LessOrEqual", "MatMul",  "Max",
                              "Min",    "Mul",        "Neg",       "Not",         "Or",      "Pow",
                              "Range",  "Reciprocal", "ReduceMax", "ReduceMin",   "Reshape", "Sin",
                              "Slice",  "Sqrt",       "Sub",       "Squeeze",     "Tanh",    "Transpose",
                              "Trilu",  "Unsqueeze",  "Where",     "Xor"};

/// One dimension cut by a Slice.
struct Cut {
  int64_t axis = 0;
  LinearInt first = {}, count = {};
  int64_t step = 1;
};

/// A node with its parameters resolved.
struct Parsed {
  StringRef op;
  /// How many of the first operands are data rather than parameters.
  int data = 0;
  /// Axes, a permutation and the like.
  SmallVector<int64_t> numbers = {};
  /// Shapes.
  SmallVector<LinearInt> sizes = {};
  /// Starts, ends, axes and steps of Slice as given.
  std::optional<IntTensor> starts = {}, ends = {};
  SmallVector<int64_t> axes = {}, steps = {};
  std::optional<Dense::Type> type = {};
  bool exclusive = false, reverse = false, upper = true;
  double fill = 0;
  LinearInt diagonal = {};
};

LogicalResult notFollowed(Entry &entry, const onnx::NodeProto &node) {
  InFlightDiagnostic diagnostic = nodeError(entry.context, node, ErrorCode::NotFollowed);
  diagnostic << "its result cannot be followed at import, from";
  for (int i = 0; i < node.input_size(); ++i)
    if (!node.input(i).empty())
      diagnostic << (i == 0 ? " " : ", ") << quoted(node.input(i));
  return diagnostic;
}

std::optional<Dense::Type> typeOf(int64_t onnxType) {
  switch (onnxType) {
  case onnx::TensorProto::BOOL:
    return Dense::Type::Bool;
  case onnx::TensorProto::INT32:
  case onnx::TensorProto::INT64:
    return Dense::Type::Int;
  case onnx::TensorProto::FLOAT:
    return Dense::Type::Float;
  default:
    return std::nullopt;
  }
}

FailureOr<SmallVector<int64_t>> constantInts(Entry &entry, const onnx::NodeProto &node, int index) {
  FailureOr<IntTensor> ints = integers(entry, node, index);
  if (failed(ints))
    return failure();
  SmallVector<int64_t> values;
  for (const LinearInt &element : ints->elements) {
    if (!element.isConstant()) {
      (void)operandError(entry, node, index, "constants");
      return failure();
    }
    values.push_back(element.constant);
  }
  return values;
}

LogicalResult parse(Entry &entry, const onnx::NodeProto &node, Parsed &parsed) {
  Attributes attributes(entry.context, node);
  StringRef op = parsed.op = node.op_type();
  parsed.data = node.input_size();
  // Axes come as an operand, or before some opset as an attribute.
  auto axesOperand = [&](int index) -> LogicalResult {
    parsed.data = 1;
    if (std::optional<SmallVector<int64_t>> axes = attributes.integers("axes"))
      parsed.numbers = *axes;
    else if (operand(entry, node, index)) {
      FailureOr<SmallVector<int64_t>> given = constantInts(entry, node, index);
      if (failed(given))
        return failure();
      parsed.numbers = *given;
    }
    return success();
  };
  auto sizesOperand = [&](int index) -> LogicalResult {
    FailureOr<IntTensor> sizes = integers(entry, node, index);
    if (failed(sizes))
      return failure();
    parsed.sizes.assign(sizes->elements.begin(), sizes->elements.end());
    return success();
  };
  if (op == "Cast") {
    int64_t to = attributes.required("to");
    attributes.ignore("saturate");
    attributes.ignore("round_mode");
    parsed.type = typeOf(to);
    if (failed(attributes.finish()))
      return failure();
    if (!parsed.type)
      return nodeError(entry.context, node, ErrorCode::TypeUnsupported)
             << "casts to " << typeText(to) << ", which would change the values; export the model in float32";
  } else if (op == "Concat" || op == "Gather") {
    parsed.numbers = {op == "Concat" ? attributes.required("axis") : attributes.integer("axis", 0)};
  } else if (op == "GatherND") {
    attributes.onlyInteger("batch_dims", 0, {0});
  } else if (op == "Transpose") {
    if (std::optional<SmallVector<int64_t>> perm = attributes.integers("perm"))
      parsed.numbers = *perm;
  } else if (op == "Unsqueeze" || op == "Squeeze" || op == "ReduceMax" || op == "ReduceMin") {
    if (op.starts_with("Reduce")) {
      parsed.exclusive = attributes.integer("keepdims", 1) == 0;
      attributes.onlyInteger("noop_with_empty_axes", 0, {0});
    }
    if (failed(axesOperand(1)))
      return failure();
  } else if (op == "Reshape" || op == "Expand") {
    parsed.data = 1;
    if (op == "Reshape")
      attributes.onlyInteger("allowzero", 0, {0});
    if (failed(sizesOperand(1)))
      return failure();
  } else if (op == "ConstantOfShape") {
    parsed.data = 0;
    parsed.type = Dense::Type::Float;
    if (const onnx::TensorProto *value = attributes.tensor("value")) {
      FailureOr<const StoredTensor *> stored = storedOf(entry, *value, node.output(0));
      FailureOr<std::optional<Dense>> dense =
          failed(stored) ? FailureOr<std::optional<Dense>>(failure()) : denseOf(entry, **stored);
      if (failed(dense))
        return failure();
      if (!*dense || (*dense)->values.size() != 1)
        return notFollowed(entry, node);
      parsed.type = (*dense)->type;
      parsed.fill = (*dense)->values.front();
    }
    if (failed(sizesOperand(0)))
      return failure();
  } else if (op == "CumSum") {
    parsed.data = 1;
    parsed.exclusive = attributes.integer("exclusive", 0) != 0;
    parsed.reverse = attributes.integer("reverse", 0) != 0;
    if (failed(axesOperand(1)))
      return failure();
  } else if (op == "Trilu") {
    parsed.data = 1;
    parsed.upper = attributes.integer("upper", 1) != 0;
    if (operand(entry, node, 1)) {
      FailureOr<IntTensor> k = integers(entry, node, 1);
      if (failed(k))
        return failure();
      if (k->elements.size() != 1)
        return operandError(entry, node, 1, "one integer");
      parsed.diagonal = k->elements[0];
    }
  } else if (op == "Slice") {
    parsed.data = 1;
    FailureOr<IntTensor> starts = integers(entry, node, 1), ends = integers(entry, node, 2);
    if (failed(starts) || failed(ends))
      return failure();
    parsed.starts = *starts;
    parsed.ends = *ends;
    size_t count = starts->elements.size();
    for (size_t i = 0; i < count; ++i)
      parsed.axes.push_back(i);
    parsed.steps.assign(count, 1);
    for (int index : {3, 4})
      if (operand(entry, node, index)) {
        FailureOr<SmallVector<int64_t>> given = constantInts(entry, node, index);
        if (failed(given))
          return failure();
        (index == 3 ? parsed.axes : parsed.steps) = *given;
      }
    if (ends->elements.size() != count || parsed.axes.size() != count || parsed.steps.size() != count)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "has " << count << " starts, but other counts of ends, axes or steps";
  }
  return attributes.finish();
}

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

//===----------------------------------------------------------------------===//
// Formulas
//===----------------------------------------------------------------------===//

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
  if (!form || index.type != Grid::Type::Int)
    return std::nullopt;
  Affine wrapped = *form;
  size_t inner = index.shape.size(), rank = data.shape.size() + inner - 1;
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
  SmallVector<LinearInt, 4> shape(data.shape.begin(), data.shape.begin() + axis);
  shape.append(index.shape.begin(), index.shape.end());
  shape.append(data.shape.begin() + axis + 1, data.shape.end());
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

std::optional<Grid> reshapeGrid(const Grid &grid, ArrayRef<LinearInt> given) {
  SmallVector<LinearInt, 4> sizes(given), from;
  for (auto [d, size] : llvm::enumerate(sizes))
    if (size == LinearInt{}) {
      if (d >= grid.shape.size())
        return std::nullopt;
      size = grid.shape[d];
    }
  const LinearInt one{.constant = 1}, minusOne{.constant = -1};
  SmallVector<LinearInt, 4> oldSizes, newSizes;
  llvm::copy_if(grid.shape, std::back_inserter(oldSizes), [&](LinearInt s) { return s != one; });
  llvm::copy_if(sizes, std::back_inserter(newSizes), [&](LinearInt s) { return s != one; });
  // What is left for a -1 is a size of the old shape, or 1.
  if (auto *open = llvm::find(newSizes, minusOne); open != newSizes.end()) {
    size_t at = open - newSizes.begin();
    LinearInt size = newSizes.size() == oldSizes.size() ? oldSizes[at] : one;
    if (newSizes.size() == oldSizes.size() + 1)
      newSizes.erase(open);
    else
      *open = size;
    *llvm::find(sizes, minusOne) = size;
  }
  std::optional<double> uniform = grid.uniform();
  if (oldSizes != newSizes) {
    // Every shape of as many elements will do where all are the same; products of S are not compared.
    auto isKnown = [&](ArrayRef<LinearInt> shape) {
      return llvm::all_of(shape, [&](LinearInt s) { return s.rowFactor == 0 && s != minusOne; });
    };
    SmallVector<LinearInt, 4> a(oldSizes), b(newSizes);
    auto less = [](const LinearInt &x, const LinearInt &y) {
      return std::pair(x.total, x.constant) < std::pair(y.total, y.constant);
    };
    llvm::sort(a, less);
    llvm::sort(b, less);
    return uniform && isKnown(sizes) && a == b ? std::optional(uniformGrid(grid.type, sizes, *uniform)) : std::nullopt;
  }
  // Only dimensions of size 1 come and go.
  SmallVector<int64_t> dropped, added;
  for (auto [d, size] : llvm::enumerate(grid.shape))
    if (size == one)
      dropped.push_back(d);
  for (auto [d, size] : llvm::enumerate(sizes))
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

std::optional<Grid> onGrids(const Parsed &parsed, ArrayRef<Grid> operands, LengthRange range) {
  StringRef op = parsed.op;
  if (op == "ConstantOfShape") {
    for (const LinearInt &size : parsed.sizes)
      if (size.rowFactor != 0 || !holds({.constant = size.constant - 1, .total = size.total}, range))
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
  if (op == "Expand") {
    std::optional<SmallVector<LinearInt, 4>> shape = broadcastShapes(first.shape, parsed.sizes);
    return shape ? broadcast(first, *shape) : std::nullopt;
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
  return elementwise(op, operands, range);
}

//===----------------------------------------------------------------------===//
// Constants and tables
//===----------------------------------------------------------------------===//

/// The op on constants of these shapes.
std::optional<DenseOp> denseOp(const Parsed &parsed, ArrayRef<int64_t> shape) {
  DenseOp op{.name = parsed.op.str()};
  int64_t rank = shape.size();
  StringRef name = parsed.op;
  if (isElementwise(name)) {
    if (name == "Cast")
      op.numbers = {static_cast<int64_t>(*parsed.type)};
    return op;
  }
  if (name == "MatMul")
    return op;
  if (name == "Transpose") {
    std::optional<SmallVector<int64_t>> perm = normalPerm(parsed.numbers, rank);
    if (!perm)
      return std::nullopt;
    op.numbers.append(*perm);
    return op;
  }
  if (name == "Unsqueeze" || name == "Squeeze" || name == "Concat" || name == "Gather") {
    SmallVector<int64_t> given = parsed.numbers;
    for (int64_t d = 0; d < rank; ++d)
      if (name == "Squeeze" && parsed.numbers.empty() && shape[d] == 1)
        given.push_back(d);
    std::optional<SmallVector<int64_t>> axes =
        normalAxes(given, name == "Unsqueeze" ? rank + static_cast<int64_t>(given.size()) : rank);
    if (!axes || (name == "Squeeze" && llvm::any_of(*axes, [&](int64_t a) { return shape[a] != 1; })))
      return std::nullopt;
    op.numbers.append(*axes);
    return op;
  }
  if (name == "Reshape" || name == "Expand") {
    int64_t count = 1, known = 1;
    for (int64_t dim : shape)
      count *= dim;
    int64_t *open = nullptr;
    for (auto [d, size] : llvm::enumerate(parsed.sizes)) {
      if (!size.isConstant() || (name == "Expand" && size.constant < 1))
        return std::nullopt;
      bool keep = name == "Reshape" && size.constant == 0;
      if (keep && static_cast<int64_t>(d) >= rank)
        return std::nullopt;
      op.numbers.push_back(keep ? shape[d] : size.constant);
    }
    for (int64_t &size : op.numbers) {
      if (size == -1 && !open)
        open = &size;
      else if (size < 1 || __builtin_mul_overflow(known, size, &known))
        return std::nullopt;
    }
    if (open && count % known != 0)
      return std::nullopt;
    if (open)
      *open = count / known;
    return op;
  }
  if (name == "Slice") {
    SmallVector<LinearInt> sizes;
    for (int64_t dim : shape)
      sizes.push_back({.constant = dim});
    std::optional<SmallVector<Cut>> cuts = cutsOf(parsed, sizes, {});
    if (!cuts)
      return std::nullopt;
    for (const Cut &cut : *cuts) {
      if (!cut.first.isConstant() || !cut.count.isConstant())
        return std::nullopt;
      op.numbers.append({cut.axis, cut.first.constant, cut.count.constant, cut.step});
    }
    return op;
  }
  return std::nullopt;
}

/// A value as a constant, if it is one that may be computed with.
FailureOr<std::optional<Dense>> constantDense(Entry &entry, const GraphValue &value) {
  if (value.kind == Kind::Weight)
    return denseOf(entry, *value.weight);
  if (value.kind != Kind::Ints || !value.ints.isConstant())
    return std::optional<Dense>();
  Dense dense{.type = Dense::Type::Int};
  dense.shape.assign(value.ints.shape.begin(), value.ints.shape.end());
  for (const LinearInt &element : value.ints.elements) {
    if (std::abs(static_cast<double>(element.constant)) > 0x1p53)
      return std::optional<Dense>();
    dense.values.push_back(static_cast<double>(element.constant));
  }
  return std::optional<Dense>(std::move(dense));
}

LogicalResult defineDense(Entry &entry, const onnx::NodeProto &node, const Dense &dense) {
  if (dense.type == Dense::Type::Int) {
    IntTensor ints;
    ints.shape.assign(dense.shape.begin(), dense.shape.end());
    for (double value : dense.values)
      ints.elements.push_back({.constant = static_cast<int64_t>(value)});
    defineInts(entry, node, 0, std::move(ints));
    return success();
  }
  FailureOr<const StoredTensor *> stored = makeConstant(entry, node, node.output(0), dense);
  if (failed(stored))
    return failure();
  define(entry, node, 0, {.kind = Kind::Weight, .weight = *stored});
  return success();
}

std::shared_ptr<const Table> constantTable(Dense dense) {
  auto table = std::make_shared<Table>();
  table->rank = dense.shape.size();
  table->row = [dense = std::move(dense)](int64_t) { return std::optional(dense); };
  return table;
}

/// A formula as a table: one that grows with the position along one dimension, or with the position alone.
std::shared_ptr<const Table> tableOf(Entry &entry, const Grid &grid) {
  Dense::Type type = grid.type == Grid::Type::Bool  ? Dense::Type::Bool
                     : grid.type == Grid::Type::Int ? Dense::Type::Int
                                                    : Dense::Type::Float;
  SmallVector<int64_t, 4> ones(grid.shape.size(), 1);
  if (std::optional<double> value = grid.uniform())
    return constantTable({.type = type, .shape = ones, .values = {*value}});
  const Affine *form = grid.affine();
  if (!form || form->total != 1)
    return nullptr;
  auto table = std::make_shared<Table>();
  table->rank = grid.shape.size();
  for (auto [d, slope] : llvm::enumerate(form->slope)) {
    if (slope == 0)
      continue;
    if (slope != 1 || table->tokenAxis != -1 || grid.shape[d] != LinearInt{.constant = entry.tokens})
      return nullptr;
    table->tokenAxis = d;
  }
  // In a step of several tokens a number that is the same for all would be that of one of them.
  if (entry.tokens > 1 && table->tokenAxis == -1)
    return nullptr;
  int64_t offset = form->constant + entry.tokens;
  table->row = [=](int64_t position) {
    return std::optional(Dense{.type = type, .shape = ones, .values = {static_cast<double>(position + offset)}});
  };
  return table;
}

/// Rows of a constant by position.
std::shared_ptr<const Table> gatherRows(Entry &entry, const StoredTensor &stored, const Table &index) {
  auto table = std::make_shared<Table>();
  std::optional<Dense> first = index.row(0);
  if (!first || first->type != Dense::Type::Int || first->values.size() != 1 || first->values[0] != 0)
    return nullptr;
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return nullptr;
  SmallVector<int64_t, 4> shape(first->shape);
  shape.append(stored.shape.begin() + 1, stored.shape.end());
  table->rank = shape.size();
  table->tokenAxis = index.tokenAxis;
  table->stored = &stored;
  table->positions = stored.shape[0];
  auto data = std::make_shared<const std::string>(std::move(*bytes));
  StoredTensor row = stored;
  row.shape[0] = 1;
  row.elements = stored.elements / stored.shape[0];
  row.bytes = stored.bytes / stored.shape[0];
  MLIRContext *context = entry.context;
  table->row = [=](int64_t position) -> std::optional<Dense> {
    Dense dense{.shape = shape};
    auto type = cast<FloatType>(row.floatType(context));
    int64_t width = type.getWidth() / 8;
    const char *at = data->data() + position * row.bytes;
    for (int64_t i = 0; i < row.elements; ++i) {
      uint64_t bits =
          width == 4 ? llvm::support::endian::read32le(at + 4 * i) : llvm::support::endian::read16le(at + 2 * i);
      APFloat value(type.getFloatSemantics(), APInt(type.getWidth(), bits));
      bool lost = false;
      value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
      dense.values.push_back(value.convertToDouble());
    }
    return dense;
  };
  return table;
}

/// Where the token dimension of operand `table` is in the result; nothing if it does not survive as one.
std::optional<int64_t> movedAxis(const DenseOp &op, const Table &table, int64_t rank) {
  int64_t axis = table.tokenAxis;
  if (axis == -1)
    return -1;
  StringRef name = op.name;
  if (name == "Transpose")
    return llvm::find(op.numbers, axis) - op.numbers.begin();
  if (name == "Unsqueeze") {
    for (int64_t added : op.numbers)
      axis += added <= axis;
    return axis;
  }
  if (name == "Squeeze") {
    if (llvm::is_contained(op.numbers, axis))
      return std::nullopt;
    return axis - llvm::count_if(op.numbers, [&](int64_t dropped) { return dropped < table.tokenAxis; });
  }
  if (name == "Concat")
    return op.numbers[0] == axis ? std::nullopt : std::optional(axis);
  if (name == "Slice") {
    for (size_t i = 0; i < op.numbers.size(); i += 4)
      if (op.numbers[i] == axis)
        return std::nullopt;
    return axis;
  }
  if (isElementwise(name) || name == "Expand" || name == "MatMul")
    return rank - (table.rank - axis);
  return std::nullopt;
}

LogicalResult importOnTables(Entry &entry, const onnx::NodeProto &node, const Parsed &parsed) {
  SmallVector<std::shared_ptr<const Table>> tables;
  for (int i = 0; i < parsed.data; ++i) {
    const GraphValue *value = operand(entry, node, i);
    std::shared_ptr<const Table> table = value->table;
    if (value->kind == Kind::Weight && parsed.op == "Gather" && i == 0) {
      // Its rows are read in place.
      const GraphValue *index = operand(entry, node, 1);
      std::optional<Grid> positions = index ? gridOf(entry, *index) : std::nullopt;
      std::shared_ptr<const Table> rows = positions ? tableOf(entry, *positions) : nullptr;
      std::optional<SmallVector<int64_t>> axis = normalAxes(parsed.numbers, value->weight->shape.size());
      if (!rows || !axis || axis->front() != 0 || !value->weight->floatType(entry.context))
        return notFollowed(entry, node);
      table = gatherRows(entry, *value->weight, *rows);
      if (!table)
        return notFollowed(entry, node);
      define(entry, node, 0, {.kind = Kind::Table, .table = table});
      return success();
    }
    if (value->kind == Kind::Weight) {
      FailureOr<std::optional<Dense>> dense = denseOf(entry, *value->weight);
      if (failed(dense))
        return failure();
      if (*dense)
        table = constantTable(std::move(**dense));
    } else if (value->kind != Kind::Table) {
      std::optional<Grid> grid = gridOf(entry, *value);
      table = grid ? tableOf(entry, *grid) : nullptr;
    }
    if (!table)
      return notFollowed(entry, node);
    tables.push_back(std::move(table));
  }
  auto rowsAt = [](ArrayRef<std::shared_ptr<const Table>> tables,
                   int64_t position) -> std::optional<SmallVector<Dense>> {
    SmallVector<Dense> rows;
    for (const std::shared_ptr<const Table> &table : tables) {
      std::optional<Dense> row = table->row(position);
      if (!row)
        return std::nullopt;
      rows.push_back(std::move(*row));
    }
    return rows;
  };
  std::optional<SmallVector<Dense>> rows = tables.empty() ? std::nullopt : rowsAt(tables, 0);
  if (!rows)
    return notFollowed(entry, node);
  // Repeating along the tokens is what a table does by itself.
  Parsed own = parsed;
  if (parsed.op == "Expand" && tables[0]->tokenAxis != -1) {
    int64_t at = static_cast<int64_t>(parsed.sizes.size()) - (tables[0]->rank - tables[0]->tokenAxis);
    if (at >= 0 && own.sizes[at] == LinearInt{.constant = entry.tokens})
      own.sizes[at] = {.constant = 1};
  }
  std::optional<DenseOp> op = denseOp(own, (*rows)[0].shape);
  std::optional<Dense> first = op ? evaluate(*op, *rows) : std::nullopt;
  if (!first)
    return notFollowed(entry, node);
  auto result = std::make_shared<Table>();
  result->rank = first->shape.size();
  for (const std::shared_ptr<const Table> &table : tables) {
    std::optional<int64_t> axis = movedAxis(*op, *table, result->rank);
    if (!axis || (*axis != -1 && result->tokenAxis != -1 && *axis != result->tokenAxis))
      return notFollowed(entry, node);
    result->tokenAxis = *axis != -1 ? *axis : result->tokenAxis;
    if (table->positions)
      result->positions = std::min(*table->positions, result->positions.value_or(*table->positions));
  }
  if (result->tokenAxis != -1 && first->shape[result->tokenAxis] != 1)
    return notFollowed(entry, node);
  result->row = [op = *op, tables, rowsAt](int64_t position) -> std::optional<Dense> {
    std::optional<SmallVector<Dense>> rows = rowsAt(tables, position);
    return rows ? evaluate(op, *rows) : std::nullopt;
  };
  define(entry, node, 0, {.kind = Kind::Table, .table = result});
  return success();
}

} // namespace

bool isSymbolic(Entry &entry, const onnx::NodeProto &node) {
  StringRef op = node.op_type();
  if (!canonicalDomain(node.domain()).empty() || !llvm::is_contained(kOps, op))
    return false;
  bool onlyInts = true, hasFormula = false;
  for (int i = 0; i < node.input_size(); ++i) {
    const GraphValue *value = operand(entry, node, i);
    if (!value)
      continue;
    bool isFormula = llvm::is_contained({Kind::Grid, Kind::Mask, Kind::Positions, Kind::Table}, value->kind);
    if (!isFormula && value->kind != Kind::Ints && value->kind != Kind::Weight)
      return false;
    hasFormula |= isFormula;
    onlyInts &= isInteger(entry, node, i);
  }
  // Lists of integers have ops of their own, as has a weight that is only given another type.
  constexpr StringRef kOfIntegers[] = {"Add", "Sub", "Mul", "Div", "Gather", "Squeeze", "Unsqueeze"};
  if (onlyInts && llvm::is_contained(kOfIntegers, op))
    return false;
  if (op == "Concat")
    return !onlyInts || node.input_size() == 0;
  if (op == "Cast" && !hasFormula && node.input_size() == 1) {
    const GraphValue *value = operand(entry, node, 0);
    const auto &attributes = node.attribute();
    auto to = llvm::find_if(attributes, [](const auto &a) { return a.name() == "to"; });
    std::optional<Dense::Type> type = to == attributes.end() ? std::nullopt : typeOf(to->i());
    bool isNumber = value && value->kind == Kind::Weight && value->weight->floatType(entry.context);
    return type && (onlyInts ? *type != Dense::Type::Int : isNumber ? *type != Dense::Type::Float : true);
  }
  if (op == "Cast" && hasFormula) {
    const GraphValue *value = operand(entry, node, 0);
    auto to = llvm::find_if(node.attribute(), [](const auto &a) { return a.name() == "to"; });
    bool toInteger = to != node.attribute().end() && typeOf(to->i()) == Dense::Type::Int;
    return value->kind == Kind::Grid || value->kind == Kind::Table || !toInteger;
  }
  return true;
}

LogicalResult importSymbolic(Entry &entry, const onnx::NodeProto &node) {
  Parsed parsed;
  if (failed(parse(entry, node, parsed)))
    return failure();
  LengthRange range = entry.lengths();
  bool hasTable = false;
  std::vector<Grid> grids;
  SmallVector<Dense> constants;
  for (int i = 0; i < parsed.data; ++i) {
    const GraphValue *value = operand(entry, node, i);
    if (!value)
      return operandError(entry, node, i, "a value");
    hasTable |= value->kind == Kind::Table;
    if (std::optional<Grid> grid = gridOf(entry, *value))
      grids.push_back(std::move(*grid));
    // Rows of a large table that are read by position are no constants.
    if (value->kind == Kind::Weight && parsed.op == "Gather" && i == 0 && !isInteger(entry, node, 1))
      continue;
    FailureOr<std::optional<Dense>> dense = constantDense(entry, *value);
    if (failed(dense))
      return failure();
    if (*dense)
      constants.push_back(std::move(**dense));
  }
  if (!constants.empty() && static_cast<int>(constants.size()) == parsed.data) {
    std::optional<DenseOp> op = denseOp(parsed, constants[0].shape);
    if (std::optional<Dense> result = op ? evaluate(*op, constants) : std::nullopt)
      return defineDense(entry, node, *result);
  }
  if (!hasTable && static_cast<int>(grids.size()) == parsed.data)
    if (std::optional<Grid> grid = onGrids(parsed, grids, range)) {
      define(entry, node, 0, {.kind = Kind::Grid, .grid = std::move(*grid)});
      return success();
    }
  return parsed.data == 0 ? notFollowed(entry, node) : importOnTables(entry, node, parsed);
}

} // namespace helix::onnximport
