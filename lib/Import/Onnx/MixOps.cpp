//===- MixOps.cpp - Nodes that rearrange the width of heads ----------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Mix.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

// Far above the widest packed product.
constexpr int64_t kMaxWidth = int64_t(1) << 18;

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::RotaryUnsupported) << reason;
}

bool isActivation(const GraphValue *value) {
  return value && llvm::is_contained({Kind::Tensor, Kind::Mix, Kind::Norm}, value->kind);
}

LogicalResult defineMix(Entry &entry, const onnx::NodeProto &node, int index, Mix mix) {
  define(entry, node, index, {.kind = Kind::Mix, .mix = std::make_shared<const Mix>(std::move(mix))});
  return success();
}

/// Operand `index` as a mix of itself.
FailureOr<Mix> mixOf(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (value && value->kind == Kind::Mix)
    return *value->mix;
  FailureOr<View> view = viewOf(entry, node, index);
  if (failed(view))
    return failure();
  int64_t width = view->shape().empty() ? 0 : view->shape().back();
  if (width < 1 || width > kMaxWidth) {
    (void)refuse(entry, node, "rearranges a last dimension of " + Twine(width));
    return failure();
  }
  Mix mix{.base = *view, .inner = {width}};
  for (int64_t i = 0; i < width; ++i)
    mix.elements.push_back({MixTerm{.source = i}});
  return mix;
}

bool sameBase(const Mix &a, const Mix &b) { return a.base.value == b.base.value && a.base.groups == b.base.groups; }

/// Brings mixes to one scale, 1 if theirs differ.
void alignScales(MutableArrayRef<Mix> mixes) {
  if (llvm::all_of(mixes, [&](const Mix &mix) { return mix.scale == mixes.front().scale; }))
    return;
  for (Mix &mix : mixes) {
    for (auto &terms : mix.elements)
      for (MixTerm &term : terms)
        term.sign *= mix.scale;
    mix.scale = 1;
  }
}

/// A mix cut along a dimension that is not its last: heads, or parts of a packed product. An error if it has none such.
LogicalResult cutOther(Entry &entry, const onnx::NodeProto &node, Mix &mix, int64_t axis, int64_t first, int64_t count,
                       bool drop = false) {
  int64_t outer = mix.base.groups.size() - 1;
  std::optional<View> part = axis < outer ? partOf(entry, mix.base, axis, first, count, drop) : std::nullopt;
  if (!part)
    return refuse(entry, node,
                  "cuts activations of shape " + shapeText(mix.shape()) + " along dimension " + Twine(axis) +
                      "; only the last can be cut, and what a product's result is split into");
  mix.base = std::move(*part);
  return success();
}

/// Elements `first`, `first + step`, ... of the last dimension.
Mix cut(const Mix &mix, int64_t first, int64_t count, int64_t step) {
  Mix result = mix;
  result.elements.clear();
  int64_t last = mix.inner.back(), rows = mix.elements.size() / last;
  result.inner.back() = count;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < count; ++i)
      result.elements.push_back(mix.elements[row * last + first + i * step]);
  return result;
}

LogicalResult importSlice(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  FailureOr<Mix> mix = mixOf(entry, node, 0);
  if (failed(mix))
    return failure();
  SmallVector<int64_t> lists[4];
  for (int i = 0; i < 4; ++i) {
    if (i > 1 && !operand(entry, node, i + 1))
      continue;
    FailureOr<IntTensor> ints = integers(entry, node, i + 1);
    if (failed(ints))
      return failure();
    for (const LinearInt &element : ints->elements) {
      if (!element.isConstant())
        return operandError(entry, node, i + 1, "constants, where activations are cut");
      lists[i].push_back(element.constant);
    }
  }
  auto &[starts, ends, axes, steps] = lists;
  if (axes.empty())
    axes = llvm::to_vector(llvm::seq<int64_t>(0, starts.size()));
  if (steps.empty())
    steps.assign(starts.size(), 1);
  if (starts.size() != ends.size() || starts.size() != axes.size() || starts.size() != steps.size())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "has " << starts.size() << " starts, but other counts of ends, axes or steps";
  SmallVector<int64_t> shape = mix->shape();
  int64_t rank = shape.size();
  for (size_t i = 0; i < starts.size(); ++i) {
    int64_t axis = axes[i] + (axes[i] < 0 ? rank : 0);
    if (axis < 0 || axis >= rank || steps[i] < 1)
      return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
             << "axes must be from " << -rank << " to " << rank - 1 << " and steps above 0";
    int64_t size = shape[axis];
    auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
    int64_t first = clamp(starts[i]), span = clamp(ends[i]) - first;
    if (first == 0 && span == size && steps[i] == 1)
      continue;
    if (span < 1)
      return refuse(entry, node, "takes nothing of activations of shape " + shapeText(shape));
    if (axis != rank - 1 && steps[i] == 1) {
      if (failed(cutOther(entry, node, *mix, axis, first, span)))
        return failure();
      continue;
    }
    if (axis != rank - 1)
      return refuse(entry, node, "takes every so many of a dimension that is not the last");
    int64_t step = std::min(steps[i], size);
    *mix = cut(*mix, first, (span - 1) / step + 1, step);
  }
  return defineMix(entry, node, 0, std::move(*mix));
}

