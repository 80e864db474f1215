//===- Ops.cpp - The table of ops, products and norms ----------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/HeadBias.h"
#include "lib/Import/Onnx/Mix.h"
#include "lib/Import/Onnx/Norms.h"

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

/// x times a constant [K, N], or one [N, K] that is transposed.
FailureOr<View> product(Entry &entry, const onnx::NodeProto &node, View x, const StoredTensor &weight,
                        bool transposed) {
  SmallVector<int64_t> shape(typeOf(x.value).getShape());
  bool isMatrix = weight.shape.size() == 2;
  if (!isMatrix || weight.shape[transposed ? 1 : 0] != shape.back()) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "multiplies " << shapeText(x.shape()) << " by a constant of shape " << shapeText(weight.shape)
        << "; the constant must be [" << (transposed ? "n, " : "") << shape.back() << (transposed ? "]" : ", n]");
    return failure();
  }
  shape.back() = weight.shape[transposed ? 0 : 1];
  Value w = weightOf(entry, weight, entry.state.options.weightDtype, transposed);
  auto type = RankedTensorType::get(shape, entry.builder.getF32Type());
  x.value = LinearOp::create(entry.builder, entry.loc, type, x.value, w);
  return x;
}

LogicalResult importMatMul(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<View> x = rowsOperand(entry, node, 0);
  if (failed(x))
    return failure();
  const GraphValue *factor = operand(entry, node, 1);
  bool transposed = factor && factor->kind == GraphValue::Kind::Turned;
  FailureOr<const StoredTensor *> weight = transposed ? factor->weight : constant(entry, node, 1);
  if (failed(weight))
    return failure();
  FailureOr<View> y = product(entry, node, *x, **weight, transposed);
  if (failed(y))
    return failure();
  defineView(entry, node, 0, std::move(*y));
  return success();
}

/// x w + b, x seen as a matrix.
LogicalResult importGemm(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  attributes.onlyReal("alpha", 1);
  attributes.onlyReal("beta", 1);
  attributes.onlyInteger("transA", 0, {0});
  bool transB = attributes.integer("transB", 0) != 0;
  if (failed(attributes.finish()))
    return failure();
  FailureOr<View> x = rowsOperand(entry, node, 0);
  if (failed(x))
    return failure();
  const GraphValue *factor = operand(entry, node, 1);
  bool isTurned = factor && factor->kind == GraphValue::Kind::Turned;
  FailureOr<const StoredTensor *> weight = isTurned ? factor->weight : constant(entry, node, 1);
  if (failed(weight))
    return failure();
  FailureOr<View> y = product(entry, node, *x, **weight, isTurned != transB);
  if (failed(y))
    return failure();
  if (operand(entry, node, 2)) {
    std::optional<Value> bias = broadcastVector(entry, node, 2, *y);
    if (!bias)
      return operandError(entry, node, 2, "a constant along the last dimension");
    y->value = arith::AddFOp::create(entry.builder, entry.loc, y->value, *bias);
  }
  defineView(entry, node, 0, std::move(*y));
  return success();
}

LogicalResult refuseControlFlow(Entry &entry, const onnx::NodeProto &node) {
  return nodeError(entry.context, node, ErrorCode::ControlFlowUnsupported)
         << "control flow is not supported; export a model without it";
}

