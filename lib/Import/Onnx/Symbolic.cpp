//===- Symbolic.cpp - Nodes on formulas, constants and tables of positions -===//
#include "lib/Import/Onnx/Symbolic.h"

#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/HeadBias.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

constexpr StringRef kOps[] = {"Abs",
                              "Add",
                              "And",
                              "Cast",
                              "Concat",
                              "ConstantOfShape",
                              "Cos",
                              "CumSum",
                              "Div",
                              "Equal",
                              "Erf",
                              "Exp",
                              "Expand",
                              "Flatten",
                              "Floor",
                              "Gather",
                              "GatherND",
                              "Greater",
                              "GreaterOrEqual",
                              "IsNaN",
                              "Less",
                              "Log",
                              "LessOrEqual",
                              "MatMul",
                              "Max",
                              "Min",
                              "Mul",
                              "Neg",
                              "Not",
                              "Or",
                              "Pow",
                              "Range",
                              "Reciprocal",
                              "ReduceMax",
                              "ReduceMin",
                              "Reshape",
                              "Sin",
                              "Slice",
                              "Sqrt",
                              "Sub",
                              "Squeeze",
                              "Tanh",
                              "Tile",
                              "Transpose",
                              "Trilu",
                              "Unsqueeze",
                              "Where",
                              "Xor"};
std::optional<Dense::Type> typeOf(const Entry &entry, int64_t onnxType) {
  // A model in half precision is computed in f32.
  if (entry.half && (onnxType == onnx::TensorProto::FLOAT16 || onnxType == onnx::TensorProto::BFLOAT16))
    return Dense::Type::Float;
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
    FailureOr<IntTensor> sizes = op == "Reshape" ? reshapeSizes(entry, node) : integers(entry, node, index);
    if (failed(sizes))
      return failure();
    parsed.sizes.assign(sizes->elements.begin(), sizes->elements.end());
    return success();
  };
  if (op == "Cast") {
    int64_t to = attributes.required("to");
    attributes.ignore("saturate");
    attributes.ignore("round_mode");
    parsed.type = typeOf(entry, to);
    if (failed(attributes.finish()))
      return failure();
    if (!parsed.type)
      return castError(entry, node, to);
  } else if (op == "Concat" || op == "Gather") {
    parsed.numbers = {op == "Concat" ? attributes.required("axis") : attributes.integer("axis", 0)};
  } else if (op == "Flatten") {
    parsed.numbers = {attributes.integer("axis", 1)};
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
  } else if (op == "Reshape" || op == "Expand" || op == "Tile") {
    parsed.data = 1;
    if (op == "Reshape")
      attributes.onlyInteger("allowzero", 0, {0, 1});
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
} // namespace

LogicalResult notFollowed(Entry &entry, const onnx::NodeProto &node) {
  InFlightDiagnostic diagnostic = nodeError(entry.context, node, ErrorCode::NotFollowed);
  diagnostic << "its result cannot be followed at import, from";
  for (int i = 0; i < node.input_size(); ++i)
    if (!node.input(i).empty())
      diagnostic << (i == 0 ? " " : ", ") << quoted(node.input(i));
  return diagnostic;
}

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
  // A matrix is turned where it is used.
  const GraphValue *first = operand(entry, node, 0);
  if (op == "Transpose" && first && first->kind == Kind::Weight && first->weight->floatType(entry.context) &&
      first->weight->shape.size() == 2)
    return false;
  if (op == "Concat")
    return !onlyInts || node.input_size() == 0;
  if (op == "Cast" && !hasFormula && node.input_size() == 1) {
    const GraphValue *value = operand(entry, node, 0);
    const auto &attributes = node.attribute();
    auto to = llvm::find_if(attributes, [](const auto &a) { return a.name() == "to"; });
    std::optional<Dense::Type> type = to == attributes.end() ? std::nullopt : typeOf(entry, to->i());
    bool isNumber = value && value->kind == Kind::Weight && value->weight->floatType(entry.context);
    return type && (onlyInts ? *type != Dense::Type::Int : isNumber ? *type != Dense::Type::Float : true);
  }
  if (op == "Cast" && hasFormula) {
    const GraphValue *value = operand(entry, node, 0);
    auto to = llvm::find_if(node.attribute(), [](const auto &a) { return a.name() == "to"; });
    bool toInteger = to != node.attribute().end() && typeOf(entry, to->i()) == Dense::Type::Int;
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
  if (!hasTable)
    if (std::optional<HeadBias> bias = headBiasOf(entry, node)) {
      define(entry, node, 0, {.kind = Kind::HeadBias, .bias = std::make_shared<const HeadBias>(std::move(*bias))});
      return success();
    }
  return parsed.data == 0 ? notFollowed(entry, node) : importOnTables(entry, node, parsed);
}

} // namespace helix::onnximport
