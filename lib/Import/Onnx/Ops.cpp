//===- Ops.cpp - The table of ops, products and norms ----------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

LogicalResult importConstant(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  const onnx::TensorProto *tensor = attributes.tensor("value");
  if (failed(attributes.finish()))
    return failure();
  if (!tensor)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported) << "attribute 'value' is missing";
  auto [known, isNew] = entry.state.constants.try_emplace(&node);
  if (isNew) {
    FailureOr<StoredTensor> stored = describe(entry.context, node.output(0), *tensor, entry.state.model.directories);
    if (failed(stored))
      return failure();
    known->second = std::move(*stored);
  }
  define(entry, node, 0, {.kind = GraphValue::Kind::Weight, .weight = &known->second});
  return success();
}

LogicalResult importIdentity(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  const GraphValue *value = operand(entry, node, 0);
  if (!value)
    return operandError(entry, node, 0, "a value");
  define(entry, node, 0, GraphValue(*value));
  return success();
}

LogicalResult importGather(Entry &entry, const onnx::NodeProto &node) {
  if (isInteger(entry, node, 0))
    return foldGather(entry, node);
  Attributes attributes(entry.context, node);
  attributes.onlyInteger("axis", 0, {0});
  FailureOr<const StoredTensor *> table = constant(entry, node, 0);
  if (failed(attributes.finish()) || failed(table))
    return failure();
  const GraphValue *ids = operand(entry, node, 1);
  if (!ids || ids->kind != GraphValue::Kind::Ids)
    return operandError(entry, node, 1, "the token ids");
  if ((*table)->shape.size() != 2)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "the embedding table has shape " << shapeText((*table)->shape) << "; it must be [vocabulary, hidden]";
  Value weight = weightOf(entry, **table, entry.state.options.weightDtype);
  auto type = RankedTensorType::get({entry.batch(), entry.tokens, (*table)->shape[1]}, entry.builder.getF32Type());
  defineTensor(entry, node, 0, EmbeddingOp::create(entry.builder, entry.loc, type, ids->value, weight));
  return success();
}

LogicalResult importMatMul(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<Value> x = activation(entry, node, 0);
  if (failed(x))
    return failure();
  FailureOr<const StoredTensor *> weight = constant(entry, node, 1);
  if (failed(weight))
    return failure();
  SmallVector<int64_t> shape(typeOf(*x).getShape());
  if ((*weight)->shape.size() != 2 || (*weight)->shape[0] != shape.back())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "multiplies " << shapeText(shape) << " by a constant of shape " << shapeText((*weight)->shape)
           << "; the constant must be [" << shape.back() << ", n]";
  shape.back() = (*weight)->shape[1];
  Value w = weightOf(entry, **weight, entry.state.options.weightDtype);
  auto type = RankedTensorType::get(shape, entry.builder.getF32Type());
  defineTensor(entry, node, 0, LinearOp::create(entry.builder, entry.loc, type, *x, w));
  return success();
}

/// rms_norm of `x` with the constant scale that is operand `index`.
FailureOr<Value> rmsNorm(Entry &entry, const onnx::NodeProto &node, Value x, int index, double epsilon) {
  FailureOr<const StoredTensor *> scale = constant(entry, node, index);
  if (failed(scale))
    return failure();
  ArrayRef<int64_t> shape = typeOf(x).getShape();
  if ((*scale)->shape != shape.take_back(1)) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "normalises " << shapeText(shape) << " with a scale of shape " << shapeText((*scale)->shape);
    return failure();
  }
  if (!std::isfinite(epsilon) || epsilon < 0) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
        << "attribute 'epsilon' must be finite and not negative";
    return failure();
  }
  Value weight = weightOf(entry, **scale, Dtype::F32);
  return RMSNormOp::create(entry.builder, entry.loc, x.getType(), x, weight, entry.builder.getF64FloatAttr(epsilon))
      .getResult();
}

/// SimplifiedLayerNormalization and RMSNormalization.
LogicalResult importRmsNorm(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<Value> x = activation(entry, node, 0);
  if (failed(x))
    return failure();
  Attributes attributes(entry.context, node);
  // Read as the float that it is stored as: the default 1e-5 is the one nearest to it.
  double epsilon = attributes.real("epsilon", 1e-5f);
  attributes.onlyInteger("axis", -1, {-1, typeOf(*x).getRank() - 1});
  attributes.onlyInteger("stash_type", onnx::TensorProto::FLOAT, {onnx::TensorProto::FLOAT});
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 1)))
    return failure();
  FailureOr<Value> y = rmsNorm(entry, node, *x, 1, epsilon);
  if (failed(y))
    return failure();
  defineTensor(entry, node, 0, *y);
  return success();
}

