//===- CachedOps.cpp - Keys and values on their way to attention -----------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::OrderUnsupported)
         << "rearranges keys or values in a way that attention does not know: " << reason;
}

LogicalResult defineCached(Entry &entry, const onnx::NodeProto &node, Cached cached) {
  define(entry, node, 0, {.kind = Kind::Cached, .cached = std::make_shared<const Cached>(std::move(cached))});
  return success();
}

/// The axes of a node, made non-negative, from the attribute or from operand 1; all where neither is there.
FailureOr<SmallVector<int64_t>> axesOf(Entry &entry, const onnx::NodeProto &node, Attributes &attributes,
                                       int64_t rank) {
  SmallVector<int64_t> axes;
  if (std::optional<SmallVector<int64_t>> given = attributes.integers("axes")) {
    axes = *given;
  } else {
    FailureOr<IntTensor> ints = integers(entry, node, 1);
    if (failed(ints))
      return failure();
    for (const LinearInt &element : ints->elements)
      axes.push_back(element.constant);
  }
  for (int64_t &axis : axes) {
    axis += axis < 0 ? rank : 0;
    if (axis < 0 || axis >= rank) {
      nodeError(entry.context, node, ErrorCode::ShapeMismatch) << "axes must be from " << -rank << " to " << rank - 1;
      return failure();
    }
  }
  llvm::sort(axes);
  return axes;
}

/// Past and new tokens joined.
LogicalResult importConcatOfPast(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t axis = attributes.required("axis");
  if (failed(attributes.finish()))
    return failure();
  const GraphValue *past = operand(entry, node, 0);
  if (node.input_size() != 2 || !past || past->kind != Kind::Past || (axis != 2 && axis != -2))
    return refuse(entry, node, "a past must be joined with new keys or values along dimension 2");
  FailureOr<View> fresh = viewOf(entry, node, 1);
  if (failed(fresh))
    return failure();
  std::optional<Value> value = fresh->groups.size() == 4
                                   ? materialise(entry.builder, entry.loc, transposeView(*fresh, {0, 2, 1, 3}))
                                   : std::nullopt;
  if (!value || typeOf(*value).getDimSize(1) != entry.tokens)
    return refuse(entry, node, "what is joined with a past must be [batch, KV heads, tokens, head size]");
  FailureOr<Cached> cached = joinPast(entry, node, past->cache, *value);
  if (failed(cached))
    return failure();
  return defineCached(entry, node, std::move(*cached));
}

/// Keys or values repeated for the queries of a group: a dimension of size 1 becomes one of that many.
LogicalResult importExpand(Entry &entry, const onnx::NodeProto &node, Cached cached) {
  FailureOr<IntTensor> sizes = integers(entry, node, 1);
  if (failed(sizes))
    return failure();
  SmallVector<LinearInt, 4> shape = cached.shape();
  if (sizes->elements.size() != shape.size())
    return refuse(entry, node, "the shape that it is repeated to has another number of dimensions");
  for (auto [d, size] : llvm::enumerate(sizes->elements)) {
    const LinearInt one{.constant = 1};
    if (size == shape[d] || size == one)
      continue;
    if (shape[d] != one || !size.isConstant() || size.constant < 1 || size.constant > INT32_MAX ||
        cached.sizes[Cached::Repeat] != one)
      return refuse(entry, node, "only a dimension of its own can be repeated, and only once");
    for (auto &group : cached.groups)
      llvm::erase(group, unsigned(Cached::Repeat));
    cached.groups[d].push_back(Cached::Repeat);
    cached.sizes[Cached::Repeat] = size;
  }
  return defineCached(entry, node, std::move(cached));
}

/// A factor that is one number.
FailureOr<double> factorOf(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  std::optional<Grid> grid = value ? gridOf(entry, *value) : std::nullopt;
  std::optional<double> factor = grid && grid->type != Grid::Type::Bool ? grid->uniform() : std::nullopt;
  if (!factor) {
    (void)operandError(entry, node, index, "one number");
    return failure();
  }
  return *factor;
}

} // namespace

