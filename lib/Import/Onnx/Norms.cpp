//===- Norms.cpp - Norms out of their parts --------------------------------===//
#include "lib/Import/Onnx/Norms.h"
#include "lib/Import/Onnx/Attributes.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;
using Form = Norm::Form;

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::NormUnsupported) << reason;
}

LogicalResult defineNorm(Entry &entry, const onnx::NodeProto &node, Norm norm) {
  define(entry, node, 0, {.kind = Kind::Norm, .norm = std::make_shared<const Norm>(std::move(norm))});
  return success();
}

const Norm *normAt(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value && value->kind == Kind::Norm ? value->norm.get() : nullptr;
}

bool isTensor(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value && value->kind == Kind::Tensor;
}

std::optional<double> numberAt(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  std::optional<Grid> grid = value ? gridOf(entry, *value) : std::nullopt;
  return grid && grid->type != Grid::Type::Bool ? grid->uniform() : std::nullopt;
}

/// Whether the norm's statistics are those of operand `index`.
bool isOf(Entry &entry, const onnx::NodeProto &node, int index, const Norm &norm) {
  if (!isTensor(entry, node, index))
    return false;
  FailureOr<View> view = viewOf(entry, node, index);
  return succeeded(view) && view->value == norm.x.value && view->groups == norm.x.groups;
}

/// The mean over the last dimension of activations or of their squares.
std::optional<LogicalResult> importMean(Entry &entry, const onnx::NodeProto &node) {
  const Norm *norm = normAt(entry, node, 0);
  if (!isTensor(entry, node, 0) && !(norm && (norm->form == Form::Square || norm->form == Form::Normed)))
    return std::nullopt;
  Attributes attributes(entry.context, node);
  std::optional<SmallVector<int64_t>> axes = attributes.integers("axes");
  attributes.onlyInteger("keepdims", 1, {1});
  attributes.onlyInteger("noop_with_empty_axes", 0, {0});
  if (failed(attributes.finish()))
    return failure();
  if (!axes && operand(entry, node, 1)) {
    FailureOr<IntTensor> given = integers(entry, node, 1);
    if (failed(given))
      return failure();
    axes.emplace();
    for (const LinearInt &element : given->elements)
      axes->push_back(element.isConstant() ? element.constant : 0);
  }
  Norm result;
  if (norm && norm->form == Form::Square) {
    result = *norm;
    result.form = Form::MeanSquare;
  } else {
    FailureOr<View> view = viewOf(entry, node, 0);
    if (failed(view))
      return failure();
    result = {.form = Form::Mean, .x = *view};
  }
  int64_t rank = result.x.groups.size();
  if (!axes || axes->size() != 1 || (axes->front() != -1 && axes->front() != rank - 1))
    return refuse(entry, node, "takes a mean of activations over other dimensions than the last alone");
  return defineNorm(entry, node, std::move(result));
}

std::optional<LogicalResult> importPower(Entry &entry, const onnx::NodeProto &node) {
  std::optional<double> exponent = numberAt(entry, node, 1);
  const Norm *norm = normAt(entry, node, 0);
  if (!exponent || (!norm && !isTensor(entry, node, 0)))
    return std::nullopt;
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  if (norm && norm->form == Form::MeanSquare && (*exponent == 0.5 || *exponent == -0.5)) {
    Norm result = *norm;
    result.form = *exponent == 0.5 ? Form::Root : Form::InverseRoot;
    return defineNorm(entry, node, std::move(result));
  }
  if (*exponent == 2 && norm && norm->form == Form::Centered) {
    Norm result = *norm;
    result.form = Form::Square;
    return defineNorm(entry, node, std::move(result));
  }
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  if (*exponent == 2)
    return defineNorm(entry, node, {.form = Form::Square, .x = *view});
  if (*exponent != 3)
    return nodeError(entry.context, node, ErrorCode::OperandUnsupported)
           << "raises activations to the power " << std::to_string(*exponent) << "; known are 2 and 3";
  Value square = arith::MulFOp::create(entry.builder, entry.loc, view->value, view->value);
  view->value = arith::MulFOp::create(entry.builder, entry.loc, square, view->value);
  defineView(entry, node, 0, std::move(*view));
  return success();
}

