//===- StandardAttention.cpp - Attention, MultiHeadAttention, TensorScatter ===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/HeadBias.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

/// What both ops come to: where their operands are, and what the attributes say.
struct Call {
  int mask = -1, pastKey = -1, pastValue = -1, lengths = -1;
  int64_t queryHeads = 0, kvHeads = 0;
  double scale = 0, softcap = 0;
  bool causal = false;
  int64_t left = -1, right = -1; ///< keys seen before and behind a query's own; -1: all
};

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::CacheMismatch) << reason;
}

/// New queries, keys or values as [batch, tokens, heads, width].
FailureOr<Value> headsOf(Entry &entry, const onnx::NodeProto &node, int index, int64_t heads) {
  FailureOr<View> view = viewOf(entry, node, index);
  if (failed(view))
    return failure();
  SmallVector<int64_t> shape = view->shape();
  std::optional<View> split;
  if (shape.size() == 4)
    split = transposeView(*view, {0, 2, 1, 3});
  else if (shape.size() == 3 && heads > 0 && shape[2] % heads == 0)
    split = reshapeView(entry.builder, entry.loc, *view, {shape[0], shape[1], heads, shape[2] / heads});
  std::optional<Value> value = split ? materialise(entry.builder, entry.loc, *split) : std::nullopt;
  if (!value) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "operand " << index << " has shape " << shapeText(shape) << "; it must be [batch, tokens, " << heads
        << " * head size] or [batch, heads, tokens, head size]";
    return failure();
  }
  return *value;
}

/// Keys or values of all tokens: from a past operand and new ones, or joined or scattered before.
FailureOr<Cached> cachedOf(Entry &entry, const onnx::NodeProto &node, int index, int pastIndex, int64_t heads) {
  const GraphValue *value = operand(entry, node, index), *past = operand(entry, node, pastIndex);
  if (past) {
    if (past->kind != Kind::Past) {
      (void)operandError(entry, node, pastIndex, "a model input with past keys or values");
      return failure();
    }
    FailureOr<Value> fresh = headsOf(entry, node, index, heads);
    if (failed(fresh))
      return failure();
    return joinPast(entry, node, past->cache, *fresh);
  }
  if (!value || value->kind != Kind::Cached) {
    (void)operandError(entry, node, index,
                       "keys and values of all tokens: attention without a KV cache cannot be decoded with");
    return failure();
  }
  Cached cached = *value->cached;
  using C = Cached;
  bool isFlat = hasForm(cached, {{C::Batch}, {C::Token}, {C::Head, C::Repeat, C::Width}});
  bool isSplit = hasForm(cached, {{C::Batch}, {C::Head, C::Repeat}, {C::Token}, {C::Width}});
  // A static buffer does not tell heads from width; the op does.
  if (isFlat && entry.pasts[cached.past].dims.size() == 3) {
    int64_t width = cached.sizes[C::Width].constant;
    std::optional<View> split =
        heads > 0 && width % heads == 0
            ? reshapeView(entry.builder, entry.loc, cached.flat, {entry.batch(), entry.tokens, heads, width / heads})
            : std::nullopt;
    std::optional<Value> fresh = split ? materialise(entry.builder, entry.loc, *split) : std::nullopt;
    if (!fresh)
      return refuse(entry, node, "its cache of width " + Twine(width) + " does not divide into its heads");
    cached.fresh = *fresh;
    return cached;
  }
  int64_t seen = cached.sizes[C::Head].constant * cached.sizes[C::Repeat].constant;
  if (!isSplit && !(isFlat && seen == heads))
    return refuse(entry, node,
                  "keys and values must be [batch, heads, all tokens, head size] or [batch, all tokens, heads * head "
                  "size], those of each KV head repeated for the queries that read it");
  return cached;
}

/// Gives outputs 1 and 2 the caches.
void definePresents(Entry &entry, const onnx::NodeProto &node, const Cached &key, const Cached &value) {
  for (const auto &[index, cached] : {std::pair(1, &key), std::pair(2, &value)})
    define(entry, node, index, {.kind = Kind::Cached, .cached = std::make_shared<const Cached>(*cached)});
}

