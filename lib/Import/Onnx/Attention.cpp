//===- Attention.cpp - GroupQueryAttention ---------------------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/Mix.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

enum Operand { kQ, kK, kV, kPastK, kPastV, kSeqlensK, kTotal, kCos, kSin, kPositionIds, kFirstRefused };

struct Heads {
  int64_t query = 0, kv = 0, dim = 0;
};

/// Everything that the op's attributes may say, checked.
struct GqaAttributes {
  Heads heads;
  double scale = 0;
  bool rotary = false, interleaved = false;
};

FailureOr<GqaAttributes> readAttributes(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  GqaAttributes gqa;
  gqa.heads.query = attributes.required("num_heads");
  gqa.heads.kv = attributes.required("kv_num_heads");
  gqa.scale = attributes.real("scale", 0);
  int64_t rotary = attributes.integer("do_rotary", 0), interleaved = attributes.integer("rotary_interleaved", 0);
  gqa.rotary = rotary != 0;
  gqa.interleaved = interleaved != 0;
  attributes.onlyReal("softcap", 0);
  attributes.onlyInteger("local_window_size", -1, {-1});
  attributes.onlyInteger("smooth_softmax", 0, {0, -1});
  attributes.onlyInteger("qk_output", 0, {0});
  attributes.onlyInteger("causal", 1, {1});
  attributes.onlyInteger("sliding_window_cache", 0, {0});
  attributes.onlyInteger("kv_cache_bit_width", 0, {0});
  attributes.onlyString("k_quant_type", "NONE");
  attributes.onlyString("v_quant_type", "NONE");
  // Without the weights of those norms, which are refused, these mean nothing.
  attributes.ignore("qk_norm_epsilon");
  attributes.ignore("q_norm_epsilon");
  attributes.ignore("k_norm_epsilon");
  if (failed(attributes.finish()))
    return failure();
  if (gqa.heads.kv < 1 || gqa.heads.query < 1 || gqa.heads.query % gqa.heads.kv != 0) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
        << "has " << gqa.heads.query << " query heads (num_heads) and " << gqa.heads.kv
        << " KV heads (kv_num_heads); the former must be a positive multiple of the latter";
    return failure();
  }
  if (!std::isfinite(gqa.scale)) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported) << "attribute 'scale' must be finite";
    return failure();
  }
  return gqa;
}

/// The operands that would change what is computed must be left out.
LogicalResult refuseOptionalOperands(Entry &entry, const onnx::NodeProto &node) {
  constexpr StringRef kNames[] = {"attention_bias", "head_sink",     "k_scale",      "v_scale",
                                  "q_norm_weight",  "k_norm_weight", "query_seqlens"};
  for (auto [i, name] : llvm::enumerate(kNames))
    if (operand(entry, node, kFirstRefused + i))
      return operandError(entry, node, kFirstRefused + i, "left out: " + name + " is not supported");
  const GraphValue *positions = operand(entry, node, kPositionIds);
  if (positions && positions->kind != GraphValue::Kind::Positions)
    return operandError(entry, node, kPositionIds, "the model's input position_ids");
  return success();
}

/// seqlens_k must be the length of each sequence less one, and total_sequence_length that of the mask.
LogicalResult checkLengths(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<IntTensor> seqlens = integers(entry, node, kSeqlensK);
  if (failed(seqlens))
    return failure();
  bool plain = static_cast<int64_t>(seqlens->elements.size()) == entry.batch();
  for (auto [row, element] : llvm::enumerate(seqlens->elements))
    plain &= element == LinearInt{.constant = -1, .rowFactor = 1, .row = static_cast<int64_t>(row)};
  if (!plain)
    return nodeError(entry.context, node, ErrorCode::LengthsNotPlain)
           << "seqlens_k (operand " << int(kSeqlensK)
           << ") must be the number of ones in each row of attention_mask, less one";
  FailureOr<IntTensor> total = integers(entry, node, kTotal);
  if (failed(total))
    return failure();
  if (total->elements.size() != 1 || total->elements[0] != LinearInt{.total = 1})
    return nodeError(entry.context, node, ErrorCode::LengthsNotPlain)
           << "total_sequence_length (operand " << int(kTotal) << ") must be the length of attention_mask's rows";
  return success();
}