LogicalResult importSkipRmsNorm(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<Value> x = activation(entry, node, 0), skip = activation(entry, node, 1);
  if (failed(x) || failed(skip))
    return failure();
  Attributes attributes(entry.context, node);
  double epsilon = attributes.real("epsilon", 1e-12f);
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 1)) || failed(refuseResult(entry, node, 2)))
    return failure();
  if (operand(entry, node, 3))
    return operandError(entry, node, 3, "left out: a bias is not supported");
  if (x->getType() != skip->getType())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "adds " << shapeText(typeOf(*x).getShape()) << " and " << shapeText(typeOf(*skip).getShape())
           << "; the shapes must be equal";
  Value sum = arith::AddFOp::create(entry.builder, entry.loc, *x, *skip);
  FailureOr<Value> y = rmsNorm(entry, node, sum, 2, epsilon);
  if (failed(y))
    return failure();
  defineTensor(entry, node, 0, *y);
  defineTensor(entry, node, 3, sum);
  return success();
}

LogicalResult refuseControlFlow(Entry &entry, const onnx::NodeProto &node) {
  return nodeError(entry.context, node, ErrorCode::ControlFlowUnsupported)
         << "control flow is not supported; export a model without it";
}

struct OpEntry {
  StringRef domain, name;
  int minInputs, maxInputs, minOutputs, maxOutputs;
  LogicalResult (*import)(Entry &, const onnx::NodeProto &);
};

constexpr StringRef kMicrosoft = "com.microsoft";
constexpr int kAny = INT_MAX;

const OpEntry kOps[] = {
    {"", "Add", 2, 2, 1, 1, importBinary},
    {"", "Cast", 1, 1, 1, 1, importCast},
    {"", "Concat", 1, kAny, 1, 1, importConcat},
    {"", "Constant", 0, 0, 1, 1, importConstant},
    {"", "Div", 2, 2, 1, 1, importBinary},
    {"", "Gather", 2, 2, 1, 1, importGather},
    {"", "Identity", 1, 1, 1, 1, importIdentity},
    {"", "If", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "Loop", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "MatMul", 2, 2, 1, 1, importMatMul},
    {"", "Mul", 2, 2, 1, 1, importBinary},
    {"", "RMSNormalization", 2, 2, 1, 1, importRmsNorm},
    {"", "ReduceSum", 1, 2, 1, 1, importReduceSum},
    {"", "Scan", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "SequenceMap", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "Shape", 1, 1, 1, 1, importShape},
    {"", "Sigmoid", 1, 1, 1, 1, importSigmoid},
    {"", "SimplifiedLayerNormalization", 2, 2, 1, 2, importRmsNorm},
    {"", "Squeeze", 1, 2, 1, 1, importSqueeze},
    {"", "Sub", 2, 2, 1, 1, importBinary},
    {"", "Unsqueeze", 2, 2, 1, 1, importUnsqueeze},
    {kMicrosoft, "GroupQueryAttention", 7, 17, 1, 4, importGroupQueryAttention},
    {kMicrosoft, "SimplifiedLayerNormalization", 2, 2, 1, 2, importRmsNorm},
    {kMicrosoft, "SkipSimplifiedLayerNormalization", 3, 4, 1, 4, importSkipRmsNorm},
};

} // namespace

LogicalResult importNode(Entry &entry, const onnx::NodeProto &node) {
  StringRef domain = canonicalDomain(node.domain());
  const OpEntry *op =
      llvm::find_if(kOps, [&](const OpEntry &e) { return e.domain == domain && e.name == node.op_type(); });
  if (op == std::end(kOps))
    return nodeError(entry.context, node, ErrorCode::OpUnsupported)
           << "the op is not one that can be imported" << (domain.empty() ? "" : " (domain ")
           << (domain.empty() ? "" : quoted(domain)) << (domain.empty() ? "" : ")");
  auto counts = [&](StringRef what, int actual, int least, int most) -> LogicalResult {
    if (actual >= least && actual <= most)
      return success();
    InFlightDiagnostic diagnostic = nodeError(entry.context, node, ErrorCode::ArityWrong);
    diagnostic << "has " << actual << ' ' << what << (actual == 1 ? "" : "s") << "; the op takes " << least;
    if (most != least)
      diagnostic << " to " << (most == kAny ? "any number" : Twine(most).str());
    return diagnostic;
  };
  if (failed(counts("operand", node.input_size(), op->minInputs, op->maxInputs)) ||
      failed(counts("result", node.output_size(), op->minOutputs, op->maxOutputs)))
    return failure();
  entry.loc = NameLoc::get(StringAttr::get(entry.context, nodeName(node)));
  return op->import(entry, node);
}

} // namespace helix::onnximport