bool hasForm(const Cached &cached, ArrayRef<SmallVector<unsigned, 3>> form) {
  if (cached.groups.size() != form.size())
    return false;
  auto isUnit = [&](unsigned axis) { return cached.sizes[axis] == LinearInt{.constant = 1}; };
  for (auto [group, expected] : llvm::zip_equal(cached.groups, form)) {
    SmallVector<unsigned> have, want;
    llvm::copy_if(group, std::back_inserter(have), [&](unsigned a) { return !isUnit(a); });
    llvm::copy_if(expected, std::back_inserter(want), [&](unsigned a) { return !isUnit(a); });
    if (have != want)
      return false;
  }
  return true;
}

bool isOfCaches(Entry &entry, const onnx::NodeProto &node) {
  constexpr StringRef kOps[] = {"Cast",    "CastLike", "Concat",    "Div",       "Expand", "Mul",
                                "Reshape", "Squeeze",  "Transpose", "Unsqueeze", "MatMul"};
  if (!canonicalDomain(node.domain()).empty() || !llvm::is_contained(kOps, node.op_type()))
    return false;
  const GraphValue *first = operand(entry, node, 0), *second = operand(entry, node, 1);
  bool isSecond = second && second->kind == Kind::Cached;
  if (node.op_type() == "Concat")
    return first && (first->kind == Kind::Past || first->kind == Kind::Cached);
  if (node.op_type() == "Mul")
    return (first && first->kind == Kind::Cached) || isSecond;
  if (node.op_type() == "MatMul")
    return isSecond && first && llvm::is_contained({Kind::Tensor, Kind::Mix}, first->kind);
  return first && first->kind == Kind::Cached;
}

/// Products of queries with all keys.
static LogicalResult importScores(Entry &entry, const onnx::NodeProto &node, const Cached &key) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  using C = Cached;
  bool isFlat = view->groups.size() == 3;
  bool isKey = isFlat ? hasForm(key, {{C::Batch, C::Head, C::Repeat}, {C::Width}, {C::Token}})
                      : hasForm(key, {{C::Batch}, {C::Head, C::Repeat}, {C::Width}, {C::Token}});
  if (isFlat) {
    SmallVector<int64_t> flat = view->shape();
    std::optional<View> split =
        flat[0] % entry.batch() == 0
            ? reshapeView(entry.builder, entry.loc, *view, {entry.batch(), flat[0] / entry.batch(), flat[1], flat[2]})
            : std::nullopt;
    if (split)
      *view = std::move(*split);
  }
  std::optional<Value> q = view->groups.size() == 4
                               ? materialise(entry.builder, entry.loc, transposeView(*view, {0, 2, 1, 3}))
                               : std::nullopt;
  if (!isKey || !q)
    return refuse(entry, node,
                  "queries [batch, heads, tokens, head size] must meet keys [batch, heads, head size, all tokens], the "
                  "keys of each KV head repeated for the queries that read it");
  int64_t heads = typeOf(*q).getDimSize(2);
  int64_t keyHeads = key.sizes[C::Head].constant * key.sizes[C::Repeat].constant;
  if (keyHeads != heads && (isFlat || keyHeads != 1))
    return refuse(entry, node, "there are " + Twine(heads) + " query heads, and keys for another number");
  auto scores = std::make_shared<Scores>();
  scores->key = key;
  scores->scale = key.scale;
  scores->flat = isFlat;
  // A scale of the queries is one of the scores.
  for (;;) {
    Operation *op = q->getDefiningOp();
    bool isProduct = isa_and_nonnull<arith::MulFOp, arith::DivFOp>(op);
    DenseFPElementsAttr splat;
    auto isSplat = [&](Value value) {
      auto constant = value.getDefiningOp<arith::ConstantOp>();
      splat = constant ? dyn_cast<DenseFPElementsAttr>(constant.getValue()) : DenseFPElementsAttr();
      return splat && splat.isSplat();
    };
    if (isProduct && isSplat(op->getOperand(1)))
      q = op->getOperand(0);
    else if (isa_and_nonnull<arith::MulFOp>(op) && isSplat(op->getOperand(0)))
      q = op->getOperand(1);
    else
      break;
    double factor = splat.getSplatValue<APFloat>().convertToFloat();
    scores->scale = isa<arith::MulFOp>(op) ? scores->scale * factor : scores->scale / factor;
  }
  scores->q = *q;
  define(entry, node, 0, {.kind = Kind::Scores, .scores = scores});
  return success();
}

