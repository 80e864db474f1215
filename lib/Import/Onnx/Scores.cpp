//===- Scores.cpp - Decomposed attention behind the first product ----------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/HeadBias.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;
using Stage = Scores::Stage;

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::ScoresUnsupported) << reason;
}

LogicalResult defineScores(Entry &entry, const onnx::NodeProto &node, Scores scores) {
  define(entry, node, 0, {.kind = Kind::Scores, .scores = std::make_shared<const Scores>(std::move(scores))});
  return success();
}

std::optional<Grid> gridOperand(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  return value ? gridOf(entry, *value) : std::nullopt;
}

/// A factor before the softcap is part of the scale, one behind the tanh is the cap.
LogicalResult importFactor(Entry &entry, const onnx::NodeProto &node, Scores scores, int other) {
  std::optional<Grid> grid = gridOperand(entry, node, other);
  std::optional<double> factor = grid ? grid->uniform() : std::nullopt;
  bool isDiv = node.op_type() == "Div";
  if (!factor || (isDiv && other != 1) || (scores.stage != Stage::Raw && scores.stage != Stage::Capped))
    return refuse(entry, node, "scores can be scaled by one number, before the mask and the softmax");
  // A bias before the factor is scaled with the scores; behind a cap its factor would not be the cap's.
  if (!scores.slopes.empty()) {
    if (scores.stage != Stage::Raw)
      return refuse(entry, node, "scores with a bias behind a cap are scaled");
    for (double &slope : scores.slopes)
      slope = isDiv ? slope / *factor : slope * *factor;
  }
  double &target = scores.stage == Stage::Raw ? scores.scale : scores.softcap;
  target = isDiv ? target / *factor : target * *factor;
  if (!std::isfinite(target) || (target == 0 && scores.stage == Stage::Capped))
    return refuse(entry, node, "the scale of the scores must be finite, and a cap not 0");
  return defineScores(entry, node, std::move(scores));
}

LogicalResult addMask(Entry &entry, const onnx::NodeProto &node, Scores scores, std::optional<Grid> mask) {
  if (!mask || (scores.stage != Stage::Raw && scores.stage != Stage::Capped && scores.stage != Stage::Masked))
    return refuse(entry, node,
                  "what is added to scores must be a mask that is computed from positions and lengths, before the "
                  "softmax");
  scores.stage = Stage::Masked;
  scores.masks.push_back(std::move(*mask));
  return defineScores(entry, node, std::move(scores));
}

/// Slopes of ALiBi, before or behind a mask.
LogicalResult addBias(Entry &entry, const onnx::NodeProto &node, Scores scores, const HeadBias &bias) {
  if (scores.stage != Stage::Raw && scores.stage != Stage::Capped && scores.stage != Stage::Masked)
    return refuse(entry, node, "adds a bias behind the softmax");
  if (!scores.slopes.empty() || !fitsScores(entry, bias, typeOf(scores.q).getDimSize(2), scores.flat))
    return refuse(entry, node, "adds a second bias, or one that does not go along the heads of the scores");
  scores.slopes = bias.slopes;
  if (!bias.masks.empty())
    scores.stage = Stage::Masked;
  scores.masks.insert(scores.masks.end(), bias.masks.begin(), bias.masks.end());
  return defineScores(entry, node, std::move(scores));
}

/// Sequences and heads told apart, or counted as one.
LogicalResult importReshape(Entry &entry, const onnx::NodeProto &node, Scores scores) {
  Attributes attributes(entry.context, node);
  attributes.onlyInteger("allowzero", 0, {0, 1});
  FailureOr<IntTensor> given = reshapeSizes(entry, node);
  if (failed(attributes.finish()) || failed(given))
    return failure();
  ArrayRef<int64_t> q = typeOf(scores.q).getShape();
  const LinearInt keys = scores.key.sizes[Cached::Token], batch{.constant = q[0]}, heads{.constant = q[2]},
                  both{.constant = q[0] * q[2]}, queries{.constant = q[1]};
  SmallVector<LinearInt, 4> split = {batch, heads, queries, keys}, flat = {both, queries, keys};
  const SmallVector<LinearInt, 4> &old = scores.flat ? flat : split;
  auto asksFor = [&](ArrayRef<LinearInt> shape) {
    bool fits = given->elements.size() == shape.size();
    int64_t open = 0;
    for (size_t d = 0; d < shape.size() && fits; ++d) {
      const LinearInt &size = given->elements[d];
      bool isOpen = size == LinearInt{.constant = -1};
      open += isOpen;
      fits = size == shape[d] || isOpen || (size == LinearInt{} && d < old.size() && old[d] == shape[d]);
    }
    return fits && open <= 1;
  };
  if (!asksFor(split) && !asksFor(flat))
    return refuse(entry, node,
                  "reshapes scores to something else than [batch, heads, queries, keys] or [batch * heads, "
                  "queries, keys]");
  scores.flat = !asksFor(split);
  return defineScores(entry, node, std::move(scores));
}

