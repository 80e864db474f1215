//===- Rotary.cpp - Rotary embeddings, as ops and out of tables ------------===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Mix.h"
#include "lib/Import/Onnx/Symbolic.h"

#include "llvm/Support/Endian.h"

#include <cmath>

using namespace mlir;

namespace helix::onnximport {
namespace {

using Kind = GraphValue::Kind;

LogicalResult refuse(Entry &entry, const onnx::NodeProto &node, const Twine &reason) {
  return nodeError(entry.context, node, ErrorCode::RotaryUnsupported) << reason;
}

/// Positions that a table is needed for.
FailureOr<int64_t> positionsOf(Entry &entry, const onnx::NodeProto &node, ArrayRef<MixTerm> columns) {
  std::optional<int64_t> known;
  for (const MixTerm &column : columns)
    if (column.table && column.table->positions)
      known = std::min(*column.table->positions, known.value_or(*column.table->positions));
  if (known && (entry.positions == 0 || *known < entry.positions))
    entry.positions = *known;
  int64_t positions = entry.state.options.maxContext;
  if (positions == 0)
    positions = known.value_or(0);
  if (positions == 0) {
    nodeError(entry.context, node, ErrorCode::ImportOptionInvalid)
        << "the model computes its rotary tables for any length; give --max-context";
    return failure();
  }
  if (known && positions > *known) {
    nodeError(entry.context, node, ErrorCode::ContextTooLong)
        << "its rotary tables have " << *known << " positions, but the longest context is to be " << positions
        << "; lower --max-context or export the model with a longer one";
    return failure();
  }
  return positions;
}

} // namespace

std::optional<std::vector<double>> plainRow(const Table &table, int64_t position) {
  std::optional<Dense> row = table.row(position);
  if (!row || row->shape.empty())
    return std::nullopt;
  // A graph may repeat it for each sequence.
  int64_t columns = row->shape.back();
  for (size_t i = columns; i < row->values.size(); ++i)
    if (row->values[i] != row->values[i - columns])
      return std::nullopt;
  row->values.resize(columns);
  return std::move(row->values);
}

SmallVector<MixTerm> allColumns(const std::shared_ptr<const Table> &table) {
  SmallVector<MixTerm> columns;
  std::optional<std::vector<double>> row = plainRow(*table, 0);
  for (size_t column = 0; row && column < row->size(); ++column)
    columns.push_back({.table = table, .column = static_cast<int64_t>(column)});
  return columns;
}

FailureOr<const StoredTensor *> columnsOf(Entry &entry, const onnx::NodeProto &node, StringRef name,
                                          ArrayRef<MixTerm> columns) {
  FailureOr<int64_t> positions = positionsOf(entry, node, columns);
  if (failed(positions))
    return failure();
  // The constant itself, if its columns are taken as they are.
  const StoredTensor *stored = columns.empty() ? nullptr : columns[0].table->stored;
  bool isWhole = stored && stored->shape.size() == 2 && stored->shape[1] == static_cast<int64_t>(columns.size());
  for (auto [i, column] : llvm::enumerate(columns))
    isWhole = isWhole && column.table->stored == stored && column.sign == 1 && column.column == static_cast<int64_t>(i);
  if (isWhole)
    return stored;
  std::string bytes;
  bytes.reserve(*positions * columns.size() * sizeof(float));
  for (int64_t position = 0; position < *positions; ++position) {
    const Table *table = nullptr;
    std::optional<std::vector<double>> row;
    for (const MixTerm &column : columns) {
      if (column.table.get() != table) {
        table = column.table.get();
        row = plainRow(*table, position);
      }
      if (!row || column.column >= static_cast<int64_t>(row->size())) {
        (void)refuse(entry, node, "its tables cannot be computed at position " + Twine(position));
        return failure();
      }
      char element[sizeof(float)];
      llvm::support::endian::write<float, llvm::endianness::little>(
          element, static_cast<float>(column.sign * (*row)[column.column]));
      bytes.append(element, sizeof(element));
    }
  }
  return makeConstant(entry, node, name, Dense::Type::Float, {*positions, static_cast<int64_t>(columns.size())},
                      std::move(bytes));
}

FailureOr<Value> rotate(Entry &entry, const onnx::NodeProto &node, Value x, const StoredTensor &cos,
                        const StoredTensor &sin, bool interleaved) {
  int64_t width = typeOf(x).getShape().back();
  if (cos.shape.size() != 2 || cos.shape != sin.shape || 2 * cos.shape[1] > width) {
    nodeError(entry.context, node, ErrorCode::ShapeMismatch)
        << "its rotary tables have shapes " << shapeText(cos.shape) << " and " << shapeText(sin.shape)
        << "; both must be [positions, r] with 2 r at most the head size " << width;
    return failure();
  }
  Value cosine = weightOf(entry, cos, Dtype::F32), sine = weightOf(entry, sin, Dtype::F32);
  return RopeOp::create(entry.builder, entry.loc, x, cosine, sine, entry.past, interleaved).getResult();
}

/// RotaryEmbedding of ONNX (X, cos, sin, positions?) and of com.microsoft (X, positions, cos, sin).
LogicalResult importRotaryEmbedding(Entry &entry, const onnx::NodeProto &node) {
  bool isMicrosoft = node.domain() == "com.microsoft";
  Attributes attributes(entry.context, node);
  bool interleaved = attributes.integer("interleaved", 0) != 0;
  int64_t heads = attributes.integer("num_heads", 0), width = attributes.integer("rotary_embedding_dim", 0);
  if (isMicrosoft) {
    attributes.onlyReal("scale", 1);
    attributes.onlyInteger("is_packed_batching", 0, {0});
  }
  if (failed(attributes.finish()))
    return failure();
  int positionIndex = isMicrosoft ? 1 : 3, cosIndex = isMicrosoft ? 2 : 1;
  const GraphValue *positions = operand(entry, node, positionIndex);
  std::optional<Grid> grid = positions ? gridOf(entry, *positions) : std::nullopt;
  std::optional<Grid> plain = gridOf(entry, {.kind = Kind::Positions});
  std::optional<Grid> wide = grid && plain ? broadcast(*grid, plain->shape) : std::nullopt;
  const Affine *form = wide ? wide->affine() : nullptr;
  if (positions && (!form || *form != *plain->affine()))
    return operandError(entry, node, positionIndex, "the positions of the new tokens, [batch, tokens]");
  // A part of the width: what is rotated is joined with the rest later.
  const GraphValue *x = operand(entry, node, 0);
  if (x && x->kind == Kind::Mix && x->mix->base.groups.size() == 4 && width == 0) {
    std::shared_ptr<const Table> rows[2];
    for (int i = 0; i < 2; ++i) {
      const GraphValue *table = operand(entry, node, cosIndex + i);
      if (table && table->kind == Kind::Table && !positions)
        rows[i] = table->table;
      else if (table && table->kind == Kind::Weight && positions)
        rows[i] = rowsByPosition(entry, *table->weight);
    }
    if (rows[0] && rows[1]) {
      FailureOr<Mix> rotated = rotatePart(entry, node, *x->mix, rows[0], rows[1], interleaved);
      if (failed(rotated))
        return failure();
      define(entry, node, 0, {.kind = Kind::Mix, .mix = std::make_shared<const Mix>(std::move(*rotated))});
      return success();
    }
  }
  const StoredTensor *tables[2] = {};
  for (int i = 0; i < 2; ++i) {
    const GraphValue *table = operand(entry, node, cosIndex + i);
    if (table && table->kind == Kind::Table && !positions) {
      const Table &rows = *table->table;
      bool isPlain = plainRow(rows, 0) && (entry.tokens == 1 || rows.tokenAxis == rows.rank - 2);
      if (!isPlain)
        return refuse(entry, node, "its tables must be [batch, tokens, columns]");
      FailureOr<const StoredTensor *> stored =
          columnsOf(entry, node, node.input(cosIndex + i), allColumns(table->table));
      if (failed(stored))
        return failure();
      tables[i] = *stored;
      continue;
    }
    FailureOr<const StoredTensor *> stored = constant(entry, node, cosIndex + i);
    if (failed(stored))
      return failure();
    if (!positions)
      return operandError(entry, node, cosIndex + i, "rows of a table at the positions of the new tokens");
    tables[i] = *stored;
    if (!(*stored)->shape.empty() && (entry.positions == 0 || (*stored)->shape[0] < entry.positions))
      entry.positions = (*stored)->shape[0];
  }
  FailureOr<View> view = viewOf(entry, node, 0);
  if (failed(view))
    return failure();
  SmallVector<int64_t> shape = view->shape();
  int64_t columns = tables[0]->shape.size() == 2 ? tables[0]->shape[1] : 0;
  if (width != 0 && width != 2 * columns)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "rotates " << width << " elements with tables of " << columns << " columns";
  std::optional<View> split;
  if (shape.size() == 4) {
    split = transposeView(*view, {0, 2, 1, 3});
  } else if (shape.size() == 3) {
    int64_t count = heads > 0 ? heads : columns > 0 ? shape[2] / (2 * columns) : 0;
    if (count > 0 && shape[2] % count == 0)
      split = reshapeView(entry.builder, entry.loc, *view, {shape[0], shape[1], count, shape[2] / count});
  }
  std::optional<Value> perHead = split ? materialise(entry.builder, entry.loc, *split) : std::nullopt;
  if (!perHead || typeOf(*perHead).getDimSize(1) != entry.tokens)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "rotates " << shapeText(shape)
           << "; it must be [batch, tokens, heads * head size] or [batch, heads, tokens, head size]";
  FailureOr<Value> rotated = rotate(entry, node, *perHead, *tables[0], *tables[1], interleaved);
  if (failed(rotated))
    return failure();
  View result = identityView(*rotated);
  if (shape.size() == 4)
    result = transposeView(std::move(result), {0, 2, 1, 3});
  else
    result.groups = {{0}, {1}, {2, 3}};
  defineView(entry, node, 0, std::move(result));
  return success();
}

FailureOr<View> viewOfTable(Entry &entry, const onnx::NodeProto &node, int index,
                            const std::shared_ptr<const Table> &table) {
  if (!plainRow(*table, 0) || table->rank < 2 || (entry.tokens > 1 && table->tokenAxis != table->rank - 2)) {
    (void)operandError(entry, node, index, "activations, or rows of a table by position [tokens, width]");
    return failure();
  }
  FailureOr<const StoredTensor *> stored = columnsOf(entry, node, node.input(index), allColumns(table));
  if (failed(stored))
    return failure();
  auto type = RankedTensorType::get({entry.batch(), entry.tokens, (*stored)->shape[1]}, entry.builder.getF32Type());
  Value rows =
      PositionEmbeddingOp::create(entry.builder, entry.loc, type, weightOf(entry, **stored, Dtype::F32), entry.past);
  return identityView(rows);
}

SmallVector<int64_t> Mix::shape() const {
  SmallVector<int64_t> shape = base.shape();
  shape.pop_back();
  shape.append(inner);
  return shape;
}

/// The mix as one of the part of its base that it reads, where that part is as wide as it is itself.
static Mix ofItsPart(Entry &entry, const Mix &mix) {
  int64_t count = mix.elements.size(), width = mix.base.shape().back(), first = width, last = 0;
  for (const auto &terms : mix.elements)
    for (const MixTerm &term : terms) {
      first = std::min(first, term.source);
      last = std::max(last, term.source);
    }
  if (count >= width || last - first + 1 != count)
    return mix;
  ArrayRef<unsigned> group = mix.base.groups.back();
  bool isOwn = group.size() == 1 && group[0] == typeOf(mix.base.value).getRank() - 1;
  std::optional<View> part = isOwn ? partOf(entry, mix.base, mix.base.groups.size() - 1, first, count) : std::nullopt;
  if (!part)
    return mix;
  Mix result = mix;
  result.base = std::move(*part);
  for (auto &terms : result.elements)
    for (MixTerm &term : terms)
      term.source -= first;
  return result;
}

FailureOr<Mix> rotatePart(Entry &entry, const onnx::NodeProto &node, const Mix &part,
                          const std::shared_ptr<const Table> &cos, const std::shared_ptr<const Table> &sin,
                          bool interleaved) {
  std::optional<std::vector<double>> row = plainRow(*cos, 0);
  int64_t r = row ? row->size() : 0;
  bool isPlain = llvm::all_of(part.elements, [](const auto &t) { return t.size() == 1 && !t[0].table; });
  // [batch, heads, tokens, width]: the tables' rows go along the tokens, dimension 1 of the value.
  const Groups &groups = part.base.groups;
  bool fits = isPlain && part.inner.size() == 1 && part.inner[0] == 2 * r && groups.size() == 4 &&
              groups[2].size() == 1 && groups[2][0] == 1;
  if (!fits) {
    (void)refuse(entry, node, "rotates a part of the width that its tables, of " + Twine(r) + " columns, do not fit");
    return failure();
  }
  Mix result = part;
  for (int64_t i = 0; i < r; ++i) {
    int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + r;
    auto term = [&](int64_t source, const std::shared_ptr<const Table> &table, double sign) {
      MixTerm result = part.elements[source][0];
      result.sign *= sign;
      result.table = table;
      result.column = i;
      return result;
    };
    result.elements[first] = {term(first, cos, 1), term(second, sin, -1)};
    result.elements[second] = {term(second, cos, 1), term(first, sin, 1)};
  }
  return result;
}

/// Heads as one dimension of the value, [batch, tokens, heads, width], where they come as several.
static void joinHeads(Entry &entry, Mix &mix) {
  if (mix.base.groups.size() != 4 || typeOf(mix.base.value).getRank() == 4)
    return;
  for (const SmallVector<int64_t, 4> &perm : {SmallVector<int64_t, 4>{0, 1, 2, 3}, {0, 2, 1, 3}}) {
    View heads = transposeView(mix.base, perm);
    bool isInOrder = heads.groups[1].size() == 1 && heads.groups[1][0] == 1;
    std::optional<Value> value = isInOrder ? materialise(entry.builder, entry.loc, heads) : std::nullopt;
    if (value)
      mix.base = transposeView(identityView(*value), perm);
    if (isInOrder)
      return;
  }
}

FailureOr<View> viewOfMix(Entry &entry, const onnx::NodeProto &node, int index, const Mix &whole) {
  Mix mix = ofItsPart(entry, whole);
  int64_t count = mix.elements.size(), width = mix.base.shape().back();
  auto isPlain = [&](int64_t i, int64_t source) {
    const auto &terms = mix.elements[i];
    return terms.size() == 1 && terms[0].source == source && terms[0].sign == 1 && !terms[0].table;
  };
  auto withInner = [&](View view) -> FailureOr<View> {
    SmallVector<int64_t> shape = view.shape();
    shape.pop_back();
    shape.append(mix.inner);
    std::optional<View> shaped = reshapeView(entry.builder, entry.loc, view, shape);
    if (!shaped) {
      (void)refuse(entry, node, "rearranges the width of heads in a way that is not known");
      return failure();
    }
    if (mix.scale != 1) {
      auto type = typeOf(shaped->value);
      Value factor = arith::ConstantOp::create(entry.builder, entry.loc,
                                               DenseElementsAttr::get(type, APFloat(static_cast<float>(mix.scale))));
      shaped->value = arith::MulFOp::create(entry.builder, entry.loc, shaped->value, factor);
    }
    return *shaped;
  };
  // The width as it was.
  if (count == width && llvm::all_of(llvm::seq<int64_t>(0, count), [&](int64_t i) { return isPlain(i, i); }))
    return withInner(mix.base);
  // A rotation of the first 2 r elements, the others as they were.
  joinHeads(entry, mix);
  int64_t r = llvm::count_if(mix.elements, [](const auto &terms) { return terms.size() == 2; }) / 2;
  RankedTensorType type = typeOf(mix.base.value);
  for (bool interleaved : {false, true}) {
    if (count != width || r == 0 || type.getRank() != 4)
      break;
    SmallVector<MixTerm> cos, sin, cosAgain, sinAgain;
    bool fits = llvm::all_of(llvm::seq(2 * r, count), [&](int64_t i) { return isPlain(i, i); });
    for (int64_t i = 0; i < r && fits; ++i) {
      int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + r;
      auto termOf = [&](int64_t element, int64_t source) -> const MixTerm * {
        const auto &terms = mix.elements[element];
        auto *found = llvm::find_if(terms, [&](const MixTerm &t) { return t.source == source && t.table; });
        return terms.size() == 2 && found != terms.end() ? found : nullptr;
      };
      const MixTerm *aa = termOf(a, a), *ab = termOf(a, b), *ba = termOf(b, a), *bb = termOf(b, b);
      fits = aa && ab && ba && bb;
      if (fits) {
        cos.push_back(*aa);
        cosAgain.push_back(*bb);
        sin.push_back(*ab);
        sin.back().sign = -sin.back().sign;
        sinAgain.push_back(*ba);
      }
    }
    if (!fits)
      continue;
    FailureOr<const StoredTensor *> tables[4];
    StringRef name = node.input(index);
    const SmallVector<MixTerm> *parts[4] = {&cos, &sin, &cosAgain, &sinAgain};
    constexpr StringRef kNames[4] = {"/cos", "/sin", "/cos2", "/sin2"};
    for (int part = 0; part < 4; ++part) {
      tables[part] = columnsOf(entry, node, (name + kNames[part]).str(), *parts[part]);
      if (failed(tables[part]))
        return failure();
    }
    // Both of a pair turn by the same angle.
    for (int part = 0; part < 2; ++part) {
      FailureOr<std::string> one = bytesOf(entry.context, **tables[part]);
      FailureOr<std::string> two = bytesOf(entry.context, **tables[part + 2]);
      if (failed(one) || failed(two))
        return failure();
      bool isSame = *tables[part] == *tables[part + 2] || (one->size() == two->size() && *one == *two);
      // A stored table may have more rows than are needed, and columns for both halves.
      fits &= isSame;
    }
    if (!fits)
      continue;
    // Heads [batch, tokens, heads, width] whatever the graph's order.
    std::optional<View> heads;
    if (mix.base.groups.size() == 4)
      for (const SmallVector<int64_t, 4> &perm : {SmallVector<int64_t, 4>{0, 1, 2, 3}, {0, 2, 1, 3}})
        if (sameOrder(transposeView(mix.base, perm), identityView(mix.base.value)))
          heads = mix.base;
    if (!heads)
      break;
    FailureOr<Value> rotated = rotate(entry, node, mix.base.value, **tables[0], **tables[1], interleaved);
    if (failed(rotated))
      return failure();
    heads->value = *rotated;
    return withInner(std::move(*heads));
  }
  (void)refuse(entry, node,
               "operand " + Twine(index) + " " + quoted(node.input(index)) +
                   " is a rearrangement of the width of heads that is neither a part of it nor a rotation of pairs");
  return failure();
}

} // namespace helix::onnximport
