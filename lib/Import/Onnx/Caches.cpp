//===- Caches.cpp - Past keys and values, and attention over them ----------===//
#include "lib/Import/Onnx/Caches.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

LinearInt product(const LinearInt &a, const LinearInt &b) {
  // One of the two is always a plain size; sizes are below 2^31, so nothing overflows.
  const LinearInt &plain = a.isConstant() ? a : b, &other = a.isConstant() ? b : a;
  return {.constant = other.constant * plain.constant, .total = other.total * plain.constant};
}

/// Tokens per slot: the option, or the positions that the model has tables for, which it must not exceed.
FailureOr<int64_t> contextOf(Entry &entry, const onnx::NodeProto &node, int64_t positions) {
  int64_t context = entry.state.options.maxContext;
  if (positions == 0)
    positions = entry.positions;
  if (positions != 0 && context > positions) {
    nodeError(entry.context, node, ErrorCode::ContextTooLong)
        << "its rotary tables have " << positions << " positions, but the longest context is to be " << context
        << "; lower --max-context or export the model with a longer one";
    return failure();
  }
  if (context == 0)
    context = positions;
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

LogicalResult cacheError(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::CacheMismatch) << reason;
}

/// A cache for the two past inputs, with an argument of the function.
FailureOr<unsigned> makeCache(Entry &entry, const onnx::NodeProto &node, const AttentionParts &parts) {
  const unsigned numbers[2] = {parts.pastKey, parts.pastValue};
  if (parts.pastKey == parts.pastValue) {
    (void)cacheError(entry, node,
                     "takes the past input " + quoted(entry.pasts[parts.pastKey].name) + " for keys and for values");
    return failure();
  }
  SmallVector<int64_t> key(typeOf(parts.k).getShape()), value(typeOf(parts.v).getShape());
  for (int part = 0; part < 2; ++part) {
    PastInput &past = entry.pasts[numbers[part]];
    if (past.cache) {
      (void)cacheError(entry, node, "its past " + quoted(past.name) + " is already that of another layer");
      return failure();
    }
    if (past.isCodes != static_cast<bool>(parts.codes)) {
      (void)cacheError(entry, node,
                       "its past " + quoted(past.name) + " is of " + (past.isCodes ? "INT8" : "a float type") +
                           ", but the op keeps " + (parts.codes ? "codes" : "numbers"));
      return failure();
    }
    ArrayRef<int64_t> shape = part == 0 ? key : value, dims = past.dims;
    bool fits = dims.size() == 4 ? (dims[1] == -1 || dims[1] == shape[2]) && (dims[3] == -1 || dims[3] == shape[3])
                                 : dims[2] == -1 || dims[2] == shape[2] * shape[3];
    if (!fits) {
      (void)cacheError(entry, node,
                       "has " + Twine(shape[2]) + " KV heads of " + Twine(shape[3]) + ", but the cache input " +
                           quoted(past.name) + " has shape " + shapeText(dims) + " (-1 is dynamic)");
      return failure();
    }
  }
  FailureOr<int64_t> context = contextOf(entry, node, parts.positions);
  if (failed(context))
    return failure();
  for (unsigned number : numbers)
    if (int64_t capacity = entry.pasts[number].capacity; capacity != 0 && *context > capacity) {
      nodeError(entry.context, node, ErrorCode::ContextTooLong)
          << "its cache input " << quoted(entry.pasts[number].name) << " holds " << capacity
          << " tokens, but the longest context is to be " << *context << "; lower --max-context";
      return failure();
    }
  const ImportOptions &options = entry.state.options;
  int64_t capacity = (*context + options.block - 1) / options.block * options.block;
  // Keys and values of all slots must be countable in 63 bits of bytes.
  int64_t bytes = 0;
  if (__builtin_mul_overflow(key[2] * (key[3] + value[3]) * 4, capacity, &bytes) ||
      __builtin_mul_overflow(bytes, entry.batch(), &bytes)) {
    nodeError(entry.context, node, ErrorCode::ImportOptionInvalid)
        << "its cache for " << entry.batch() << " sequences of " << *context
        << " tokens is more than 2^63 bytes; lower --batch or --max-context";
    return failure();
  }
  unsigned cache = entry.caches.size();
  for (int part = 0; part < 2; ++part) {
    entry.pasts[numbers[part]].cache = cache;
    entry.pasts[numbers[part]].part = part;
  }
  Type element = elementType(entry.context, parts.codes ? Dtype::I8 : options.kvDtype);
  auto type = KVType::get(entry.context, entry.batch(), key[2], key[3], value[3], element, options.block, /*kvp=*/1,
                          capacity, parts.codes ? parts.codes : kvScaleOf(entry.context, options));
  Location loc = NameLoc::get(StringAttr::get(entry.context, entry.pasts[parts.pastKey].name));
  BlockArgument argument = entry.builder.getInsertionBlock()->addArgument(type, loc);
  entry.caches.push_back({.pasts = {parts.pastKey, parts.pastValue}, .argument = argument, .newest = argument});
  return cache;
}

