//===- Ops.cpp - The table of ops, products and norms ----------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

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

/// An op that is only known on what importSymbolic takes.
LogicalResult refuseActivations(Entry &entry, const onnx::NodeProto &node) {
  return nodeError(entry.context, node, ErrorCode::OpUnsupported)
         << "the op is only known on constants, positions and lengths";
}

struct OpEntry {
  StringRef domain, name;
  int minInputs, maxInputs, minOutputs, maxOutputs;
  LogicalResult (*import)(Entry &, const onnx::NodeProto &);
};

constexpr StringRef kMicrosoft = "com.microsoft";
constexpr int kAny = INT_MAX;

const OpEntry kOps[] = {
    {"", "Abs", 1, 1, 1, 1, refuseActivations},
    {"", "Add", 2, 2, 1, 1, importBinary},
    {"", "And", 2, 2, 1, 1, refuseActivations},
    {"", "Cast", 1, 1, 1, 1, importCast},
    {"", "CastLike", 2, 2, 1, 1, importCastLike},
    {"", "Concat", 1, kAny, 1, 1, importConcat},
    {"", "Constant", 0, 0, 1, 1, importConstant},
    {"", "ConstantOfShape", 1, 1, 1, 1, refuseActivations},
    {"", "Cos", 1, 1, 1, 1, refuseActivations},
    {"", "CumSum", 2, 2, 1, 1, refuseActivations},
    {"", "Div", 2, 2, 1, 1, importBinary},
    {"", "Dropout", 1, 3, 1, 2, importDropout},
    {"", "Equal", 2, 2, 1, 1, refuseActivations},
    {"", "Erf", 1, 1, 1, 1, refuseActivations},
    {"", "Exp", 1, 1, 1, 1, refuseActivations},
    {"", "Expand", 2, 2, 1, 1, refuseActivations},
    {"", "Floor", 1, 1, 1, 1, refuseActivations},
    {"", "Gather", 2, 2, 1, 1, importGather},
    {"", "GatherND", 2, 2, 1, 1, refuseActivations},
    {"", "Greater", 2, 2, 1, 1, refuseActivations},
    {"", "GreaterOrEqual", 2, 2, 1, 1, refuseActivations},
    {"", "Identity", 1, 1, 1, 1, importIdentity},
    {"", "If", 1, 1, 1, kAny, importIf},
    {"", "IsNaN", 1, 1, 1, 1, refuseActivations},
    {"", "Less", 2, 2, 1, 1, refuseActivations},
    {"", "LessOrEqual", 2, 2, 1, 1, refuseActivations},
    {"", "Log", 1, 1, 1, 1, refuseActivations},
    {"", "Loop", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "MatMul", 2, 2, 1, 1, importMatMul},
    {"", "Max", 2, 2, 1, 1, refuseActivations},
    {"", "Min", 2, 2, 1, 1, refuseActivations},
    {"", "Mul", 2, 2, 1, 1, importBinary},
    {"", "Neg", 1, 1, 1, 1, refuseActivations},
    {"", "Not", 1, 1, 1, 1, refuseActivations},
    {"", "Or", 2, 2, 1, 1, refuseActivations},
    {"", "Pow", 2, 2, 1, 1, refuseActivations},
    {"", "RMSNormalization", 2, 2, 1, 1, importRmsNorm},
    {"", "Range", 3, 3, 1, 1, refuseActivations},
    {"", "Reciprocal", 1, 1, 1, 1, refuseActivations},
    {"", "ReduceMax", 1, 2, 1, 1, refuseActivations},
    {"", "ReduceMin", 1, 2, 1, 1, refuseActivations},
    {"", "ReduceSum", 1, 2, 1, 1, importReduceSum},
    {"", "Reshape", 2, 2, 1, 1, refuseActivations},
    {"", "Scan", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "SequenceMap", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "Shape", 1, 1, 1, 1, importShape},
    {"", "Sigmoid", 1, 1, 1, 1, importSigmoid},
    {"", "SimplifiedLayerNormalization", 2, 2, 1, 2, importRmsNorm},
    {"", "Sin", 1, 1, 1, 1, refuseActivations},
    {"", "Slice", 3, 5, 1, 1, refuseActivations},
    {"", "Sqrt", 1, 1, 1, 1, refuseActivations},
    {"", "Squeeze", 1, 2, 1, 1, importSqueeze},
    {"", "Sub", 2, 2, 1, 1, importBinary},
    {"", "Tanh", 1, 1, 1, 1, refuseActivations},
    {"", "Transpose", 1, 1, 1, 1, refuseActivations},
    {"", "Trilu", 1, 2, 1, 1, refuseActivations},
    {"", "Unsqueeze", 2, 2, 1, 1, importUnsqueeze},
    {"", "Where", 3, 3, 1, 1, refuseActivations},
    {"", "Xor", 2, 2, 1, 1, refuseActivations},
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
  return isSymbolic(entry, node) ? importSymbolic(entry, node) : op->import(entry, node);
}

} // namespace helix::onnximport
