//===- NormOps.cpp - Norms as ops ------------------------------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Norms.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

/// Operand `index`, a constant, or null if it is left out.
FailureOr<const StoredTensor *> optionalConstant(Entry &entry, const onnx::NodeProto &node, int index) {
  return operand(entry, node, index) ? constant(entry, node, index) : FailureOr<const StoredTensor *>(nullptr);
}

/// Result 0 as the norm of x; with `centered` a LayerNorm, whose bias is operand `bias`.
LogicalResult importOf(Entry &entry, const onnx::NodeProto &node, View x, double epsilon, bool centered, int scale,
                       int bias) {
  FailureOr<const StoredTensor *> weight = constant(entry, node, scale);
  FailureOr<const StoredTensor *> added =
      centered ? optionalConstant(entry, node, bias) : FailureOr<const StoredTensor *>(nullptr);
  if (failed(weight) || failed(added))
    return failure();
  Norm norm{.form = Norm::Form::Normed, .x = std::move(x), .epsilon = epsilon, .centered = centered};
  FailureOr<View> y = normalise(entry, node, norm, **weight, *added);
  if (failed(y))
    return failure();
  defineView(entry, node, 0, std::move(*y));
  return success();
}

/// A norm over the last dimension, (x, scale, bias?).
LogicalResult importPlain(Entry &entry, const onnx::NodeProto &node, bool centered) {
  FailureOr<View> x = viewOf(entry, node, 0);
  if (failed(x))
    return failure();
  Attributes attributes(entry.context, node);
  // Read as the float that it is stored as: the default 1e-5 is the one nearest to it.
  double epsilon = attributes.real("epsilon", 1e-5f);
  attributes.onlyInteger("axis", -1, {-1, static_cast<int64_t>(x->groups.size()) - 1});
  attributes.onlyInteger("stash_type", onnx::TensorProto::FLOAT, {onnx::TensorProto::FLOAT});
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 1)) || failed(refuseResult(entry, node, 2)))
    return failure();
  return importOf(entry, node, std::move(*x), epsilon, centered, 1, 2);
}

/// The norm of x + skip (+ operand `bias`), which is result 3: (x, skip, scale, beta? of a LayerNorm, bias?).
LogicalResult importSkip(Entry &entry, const onnx::NodeProto &node, bool centered, int bias) {
  FailureOr<Value> x = activation(entry, node, 0), skip = activation(entry, node, 1);
  if (failed(x) || failed(skip))
    return failure();
  Attributes attributes(entry.context, node);
  double epsilon = attributes.real("epsilon", 1e-12f);
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 1)) || failed(refuseResult(entry, node, 2)))
    return failure();
  if (x->getType() != skip->getType())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "adds " << shapeText(typeOf(*x).getShape()) << " and " << shapeText(typeOf(*skip).getShape())
           << "; the shapes must be equal";
  Value sum = arith::AddFOp::create(entry.builder, entry.loc, *x, *skip);
  if (operand(entry, node, bias)) {
    std::optional<Value> added = broadcastVector(entry, node, bias, identityView(sum));
    if (!added)
      return operandError(entry, node, bias, "a constant along the last dimension");
    sum = arith::AddFOp::create(entry.builder, entry.loc, sum, *added);
  }
  if (failed(importOf(entry, node, identityView(sum), epsilon, centered, 2, 3)))
    return failure();
  defineTensor(entry, node, 3, sum);
  return success();
}

} // namespace

/// SimplifiedLayerNormalization and RMSNormalization.
LogicalResult importRmsNorm(Entry &entry, const onnx::NodeProto &node) { return importPlain(entry, node, false); }

LogicalResult importLayerNorm(Entry &entry, const onnx::NodeProto &node) { return importPlain(entry, node, true); }

LogicalResult importSkipRmsNorm(Entry &entry, const onnx::NodeProto &node) { return importSkip(entry, node, false, 3); }

LogicalResult importSkipLayerNorm(Entry &entry, const onnx::NodeProto &node) {
  return importSkip(entry, node, true, 4);
}

} // namespace helix::onnximport
