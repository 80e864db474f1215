//===- Attention.cpp - GroupQueryAttention ---------------------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/HeadBias.h"
#include "lib/Import/Onnx/Mix.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

enum Operand {
  kQ,
  kK,
  kV,
  kPastK,
  kPastV,
  kSeqlensK,
  kTotal,
  kCos,
  kSin,
  kPositionIds,
  kAttentionBias,
  kHeadSink,
  kKScale,
  kVScale,
  kQNorm,
  kKNorm,
  kQuerySeqlens
};

struct Heads {
  int64_t query = 0, kv = 0, dim = 0;
};

/// Everything that the op's attributes may say, checked.
struct GqaAttributes {
  Heads heads;
  double scale = 0, softcap = 0; ///< 0: the default, and none
  int64_t window = 0;            ///< newest tokens that are visible; 0: all
  double qNormEpsilon = 0, kNormEpsilon = 0;
  bool rotary = false, interleaved = false;
  bool smooth = false; ///< a score of 0 takes weight beside the keys
  bool codes = false;  ///< keys and values are kept as int8, each with one scale
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
  gqa.softcap = attributes.real("softcap", 0);
  int64_t window = attributes.integer("local_window_size", -1);
  gqa.window = window == -1 ? 0 : window;
  int64_t smooth = attributes.integer("smooth_softmax", 0);
  gqa.smooth = smooth == 1;
  attributes.onlyInteger("qk_output", 0, {0});
  attributes.onlyInteger("causal", 1, {1});
  // With it the past input is a ring that holds no less than the window: another place for what is seen, not another
  // meaning.
  bool isRing = attributes.integer("sliding_window_cache", 0) != 0;
  int64_t bits = attributes.integer("kv_cache_bit_width", 0);
  std::string keys = attributes.text("k_quant_type", "NONE"), values = attributes.text("v_quant_type", "NONE");
  gqa.codes = keys == "PER_TENSOR";
  // Read as the float that it is stored as: the default 1e-6 is the one nearest to it.
  double epsilon = attributes.real("qk_norm_epsilon", 1e-6f);
  gqa.qNormEpsilon = attributes.real("q_norm_epsilon", epsilon);
  gqa.kNormEpsilon = attributes.real("k_norm_epsilon", epsilon);
  if (failed(attributes.finish()))
    return failure();
  auto outOfRange = [&](StringRef name, StringRef range) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported) << "attribute '" << name << "' must be " << range;
    return failure();
  };
  if (keys != values || (keys != "NONE" && keys != "PER_TENSOR"))
    return outOfRange("k_quant_type", "NONE or PER_TENSOR, as v_quant_type");
  if (bits != (gqa.codes ? 8 : 0))
    return outOfRange("kv_cache_bit_width", "8 with caches of codes (PER_TENSOR), 0 without");
  if (!std::isfinite(gqa.softcap) || gqa.softcap < 0)
    return outOfRange("softcap", "finite and not negative");
  if (smooth < -1 || smooth > 1)
    return outOfRange("smooth_softmax", "0 or 1, or -1 for none");
  if (window != -1 && window < 1)
    return outOfRange("local_window_size", "positive, or -1 for none");
  for (double value : {epsilon, gqa.qNormEpsilon, gqa.kNormEpsilon})
    if (!std::isfinite(value) || value <= 0)
      return outOfRange("qk_norm_epsilon", "finite and positive, as q_norm_epsilon and k_norm_epsilon");
  if (isRing && gqa.window == 0)
    return outOfRange("local_window_size",
                      "given with sliding_window_cache: without a window no ring holds all tokens");
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
  const std::pair<int, StringRef> refused[] = {{kQuerySeqlens, "query_seqlens"}};
  for (auto [i, name] : refused)
    if (operand(entry, node, i))
      return operandError(entry, node, i, "left out: " + name + " is not supported");
  // The norms of queries and keys come together.
  for (auto [i, other] : {std::pair(kQNorm, kKNorm), {kKNorm, kQNorm}})
    if (!operand(entry, node, i) && operand(entry, node, other))
      return operandError(entry, node, i, "given: q_norm_weight and k_norm_weight come together");
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

/// Operand `index`, a constant of `size` elements, as an f32 weight.
FailureOr<Value> vectorOperand(Entry &entry, const onnx::NodeProto &node, int index, int64_t size) {
  FailureOr<const StoredTensor *> stored = constant(entry, node, index);
  if (failed(stored))
    return failure();
  if ((*stored)->shape != ArrayRef<int64_t>{size}) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << index << " has shape " << shapeText((*stored)->shape) << ", but must have [" << size << "]";
    return failure();
  }
  return weightOf(entry, **stored, Dtype::F32);
}

