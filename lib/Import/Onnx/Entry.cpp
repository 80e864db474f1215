//===- Entry.cpp - One function being imported: values, weights, operands --===//
#include "lib/Import/Onnx/Entry.h"
#include "lib/Import/Onnx/Attributes.h"

#include "llvm/Support/Endian.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

// Integer constants in a decoder are axes, shapes and the like; weights are never integers.
constexpr int64_t kMaxIntegers = 65536;

StringRef kindText(GraphValue::Kind kind) {
  switch (kind) {
  case GraphValue::Kind::Tensor:
    return "a tensor of activations";
  case GraphValue::Kind::Turned:
    return "a constant, transposed";
  case GraphValue::Kind::Mix:
    return "a tensor of activations, rearranged";
  case GraphValue::Kind::Norm:
    return "activations in the middle of a norm";
  case GraphValue::Kind::Cached:
    return "keys or values of all tokens";
  case GraphValue::Kind::Scores:
    return "products of queries and keys";
  case GraphValue::Kind::HeadBias:
    return "a bias per head that grows with the key's position";
  case GraphValue::Kind::Weight:
    return "a constant";
  case GraphValue::Kind::Grid:
    return "integers, truths or numbers computed from positions and lengths";
  case GraphValue::Kind::Table:
    return "numbers computed from the positions";
  case GraphValue::Kind::Ints:
    return "integers computed from shapes or lengths";
  case GraphValue::Kind::Ids:
    return "the token ids";
  case GraphValue::Kind::Mask:
    return "the attention mask";
  case GraphValue::Kind::Positions:
    return "the position ids";
  case GraphValue::Kind::Given:
    return "an input of integers or truths";
  case GraphValue::Kind::Past:
    return "a KV cache input";
  case GraphValue::Kind::Present:
    return "a KV cache output";
  }
  return "";
}

FailureOr<IntTensor> readIntegers(Entry &entry, const StoredTensor &stored) {
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return failure();
  IntTensor ints;
  ints.shape = stored.shape;
  bool wide = stored.proto->data_type() == onnx::TensorProto::INT64;
  for (int64_t i = 0; i < stored.elements; ++i) {
    LinearInt element;
    element.constant = wide ? static_cast<int64_t>(llvm::support::endian::read64le(bytes->data() + 8 * i))
                            : static_cast<int32_t>(llvm::support::endian::read32le(bytes->data() + 4 * i));
    ints.elements.push_back(element);
  }
  return ints;
}

} // namespace

const GraphValue *operand(Entry &entry, const onnx::NodeProto &node, int index) {
  if (index < 0 || index >= node.input_size() || node.input(index).empty())
    return nullptr;
  auto found = entry.values.find(node.input(index));
  return found == entry.values.end() ? nullptr : &found->second;
}

LogicalResult operandError(Entry &entry, const onnx::NodeProto &node, int index, const Twine &expected) {
  InFlightDiagnostic diagnostic = nodeError(entry.context, node, ErrorCode::OperandUnsupported);
  diagnostic << "operand " << index;
  if (index < node.input_size() && !node.input(index).empty())
    diagnostic << ' ' << quoted(node.input(index));
  const GraphValue *value = operand(entry, node, index);
  diagnostic << " is " << (value ? kindText(value->kind) : "missing") << ", but must be " << expected;
  return diagnostic;
}

FailureOr<View> viewOf(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (value &&
      llvm::is_contained({GraphValue::Kind::Mix, GraphValue::Kind::Norm, GraphValue::Kind::Table}, value->kind)) {
    bool isMix = value->kind == GraphValue::Kind::Mix, isNorm = value->kind == GraphValue::Kind::Norm;
    std::shared_ptr<const void> key = isMix    ? std::shared_ptr<const void>(value->mix)
                                      : isNorm ? std::shared_ptr<const void>(value->norm)
                                               : value->table;
    auto known = entry.made.find(key);
    if (known != entry.made.end())
      return known->second;
    FailureOr<View> view = isMix    ? viewOfMix(entry, node, index, *value->mix)
                           : isNorm ? viewOfNorm(entry, node, index, *value->norm)
                                    : viewOfTable(entry, node, index, value->table);
    if (succeeded(view))
      entry.made.emplace(key, *view);
    return view;
  }
  if (!value || value->kind != GraphValue::Kind::Tensor) {
    (void)operandError(entry, node, index, "a tensor of activations");
    return failure();
  }
  return value->groups.empty() ? identityView(value->value) : View{value->value, value->groups};
}

std::optional<View> partOf(Entry &entry, View view, int64_t axis, int64_t first, int64_t count, bool drop) {
  ArrayRef<unsigned> group = view.groups[axis];
  if (group.size() != 1)
    return std::nullopt;
  Value &part = entry.parts[{view.value.getAsOpaquePointer(), group[0], first, count, drop}];
  return cutView(entry.builder, entry.loc, std::move(view), axis, first, count, drop, part);
}

