//===- HeadBias.cpp - A bias per head that grows with the key's position ---===//
#include "lib/Import/Onnx/HeadBias.h"

#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Symbolic.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

const LinearInt kOne{.constant = 1}, kKeys{.total = 1};

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::NotFollowed)
         << "computes with a bias per head in a way that cannot be followed: " << reason;
}

LogicalResult defineBias(Entry &entry, const onnx::NodeProto &node, HeadBias bias) {
  define(entry, node, 0, {.kind = Kind::HeadBias, .bias = std::make_shared<const HeadBias>(std::move(bias))});
  return success();
}

const HeadBias *biasAt(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value && value->kind == Kind::HeadBias ? value->bias.get() : nullptr;
}

std::optional<Grid> gridAt(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value ? gridOf(entry, *value) : std::nullopt;
}

/// The shape that a reshape asks for, as roles: which dimension is the heads', and whether sequences are counted too.
LogicalResult importReshape(Entry &entry, const onnx::NodeProto &node, HeadBias bias) {
  Attributes attributes(entry.context, node);
  attributes.onlyInteger("allowzero", 0, {0, 1});
  FailureOr<IntTensor> given = reshapeSizes(entry, node);
  if (failed(attributes.finish()) || failed(given))
    return failure();
  std::optional<SmallVector<LinearInt, 4>> sizes = resolveSizes(bias.shape, given->elements);
  if (!sizes || sizes->empty() || sizes->back() != kKeys || bias.shape.back() != kKeys)
    return refuse(entry, node, "the last dimension must stay that of the keys");
  SmallVector<int64_t> counts, places;
  for (auto [d, size] : llvm::enumerate(ArrayRef(*sizes).drop_back()))
    if (size != kOne) {
      counts.push_back(size.constant);
      places.push_back(d);
    }
  int64_t heads = bias.slopes.size(), batch = entry.batch();
  bool hasBatch = bias.flat;
  for (auto [d, size] : llvm::enumerate(bias.shape))
    hasBatch |= static_cast<int64_t>(d) < bias.head && size != kOne;
  if (hasBatch && batch > 1) {
    bool isFlat = counts == ArrayRef<int64_t>{batch * heads}, isSplit = counts == ArrayRef<int64_t>{batch, heads};
    if (!isFlat && !isSplit)
      return refuse(entry, node, "heads are joined with something else than the sequences");
    bias.flat = isFlat;
  } else {
    if (counts != ArrayRef<int64_t>{heads})
      return refuse(entry, node, "heads are joined with something else");
    bias.flat = false;
  }
  bias.head = places.back();
  bias.shape = *sizes;
  return defineBias(entry, node, std::move(bias));
}

LogicalResult importAxes(Entry &entry, const onnx::NodeProto &node, HeadBias bias) {
  Attributes attributes(entry.context, node);
  FailureOr<IntTensor> ints = integers(entry, node, 1);
  if (failed(attributes.finish()) || failed(ints))
    return failure();
  bool adds = node.op_type() == "Unsqueeze";
  SmallVector<int64_t> given;
  for (const LinearInt &element : ints->elements)
    given.push_back(element.isConstant() ? element.constant : INT64_MAX);
  int64_t rank = bias.shape.size();
  std::optional<SmallVector<int64_t>> axes = normalAxes(given, adds ? rank + static_cast<int64_t>(given.size()) : rank);
  if (!axes)
    return refuse(entry, node, "its axes do not fit");
  for (int64_t axis : adds ? *axes : SmallVector<int64_t>(llvm::reverse(*axes))) {
    if (adds) {
      bias.shape.insert(bias.shape.begin() + axis, kOne);
      bias.head += axis <= bias.head;
    } else {
      if (bias.shape[axis] != kOne || axis == bias.head)
        return refuse(entry, node, "it squeezes a dimension that is not of size 1");
      bias.shape.erase(bias.shape.begin() + axis);
      bias.head -= axis < bias.head;
    }
  }
  if (bias.shape.back() != kKeys)
    return refuse(entry, node, "the last dimension must stay that of the keys");
  return defineBias(entry, node, std::move(bias));
}

} // namespace