LogicalResult importCall(Entry &entry, const onnx::NodeProto &node, const Call &call) {
  FailureOr<View> query = viewOf(entry, node, 0);
  if (failed(query))
    return failure();
  bool isSplit = query->groups.size() == 4;
  FailureOr<Value> q = headsOf(entry, node, 0, call.queryHeads);
  if (failed(q))
    return failure();
  FailureOr<Cached> key = cachedOf(entry, node, 1, call.pastKey, call.kvHeads);
  FailureOr<Cached> value =
      failed(key) ? FailureOr<Cached>(failure()) : cachedOf(entry, node, 2, call.pastValue, call.kvHeads);
  if (failed(key) || failed(value))
    return failure();
  for (const Cached *cached : {&*key, &*value}) {
    int64_t seen = cached->sizes[Cached::Head].constant * cached->sizes[Cached::Repeat].constant;
    if (typeOf(*q).getDimSize(2) % seen != 0)
      return refuse(entry, node,
                    "has " + Twine(typeOf(*q).getDimSize(2)) + " query heads, but keys or values for " + Twine(seen));
  }
  double width = static_cast<double>(typeOf(*q).getDimSize(3));
  Scores scores{
      .q = *q, .key = *key, .scale = call.scale != 0 ? call.scale : 1.0 / std::sqrt(width), .softcap = call.softcap};
  scores.scale *= key->scale;
  if (value->scale != 1)
    return refuse(entry, node, "scales its values, which the cache does not");

  bool isStatic = entry.pasts[key->past].capacity != 0, hasPast = operand(entry, node, call.pastKey);
  const GraphValue *lengths = operand(entry, node, call.lengths);
  // A query's own position is that of its token: behind the past, or the last of the lengths that are given.
  LinearInt offset{.constant = -entry.tokens, .total = 1};
  if (isStatic || lengths) {
    FailureOr<IntTensor> given = integers(entry, node, call.lengths);
    if (failed(given))
      return failure();
    bool plain = isStatic && static_cast<int64_t>(given->elements.size()) == entry.batch();
    for (auto [row, element] : llvm::enumerate(given->elements))
      plain &= element == LinearInt{.rowFactor = 1, .row = static_cast<int64_t>(row)};
    if (!plain || operand(entry, node, call.mask))
      return nodeError(entry.context, node, ErrorCode::LengthsNotPlain)
             << "keys and values in a static buffer must come with nonpad_kv_seqlen, the number of tokens that each "
                "sequence has with its new ones, and without a mask";
  } else if (!hasPast) {
    offset = {};
  }
  if (call.causal)
    scores.masks.push_back(causalMask(entry, offset));
  auto shifted = [&](int64_t by) {
    LinearInt moved = offset;
    moved.constant += by;
    return moved;
  };
  if (call.left >= 0)
    scores.masks.push_back(laterMask(entry, shifted(-call.left)));
  if (call.right >= 0)
    scores.masks.push_back(causalMask(entry, shifted(call.right)));
  if (const GraphValue *mask = operand(entry, node, call.mask)) {
    if (mask->kind == Kind::HeadBias) {
      if (!fitsScores(entry, *mask->bias, typeOf(*q).getDimSize(2), /*flat=*/false))
        return operandError(entry, node, call.mask, "a bias along the query heads");
      scores.slopes = mask->bias->slopes;
      scores.masks.insert(scores.masks.end(), mask->bias->masks.begin(), mask->bias->masks.end());
    }
    std::optional<Grid> grid =
        mask->kind == Kind::HeadBias ? uniformGrid(Grid::Type::Float, ArrayRef<LinearInt>(), 0) : gridOf(entry, *mask);
    if (!grid || grid->type == Grid::Type::Int)
      return operandError(entry, node, call.mask, "a mask that is computed from positions and lengths");
    scores.masks.push_back(std::move(*grid));
  }
  FailureOr<Value> result = attend(entry, node, scores, *value);
  if (failed(result))
    return failure();
  if (isSplit) {
    defineView(entry, node, 0, transposeView(identityView(*result), {0, 2, 1, 3}));
  } else {
    View joined = identityView(*result);
    joined.groups = {{0}, {1}, {2, 3}};
    defineView(entry, node, 0, std::move(joined));
  }
  if (hasPast)
    definePresents(entry, node, *key, *value);
  else if (failed(refuseResult(entry, node, 1)) || failed(refuseResult(entry, node, 2)))
    return failure();
  return success();
}

} // namespace