FailureOr<Value> activation(Entry &entry, const onnx::NodeProto &node, int index) {
  FailureOr<View> view = viewOf(entry, node, index);
  if (failed(view))
    return failure();
  std::optional<Value> value = materialise(entry.builder, entry.loc, *view);
  if (!value) {
    nodeError(entry.context, node, ErrorCode::OrderUnsupported)
        << "operand " << index << ' ' << quoted(node.input(index)) << " has shape " << shapeText(view->shape())
        << ", for which " << shapeText(typeOf(view->value).getShape())
        << " would have to be transposed; only the heads of attention can be";
    return failure();
  }
  return *value;
}

FailureOr<View> rowsOperand(Entry &entry, const onnx::NodeProto &node, int index) {
  FailureOr<View> x = viewOf(entry, node, index);
  if (failed(x))
    return failure();
  // What follows the leading dimensions, heads and their width for one, is brought together; how the graph sees the
  // others, as one for instance, does not matter.
  SmallVector<unsigned, 2> last = x->groups.back();
  unsigned rank = typeOf(x->value).getRank(), leading = rank - last.size();
  bool isLast = !last.empty() && llvm::equal(last, llvm::seq(leading, rank));
  if (isLast && last.size() > 1) {
    View joined = identityView(x->value);
    joined.groups.resize(leading);
    joined.groups.emplace_back(last.begin(), last.end());
    if (std::optional<Value> value = materialise(entry.builder, entry.loc, joined)) {
      x->value = *value;
      x->groups.back() = {leading};
    }
  }
  if (isLast && x->groups.back().size() == 1)
    return x;
  FailureOr<Value> value = activation(entry, node, index);
  if (failed(value))
    return failure();
  return identityView(*value);
}

FailureOr<const StoredTensor *> constant(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (!value || value->kind != GraphValue::Kind::Weight || !value->weight->floatType(entry.context)) {
    (void)operandError(entry, node, index, "a constant of float, float16 or bfloat16");
    return failure();
  }
  return value->weight;
}

bool isInteger(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value && (value->kind == GraphValue::Kind::Ints ||
                   (value->kind == GraphValue::Kind::Weight && value->weight->isInteger()));
}

FailureOr<IntTensor> integers(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (value && value->kind == GraphValue::Kind::Ints)
    return value->ints;
  if (value && value->kind == GraphValue::Kind::Grid && value->grid.type == Grid::Type::Int)
    if (std::optional<IntTensor> ints = integersOf(value->grid, entry.lengths()))
      return *ints;
  if (isInteger(entry, node, index) && value->weight->elements <= kMaxIntegers)
    return readIntegers(entry, *value->weight);
  (void)operandError(entry, node, index, "integers known at import");
  return failure();
}

LengthRange Entry::lengths() const {
  LengthRange range{.tokens = tokens};
  if (state.options.maxContext != 0)
    range.context = state.options.maxContext;
  return range;
}

std::optional<Grid> gridOf(Entry &entry, const GraphValue &value) {
  LinearInt batch{.constant = entry.batch()}, tokens{.constant = entry.tokens}, total{.total = 1};
  switch (value.kind) {
  case GraphValue::Kind::Grid:
    return value.grid;
  case GraphValue::Kind::Ints:
    return gridOf(value.ints);
  case GraphValue::Kind::Mask:
    return uniformGrid(Grid::Type::Int, {batch, total}, 1);
  case GraphValue::Kind::Positions: {
    Grid grid{.type = Grid::Type::Int, .shape = {batch, tokens}};
    grid.cells.push_back({.form = {.constant = -entry.tokens, .total = 1, .slope = {0, entry.tokens > 1 ? 1 : 0}}});
    return grid;
  }
  case GraphValue::Kind::Weight:
    break;
  default:
    return std::nullopt;
  }
  const StoredTensor &stored = *value.weight;
  if (stored.elements > kMaxIntegers)
    return std::nullopt;
  if (stored.isInteger()) {
    FailureOr<IntTensor> ints = readIntegers(entry, stored);
    return succeeded(ints) ? gridOf(*ints) : std::nullopt;
  }
  FailureOr<std::optional<Dense>> dense = denseOf(entry, stored);
  if (failed(dense) || !*dense || !llvm::all_equal((*dense)->values))
    return std::nullopt;
  SmallVector<LinearInt, 4> shape;
  for (int64_t dim : stored.shape)
    shape.push_back({.constant = dim});
  return uniformGrid(stored.isBool() ? Grid::Type::Bool : Grid::Type::Float, shape, (*dense)->values.front());
}