/// x times the inverse of a root of its mean square, or divided by the root.
std::optional<LogicalResult> importQuotient(Entry &entry, const onnx::NodeProto &node, int index, const Norm &norm) {
  const Norm *centered = normAt(entry, node, index);
  bool fits = norm.centered ? centered && centered->form == Form::Centered && centered->x.value == norm.x.value &&
                                  centered->x.groups == norm.x.groups
                            : isOf(entry, node, index, norm);
  if (!fits)
    return refuse(entry, node, "scales by the root of a mean square of something else");
  Norm result = norm;
  result.form = Form::Normed;
  return defineNorm(entry, node, std::move(result));
}

/// Normalised activations times a constant per channel.
std::optional<LogicalResult> importScale(Entry &entry, const onnx::NodeProto &node, int index, const Norm &norm) {
  const GraphValue *weight = operand(entry, node, index);
  if (!weight || weight->kind != Kind::Weight || !weight->weight->floatType(entry.context))
    return std::nullopt;
  const StoredTensor &scale = *weight->weight;
  if (scale.shape.size() != 1 || scale.elements != norm.x.shape().back())
    return std::nullopt;
  if (norm.centered) {
    // A bias may follow.
    Norm result = norm;
    result.form = Form::Scaled;
    result.scale = &scale;
    return defineNorm(entry, node, std::move(result));
  }
  FailureOr<View> result = normalise(entry, node, norm, scale);
  if (failed(result))
    return failure();
  defineView(entry, node, 0, std::move(*result));
  return success();
}

std::optional<LogicalResult> importProduct(Entry &entry, const onnx::NodeProto &node) {
  bool isDiv = node.op_type() == "Div";
  const Norm *a = normAt(entry, node, 0), *b = normAt(entry, node, 1);
  if (isDiv) {
    if (b && b->form == Form::Root) {
      if (numberAt(entry, node, 0) == 1.0) {
        Norm result = *b;
        result.form = Form::InverseRoot;
        return defineNorm(entry, node, std::move(result));
      }
      return importQuotient(entry, node, 0, *b);
    }
    return std::nullopt;
  }
  if (b && b->form == Form::InverseRoot)
    return importQuotient(entry, node, 0, *b);
  if (a && a->form == Form::InverseRoot)
    return importQuotient(entry, node, 1, *a);
  if (a && a->form == Form::Normed)
    return importScale(entry, node, 1, *a);
  if (b && b->form == Form::Normed)
    return importScale(entry, node, 0, *b);
  if (node.input(0) != node.input(1))
    return std::nullopt;
  if (a && a->form == Form::Centered) {
    Norm result = *a;
    result.form = Form::Square;
    return defineNorm(entry, node, std::move(result));
  }
  if (!isTensor(entry, node, 0))
    return std::nullopt;
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  return defineNorm(entry, node, {.form = Form::Square, .x = *view});
}

} // namespace

std::optional<LogicalResult> importOnNorm(Entry &entry, const onnx::NodeProto &node) {
  if (!canonicalDomain(node.domain()).empty() || node.input_size() == 0)
    return std::nullopt;
  StringRef op = node.op_type();
  if (op == "ReduceMean")
    return importMean(entry, node);
  if (op == "Pow")
    return importPower(entry, node);
  if (op == "Mul" || op == "Div")
    return importProduct(entry, node);
  const Norm *a = normAt(entry, node, 0), *b = normAt(entry, node, 1);
  if (op == "Sub" && b && b->form == Form::Mean) {
    if (!isOf(entry, node, 0, *b))
      return refuse(entry, node, "subtracts a mean of something else");
    return defineNorm(entry, node, {.form = Form::Centered, .x = b->x, .centered = true});
  }
  const Norm *mean = a ? a : b;
  if (op == "Add" && mean && mean->form == Form::Scaled) {
    const GraphValue *bias = operand(entry, node, a ? 1 : 0);
    if (bias && bias->kind == Kind::Weight && bias->weight->floatType(entry.context) &&
        bias->weight->shape == mean->scale->shape) {
      FailureOr<View> result = normalise(entry, node, *mean, *mean->scale, bias->weight);
      if (failed(result))
        return failure();
      defineView(entry, node, 0, std::move(*result));
      return success();
    }
    return std::nullopt;
  }
  if (op == "Add" && mean && mean->form == Form::MeanSquare) {
    std::optional<double> epsilon = numberAt(entry, node, a ? 1 : 0);
    if (!epsilon || !std::isfinite(*epsilon) || *epsilon < 0)
      return refuse(entry, node, "adds something else than a constant from 0 on to a mean square");
    Norm result = *mean;
    result.epsilon += *epsilon;
    return defineNorm(entry, node, std::move(result));
  }
  if ((op == "Sqrt" && a && a->form == Form::MeanSquare) || (op == "Reciprocal" && a && a->form == Form::Root)) {
    if (failed(Attributes(entry.context, node).finish()))
      return failure();
    Norm result = *a;
    result.form = op == "Sqrt" ? Form::Root : Form::InverseRoot;
    return defineNorm(entry, node, std::move(result));
  }
  if (op == "Cast" && a) {
    Attributes attributes(entry.context, node);
    int64_t to = attributes.required("to");
    attributes.ignore("saturate");
    attributes.ignore("round_mode");
    if (failed(attributes.finish()))
      return failure();
    if (to == onnx::TensorProto::FLOAT || (entry.half && to == onnx::TensorProto::FLOAT16))
      return defineNorm(entry, node, *a);
  }
  return std::nullopt;
}