LogicalResult importOnCaches(Entry &entry, const onnx::NodeProto &node) {
  StringRef op = node.op_type();
  if (op == "Concat")
    return importConcatOfPast(entry, node);
  const GraphValue *first = operand(entry, node, 0), *second = operand(entry, node, 1);
  bool isFirst = first && first->kind == Kind::Cached;
  Cached cached = isFirst ? *first->cached : *second->cached;
  if (op == "MatMul")
    return importScores(entry, node, cached);
  Attributes attributes(entry.context, node);
  int64_t rank = cached.groups.size();
  if (op == "Mul" || op == "Div") {
    FailureOr<double> factor = factorOf(entry, node, isFirst ? 1 : 0);
    if (failed(factor) || failed(attributes.finish()))
      return failure();
    cached.scale = op == "Mul" ? cached.scale * *factor : cached.scale / *factor;
    return defineCached(entry, node, std::move(cached));
  }
  if (op == "Cast" || op == "CastLike") {
    if (failed(op == "Cast" ? takeFloatCast(entry, node, attributes) : attributes.finish()))
      return failure();
    return defineCached(entry, node, std::move(cached));
  }
  if (op == "Transpose") {
    SmallVector<int64_t> perm = attributes.integers("perm").value_or(SmallVector<int64_t>());
    if (failed(attributes.finish()))
      return failure();
    SmallVector<int64_t> sorted(perm);
    llvm::sort(sorted);
    if (sorted != llvm::to_vector(llvm::seq<int64_t>(0, rank)))
      return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
             << "attribute 'perm' must be a permutation of " << rank << " dimensions";
    Groups groups;
    for (int64_t from : perm)
      groups.push_back(cached.groups[from]);
    cached.groups = groups;
    return defineCached(entry, node, std::move(cached));
  }
  if (op == "Unsqueeze" || op == "Squeeze") {
    int64_t added = 0;
    if (op == "Unsqueeze") {
      FailureOr<IntTensor> ints = attributes.has("axes") ? FailureOr<IntTensor>(IntTensor()) : integers(entry, node, 1);
      if (failed(ints))
        return failure();
      added = attributes.has("axes") ? 1 : static_cast<int64_t>(ints->elements.size());
    }
    FailureOr<SmallVector<int64_t>> axes = axesOf(entry, node, attributes, rank + added);
    if (failed(axes) || failed(attributes.finish()))
      return failure();
    for (int64_t axis : *axes) {
      if (op == "Unsqueeze") {
        if (axis > static_cast<int64_t>(cached.groups.size()))
          return refuse(entry, node, "its axes do not fit");
        cached.groups.insert(cached.groups.begin() + axis, SmallVector<unsigned, 2>());
        continue;
      }
      if (cached.shape()[axis] != LinearInt{.constant = 1} || axes->size() != 1)
        return refuse(entry, node, "it squeezes more than one dimension of size 1");
      cached.groups.erase(cached.groups.begin() + axis);
    }
    return defineCached(entry, node, std::move(cached));
  }
  if (op == "Reshape")
    attributes.onlyInteger("allowzero", 0, {0, 1});
  if (failed(attributes.finish()))
    return failure();
  if (op == "Expand")
    return importExpand(entry, node, std::move(cached));
  FailureOr<IntTensor> sizes = reshapeSizes(entry, node);
  if (failed(sizes))
    return failure();
  std::optional<Cached> shaped = reshapeCached(cached, sizes->elements);
  if (!shaped)
    return refuse(entry, node, "the new shape joins parts of heads or tokens");
  return defineCached(entry, node, std::move(*shaped));
}

} // namespace helix::onnximport