LogicalResult importSplit(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t axis = attributes.integer("axis", 0);
  int64_t parts = attributes.integer("num_outputs", node.output_size());
  if (failed(attributes.finish()))
    return failure();
  FailureOr<Mix> mix = mixOf(entry, node, 0);
  if (failed(mix))
    return failure();
  SmallVector<int64_t> shape = mix->shape(), sizes;
  int64_t rank = shape.size(), total = 0;
  axis += axis < 0 ? rank : 0;
  if (axis < 0 || axis >= rank)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "splits dimension " << axis << " of " << shapeText(shape);
  int64_t whole = shape[axis];
  if (operand(entry, node, 1)) {
    FailureOr<IntTensor> given = integers(entry, node, 1);
    if (failed(given))
      return failure();
    for (const LinearInt &element : given->elements)
      sizes.push_back(element.isConstant() ? element.constant : 0);
  } else if (parts == node.output_size()) {
    int64_t each = (whole + parts - 1) / parts;
    for (int64_t i = 0; i < parts; ++i)
      sizes.push_back(std::min(each, whole - i * each));
  }
  for (int64_t size : sizes)
    if (size < 1 || size > whole || (total += size) > whole) {
      total = -1;
      break;
    }
  if (total != whole || static_cast<int>(sizes.size()) != node.output_size())
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "splits a dimension of " << whole << " into " << shapeText(sizes) << " for " << node.output_size()
           << " results";
  int64_t first = 0;
  for (auto [i, size] : llvm::enumerate(sizes)) {
    Mix part = axis == rank - 1 ? cut(*mix, first, size, 1) : *mix;
    if (axis != rank - 1 && failed(cutOther(entry, node, part, axis, first, size)))
      return failure();
    (void)defineMix(entry, node, i, std::move(part));
    first += size;
  }
  return success();
}

LogicalResult importJoin(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  int64_t axis = attributes.required("axis");
  if (failed(attributes.finish()))
    return failure();
  FailureOr<Mix> first = mixOf(entry, node, 0);
  if (failed(first))
    return failure();
  int64_t rank = first->shape().size();
  if (axis != -1 && axis != rank - 1)
    return refuse(entry, node, "joins activations along dimension " + Twine(axis) + "; only the last can be joined");
  SmallVector<Mix> parts = {*first};
  for (int i = 1; i < node.input_size(); ++i) {
    FailureOr<Mix> part = mixOf(entry, node, i);
    if (failed(part))
      return failure();
    if (!sameBase(*first, *part) || part->inner.size() != first->inner.size() ||
        ArrayRef(part->inner).drop_back() != ArrayRef(first->inner).drop_back())
      return refuse(entry, node, "joins parts of different activations");
    parts.push_back(std::move(*part));
  }
  alignScales(parts);
  Mix result = parts.front();
  result.elements.clear();
  int64_t rows = first->elements.size() / first->inner.back();
  result.inner.back() = 0;
  for (const Mix &part : parts)
    result.inner.back() += part.inner.back();
  if (result.inner.back() > kMaxWidth)
    return refuse(entry, node, "joins to a dimension of " + Twine(result.inner.back()));
  for (int64_t row = 0; row < rows; ++row)
    for (const Mix &part : parts) {
      auto begin = part.elements.begin() + row * part.inner.back();
      result.elements.insert(result.elements.end(), begin, begin + part.inner.back());
    }
  return defineMix(entry, node, 0, std::move(result));
}