/// The additive mask as a truth: seen where it is 0, not where it is so low that the softmax gives 0.
std::optional<Grid> visibility(const Grid &mask, LengthRange range) {
  if (mask.type == Grid::Type::Bool)
    return mask;
  // Scores of a decoder are within hundreds; exp of less than -104 is 0 in f32.
  constexpr double kHidden = -1e4;
  if (mask.type != Grid::Type::Float)
    return std::nullopt;
  Grid result = mask;
  result.type = Grid::Type::Bool;
  for (Cell &cell : result.cells) {
    if (!cell.isConstant() || (cell.constant() != 0 && !(cell.constant() <= kHidden)))
      return std::nullopt;
    bool seen = cell.constant() == 0;
    llvm::fill(cell.form.slope, 0);
    cell.form.total = 0;
    cell.form.constant = seen;
    cell.number = 0;
  }
  return result;
}

} // namespace

SmallVector<LinearInt, 4> Cached::shape() const {
  SmallVector<LinearInt, 4> shape;
  for (ArrayRef<unsigned> group : groups) {
    LinearInt size{.constant = 1};
    for (unsigned axis : group)
      size = product(size, sizes[axis]);
    shape.push_back(size);
  }
  return shape;
}

LogicalResult checkGrowing(Entry &entry, unsigned past) {
  const PastInput &input = entry.pasts[past];
  if (input.dims.size() == 4 && input.dims[2] == -1)
    return success();
  return modelError(entry.context, ErrorCode::InputUnsupported)
         << "input " << quoted(input.name) << " has shape " << shapeText(input.dims) << "; it must be ["
         << entry.batch() << ", KV heads, dynamic, head size]";
}

FailureOr<Cached> joinPast(Entry &entry, const onnx::NodeProto &node, unsigned past, Value fresh) {
  ArrayRef<int64_t> shape = typeOf(fresh).getShape();
  if (failed(checkGrowing(entry, past)))
    return failure();
  Cached cached{.past = past, .fresh = fresh, .origin = fresh};
  cached.sizes[Cached::Batch].constant = shape[0];
  cached.sizes[Cached::Head].constant = shape[2];
  cached.sizes[Cached::Repeat].constant = 1;
  cached.sizes[Cached::Token].total = 1;
  cached.sizes[Cached::Width].constant = shape[3];
  cached.groups = {{Cached::Batch}, {Cached::Head}, {Cached::Token}, {Cached::Width}};
  return cached;
}