LogicalResult importWhere(Entry &entry, const onnx::NodeProto &node) {
  auto scoresAt = [&](int index) -> const Scores * {
    const GraphValue *value = operand(entry, node, index);
    return value && value->kind == Kind::Scores ? value->scores.get() : nullptr;
  };
  const Scores *test = scoresAt(0), *yes = scoresAt(1), *no = scoresAt(2);
  // Probabilities of a row without a visible key are no numbers; a causal row always has one.
  if (test && !yes && no && test->stage == Stage::IsNan && no->stage == Stage::Soft)
    return defineScores(entry, node, *no);
  if (test || !yes == !no)
    return refuse(entry, node, "chooses between scores in a way that is no mask");
  std::optional<Grid> mask = gridOperand(entry, node, 0), other = gridOperand(entry, node, yes ? 2 : 1);
  std::optional<double> hidden = other ? other->uniform() : std::nullopt;
  constexpr double kHidden = -1e4;
  if (!mask || !hidden || !(*hidden <= kHidden))
    return refuse(entry, node, "masks scores with something else than a constant of -10000 or below");
  mask = castGrid(*mask, Grid::Type::Bool, entry.lengths());
  if (mask && no)
    mask = elementwise("Not", {*mask}, entry.lengths());
  return addMask(entry, node, yes ? *yes : *no, std::move(mask));
}

LogicalResult importSoftmax(Entry &entry, const onnx::NodeProto &node, Scores scores) {
  Attributes attributes(entry.context, node);
  attributes.onlyInteger("axis", -1, {-1, scores.flat ? 2 : 3});
  if (failed(attributes.finish()))
    return failure();
  if (scores.stage == Stage::Soft || scores.stage == Stage::IsNan)
    return refuse(entry, node, "is a second softmax");
  scores.stage = Stage::Soft;
  return defineScores(entry, node, std::move(scores));
}

/// Probabilities times values.
LogicalResult importValues(Entry &entry, const onnx::NodeProto &node, Scores scores) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  const GraphValue *value = operand(entry, node, 1);
  if (!value || value->kind != Kind::Cached || scores.stage != Stage::Soft)
    return refuse(entry, node, "must multiply probabilities with the values of all tokens");
  const Cached &cached = *value->cached;
  int64_t heads = typeOf(scores.q).getDimSize(2);
  using C = Cached;
  bool isValue = scores.flat ? hasForm(cached, {{C::Batch, C::Head, C::Repeat}, {C::Token}, {C::Width}})
                             : hasForm(cached, {{C::Batch}, {C::Head, C::Repeat}, {C::Token}, {C::Width}});
  int64_t valueHeads = cached.sizes[C::Head].constant * cached.sizes[C::Repeat].constant;
  if (!isValue || (valueHeads != heads && (scores.flat || valueHeads != 1)) || cached.scale != 1)
    return refuse(
        entry, node,
        "probabilities must meet values [batch, heads, all tokens, head size], those of each KV head repeated "
        "for the queries that read it");
  // softcap * tanh(scale q k / softcap)
  if (scores.softcap != 0)
    scores.scale *= scores.softcap;
  FailureOr<Value> result = attend(entry, node, scores, cached);
  if (failed(result))
    return failure();
  View view = transposeView(identityView(*result), {0, 2, 1, 3});
  if (scores.flat)
    view.groups = {{0, 2}, {1}, {3}};
  defineView(entry, node, 0, std::move(view));
  return success();
}

} // namespace

bool isOfScores(Entry &entry, const onnx::NodeProto &node) {
  constexpr StringRef kOps[] = {"Add", "Cast", "Div", "IsNaN", "MatMul", "Mul", "Reshape", "Softmax", "Tanh", "Where"};
  if (!canonicalDomain(node.domain()).empty() || !llvm::is_contained(kOps, node.op_type()))
    return false;
  for (int i = 0; i < node.input_size(); ++i)
    if (const GraphValue *value = operand(entry, node, i); value && value->kind == Kind::Scores)
      return true;
  return false;
}

LogicalResult importOnScores(Entry &entry, const onnx::NodeProto &node) {
  StringRef op = node.op_type();
  if (op == "Where")
    return importWhere(entry, node);
  const GraphValue *first = operand(entry, node, 0);
  bool isFirst = first && first->kind == Kind::Scores;
  if (!isFirst && op != "Add" && op != "Mul")
    return refuse(entry, node, "takes scores where they have no meaning");
  Scores scores = isFirst ? *first->scores : *operand(entry, node, 1)->scores;
  if (op == "Mul" || op == "Div")
    return importFactor(entry, node, std::move(scores), isFirst ? 1 : 0);
  if (op == "Reshape")
    return importReshape(entry, node, std::move(scores));
  if (op == "Add") {
    const GraphValue *added = operand(entry, node, isFirst ? 1 : 0);
    if (added && added->kind == Kind::HeadBias)
      return addBias(entry, node, std::move(scores), *added->bias);
    std::optional<Grid> mask = gridOperand(entry, node, isFirst ? 1 : 0);
    if (mask && mask->type != Grid::Type::Float)
      mask.reset();
    return addMask(entry, node, std::move(scores), std::move(mask));
  }
  if (op == "Softmax")
    return importSoftmax(entry, node, std::move(scores));
  if (op == "MatMul")
    return importValues(entry, node, std::move(scores));
  Attributes attributes(entry.context, node);
  if (op == "Cast") {
    if (failed(takeFloatCast(entry, node, attributes)))
      return failure();
    return defineScores(entry, node, std::move(scores));
  }
  if (failed(attributes.finish()))
    return failure();
  if (op == "Tanh") {
    if (scores.stage != Stage::Raw || !scores.slopes.empty())
      return refuse(entry, node, "caps scores that are capped, masked or biased already");
    scores.stage = Stage::Capped;
    scores.softcap = 1;
    return defineScores(entry, node, std::move(scores));
  }
  if (scores.stage != Stage::Soft)
    return refuse(entry, node, "tests scores before the softmax");
  scores.stage = Stage::IsNan;
  return defineScores(entry, node, std::move(scores));
}

} // namespace helix::onnximport
