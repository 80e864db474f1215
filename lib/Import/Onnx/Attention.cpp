//===- Attention.cpp - GroupQueryAttention ---------------------------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

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
  FailureOr<Value> q = activation(entry, node, kQ);
  if (failed(q))
    return failure();
  parts[0] = *q;
  bool packed = !operand(entry, node, kK) && !operand(entry, node, kV);
  ArrayRef<int64_t> shape = typeOf(*q).getShape();
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

  const int64_t counts[3] = {heads.query, heads.kv, heads.kv};
  int64_t column = 0;
  for (int part = 0; part < 3; ++part) {
    SmallVector<int64_t> flat = {entry.batch(), entry.tokens, counts[part] * heads.dim};
    auto flatType = RankedTensorType::get(flat, b.getF32Type());
    if (packed) {
      SmallVector<int64_t> offsets = {0, 0, column}, strides = {1, 1, 1};
      parts[part] = tensor::ExtractSliceOp::create(b, entry.loc, flatType, *q, ValueRange(), ValueRange(), ValueRange(),
                                                   offsets, flat, strides);
    } else if (part > 0) {
      FailureOr<Value> value = activation(entry, node, part);
      if (failed(value))
        return failure();
      parts[part] = *value;
    }
    if (parts[part].getType() != flatType)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "operand " << part << " has shape " << shapeText(typeOf(parts[part]).getShape()) << ", but "
             << counts[part] << " heads of " << heads.dim << " need " << shapeText(flat);
    column += flat.back();
    auto type = RankedTensorType::get({entry.batch(), entry.tokens, counts[part], heads.dim}, b.getF32Type());
    SmallVector<ReassociationIndices> groups = {{0}, {1}, {2, 3}};
    parts[part] = tensor::ExpandShapeOp::create(b, entry.loc, type, parts[part], groups);
  }
  return success();
}

/// The layer's cache, its argument given its type.
FailureOr<Cache *> takeCache(Entry &entry, const onnx::NodeProto &node, const Heads &heads, int64_t context) {
  const GraphValue *key = operand(entry, node, kPastK), *value = operand(entry, node, kPastV);
  if (!key || key->kind != GraphValue::Kind::Past || key->part != 0) {
    (void)operandError(entry, node, kPastK, "a model input with the keys of one layer");
    return failure();
  }
  if (!value || value->kind != GraphValue::Kind::Past || value->part != 1 || value->cache != key->cache) {
    (void)operandError(entry, node, kPastV, "a model input with the values of the same layer");
    return failure();
  }
  Cache &cache = entry.caches[key->cache];
  for (int part = 0; part < 2; ++part) {
    ArrayRef<int64_t> dims = cache.dims[part];
    if ((dims[1] != -1 && dims[1] != heads.kv) || (dims[3] != -1 && dims[3] != heads.dim)) {
      nodeError(entry.context, node, ErrorCode::CacheMismatch)
          << "has " << heads.kv << " KV heads of " << heads.dim << ", but the cache input " << quoted(cache.names[part])
          << " has shape " << shapeText(dims) << " (-1 is dynamic)";
      return failure();
    }
  }
  const ImportOptions &options = entry.state.options;
  int64_t capacity = (context + options.block - 1) / options.block * options.block;
  // Keys and values of all slots must be countable in 63 bits of bytes.
  int64_t bytes = 0;
  if (__builtin_mul_overflow(heads.kv * heads.dim * 8, capacity, &bytes) ||
      __builtin_mul_overflow(bytes, entry.batch(), &bytes)) {
    nodeError(entry.context, node, ErrorCode::ImportOptionInvalid)
        << "its cache for " << entry.batch() << " sequences of " << context
        << " tokens is more than 2^63 bytes; lower --batch or --max-context";
    return failure();
  }
  cache.argument.setType(KVType::get(entry.context, entry.batch(), heads.kv, heads.dim, heads.dim,
                                     elementType(entry.context, options.kvDtype), options.block, /*kvp=*/1, capacity));
  return &cache;
}