/// q, k and v [batch, tokens, heads, dim]; taken out of operand 0 where it packs the three.
LogicalResult splitHeads(Entry &entry, const onnx::NodeProto &node, Heads &heads, Value (&parts)[3]) {
  OpBuilder &b = entry.builder;
  FailureOr<View> q = viewOf(entry, node, kQ);
  if (failed(q))
    return failure();
  bool packed = !operand(entry, node, kK) && !operand(entry, node, kV);
  SmallVector<int64_t> shape = q->shape();
  // Sums of head counts cannot overflow: both are at most the width, or the division below is not exact.
  int64_t width = shape.back();
  if (shape.size() != 3 || heads.query > width || heads.kv > width)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "the query has shape " << shapeText(shape) << ", too narrow for " << heads.query << " heads";
  int64_t total = packed ? heads.query + 2 * heads.kv : heads.query;
  if (width % total != 0)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "the query has shape " << shapeText(shape) << ", whose last dimension does not divide into " << total
           << (packed ? " heads (queries, keys and values packed)" : " heads");
  heads.dim = width / total;

  FailureOr<Value> whole = packed ? activation(entry, node, kQ) : FailureOr<Value>(Value());
  if (failed(whole))
    return failure();
  const int64_t counts[3] = {heads.query, heads.kv, heads.kv};
  int64_t column = 0;
  for (int part = 0; part < 3; ++part) {
    SmallVector<int64_t> flat = {entry.batch(), entry.tokens, counts[part] * heads.dim};
    View view;
    if (packed) {
      SmallVector<int64_t> offsets = {0, 0, column}, strides = {1, 1, 1};
      auto type = RankedTensorType::get(flat, b.getF32Type());
      view = identityView(tensor::ExtractSliceOp::create(b, entry.loc, type, *whole, ValueRange(), ValueRange(),
                                                         ValueRange(), offsets, flat, strides));
    } else {
      FailureOr<View> given = viewOf(entry, node, part);
      if (failed(given))
        return failure();
      view = *given;
    }
    if (view.shape() != flat)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "operand " << part << " has shape " << shapeText(view.shape()) << ", but " << counts[part]
             << " heads of " << heads.dim << " need " << shapeText(flat);
    column += flat.back();
    std::optional<View> split = reshapeView(b, entry.loc, view, {entry.batch(), entry.tokens, counts[part], heads.dim});
    std::optional<Value> value = split ? materialise(b, entry.loc, *split) : std::nullopt;
    if (!value)
      return nodeError(entry.context, node, ErrorCode::OrderUnsupported)
             << "operand " << part << " cannot be split into heads without moving numbers";
    parts[part] = *value;
  }
  return success();
}

/// The past inputs of the layer.
LogicalResult takePasts(Entry &entry, const onnx::NodeProto &node, AttentionParts &parts) {
  for (int index : {kPastK, kPastV}) {
    const GraphValue *value = operand(entry, node, index);
    if (!value || value->kind != GraphValue::Kind::Past)
      return nodeError(entry.context, node, ErrorCode::CacheMismatch)
             << "its past " << (index == kPastK ? "key " : "value ") << quoted(node.input(index))
             << " must be an input of the model";
    if (failed(checkGrowing(entry, value->cache)))
      return failure();
    (index == kPastK ? parts.pastKey : parts.pastValue) = value->cache;
  }
  return success();
}

} // namespace

LogicalResult importGroupQueryAttention(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<GqaAttributes> gqa = readAttributes(entry, node);
  if (failed(gqa) || failed(refuseOptionalOperands(entry, node)) || failed(refuseResult(entry, node, 3)) ||
      failed(checkLengths(entry, node)))
    return failure();
  Value parts[3];
  if (failed(splitHeads(entry, node, gqa->heads, parts)))
    return failure();

  AttentionParts call{.scale = gqa->scale != 0 ? gqa->scale : 1.0 / std::sqrt(static_cast<double>(gqa->heads.dim))};
  if (gqa->rotary) {
    FailureOr<const StoredTensor *> cos = constant(entry, node, kCos), sin = constant(entry, node, kSin);
    if (failed(cos) || failed(sin))
      return failure();
    for (Value &x : MutableArrayRef<Value>(parts).take_front(2)) {
      FailureOr<Value> rotated = rotate(entry, node, x, **cos, **sin, gqa->interleaved);
      if (failed(rotated))
        return failure();
      x = *rotated;
    }
    call.positions = (*cos)->shape[0];
  }
  if (failed(takePasts(entry, node, call)))
    return failure();
  call.q = parts[0];
  call.k = parts[1];
  call.v = parts[2];
  FailureOr<AttentionResult> attention = makeAttention(entry, node, call);
  if (failed(attention))
    return failure();
  View joined = identityView(attention->value);
  joined.groups = {{0}, {1}, {2, 3}};
  defineView(entry, node, 0, std::move(joined));
  define(entry, node, 1, {.kind = GraphValue::Kind::Present, .cache = attention->cache, .part = 0});
  define(entry, node, 2, {.kind = GraphValue::Kind::Present, .cache = attention->cache, .part = 1});
  return success();
}

} // namespace helix::onnximport
