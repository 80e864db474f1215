//===- StatelessAttention.cpp - Attention over plain tensors ---------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Stateless.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

enum Operand { kQ, kK, kV, kMask, kPastKey, kPastValue, kLengths };
enum Result { kY, kPresentKey, kPresentValue, kScores };

struct Settings {
  int64_t queryHeads = 0, kvHeads = 0, mode = 0, left = -1, right = -1;
  double scale = 0, softcap = 0;
  bool hasScale = false, causal = false;
};

FailureOr<Settings> settingsOf(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  Settings settings;
  settings.queryHeads = attributes.integer("q_num_heads", 0);
  settings.kvHeads = attributes.integer("kv_num_heads", 0);
  settings.hasScale = attributes.has("scale");
  settings.scale = attributes.real("scale", 0);
  settings.softcap = attributes.real("softcap", 0);
  settings.causal = attributes.integer("is_causal", 0) != 0;
  settings.mode = attributes.integer("qk_matmul_output_mode", 0);
  settings.left = attributes.integer("left_window_size", -1);
  settings.right = attributes.integer("right_window_size", -1);
  // The softmax is computed in no less than f32 whatever is asked for.
  attributes.onlyInteger(
      "softmax_precision", onnx::TensorProto::FLOAT,
      {onnx::TensorProto::FLOAT, onnx::TensorProto::FLOAT16, onnx::TensorProto::DOUBLE, onnx::TensorProto::BFLOAT16});
  if (failed(attributes.finish()))
    return failure();
  bool fine = settings.mode >= 0 && settings.mode <= 3 && settings.left >= -1 && settings.right >= -1 &&
              std::max(settings.left, settings.right) <= INT32_MAX && std::isfinite(settings.scale) &&
              std::isfinite(settings.softcap) && settings.softcap >= 0;
  if (fine)
    return settings;
  nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
      << "scale and softcap must be finite, softcap and windows not negative, but for a window of -1, and "
         "qk_matmul_output_mode from 0 to 3";
  return failure();
}

/// The mask as it is, or null; an error unless it repeats to [batch, heads, tokens, up to keys].
FailureOr<Value> maskAt(Entry &entry, const onnx::NodeProto &node, ArrayRef<int64_t> scores) {
  const GraphValue *value = operand(entry, node, kMask);
  if (!value)
    return Value();
  bool isTruths = value->kind == GraphValue::Kind::Given && typeOf(value->value).getElementType().isInteger(1);
  FailureOr<Value> mask = isTruths ? FailureOr<Value>(value->value) : tensorAt(entry, node, kMask);
  if (failed(mask))
    return failure();
  ArrayRef<int64_t> shape = typeOf(*mask).getShape();
  bool fits = shape.size() <= 4 && shape.back() <= scores.back();
  for (size_t d = 1; fits && d < shape.size(); ++d) {
    int64_t size = shape[shape.size() - 1 - d], whole = scores[3 - d];
    fits = size == 1 || size == whole;
  }
  // One number for all keys, or one for the first and none for the others: nobody can tell.
  fits = fits && (shape.back() != 1 || scores.back() == 1);
  if (fits)
    return *mask;
  nodeError(entry.context, node, ErrorCode::ShapeMismatch)
      << "has a mask of shape " << shapeText(shape) << ", which must repeat to " << shapeText(scores)
      << "; its last dimension may be shorter, but not 1";
  return failure();
}

/// Past and new tokens one behind the other.
FailureOr<Value> joined(Entry &entry, const onnx::NodeProto &node, int past, Value fresh) {
  if (!operand(entry, node, past))
    return fresh;
  FailureOr<Value> before = tensorAt(entry, node, past);
  if (failed(before))
    return failure();
  SmallVector<int64_t> want(typeOf(fresh).getShape()), have(typeOf(*before).getShape());
  if (have.size() == 4)
    want[2] = have[2];
  if (want != have) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << past << " has shape " << shapeText(have) << ", but new keys or values are "
        << shapeText(typeOf(fresh).getShape());
    return failure();
  }
  return Value(tensor::ConcatOp::create(entry.builder, entry.loc, /*dim=*/2, ValueRange{*before, fresh}));
}

} // namespace