std::optional<Cached> reshapeCached(const Cached &cached, ArrayRef<LinearInt> given) {
  SmallVector<LinearInt, 4> shape(given), old = cached.shape();
  for (auto [d, size] : llvm::enumerate(shape))
    if (size == LinearInt{}) {
      if (d >= old.size())
        return std::nullopt;
      size = old[d];
    }
  SmallVector<unsigned> order;
  for (ArrayRef<unsigned> group : cached.groups)
    order.append(group.begin(), group.end());
  Cached result = cached;
  result.groups.clear();
  const LinearInt one{.constant = 1}, open{.constant = -1};
  size_t next = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    SmallVector<unsigned, 2> group;
    LinearInt size = one;
    // What a -1 takes is all that the sizes behind it leave.
    size_t end = order.size();
    if (shape[d] == open) {
      for (size_t e = shape.size(); e-- > d + 1;) {
        LinearInt behind = one;
        if (shape[e] == open)
          return std::nullopt;
        while (behind != shape[e] && end > next)
          behind = product(behind, cached.sizes[order[--end]]);
        if (behind != shape[e])
          return std::nullopt;
      }
      while (next < end)
        group.push_back(order[next++]);
      result.groups.push_back(group);
      continue;
    }
    if (shape[d] == one) {
      if (next < end && cached.sizes[order[next]] == one)
        group.push_back(order[next++]);
      result.groups.push_back(group);
      continue;
    }
    while (size != shape[d] && next < end)
      size = product(size, cached.sizes[order[next]]), group.push_back(order[next++]);
    if (size != shape[d])
      return std::nullopt;
    // A repetition of size 1 belongs to the heads before it.
    result.groups.push_back(group);
  }
  for (; next < order.size(); ++next) {
    if (cached.sizes[order[next]] != one || result.groups.empty())
      return std::nullopt;
    result.groups.back().push_back(order[next]);
  }
  return result;
}

FailureOr<Value> slopesOf(Entry &entry, const onnx::NodeProto &node, const std::vector<double> &slopes) {
  FailureOr<const StoredTensor *> stored =
      makeConstant(entry, node, "slopes", Dense{.shape = {static_cast<int64_t>(slopes.size())}, .values = slopes});
  if (failed(stored))
    return failure();
  return weightOf(entry, **stored, Dtype::F32);
}

/// Query i sees key j up to i + offset, or from there on.
static Grid triangularMask(Entry &entry, const LinearInt &offset, bool upper) {
  LinearInt tokens{.constant = entry.tokens}, total{.total = 1};
  return *triangle(uniformGrid(Grid::Type::Bool, {tokens, total}, 1), offset, upper, entry.lengths());
}

Grid causalMask(Entry &entry, const LinearInt &offset) { return triangularMask(entry, offset, /*upper=*/false); }
Grid laterMask(Entry &entry, const LinearInt &offset) { return triangularMask(entry, offset, /*upper=*/true); }

FailureOr<int64_t> windowOf(Entry &entry, const onnx::NodeProto &node, ArrayRef<Grid> masks) {
  // There are as many tokens as there are queries, at least.
  LengthRange range = entry.lengths();
  range.least = entry.tokens;
  LinearInt tokens{.constant = entry.tokens}, total{.total = 1};
  auto refuse = [&](const Twine &reason) -> FailureOr<int64_t> {
    nodeError(entry.context, node, ErrorCode::MaskUnsupported) << reason;
    return failure();
  };
  Grid seen = uniformGrid(Grid::Type::Bool, {tokens, total}, 1);
  for (const Grid &mask : masks) {
    std::optional<Grid> visible = visibility(mask, range);
    if (!visible)
      return refuse("its mask holds other numbers than 0 and such that hide a key (-10000 and below)");
    std::optional<Grid> both = elementwise("And", {seen, *visible}, range);
    if (!both || both->isOpaque())
      return refuse("its mask does not fit queries and keys, or is too complicated");
    seen = std::move(*both);
  }
  size_t rank = seen.shape.size();
  if (rank < 2 || seen.shape[rank - 1] != total || seen.shape[rank - 2] != tokens)
    return refuse("its mask is not of " + Twine(entry.tokens) + " queries and as many keys as the sequence has tokens");
  // Key j is seen by query i at position S - tokens + i: not after it, and less than `window` before it.
  auto condition = [&](int64_t window) {
    Affine form{.constant = window == 0 ? -entry.tokens : window - 1 + entry.tokens, .total = window == 0 ? 1 : -1};
    form.slope.assign(rank, 0);
    form.slope[rank - 1] = window == 0 ? -1 : 1;
    form.slope[rank - 2] = window == 0 ? 1 : -1;
    return form;
  };
  auto opposite = [](const Affine &form) {
    Affine result = *combine(form, -1, {}, 0);
    result.constant -= 1;
    return result;
  };
  auto isEmpty = [&](const Cell &cell, ArrayRef<Affine> conditions) {
    Cell rest = cell;
    return !llvm::all_of(conditions, [&](const Affine &c) { return restrict(rest, c, seen.shape, range); });
  };
  auto matches = [&](int64_t window) {
    SmallVector<Affine> inside = {condition(0)};
    if (window != 0)
      inside.push_back(condition(window));
    return llvm::all_of(seen.cells, [&](const Cell &cell) {
      if (cell.constant() == 0)
        return isEmpty(cell, inside);
      return llvm::all_of(inside, [&](const Affine &c) { return isEmpty(cell, {opposite(c)}); });
    });
  };
  if (matches(0))
    return 0;
  // A step of one token would not know of the window.
  if (llvm::any_of(seen.cells, [&](const Cell &c) { return narrowed(range, c.where).context < range.context; }))
    return refuse(
        "it reads several tokens at once only at the start of a sequence, and with a mask that is not causal");
  // A bound that hides keys from below says which window it may be.
  for (const Cell &cell : seen.cells)
    for (const Affine &bound : cell.where) {
      Affine form = bound.total > 0 ? opposite(bound) : bound;
      int64_t window = form.constant + 1 - entry.tokens;
      if (form.total == -1 && form.slope[rank - 1] == 1 && window > 0 && matches(window))
        return window;
    }
  return refuse("its mask is not the causal one: a query must see all keys up to its own position, or of these a "
                "window of the last, and no other");
}