/// One of a dimension: Gather with a constant index, or GatherND with one along the first dimension.
LogicalResult importPick(Entry &entry, const onnx::NodeProto &node) {
  bool isNd = node.op_type() == "GatherND";
  Attributes attributes(entry.context, node);
  int64_t axis = isNd ? 0 : attributes.integer("axis", 0);
  if (isNd)
    attributes.onlyInteger("batch_dims", 0, {0});
  if (failed(attributes.finish()))
    return failure();
  FailureOr<Mix> mix = mixOf(entry, node, 0);
  FailureOr<IntTensor> index = failed(mix) ? FailureOr<IntTensor>(failure()) : integers(entry, node, 1);
  if (failed(mix) || failed(index))
    return failure();
  SmallVector<int64_t> shape = mix->shape();
  int64_t rank = shape.size();
  axis += axis < 0 ? rank : 0;
  // The index of GatherND is a list of coordinates, here of one.
  bool isOne = index->elements.size() == 1 && index->elements[0].isConstant();
  size_t kept = isNd ? index->shape.size() - 1 : index->shape.size();
  if (!isOne || index->shape.size() > 2 || kept > 1 || (isNd && index->shape.empty()) || axis < 0 || axis >= rank)
    return refuse(entry, node, "picks from activations in another way than one constant index along a dimension");
  int64_t at = index->elements[0].constant;
  at += at < 0 ? shape[axis] : 0;
  if (at < 0 || at >= shape[axis])
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "picks element " << at << " of a dimension of " << shape[axis];
  if (axis == rank - 1)
    return refuse(entry, node, "picks one of the last dimension of activations");
  if (failed(cutOther(entry, node, *mix, axis, at, 1, /*drop=*/kept == 0)))
    return failure();
  return defineMix(entry, node, 0, std::move(*mix));
}

/// Multiplies each element by its column of a table.
LogicalResult importTimesTable(Entry &entry, const onnx::NodeProto &node, Mix mix, std::shared_ptr<const Table> table) {
  SmallVector<int64_t> shape = mix.shape();
  std::optional<std::vector<double>> row = plainRow(*table, 0);
  int64_t rank = shape.size(), tableRank = table->rank;
  int64_t columns = row ? row->size() : 0;
  bool fits = row && mix.inner.size() == 1 && tableRank <= rank && (columns == mix.inner[0] || columns == 1);
  // Rows must meet the tokens: the dimension of the value that counts them.
  if (fits && entry.tokens > 1) {
    int64_t at = table->tokenAxis == -1 ? -1 : rank - (tableRank - table->tokenAxis);
    unsigned tokenDim = 1;
    fits = at >= 0 && at < rank - 1 && mix.base.groups[at].size() == 1 && mix.base.groups[at][0] == tokenDim;
  }
  if (!fits)
    return refuse(entry, node,
                  "multiplies activations of shape " + shapeText(shape) +
                      " by numbers computed from positions that do not go along tokens and width");
  for (auto [i, terms] : llvm::enumerate(mix.elements))
    for (MixTerm &term : terms) {
      if (term.table)
        return refuse(entry, node, "multiplies activations by numbers computed from positions twice");
      term.table = table;
      term.column = columns == 1 ? 0 : i;
    }
  return defineMix(entry, node, 0, std::move(mix));
}

std::optional<double> scalarOf(Entry &entry, const GraphValue &value) {
  std::optional<Grid> grid = gridOf(entry, value);
  return grid && grid->type == Grid::Type::Float ? grid->uniform() : std::nullopt;
}

bool hasTable(const GraphValue *value) {
  return value && value->kind == Kind::Mix && llvm::any_of(value->mix->elements, [](const auto &terms) {
           return llvm::any_of(terms, [](const MixTerm &t) { return t.table != nullptr; });
         });
}

} // namespace

bool isOfMix(Entry &entry, const onnx::NodeProto &node) {
  if (!canonicalDomain(node.domain()).empty())
    return false;
  StringRef op = node.op_type();
  const GraphValue *first = operand(entry, node, 0), *second = operand(entry, node, 1);
  bool isMix = first && first->kind == Kind::Mix;
  if (op == "Slice" || op == "Split" || op == "Concat")
    return isActivation(first);
  if (op == "Gather" || op == "GatherND")
    return isActivation(first) && isInteger(entry, node, 1);
  if (op == "Neg" || op == "Unsqueeze" || op == "Reshape" || op == "Transpose")
    return isMix;
  if (op == "Mul")
    return (isActivation(first) && second && second->kind == Kind::Table) ||
           (isActivation(second) && first && first->kind == Kind::Table) ||
           (hasTable(first) && second && scalarOf(entry, *second));
  if (op == "Add" || op == "Sub")
    return (hasTable(first) && isActivation(second)) || (hasTable(second) && isActivation(first));
  return false;
}