FailureOr<std::optional<Dense>> denseOf(Entry &entry, const StoredTensor &stored) {
  constexpr int64_t kMaxElements = int64_t(1) << 22;
  Type type = stored.floatType(entry.context);
  if (stored.elements > kMaxElements || (!type && !stored.isInteger() && !stored.isBool()))
    return std::optional<Dense>();
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return failure();
  Dense dense{.type = type ? Dense::Type::Float : stored.isBool() ? Dense::Type::Bool : Dense::Type::Int};
  dense.shape.assign(stored.shape.begin(), stored.shape.end());
  dense.values.reserve(stored.elements);
  const char *data = bytes->data();
  for (int64_t i = 0; i < stored.elements; ++i) {
    if (type) {
      auto floatType = cast<FloatType>(type);
      uint64_t bits = floatType.getWidth() == 32 ? llvm::support::endian::read32le(data + 4 * i)
                                                 : llvm::support::endian::read16le(data + 2 * i);
      APFloat value(floatType.getFloatSemantics(), APInt(floatType.getWidth(), bits));
      bool lost = false;
      value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
      dense.values.push_back(value.convertToDouble());
    } else if (stored.isBool()) {
      dense.values.push_back(data[i] != 0);
    } else if (stored.proto->data_type() == onnx::TensorProto::INT32) {
      dense.values.push_back(static_cast<int32_t>(llvm::support::endian::read32le(data + 4 * i)));
    } else {
      int64_t value = static_cast<int64_t>(llvm::support::endian::read64le(data + 8 * i));
      auto number = static_cast<double>(value);
      if (number == 0x1p63 || static_cast<int64_t>(number) != value) // the largest round up, out of the type
        return std::optional<Dense>();
      dense.values.push_back(number);
    }
  }
  return std::optional<Dense>(std::move(dense));
}

FailureOr<const StoredTensor *> storedOf(Entry &entry, const onnx::TensorProto &tensor, StringRef name) {
  auto [known, isNew] = entry.state.constants.try_emplace(&tensor);
  if (isNew) {
    FailureOr<StoredTensor> stored = describe(entry.context, name, tensor, entry.state.model.directories);
    if (failed(stored))
      return failure();
    known->second = std::move(*stored);
  }
  return &known->second;
}

FailureOr<const StoredTensor *> makeConstant(Entry &entry, const onnx::NodeProto &node, StringRef name,
                                             const Dense &dense) {
  std::string bytes;
  for (double value : dense.values) {
    char element[8];
    if (dense.type == Dense::Type::Float)
      llvm::support::endian::write<float, llvm::endianness::little>(element, static_cast<float>(value));
    else
      llvm::support::endian::write64le(element, static_cast<uint64_t>(static_cast<int64_t>(value)));
    bytes.append(element, dense.type == Dense::Type::Float ? 4 : dense.type == Dense::Type::Int ? 8 : 1);
  }
  return makeConstant(entry, node, name, dense.type, dense.shape, std::move(bytes));
}

FailureOr<const StoredTensor *> makeConstant(Entry &entry, const onnx::NodeProto &node, StringRef name,
                                             Dense::Type type, ArrayRef<int64_t> shape, std::string bytes) {
  // Both entries share a constant, unless it depends on the step.
  std::vector<onnx::TensorProto *> &known = entry.state.made[{&node, name.str()}];
  for (onnx::TensorProto *tensor : known)
    if (tensor->raw_data() == bytes && llvm::equal(tensor->dims(), shape))
      return storedOf(entry, *tensor, name);
  constexpr int64_t kMaxBytes = int64_t(1) << 31;
  entry.state.madeBytes += bytes.size();
  if (entry.state.madeBytes > kMaxBytes) {
    nodeError(entry.context, node, ErrorCode::NotFollowed)
        << "brings the constants that are computed at import above " << kMaxBytes << " bytes";
    return failure();
  }
  onnx::TensorProto &tensor = entry.state.protos.emplace_back();
  tensor.mutable_dims()->Add(shape.begin(), shape.end());
  tensor.set_data_type(type == Dense::Type::Float ? onnx::TensorProto::FLOAT
                       : type == Dense::Type::Int ? onnx::TensorProto::INT64
                                                  : onnx::TensorProto::BOOL);
  tensor.set_raw_data(std::move(bytes));
  known.push_back(&tensor);
  return storedOf(entry, tensor, name);
}

FailureOr<IntTensor> reshapeSizes(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<IntTensor> sizes = integers(entry, node, 1);
  bool allowsZero = llvm::any_of(node.attribute(), [](const auto &a) { return a.name() == "allowzero" && a.i() != 0; });
  if (succeeded(sizes) && allowsZero && llvm::is_contained(sizes->elements, LinearInt{})) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch) << "makes a tensor without elements";
    return failure();
  }
  return sizes;
}