std::optional<HeadBias> headBiasOf(Entry &entry, const onnx::NodeProto &node) {
  if (node.op_type() != "Mul" || node.input_size() != 2)
    return std::nullopt;
  for (int index : {0, 1}) {
    const GraphValue *weight = operand(entry, node, index), *other = operand(entry, node, 1 - index);
    if (!weight || !other || weight->kind != Kind::Weight || !weight->weight->floatType(entry.context))
      continue;
    std::optional<Grid> grid = gridOf(entry, *other);
    const StoredTensor &stored = *weight->weight;
    // One formula for all elements, which grows with the key's index.
    if (!grid || grid->type != Grid::Type::Float || grid->cells.size() != 1 || grid->shape.empty() ||
        grid->shape.back() != kKeys || grid->cells[0].form.slope.back() == 0)
      continue;
    SmallVector<LinearInt, 4> shape;
    int64_t head = -1;
    for (auto [d, dim] : llvm::enumerate(stored.shape)) {
      shape.push_back({.constant = dim});
      if (dim != 1)
        head = head == -1 ? static_cast<int64_t>(d) : INT64_MAX;
    }
    std::optional<SmallVector<LinearInt, 4>> both = broadcastShapes(shape, grid->shape);
    if (!both || head < 0 || head >= static_cast<int64_t>(shape.size()) - 1)
      continue;
    head += both->size() - shape.size();
    // The formula itself must be the same for all heads.
    int64_t own = head - static_cast<int64_t>(both->size() - grid->shape.size());
    if (own >= 0 && grid->shape[own] != kOne)
      continue;
    FailureOr<std::optional<Dense>> dense = denseOf(entry, stored);
    if (failed(dense) || !*dense)
      continue;
    HeadBias bias{.shape = *both, .head = head};
    for (double slope : (*dense)->values)
      bias.slopes.push_back(slope * static_cast<double>(grid->cells[0].form.slope.back()));
    return bias;
  }
  return std::nullopt;
}

bool isOfHeadBias(Entry &entry, const onnx::NodeProto &node) {
  if (!canonicalDomain(node.domain()).empty())
    return false;
  constexpr StringRef kOps[] = {"Add", "Cast", "Mul", "Reshape", "Squeeze", "Unsqueeze"};
  return llvm::is_contained(kOps, node.op_type()) && (biasAt(entry, node, 0) || biasAt(entry, node, 1));
}

LogicalResult importOnHeadBias(Entry &entry, const onnx::NodeProto &node) {
  StringRef op = node.op_type();
  const HeadBias *first = biasAt(entry, node, 0), *second = biasAt(entry, node, 1);
  HeadBias bias = first ? *first : *second;
  if (op == "Reshape")
    return bias.masks.empty() ? importReshape(entry, node, std::move(bias))
                              : refuse(entry, node, "it is reshaped with a mask in it");
  if (op == "Squeeze" || op == "Unsqueeze")
    return bias.masks.empty() ? importAxes(entry, node, std::move(bias))
                              : refuse(entry, node, "it is reshaped with a mask in it");
  Attributes attributes(entry.context, node);
  if (op == "Cast") {
    if (failed(takeFloatCast(entry, node, attributes)))
      return failure();
    return defineBias(entry, node, std::move(bias));
  }
  if (failed(attributes.finish()))
    return failure();
  std::optional<Grid> other = first && second ? std::nullopt : gridAt(entry, node, first ? 1 : 0);
  if (op == "Mul") {
    std::optional<double> factor = other ? other->uniform() : std::nullopt;
    if (!factor || !bias.masks.empty())
      return refuse(entry, node, "its factor must be one number, before a mask is added");
    for (double &slope : bias.slopes)
      slope *= *factor;
    return defineBias(entry, node, std::move(bias));
  }
  if (!other || other->type != Grid::Type::Float)
    return refuse(entry, node, "what is added must be a mask that is computed from positions and lengths");
  // The mask has dimensions that the bias does not, the queries for one.
  std::optional<SmallVector<LinearInt, 4>> shape = broadcastShapes(bias.shape, other->shape);
  if (!shape)
    return refuse(entry, node, "a mask of another shape is added");
  bias.head += shape->size() - bias.shape.size();
  bias.shape = *shape;
  bias.masks.push_back(std::move(*other));
  return defineBias(entry, node, std::move(bias));
}

bool fitsScores(Entry &entry, const HeadBias &bias, int64_t heads, bool flat) {
  int64_t rank = bias.shape.size(), batch = entry.batch();
  // [.., heads, queries, keys]: all but the heads may be of size 1.
  auto isOf = [](const LinearInt &size, int64_t count) { return size == kOne || size == LinearInt{.constant = count}; };
  return static_cast<int64_t>(bias.slopes.size()) == heads && rank >= 3 && rank <= (flat ? 3 : 4) &&
         bias.head == rank - 3 && (flat == bias.flat || batch == 1) && bias.shape.back() == kKeys &&
         isOf(bias.shape[rank - 2], entry.tokens) && (rank == 3 || isOf(bias.shape[0], batch));
}

} // namespace helix::onnximport
