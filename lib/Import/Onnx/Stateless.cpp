//===- Stateless.cpp - A model as a function of plain tensors --------------===//
#include "lib/Import/Onnx/Stateless.h"

#include "lib/Import/Onnx/Safetensors.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

/// The fixed shape of an input, of at most 2^31 elements and 8 dimensions.
FailureOr<SmallVector<int64_t>> shapeOf(Entry &entry, const onnx::ValueInfoProto &input) {
  const onnx::TypeProto::Tensor &tensor = input.type().tensor_type();
  SmallVector<int64_t> shape;
  int64_t elements = 1;
  bool isFixed = tensor.has_shape() && tensor.shape().dim_size() >= 1 && tensor.shape().dim_size() <= 8;
  for (const onnx::TensorShapeProto::Dimension &dim : tensor.shape().dim()) {
    isFixed = isFixed && dim.has_dim_value() && dim.dim_value() >= 1 &&
              !llvm::MulOverflow(elements, dim.dim_value(), elements) && elements <= (int64_t(1) << 31);
    shape.push_back(dim.dim_value());
  }
  if (isFixed)
    return shape;
  modelError(entry.context, ErrorCode::StatelessShape)
      << "input " << quoted(input.name())
      << " must have 1 to 8 dimensions of fixed sizes, at most 2^31 elements in all";
  return failure();
}

/// Makes an argument of the graph's input.
LogicalResult bindInput(Entry &entry, func::FuncOp function, const onnx::ValueInfoProto &input) {
  int32_t type = input.type().tensor_type().elem_type();
  Type element = floatType(entry.context, type);
  bool isFloat = bool(element);
  if (type == onnx::TensorProto::INT64)
    element = entry.builder.getI64Type();
  if (type == onnx::TensorProto::BOOL)
    element = entry.builder.getI1Type();
  if (!input.type().has_tensor_type() || !element)
    return modelError(entry.context, ErrorCode::StatelessType)
           << "input " << quoted(input.name())
           << " must be a tensor of FLOAT, FLOAT16, BFLOAT16, INT64 or BOOL, but is " << typeText(type);
  FailureOr<SmallVector<int64_t>> shape = shapeOf(entry, input);
  if (failed(shape))
    return failure();
  auto io = IOAttr::get(entry.context, entry.builder.getStringAttr(input.name()), element);
  auto name = NameLoc::get(entry.builder.getStringAttr(input.name()));
  unsigned index = function.getNumArguments();
  if (failed(function.insertArgument(index, RankedTensorType::get(*shape, io.innerElement()),
                                     entry.builder.getDictionaryAttr(entry.builder.getNamedAttr(kIOAttr, io)), name)))
    return failure();
  Value argument = function.getArgument(index);
  GraphValue value{.kind = GraphValue::Kind::Given, .value = argument};
  if (isFloat) {
    entry.loc = name;
    View view = rowsView(entry, argument);
    value = {.kind = GraphValue::Kind::Tensor, .value = view.value, .groups = view.groups};
  }
  entry.values[input.name()] = value;
  entry.half |= isFloat && !element.isF32();
  return success();
}

/// The values of the graph's outputs, and what they are outside.
LogicalResult takeOutputs(Entry &entry, SmallVectorImpl<Value> &results, SmallVectorImpl<IOAttr> &ports) {
  for (const onnx::ValueInfoProto &output : entry.state.model.graph().output()) {
    GraphValue value = entry.values.lookup(output.name());
    const onnx::TypeProto::Tensor &tensor = output.type().tensor_type();
    Type element = floatType(entry.context, tensor.elem_type());
    if (value.kind != GraphValue::Kind::Tensor || !value.value || !element)
      return modelError(entry.context, ErrorCode::StatelessType)
             << "output " << quoted(output.name())
             << " must be a tensor of FLOAT, FLOAT16 or BFLOAT16 that the model computes";
    View view = value.groups.empty() ? identityView(value.value) : View{value.value, value.groups};
    SmallVector<int64_t> shape = view.shape();
    bool fits = !tensor.has_shape() || tensor.shape().dim_size() == static_cast<int>(shape.size());
    for (int d = 0; fits && d < tensor.shape().dim_size(); ++d)
      fits = !tensor.shape().dim(d).has_dim_value() || tensor.shape().dim(d).dim_value() == shape[d];
    if (!fits)
      return modelError(entry.context, ErrorCode::StatelessShape)
             << "output " << quoted(output.name()) << " has another shape in the model than " << shapeText(shape)
             << ", which its nodes give it";
    entry.loc = NameLoc::get(entry.builder.getStringAttr(output.name()));
    results.push_back(wholeOf(entry, view));
    ports.push_back(IOAttr::get(entry.context, entry.builder.getStringAttr(output.name()), element));
  }
  return success();
}