LogicalResult importOnMix(Entry &entry, const onnx::NodeProto &node) {
  StringRef op = node.op_type();
  if (op == "Slice")
    return importSlice(entry, node);
  if (op == "Split")
    return importSplit(entry, node);
  if (op == "Concat")
    return importJoin(entry, node);
  if (op == "Gather" || op == "GatherND")
    return importPick(entry, node);
  const GraphValue *first = operand(entry, node, 0), *second = operand(entry, node, 1);
  if (op == "Mul") {
    if (failed(Attributes(entry.context, node).finish()))
      return failure();
    bool isFirst = isActivation(first);
    FailureOr<Mix> mix = mixOf(entry, node, isFirst ? 0 : 1);
    if (failed(mix))
      return failure();
    const GraphValue *factor = isFirst ? second : first;
    if (factor->kind == Kind::Table)
      return importTimesTable(entry, node, std::move(*mix), factor->table);
    mix->scale *= *scalarOf(entry, *factor);
    return defineMix(entry, node, 0, std::move(*mix));
  }
  if (op == "Add" || op == "Sub") {
    if (failed(Attributes(entry.context, node).finish()))
      return failure();
    FailureOr<Mix> given[2] = {mixOf(entry, node, 0), mixOf(entry, node, 1)};
    if (failed(given[0]) || failed(given[1]))
      return failure();
    Mix both[2] = {std::move(*given[0]), std::move(*given[1])}, &a = both[0], &b = both[1];
    if (!sameBase(a, b) || a.inner != b.inner)
      return refuse(entry, node, "adds parts of different activations, multiplied by numbers computed from positions");
    alignScales(both);
    constexpr size_t kMaxTerms = 4;
    for (auto [terms, more] : llvm::zip_equal(a.elements, b.elements)) {
      for (MixTerm term : more) {
        term.sign = op == "Sub" ? -term.sign : term.sign;
        terms.push_back(term);
      }
      if (terms.size() > kMaxTerms)
        return refuse(entry, node, "adds more parts of activations than a rotation has");
    }
    return defineMix(entry, node, 0, std::move(a));
  }
  Mix mix = *first->mix;
  int64_t rank = mix.shape().size();
  if (op == "Neg") {
    if (failed(Attributes(entry.context, node).finish()))
      return failure();
    for (auto &terms : mix.elements)
      for (MixTerm &term : terms)
        term.sign = -term.sign;
    return defineMix(entry, node, 0, std::move(mix));
  }
  // A dimension of size 1 at the end, to stack along, and the stack made flat again.
  Attributes attributes(entry.context, node);
  if (op == "Unsqueeze") {
    FailureOr<IntTensor> axes = integers(entry, node, 1);
    if (failed(axes))
      return failure();
    bool isLast = axes->elements.size() == 1 && axes->elements[0].isConstant() &&
                  (axes->elements[0].constant == -1 || axes->elements[0].constant == rank);
    if (isLast) {
      if (failed(attributes.finish()))
        return failure();
      mix.inner.push_back(1);
      return defineMix(entry, node, 0, std::move(mix));
    }
  }
  if (op == "Reshape" && mix.inner.size() > 1) {
    FailureOr<IntTensor> sizes = reshapeSizes(entry, node);
    if (failed(sizes))
      return failure();
    attributes.onlyInteger("allowzero", 0, {0, 1});
    if (failed(attributes.finish()))
      return failure();
    SmallVector<int64_t> shape = mix.base.shape();
    shape.back() = mix.elements.size();
    bool isFlat = sizes->elements.size() == shape.size();
    for (auto [d, size] : llvm::enumerate(sizes->elements))
      isFlat = isFlat && size.isConstant() && llvm::is_contained({shape[d], int64_t(-1), int64_t(0)}, size.constant) &&
               !(size.constant == 0 && d + 1 == shape.size());
    if (!isFlat)
      return refuse(entry, node, "reshapes a stack of parts to something else than what it is a stack of");
    mix.inner = {shape.back()};
    return defineMix(entry, node, 0, std::move(mix));
  }
  if (op == "Transpose" && mix.inner.size() == 1) {
    std::optional<SmallVector<int64_t>> perm = attributes.integers("perm");
    SmallVector<int64_t> sorted = perm.value_or(SmallVector<int64_t>());
    llvm::sort(sorted);
    if (perm && perm->back() == rank - 1 && sorted == llvm::to_vector(llvm::seq<int64_t>(0, rank))) {
      if (failed(attributes.finish()))
        return failure();
      mix.base = transposeView(mix.base, *perm);
      return defineMix(entry, node, 0, std::move(mix));
    }
  }
  // Anything else is done with the value.
  FailureOr<View> view = viewOfMix(entry, node, 0, mix);
  if (failed(view))
    return failure();
  return importShapeOfView(entry, node, *view);
}

} // namespace helix::onnximport