/// An op that is only known on what importSymbolic takes.
LogicalResult refuseActivations(Entry &entry, const onnx::NodeProto &node) {
  return nodeError(entry.context, node, ErrorCode::OpUnsupported) << "the op is not known on activations";
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
    {"", "Attention", 3, 7, 1, 4, importAttention},
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
    {"", "Erf", 1, 1, 1, 1, importUnary},
    {"", "Exp", 1, 1, 1, 1, importUnary},
    {"", "Expand", 2, 2, 1, 1, refuseActivations},
    {"", "Flatten", 1, 1, 1, 1, refuseActivations},
    {"", "Floor", 1, 1, 1, 1, refuseActivations},
    {"", "Gather", 2, 2, 1, 1, importGather},
    {"", "GatherND", 2, 2, 1, 1, refuseActivations},
    {"", "Gelu", 1, 1, 1, 1, importGelu},
    {"", "Gemm", 2, 3, 1, 1, importGemm},
    {"", "Greater", 2, 2, 1, 1, refuseActivations},
    {"", "GreaterOrEqual", 2, 2, 1, 1, refuseActivations},
    {"", "Identity", 1, 1, 1, 1, importIdentity},
    {"", "If", 1, 1, 1, kAny, importIf},
    {"", "IsNaN", 1, 1, 1, 1, refuseActivations},
    {"", "LayerNormalization", 2, 3, 1, 3, importLayerNorm},
    {"", "Less", 2, 2, 1, 1, refuseActivations},
    {"", "LessOrEqual", 2, 2, 1, 1, refuseActivations},
    {"", "Log", 1, 1, 1, 1, refuseActivations},
    {"", "Loop", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "MatMul", 2, 2, 1, 1, importMatMul},
    {"", "Max", 2, 2, 1, 1, refuseActivations},
    {"", "Min", 2, 2, 1, 1, refuseActivations},
    {"", "Mul", 2, 2, 1, 1, importBinary},
    {"", "Neg", 1, 1, 1, 1, importUnary},
    {"", "Not", 1, 1, 1, 1, refuseActivations},
    {"", "Or", 2, 2, 1, 1, refuseActivations},
    {"", "Pow", 2, 2, 1, 1, refuseActivations},
    {"", "RMSNormalization", 2, 2, 1, 1, importRmsNorm},
    {"", "Range", 3, 3, 1, 1, refuseActivations},
    {"", "Reciprocal", 1, 1, 1, 1, refuseActivations},
    {"", "ReduceMax", 1, 2, 1, 1, refuseActivations},
    {"", "ReduceMean", 1, 2, 1, 1, refuseActivations},
    {"", "ReduceMin", 1, 2, 1, 1, refuseActivations},
    {"", "ReduceSum", 1, 2, 1, 1, importReduceSum},
    {"", "Relu", 1, 1, 1, 1, importUnary},
    {"", "Reshape", 2, 2, 1, 1, importReshape},
    {"", "RotaryEmbedding", 3, 4, 1, 1, importRotaryEmbedding},
    {"", "Scan", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "SequenceMap", 0, kAny, 0, kAny, refuseControlFlow},
    {"", "Shape", 1, 1, 1, 1, importShape},
    {"", "Sigmoid", 1, 1, 1, 1, importSigmoid},
    {"", "Silu", 1, 1, 1, 1, importUnary},
    {"", "SimplifiedLayerNormalization", 2, 2, 1, 2, importRmsNorm},
    {"", "Sin", 1, 1, 1, 1, refuseActivations},
    {"", "Slice", 3, 5, 1, 1, refuseActivations},
    {"", "Softmax", 1, 1, 1, 1, refuseActivations},
    {"", "Split", 1, 2, 1, kAny, refuseActivations},
    {"", "Sqrt", 1, 1, 1, 1, importUnary},
    {"", "Squeeze", 1, 2, 1, 1, importSqueeze},
    {"", "Sub", 2, 2, 1, 1, importBinary},
    {"", "Swish", 1, 1, 1, 1, importSwish},
    {"", "Tanh", 1, 1, 1, 1, importUnary},
    {"", "TensorScatter", 3, 3, 1, 1, importTensorScatter},
    {"", "Tile", 2, 2, 1, 1, refuseActivations},
    {"", "Transpose", 1, 1, 1, 1, importReshape},
    {"", "Trilu", 1, 2, 1, 1, refuseActivations},
    {"", "Unsqueeze", 2, 2, 1, 1, importUnsqueeze},
    {"", "Where", 3, 3, 1, 1, refuseActivations},
    {"", "Xor", 2, 2, 1, 1, refuseActivations},
    {kMicrosoft, "FastGelu", 1, 1, 1, 1, importGelu},
    {kMicrosoft, "GatherBlockQuantized", 3, 4, 1, 1, importGatherBlockQuantized},
    {kMicrosoft, "Gelu", 1, 1, 1, 1, importGelu},
    {kMicrosoft, "GroupQueryAttention", 7, 17, 1, 4, importGroupQueryAttention},
    {kMicrosoft, "MatMulNBits", 3, 6, 1, 1, importMatMulNBits},
    {kMicrosoft, "MultiHeadAttention", 3, 10, 1, 4, importMultiHeadAttention},
    {kMicrosoft, "QuickGelu", 1, 1, 1, 1, importSwish},
    {kMicrosoft, "RotaryEmbedding", 4, 4, 1, 1, importRotaryEmbedding},
    {kMicrosoft, "SimplifiedLayerNormalization", 2, 2, 1, 2, importRmsNorm},
    {kMicrosoft, "SkipLayerNormalization", 3, 5, 1, 4, importSkipLayerNorm},
    {kMicrosoft, "SkipSimplifiedLayerNormalization", 3, 4, 1, 4, importSkipRmsNorm},
};