struct RotaryTables {
  const StoredTensor *cos = nullptr, *sin = nullptr;
};

FailureOr<RotaryTables> rotaryTables(Entry &entry, const onnx::NodeProto &node, const Heads &heads) {
  FailureOr<const StoredTensor *> cos = constant(entry, node, kCos), sin = constant(entry, node, kSin);
  if (failed(cos) || failed(sin))
    return failure();
  if ((*cos)->shape.size() != 2 || (*cos)->shape != (*sin)->shape || 2 * (*cos)->shape[1] > heads.dim) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "its rotary tables have shapes " << shapeText((*cos)->shape) << " and " << shapeText((*sin)->shape)
        << "; both must be [positions, r] with 2 r at most the head size " << heads.dim;
    return failure();
  }
  return RotaryTables{*cos, *sin};
}

/// Tokens per slot: the option, or the length of the rotary tables (none if null), which it must not exceed.
FailureOr<int64_t> contextOf(Entry &entry, const onnx::NodeProto &node, const StoredTensor *cos) {
  int64_t context = entry.state.options.maxContext;
  if (cos && context > cos->shape[0]) {
    nodeError(entry.context, node, ErrorCode::ContextTooLong)
        << "its rotary tables have " << cos->shape[0] << " positions, but the longest context is to be " << context
        << "; lower --max-context or export the model with a longer one";
    return failure();
  }
  if (context == 0 && cos)
    context = cos->shape[0];
  if (context == 0) {
    nodeError(entry.context, node, ErrorCode::ImportOptionInvalid)
        << "the model has no rotary tables that would state its longest context; give --max-context";
    return failure();
  }
  if (context < entry.tokens) {
    nodeError(entry.context, node, ErrorCode::ImportOptionInvalid)
        << "a prefill chunk of " << entry.tokens << " tokens does not fit a context of " << context;
    return failure();
  }
  return context;
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

  OpBuilder &b = entry.builder;
  RotaryTables tables;
  if (gqa->rotary) {
    FailureOr<RotaryTables> found = rotaryTables(entry, node, gqa->heads);
    if (failed(found))
      return failure();
    tables = *found;
  }
  FailureOr<int64_t> context = contextOf(entry, node, tables.cos);
  if (failed(context))
    return failure();
  FailureOr<Cache *> cache = takeCache(entry, node, gqa->heads, *context);
  if (failed(cache))
    return failure();
  if (gqa->rotary) {
    Value cos = weightOf(entry, *tables.cos, Dtype::F32), sin = weightOf(entry, *tables.sin, Dtype::F32);
    for (Value &x : MutableArrayRef<Value>(parts).take_front(2))
      x = RopeOp::create(b, entry.loc, x, cos, sin, entry.past, gqa->interleaved);
  }
  (*cache)->newest = KVAppendOp::create(b, entry.loc, (*cache)->newest.getType(), parts[1], parts[2], entry.past,
                                        entry.qLen, (*cache)->newest);
  double scale = gqa->scale != 0 ? gqa->scale : 1.0 / std::sqrt(static_cast<double>(gqa->heads.dim));
  Value attention = AttentionOp::create(b, entry.loc, parts[0].getType(), parts[0], (*cache)->newest, entry.past,
                                        entry.qLen, b.getF64FloatAttr(scale));
  auto type = RankedTensorType::get({entry.batch(), entry.tokens, gqa->heads.query * gqa->heads.dim}, b.getF32Type());
  SmallVector<ReassociationIndices> groups = {{0}, {1}, {2, 3}};
  defineTensor(entry, node, 0, tensor::CollapseShapeOp::create(b, entry.loc, type, attention, groups));
  unsigned number = *cache - entry.caches.data();
  define(entry, node, 1, {.kind = GraphValue::Kind::Present, .cache = number, .part = 0});
  define(entry, node, 2, {.kind = GraphValue::Kind::Present, .cache = number, .part = 1});
  return success();
}

} // namespace helix::onnximport