std::optional<Value> broadcastVector(Entry &entry, const onnx::NodeProto &node, int index, const View &view) {
  const GraphValue *value = operand(entry, node, index);
  RankedTensorType type = typeOf(view.value);
  ArrayRef<unsigned> last = view.groups.back();
  if (!value || value->kind != GraphValue::Kind::Weight || !value->weight->floatType(entry.context) ||
      value->weight->shape.size() != 1 || last.size() != 1 || last[0] != type.getRank() - 1 ||
      value->weight->elements != type.getShape().back())
    return std::nullopt;
  Value vector = weightOf(entry, *value->weight, Dtype::F32);
  return Value(BroadcastOp::create(entry.builder, entry.loc, type, vector));
}

Value weightOf(Entry &entry, const StoredTensor &stored, Dtype dtype, bool transposed) {
  Type element = elementType(entry.context, dtype);
  Value &known = entry.weights[{&stored, 2 * static_cast<int>(dtype) + transposed}];
  if (known)
    return known;
  OpBuilder &b = entry.builder;
  SmallVector<int64_t> shape(stored.shape);
  if (transposed)
    std::swap(shape[0], shape[1]);
  auto type = RankedTensorType::get(shape, element);
  auto storedType = RankedTensorType::get(stored.shape, stored.floatType(entry.context));
  auto op = WeightOp::create(b, entry.loc, type, b.getStringAttr(stored.name), b.getStringAttr(stored.file),
                             b.getI64IntegerAttr(stored.offset), b.getI64IntegerAttr(stored.bytes),
                             TypeAttr::get(storedType), DenseI64ArrayAttr(), DenseI64ArrayAttr(), ArrayAttr(),
                             transposed ? b.getUnitAttr() : UnitAttr(), DenseI64ArrayAttr());
  if (!stored.isExternal())
    entry.state.inlineWeights.push_back({op, &stored});
  return known = op;
}

/// Notes an activation for who compares them; formulas, constants and caches are none.
static void observe(Entry &entry, const onnx::NodeProto &node, int index, const GraphValue &value) {
  using Kind = GraphValue::Kind;
  if (!llvm::is_contained({Kind::Tensor, Kind::Mix, Kind::Norm, Kind::Cached, Kind::Scores}, value.kind))
    return;
  ImportedValue imported{.name = node.output(index), .node = nodeName(node).str(), .op = node.op_type()};
  std::shared_ptr<const void> key;
  if (value.kind == Kind::Tensor) {
    imported.value = value.value;
    imported.groups = value.groups;
  } else if (value.kind == Kind::Mix) {
    key = value.mix;
  } else if (value.kind == Kind::Norm) {
    key = value.norm;
  }
  entry.observed.emplace_back(std::move(imported), std::move(key));
}

void define(Entry &entry, const onnx::NodeProto &node, int index, GraphValue value) {
  if (index >= node.output_size() || node.output(index).empty())
    return;
  if (entry.observes)
    observe(entry, node, index, value);
  entry.values[node.output(index)] = std::move(value);
}

void defineTensor(Entry &entry, const onnx::NodeProto &node, int index, Value value) {
  define(entry, node, index, {.kind = GraphValue::Kind::Tensor, .value = value});
}

void defineView(Entry &entry, const onnx::NodeProto &node, int index, View view) {
  define(entry, node, index, {.kind = GraphValue::Kind::Tensor, .value = view.value, .groups = std::move(view.groups)});
}

void defineInts(Entry &entry, const onnx::NodeProto &node, int index, IntTensor ints) {
  define(entry, node, index, {.kind = GraphValue::Kind::Ints, .ints = std::move(ints)});
}

LogicalResult castError(Entry &entry, const onnx::NodeProto &node, int64_t to) {
  return nodeError(entry.context, node, ErrorCode::TypeUnsupported)
         << "casts to " << typeText(to) << ", which would change the values; export the model in float32";
}

LogicalResult takeFloatCast(Entry &entry, const onnx::NodeProto &node, Attributes &attributes) {
  int64_t to = attributes.required("to");
  attributes.ignore("saturate");
  attributes.ignore("round_mode");
  if (failed(attributes.finish()))
    return failure();
  if (to != onnx::TensorProto::FLOAT && !(entry.half && to == onnx::TensorProto::FLOAT16))
    return castError(entry, node, to);
  return success();
}

LogicalResult refuseResult(Entry &entry, const onnx::NodeProto &node, int index) {
  if (index >= node.output_size() || node.output(index).empty())
    return success();
  return nodeError(entry.context, node, ErrorCode::ResultUnsupported)
         << "result " << index << ' ' << quoted(node.output(index)) << " is not supported";
}

RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

} // namespace helix::onnximport