/// An op means what its operands make of it: sums of masks, of keys, of halves of heads, of activations. `what` says
/// what they make.
LogicalResult importByOperands(Entry &entry, const onnx::NodeProto &node, const OpEntry &op, const char *&what) {
  if (isReshapeOfCodes(entry, node)) {
    what = "computed";
    return importReshapeOfCodes(entry, node);
  }
  if (isSymbolic(entry, node)) {
    what = "computed";
    return importSymbolic(entry, node);
  }
  if (isOfScores(entry, node)) {
    what = "attention";
    return importOnScores(entry, node);
  }
  if (isOfHeadBias(entry, node)) {
    what = "computed";
    return importOnHeadBias(entry, node);
  }
  if (isOfCaches(entry, node)) {
    what = "attention";
    return importOnCaches(entry, node);
  }
  if (isOfMix(entry, node)) {
    what = "rotation or part of the width";
    return importOnMix(entry, node);
  }
  if (std::optional<LogicalResult> done = importOnNorm(entry, node)) {
    what = "norm";
    return *done;
  }
  return op.import(entry, node);
}

/// Notes what a node has become: part of a value to be, the last part of one, or an op by itself.
void explain(Entry &entry, const onnx::NodeProto &node, StringRef what) {
  auto isPending = [](const GraphValue &value) {
    using Kind = GraphValue::Kind;
    return llvm::is_contained({Kind::Mix, Kind::Norm, Kind::Cached, Kind::Scores}, value.kind);
  };
  auto from = std::make_shared<Origin>();
  bool hasKeys = false;
  for (int i = 0; i < node.input_size(); ++i)
    if (const GraphValue *value = operand(entry, node, i); value && isPending(*value) && value->origin) {
      from->insert(value->origin->begin(), value->origin->end());
      hasKeys |= value->kind == GraphValue::Kind::Cached || value->kind == GraphValue::Kind::Scores;
    }
  bool hasParts = !from->empty(), pends = false, isValue = false;
  from->insert(&node);
  for (const std::string &output : node.output()) {
    auto found = entry.values.find(output);
    if (found == entry.values.end())
      continue;
    isValue |= found->second.kind == GraphValue::Kind::Tensor;
    if (isPending(found->second)) {
      pends = true;
      found->second.origin = from;
    }
  }
  if (what.empty())
    what = hasKeys ? "attention" : "rotation or part of the width";
  if (isValue && hasParts)
    entry.explanation->raised.push_back({what.str(), &node, *from});
  else if (isValue)
    ++entry.explanation->plain[node.op_type()];
  else if (!pends)
    ++entry.explanation->computed;
}

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
  const char *what = "";
  LogicalResult result = importByOperands(entry, node, *op, what);
  if (succeeded(result) && entry.explanation)
    explain(entry, node, what);
  return result;
}

} // namespace helix::onnximport