LogicalResult importDenseAttention(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<Settings> settings = settingsOf(entry, node);
  if (failed(settings))
    return failure();
  Value heads[3];
  bool isFlat = false;
  for (int i : {kQ, kK, kV}) {
    FailureOr<Value> value = tensorAt(entry, node, i);
    if (failed(value))
      return failure();
    isFlat = typeOf(*value).getRank() == 3;
    FailureOr<Value> split = headsFirst(entry, node, *value, i == kQ ? settings->queryHeads : settings->kvHeads);
    if (failed(split))
      return failure();
    heads[i] = *split;
  }
  bool hasPast = operand(entry, node, kPastKey), hasLengths = operand(entry, node, kLengths);
  if (hasPast != static_cast<bool>(operand(entry, node, kPastValue)) || (hasPast && hasLengths))
    return operandError(entry, node, hasPast ? kPastValue : kPastKey,
                        "given with its other half, past_key and past_value, and without nonpad_kv_seqlen");
  FailureOr<Value> key = joined(entry, node, kPastKey, heads[kK]);
  FailureOr<Value> value = failed(key) ? FailureOr<Value>(failure()) : joined(entry, node, kPastValue, heads[kV]);
  if (failed(value))
    return failure();

  ArrayRef<int64_t> q = typeOf(heads[kQ]).getShape(), k = typeOf(*key).getShape(), v = typeOf(*value).getShape();
  if (k[0] != q[0] || v[0] != q[0] || k[1] != v[1] || q[1] % k[1] != 0 || k[2] != v[2] || k[3] != q[3])
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "queries, keys and values [batch, heads, tokens, width] do not fit each other: " << shapeText(q) << ", "
           << shapeText(k) << ", " << shapeText(v);
  FailureOr<Value> mask = maskAt(entry, node, {q[0], q[1], q[2], k[2]});
  FailureOr<Value> lengths = failed(mask) ? FailureOr<Value>(failure()) : integersAt(entry, node, kLengths, {q[0]});
  if (failed(lengths))
    return failure();
  if (hasLengths &&
      (failed(refuseResult(entry, node, kPresentKey)) || failed(refuseResult(entry, node, kPresentValue))))
    return failure();

  OpBuilder &b = entry.builder;
  double scale = settings->hasScale ? settings->scale : 1 / std::sqrt(double(q[3]));
  int64_t right = settings->causal ? 0 : settings->right;
  auto bound = [&](int64_t n) { return n < 0 ? IntegerAttr() : b.getI64IntegerAttr(n); };
  int64_t offset = hasPast ? k[2] - typeOf(heads[kK]).getDimSize(2) : 0;
  auto attend = [&](Value values, ScoreStageAttr stage) -> Value {
    auto type = RankedTensorType::get({q[0], q[1], q[2], values ? v[3] : k[2]}, b.getF32Type());
    return DenseAttentionOp::create(b, entry.loc, type, heads[kQ], *key, values, *mask, *lengths,
                                    b.getF64FloatAttr(scale),
                                    settings->softcap == 0 ? FloatAttr() : b.getF64FloatAttr(settings->softcap),
                                    b.getI64IntegerAttr(offset), bound(settings->left), bound(right), stage);
  };
  defineTensor(entry, node, kY, headsBack(entry, attend(*value, ScoreStageAttr()), isFlat));
  defineTensor(entry, node, kPresentKey, *key);
  defineTensor(entry, node, kPresentValue, *value);
  if (node.output_size() > kScores && !node.output(kScores).empty())
    defineTensor(entry, node, kScores,
                 attend(Value(), ScoreStageAttr::get(entry.context, static_cast<ScoreStage>(settings->mode))));
  return success();
}

} // namespace helix::onnximport