/// The RMS norms of each head of the queries and the keys, if the node has them.
LogicalResult normHeads(Entry &entry, const onnx::NodeProto &node, const GqaAttributes &gqa, Value &q, Value &k) {
  if (!operand(entry, node, kQNorm))
    return success();
  for (auto [x, index, epsilon] :
       {std::tuple(&q, kQNorm, gqa.qNormEpsilon), std::tuple(&k, kKNorm, gqa.kNormEpsilon)}) {
    FailureOr<Value> scale = vectorOperand(entry, node, index, gqa.heads.dim);
    if (failed(scale))
      return failure();
    *x = RMSNormOp::create(entry.builder, entry.loc, x->getType(), *x, *scale, entry.builder.getF64FloatAttr(epsilon));
  }
  return success();
}

/// What is added to the scores: a mask, on top of the causal one and the window, or a bias per head.
LogicalResult addBias(Entry &entry, const onnx::NodeProto &node, const GqaAttributes &gqa, AttentionParts &parts) {
  const GraphValue *value = operand(entry, node, kAttentionBias);
  if (!value)
    return success();
  std::vector<Grid> masks;
  if (value->kind == GraphValue::Kind::HeadBias && fitsScores(entry, *value->bias, gqa.heads.query, /*flat=*/false)) {
    // A sink does not shift with the scores of the keys as their bias is counted from the query's own position.
    if (parts.sinks)
      return operandError(entry, node, kAttentionBias, "left out where there are sinks");
    FailureOr<Value> slopes = slopesOf(entry, node, value->bias->slopes);
    if (failed(slopes))
      return failure();
    parts.slopes = *slopes;
    masks = value->bias->masks;
  } else {
    std::optional<Grid> grid = gridOf(entry, *value);
    if (!grid || grid->type != Grid::Type::Float)
      return operandError(entry, node, kAttentionBias,
                          "a mask or a bias per head that is computed from positions and lengths");
    masks.push_back(std::move(*grid));
  }
  masks.push_back(causalMask(entry, {.constant = -entry.tokens, .total = 1}));
  FailureOr<int64_t> window = windowOf(entry, node, masks);
  if (failed(window))
    return failure();
  if (*window != 0)
    parts.window = parts.window == 0 ? *window : std::min(parts.window, *window);
  return success();
}

/// The scales of a cache of codes: constants of one positive number each.
LogicalResult takeScales(Entry &entry, const onnx::NodeProto &node, const GqaAttributes &gqa, AttentionParts &parts) {
  FloatAttr scales[2];
  for (auto [part, index] : {std::pair(0, int(kKScale)), {1, int(kVScale)}}) {
    if (!gqa.codes) {
      if (operand(entry, node, index))
        return operandError(entry, node, index, "left out where k_quant_type and v_quant_type are NONE");
      continue;
    }
    FailureOr<const StoredTensor *> stored = constant(entry, node, index);
    FailureOr<std::optional<Dense>> dense = std::optional<Dense>();
    if (succeeded(stored) && (*stored)->elements == 1)
      dense = denseOf(entry, **stored);
    if (failed(stored) || failed(dense))
      return failure();
    double scale = *dense ? (*dense)->values.front() : 0;
    if (!(scale >= 0x1p-126 && scale <= 0x1p126))
      return operandError(entry, node, index, "one number from 2^-126 to 2^126");
    scales[part] = FloatAttr::get(Float64Type::get(entry.context), scale);
  }
  if (gqa.codes)
    parts.codes = KvScaleAttr::get(entry.context, KvGranularity::Tensor, scales[0], scales[1]);
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

  AttentionParts call{.scale = gqa->scale != 0 ? gqa->scale : 1.0 / std::sqrt(static_cast<double>(gqa->heads.dim)),
                      .softcap = gqa->softcap,
                      .window = gqa->window};
  if (failed(normHeads(entry, node, *gqa, parts[0], parts[1])))
    return failure();
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
  if (failed(takePasts(entry, node, call)) || failed(takeScales(entry, node, *gqa, call)))
    return failure();
  call.q = parts[0];
  call.k = parts[1];
  call.v = parts[2];
  if (operand(entry, node, kHeadSink)) {
    FailureOr<Value> sinks = vectorOperand(entry, node, kHeadSink, gqa->heads.query);
    if (failed(sinks))
      return failure();
    call.sinks = *sinks;
  } else if (gqa->smooth) {
    Dense zeros{.shape = {gqa->heads.query}};
    zeros.values.assign(gqa->heads.query, 0);
    FailureOr<const StoredTensor *> stored = makeConstant(entry, node, "zero_sinks", zeros);
    if (failed(stored))
      return failure();
    call.sinks = weightOf(entry, **stored, Dtype::F32);
  }
  if (failed(addBias(entry, node, *gqa, call)))
    return failure();
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