LogicalResult importFunction(ImportState &state, ModuleOp module) {
  MLIRContext *context = module.getContext();
  OpBuilder top = OpBuilder::atBlockEnd(module.getBody());
  auto function = func::FuncOp::create(top, module.getLoc(), stringifyEntryKind(EntryKind::Stateless),
                                       FunctionType::get(context, {}, {}));
  function->setAttr(kEntryAttr, EntryAttr::getStateless(context));
  Block *body = function.addEntryBlock();
  Entry entry{.state = state,
              .context = context,
              .builder = OpBuilder::atBlockEnd(body),
              .sequences = state.options.batch,
              .tokens = 1,
              .loc = module.getLoc()};
  for (const auto &[name, stored] : state.model.initializers)
    entry.values[name] = {.kind = GraphValue::Kind::Weight, .weight = &stored};
  for (const onnx::ValueInfoProto &input : state.model.graph().input())
    if (!entry.values.contains(input.name()) && failed(bindInput(entry, function, input)))
      return failure();
  for (const onnx::NodeProto *node : state.model.nodes)
    if (failed(importStatelessNode(entry, *node)))
      return failure();
  SmallVector<Value> results;
  SmallVector<IOAttr> ports;
  if (failed(takeOutputs(entry, results, ports)))
    return failure();
  func::ReturnOp::create(entry.builder, module.getLoc(), results);
  function.setType(FunctionType::get(context, body->getArgumentTypes(), ValueRange(results).getTypes()));
  for (auto [i, port] : llvm::enumerate(ports))
    function.setResultAttr(i, kIOAttr, port);
  return success();
}

} // namespace

Value reshaped(Entry &entry, Value value, ArrayRef<int64_t> shape) {
  RankedTensorType type = typeOf(value);
  if (type.getShape() == shape)
    return value;
  auto all = [](size_t rank) {
    return SmallVector<ReassociationIndices>{llvm::to_vector<2>(llvm::seq<int64_t>(0, rank))};
  };
  if (type.getRank() != 1)
    value = tensor::CollapseShapeOp::create(entry.builder, entry.loc, type.clone({type.getNumElements()}), value,
                                            all(type.getRank()));
  if (shape.size() != 1)
    value = tensor::ExpandShapeOp::create(entry.builder, entry.loc, type.clone(shape), value, all(shape.size()));
  return value;
}

Value transposed(Entry &entry, Value value, ArrayRef<int64_t> permutation) {
  if (llvm::is_sorted(permutation))
    return value;
  RankedTensorType type = typeOf(value);
  SmallVector<int64_t> shape = llvm::map_to_vector(permutation, [&](int64_t d) { return type.getDimSize(d); });
  return TransposeOp::create(entry.builder, entry.loc, type.clone(shape), value, permutation);
}

View rowsView(Entry &entry, Value value) {
  SmallVector<int64_t> shape(typeOf(value).getShape());
  View view = identityView(value);
  if (shape.size() >= 3)
    return view;
  size_t added = 3 - shape.size();
  shape.insert(shape.begin(), added, 1);
  view.value = reshaped(entry, value, shape);
  // What was added belongs to the first dimension that the graph sees.
  for (auto &group : view.groups)
    group.front() += added;
  for (size_t d = added; d-- > 0;)
    view.groups.front().insert(view.groups.front().begin(), d);
  return view;
}

Value wholeOf(Entry &entry, const View &view) {
  SmallVector<int64_t> order;
  for (ArrayRef<unsigned> group : view.groups)
    order.append(group.begin(), group.end());
  return reshaped(entry, transposed(entry, view.value, order), view.shape());
}

FailureOr<Value> tensorAt(Entry &entry, const onnx::NodeProto &node, int index) {
  FailureOr<View> view = viewOf(entry, node, index);
  if (failed(view))
    return failure();
  return wholeOf(entry, *view);
}

FailureOr<Value> integersAt(Entry &entry, const onnx::NodeProto &node, int index, ArrayRef<int64_t> shape) {
  const GraphValue *value = operand(entry, node, index);
  if (!value)
    return Value();
  if (value->kind != GraphValue::Kind::Given || !typeOf(value->value).getElementType().isInteger(64) ||
      typeOf(value->value).getShape() != shape) {
    (void)operandError(entry, node, index, "an input of INT64 of shape " + shapeText(shape));
    return failure();
  }
  return value->value;
}

FailureOr<Value> headsFirst(Entry &entry, const onnx::NodeProto &node, Value value, int64_t heads) {
  ArrayRef<int64_t> shape = typeOf(value).getShape();
  if (shape.size() == 4)
    return value;
  if (shape.size() != 3 || heads < 1 || shape[2] % heads != 0) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "takes " << shapeText(shape) << ", which must be [batch, heads, tokens, head size] or [batch, tokens, "
        << heads << " * head size]";
    return failure();
  }
  return transposed(entry, reshaped(entry, value, {shape[0], shape[1], heads, shape[2] / heads}), {0, 2, 1, 3});
}

Value headsBack(Entry &entry, Value value, bool isFlat) {
  if (!isFlat)
    return value;
  ArrayRef<int64_t> shape = typeOf(value).getShape();
  SmallVector<int64_t> flat = {shape[0], shape[2], shape[1] * shape[3]};
  return reshaped(entry, transposed(entry, value, {0, 2, 1, 3}), flat);
}

} // namespace helix::onnximport

namespace helix {

OwningOpRef<ModuleOp> importStateless(MLIRContext &context, StringRef path, const ImportOptions &options) {
  using namespace onnximport;
  context.loadDialect<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  std::unique_ptr<Model> model = readModel(&context, path, options.weightsRoot);
  if (!model)
    return {};
  ImportState state{*model, options};
  OwningOpRef<ModuleOp> module = ModuleOp::create(NameLoc::get(StringAttr::get(&context, model->graph().name())));
  if (failed(importFunction(state, *module)) || failed(writeInlineWeights(&context, state, path)) ||
      failed(verify(*module)))
    return {};
  return module;
}

} // namespace helix