FailureOr<AttentionResult> makeAttention(Entry &entry, const onnx::NodeProto &node, const AttentionParts &parts) {
  ArrayRef<int64_t> q = typeOf(parts.q).getShape(), k = typeOf(parts.k).getShape(), v = typeOf(parts.v).getShape();
  auto isToken = [&](ArrayRef<int64_t> shape) {
    return shape.size() == 4 && shape[0] == entry.batch() && shape[1] == entry.tokens;
  };
  if (!isToken(q) || !isToken(k) || !isToken(v) || q[3] != k[3] || k[2] != v[2] || q[2] % k[2] != 0) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "attends with queries " << shapeText(q) << " to keys " << shapeText(k) << " and values " << shapeText(v)
        << " ([batch, tokens, heads, width])";
    return failure();
  }
  if (!std::isfinite(parts.scale) || !std::isfinite(parts.softcap) || parts.softcap < 0) {
    nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
        << "has a softcap of " << std::to_string(parts.softcap) << " and a scale of " << std::to_string(parts.scale)
        << "; both must be finite, and the softcap not negative";
    return failure();
  }
  FailureOr<unsigned> cache = makeCache(entry, node, parts);
  if (failed(cache))
    return failure();
  OpBuilder &b = entry.builder;
  Value &newest = entry.caches[*cache].newest;
  newest = KVAppendOp::create(b, entry.loc, newest.getType(), parts.k, parts.v, entry.past, entry.qLen, newest);
  auto type = RankedTensorType::get({q[0], q[1], q[2], v[3]}, b.getF32Type());
  Value value = AttentionOp::create(b, entry.loc, type, parts.q, newest, entry.past, entry.qLen, parts.slopes,
                                    parts.sinks, b.getF64FloatAttr(parts.scale),
                                    parts.softcap != 0 ? b.getF64FloatAttr(parts.softcap) : FloatAttr(),
                                    parts.window != 0 ? b.getI64IntegerAttr(parts.window) : IntegerAttr());
  return AttentionResult{value, *cache};
}

FailureOr<Value> attend(Entry &entry, const onnx::NodeProto &node, const Scores &scores, const Cached &value) {
  AttentionParts parts{.q = scores.q,
                       .k = scores.key.fresh,
                       .v = value.fresh,
                       .pastKey = scores.key.past,
                       .pastValue = value.past,
                       .scale = scores.scale,
                       .softcap = scores.softcap};
  FailureOr<int64_t> window = windowOf(entry, node, scores.masks);
  if (failed(window))
    return failure();
  parts.window = *window;
  if (!scores.slopes.empty()) {
    FailureOr<Value> slopes = slopesOf(entry, node, scores.slopes);
    if (failed(slopes))
      return failure();
    parts.slopes = *slopes;
  }
  FailureOr<AttentionResult> result = makeAttention(entry, node, parts);
  if (failed(result))
    return failure();
  entry.pasts[scores.key.past].origin = scores.key.origin;
  entry.pasts[value.past].origin = value.origin;
  return result->value;
}

} // namespace helix::onnximport