FailureOr<View> normalise(Entry &entry, const onnx::NodeProto &node, const Norm &norm, const StoredTensor &scale,
                          const StoredTensor *bias) {
  View view = norm.x;
  ArrayRef<unsigned> last = view.groups.back();
  // The width must be one dimension of the value; else the value is brought to what the graph sees.
  if (last.size() != 1 || last[0] != typeOf(view.value).getRank() - 1) {
    std::optional<Value> value = materialise(entry.builder, entry.loc, view);
    if (!value) {
      (void)refuse(entry, node,
                   "normalises activations of shape " + shapeText(view.shape()) +
                       " over a dimension for which numbers would have to move");
      return failure();
    }
    view = identityView(*value);
  }
  SmallVector<int64_t> shape = view.shape();
  if (scale.shape != ArrayRef<int64_t>(shape).take_back(1)) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "normalises " << shapeText(shape) << " with a scale of shape " << shapeText(scale.shape);
    return failure();
  }
  if (!std::isfinite(norm.epsilon) || norm.epsilon < 0) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
        << "attribute 'epsilon' must be finite and not negative";
    return failure();
  }
  if (bias && bias->shape != scale.shape) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "normalises " << shapeText(shape) << " with a bias of shape " << shapeText(bias->shape);
    return failure();
  }
  Value weight = weightOf(entry, scale, Dtype::F32);
  if (norm.centered) {
    Value added = bias ? weightOf(entry, *bias, Dtype::F32) : Value();
    view.value = LayerNormOp::create(entry.builder, entry.loc, view.value.getType(), view.value, weight, added,
                                     entry.builder.getF64FloatAttr(norm.epsilon));
    return view;
  }
  view.value = RMSNormOp::create(entry.builder, entry.loc, view.value.getType(), view.value, weight,
                                 entry.builder.getF64FloatAttr(norm.epsilon));
  return view;
}

FailureOr<View> viewOfNorm(Entry &entry, const onnx::NodeProto &node, int index, const Norm &norm) {
  if (norm.form == Form::Square && !norm.centered) {
    View view = norm.x;
    view.value = arith::MulFOp::create(entry.builder, entry.loc, view.value, view.value);
    return view;
  }
  if (norm.form == Form::Scaled)
    return normalise(entry, node, norm, *norm.scale);
  if (norm.form == Form::Normed) {
    // A norm without a scale has one of ones.
    Dense ones{.shape = {norm.x.shape().back()}};
    ones.values.assign(ones.shape[0], 1);
    FailureOr<const StoredTensor *> scale = makeConstant(entry, node, node.input(index) + "/ones", ones);
    if (failed(scale))
      return failure();
    return normalise(entry, node, norm, **scale);
  }
  (void)refuse(entry, node,
               "takes operand " + Twine(index) + " " + quoted(node.input(index)) +
                   ", a mean of activations or of their squares, which has a meaning in norms alone");
  return failure();
}

} // namespace helix::onnximport