LogicalResult importAttention(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  Call call{.mask = 3, .pastKey = 4, .pastValue = 5, .lengths = 6};
  call.queryHeads = attributes.integer("q_num_heads", 0);
  call.kvHeads = attributes.integer("kv_num_heads", 0);
  call.scale = attributes.real("scale", 0);
  call.softcap = attributes.real("softcap", 0);
  call.causal = attributes.integer("is_causal", 0) != 0;
  // Concerns the result that is refused.
  attributes.ignore("qk_matmul_output_mode");
  attributes.onlyInteger("softmax_precision", onnx::TensorProto::FLOAT,
                         {onnx::TensorProto::FLOAT, onnx::TensorProto::DOUBLE});
  call.left = attributes.integer("left_window_size", -1);
  call.right = attributes.integer("right_window_size", -1);
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 3)))
    return failure();
  if (call.queryHeads < 0 || call.kvHeads < 0 || call.queryHeads > INT32_MAX || call.kvHeads > INT32_MAX)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << "attributes 'q_num_heads' and 'kv_num_heads' must be from 0 to " << INT32_MAX;
  if (std::min(call.left, call.right) < -1 || std::max(call.left, call.right) > INT32_MAX)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << "attributes 'left_window_size' and 'right_window_size' must be from -1 to " << INT32_MAX;
  return importCall(entry, node, call);
}

LogicalResult importMultiHeadAttention(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  Call call{.mask = 5, .pastKey = 6, .pastValue = 7};
  call.queryHeads = call.kvHeads = attributes.required("num_heads");
  call.scale = attributes.real("scale", 0);
  call.causal = attributes.integer("unidirectional", 0) != 0;
  attributes.ignore("mask_filter_value"); // Of a padding mask, which is refused.
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 3)))
    return failure();
  if (call.queryHeads < 1 || call.queryHeads > INT32_MAX)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << "attribute 'num_heads' must be from 1 to " << INT32_MAX;
  for (auto [index, name] : {std::pair(3, "bias"), std::pair(4, "key_padding_mask"),
                             std::pair(8, "past_sequence_length"), std::pair(9, "cache_indirection")})
    if (operand(entry, node, index))
      return operandError(entry, node, index, "left out: " + Twine(name) + " is not supported");
  return importCall(entry, node, call);
}

LogicalResult importTensorScatter(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t axis = attributes.integer("axis", -2);
  attributes.onlyString("mode", "linear");
  if (failed(attributes.finish()))
    return failure();
  const GraphValue *past = operand(entry, node, 0);
  if (!past || past->kind != Kind::Past)
    return operandError(entry, node, 0, "a model input with a static buffer of keys or values");
  PastInput &input = entry.pasts[past->cache];
  int64_t rank = input.dims.size(), tokenAxis = rank == 3 ? 1 : 2;
  axis += axis < 0 ? rank : 0;
  if (axis != tokenAxis || input.dims[tokenAxis] < 1)
    return refuse(entry, node,
                  "its cache " + quoted(input.name) + " has shape " + shapeText(input.dims) +
                      "; it must be [batch, capacity, heads * width] or [batch, heads, capacity, width], "
                      "scattered along the capacity");
  FailureOr<IntTensor> indices = integers(entry, node, 2);
  if (failed(indices))
    return failure();
  bool plain = static_cast<int64_t>(indices->elements.size()) == entry.batch();
  for (auto [row, element] : llvm::enumerate(indices->elements))
    plain &= element == LinearInt{.constant = -entry.tokens, .rowFactor = 1, .row = static_cast<int64_t>(row)};
  if (!plain)
    return nodeError(entry.context, node, ErrorCode::LengthsNotPlain)
           << "write_indices (operand 2) must be the number of tokens that each sequence has before its new ones";
  FailureOr<View> view = viewOf(entry, node, 1);
  if (failed(view))
    return failure();
  SmallVector<int64_t> shape = view->shape();
  std::optional<Value> fresh;
  if (rank == 3 && shape.size() == 3)
    fresh = view->value;
  else if (rank == 4 && shape.size() == 4)
    fresh = materialise(entry.builder, entry.loc, transposeView(*view, {0, 2, 1, 3}));
  if (!fresh || shape[tokenAxis] != entry.tokens || shape[0] != entry.batch())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "writes " << shapeText(shape) << " into a cache of " << shapeText(input.dims);
  input.capacity = input.dims[tokenAxis];
  Cached cached{.past = past->cache, .fresh = *fresh, .origin = *fresh, .flat = *view};
  cached.sizes[Cached::Batch].constant = shape[0];
  cached.sizes[Cached::Head].constant = rank == 3 ? 1 : shape[1];
  cached.sizes[Cached::Repeat].constant = 1;
  cached.sizes[Cached::Token].constant = input.capacity;
  cached.sizes[Cached::Width].constant = shape.back();
  if (rank == 3)
    cached.groups = {{Cached::Batch}, {Cached::Token}, {Cached::Head, Cached::Width}};
  else
    cached.groups = {{Cached::Batch}, {Cached::Head}, {Cached::Token}, {Cached::Width}};
  define(entry, node, 0, {.kind = Kind::Cached, .cached = std::make_shared<const Cached>(std::move(cached))});
  return success();
}

} // namespace helix::onnximport
