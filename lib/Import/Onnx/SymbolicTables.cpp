//===- SymbolicTables.cpp - Nodes on constants and tables of positions -----===//
#include "lib/Import/Onnx/Symbolic.h"

#include "llvm/Support/Endian.h"

using namespace mlir;

namespace helix::onnximport {

using Kind = GraphValue::Kind;

/// The op on constants of these shapes.
std::optional<DenseOp> denseOp(const Parsed &parsed, ArrayRef<int64_t> shape) {
  DenseOp op{.name = parsed.op.str()};
  int64_t rank = shape.size();
  StringRef name = parsed.op;
  if (isElementwise(name)) {
    if (name == "Cast")
      op.numbers = {static_cast<int64_t>(*parsed.type)};
    return op;
  }
  if (name == "MatMul")
    return op;
  if (name == "Transpose") {
    std::optional<SmallVector<int64_t>> perm = normalPerm(parsed.numbers, rank);
    if (!perm)
      return std::nullopt;
    op.numbers.append(*perm);
    return op;
  }
  if (name == "Unsqueeze" || name == "Squeeze" || name == "Concat" || name == "Gather") {
    SmallVector<int64_t> given = parsed.numbers;
    for (int64_t d = 0; d < rank; ++d)
      if (name == "Squeeze" && parsed.numbers.empty() && shape[d] == 1)
        given.push_back(d);
    std::optional<SmallVector<int64_t>> axes =
        normalAxes(given, name == "Unsqueeze" ? rank + static_cast<int64_t>(given.size()) : rank);
    if (!axes || (name == "Squeeze" && llvm::any_of(*axes, [&](int64_t a) { return shape[a] != 1; })))
      return std::nullopt;
    op.numbers.append(*axes);
    return op;
  }
  if (name == "Reshape" || name == "Expand") {
    int64_t count = 1, known = 1;
    for (int64_t dim : shape)
      count *= dim;
    int64_t *open = nullptr;
    constexpr size_t kMaxRank = 8;
    if (parsed.sizes.size() > kMaxRank)
      return std::nullopt;
    for (auto [d, size] : llvm::enumerate(parsed.sizes)) {
      if (!size.isConstant() || (name == "Expand" && size.constant < 1))
        return std::nullopt;
      bool keep = name == "Reshape" && size.constant == 0;
      if (keep && static_cast<int64_t>(d) >= rank)
        return std::nullopt;
      op.numbers.push_back(keep ? shape[d] : size.constant);
    }
    for (int64_t &size : op.numbers) {
      if (size == -1 && !open)
        open = &size;
      else if (size < 1 || __builtin_mul_overflow(known, size, &known))
        return std::nullopt;
    }
    if (open && count % known != 0)
      return std::nullopt;
    if (open)
      *open = count / known;
    return op;
  }
  if (name == "Slice") {
    SmallVector<LinearInt> sizes;
    for (int64_t dim : shape)
      sizes.push_back({.constant = dim});
    std::optional<SmallVector<Cut>> cuts = cutsOf(parsed, sizes, {});
    if (!cuts)
      return std::nullopt;
    for (const Cut &cut : *cuts) {
      if (!cut.first.isConstant() || !cut.count.isConstant())
        return std::nullopt;
      op.numbers.append({cut.axis, cut.first.constant, cut.count.constant, cut.step});
    }
    return op;
  }
  return std::nullopt;
}
namespace {

std::shared_ptr<const Table> constantTable(Dense dense) {
  auto table = std::make_shared<Table>();
  table->rank = dense.shape.size();
  table->row = [dense = std::move(dense)](int64_t) { return std::optional(dense); };
  return table;
}

/// A formula as a table: one that grows with the position along one dimension, or with the position alone.
std::shared_ptr<const Table> tableOf(Entry &entry, const Grid &grid) {
  Dense::Type type = grid.type == Grid::Type::Bool  ? Dense::Type::Bool
                     : grid.type == Grid::Type::Int ? Dense::Type::Int
                                                    : Dense::Type::Float;
  SmallVector<int64_t, 4> ones(grid.shape.size(), 1);
  if (std::optional<double> value = grid.uniform())
    return constantTable({.type = type, .shape = ones, .values = {*value}});
  const Affine *form = grid.affine();
  if (!form || form->total != 1)
    return nullptr;
  auto table = std::make_shared<Table>();
  table->rank = grid.shape.size();
  for (auto [d, slope] : llvm::enumerate(form->slope)) {
    if (slope == 0)
      continue;
    if (slope != 1 || table->tokenAxis != -1 || grid.shape[d] != LinearInt{.constant = entry.tokens})
      return nullptr;
    table->tokenAxis = d;
  }
  // In a step of several tokens a number that is the same for all would be that of one of them.
  if (entry.tokens > 1 && table->tokenAxis == -1)
    return nullptr;
  int64_t offset = form->constant + entry.tokens;
  table->row = [=](int64_t position) {
    return std::optional(Dense{.type = type, .shape = ones, .values = {static_cast<double>(position + offset)}});
  };
  return table;
}

/// Rows of a constant by position.
std::shared_ptr<const Table> gatherRows(Entry &entry, const StoredTensor &stored, const Table &index) {
  auto table = std::make_shared<Table>();
  // The index must be the position itself, not another number that is 0 at the first.
  std::optional<Dense> first = index.row(0), second = index.row(1);
  if (!first || !second || first->type != Dense::Type::Int || first->values.size() != 1 || first->values[0] != 0 ||
      second->values[0] != 1)
    return nullptr;
  FailureOr<std::string> bytes = bytesOf(entry.context, stored);
  if (failed(bytes))
    return nullptr;
  SmallVector<int64_t, 4> shape(first->shape);
  shape.append(stored.shape.begin() + 1, stored.shape.end());
  table->rank = shape.size();
  table->tokenAxis = index.tokenAxis;
  table->stored = &stored;
  table->positions = stored.shape[0];
  auto data = std::make_shared<const std::string>(std::move(*bytes));
  StoredTensor row = stored;
  row.shape[0] = 1;
  row.elements = stored.elements / stored.shape[0];
  row.bytes = stored.bytes / stored.shape[0];
  MLIRContext *context = entry.context;
  table->row = [=](int64_t position) -> std::optional<Dense> {
    Dense dense{.shape = shape};
    auto type = cast<FloatType>(row.floatType(context));
    int64_t width = type.getWidth() / 8;
    const char *at = data->data() + position * row.bytes;
    for (int64_t i = 0; i < row.elements; ++i) {
      uint64_t bits =
          width == 4 ? llvm::support::endian::read32le(at + 4 * i) : llvm::support::endian::read16le(at + 2 * i);
      APFloat value(type.getFloatSemantics(), APInt(type.getWidth(), bits));
      bool lost = false;
      value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
      dense.values.push_back(value.convertToDouble());
    }
    return dense;
  };
  return table;
}

/// Where the token dimension of operand `index`, `table`, is in the result; nothing if it does not survive as one.
std::optional<int64_t> movedAxis(const DenseOp &op, size_t index, const Table &table, int64_t rank) {
  int64_t axis = table.tokenAxis;
  if (axis == -1)
    return -1;
  StringRef name = op.name;
  if (name == "Transpose")
    return llvm::find(op.numbers, axis) - op.numbers.begin();
  if (name == "Unsqueeze") {
    for (int64_t added : op.numbers)
      axis += added <= axis;
    return axis;
  }
  if (name == "Squeeze") {
    if (llvm::is_contained(op.numbers, axis))
      return std::nullopt;
    return axis - llvm::count_if(op.numbers, [&](int64_t dropped) { return dropped < table.tokenAxis; });
  }
  if (name == "Concat")
    return op.numbers[0] == axis ? std::nullopt : std::optional(axis);
  if (name == "Slice") {
    for (size_t i = 0; i < op.numbers.size(); i += 4)
      if (op.numbers[i] == axis)
        return std::nullopt;
    return axis;
  }
  // What a product sums over must not be the tokens.
  if (name == "MatMul" && axis == table.rank - (index == 0 ? 1 : 2))
    return std::nullopt;
  if (isElementwise(name) || name == "Expand" || name == "MatMul")
    return rank - (table.rank - axis);
  return std::nullopt;
}

} // namespace

std::shared_ptr<const Table> rowsByPosition(Entry &entry, const StoredTensor &stored) {
  std::optional<Grid> positions = gridOf(entry, GraphValue{.kind = Kind::Positions});
  std::shared_ptr<const Table> rows = positions ? tableOf(entry, *positions) : nullptr;
  bool isTable = stored.shape.size() == 2 && stored.shape[0] > 0 && stored.floatType(entry.context);
  return rows && isTable ? gatherRows(entry, stored, *rows) : nullptr;
}

LogicalResult importOnTables(Entry &entry, const onnx::NodeProto &node, const Parsed &parsed) {
  SmallVector<std::shared_ptr<const Table>> tables;
  for (int i = 0; i < parsed.data; ++i) {
    const GraphValue *value = operand(entry, node, i);
    std::shared_ptr<const Table> table = value->table;
    if (value->kind == Kind::Weight && parsed.op == "Gather" && i == 0) {
      // Its rows are read in place.
      const GraphValue *index = operand(entry, node, 1);
      std::optional<Grid> positions = index ? gridOf(entry, *index) : std::nullopt;
      std::shared_ptr<const Table> rows = positions ? tableOf(entry, *positions) : nullptr;
      std::optional<SmallVector<int64_t>> axis = normalAxes(parsed.numbers, value->weight->shape.size());
      if (!rows || !axis || axis->front() != 0 || !value->weight->floatType(entry.context))
        return notFollowed(entry, node);
      table = gatherRows(entry, *value->weight, *rows);
      if (!table)
        return notFollowed(entry, node);
      define(entry, node, 0, {.kind = Kind::Table, .table = table});
      return success();
    }
    if (value->kind == Kind::Weight) {
      FailureOr<std::optional<Dense>> dense = denseOf(entry, *value->weight);
      if (failed(dense))
        return failure();
      if (*dense)
        table = constantTable(std::move(**dense));
    } else if (value->kind != Kind::Table) {
      std::optional<Grid> grid = gridOf(entry, *value);
      table = grid ? tableOf(entry, *grid) : nullptr;
    }
    if (!table)
      return notFollowed(entry, node);
    tables.push_back(std::move(table));
  }
  auto rowsAt = [](ArrayRef<std::shared_ptr<const Table>> tables,
                   int64_t position) -> std::optional<SmallVector<Dense>> {
    SmallVector<Dense> rows;
    for (const std::shared_ptr<const Table> &table : tables) {
      std::optional<Dense> row = table->row(position);
      if (!row)
        return std::nullopt;
      rows.push_back(std::move(*row));
    }
    return rows;
  };
  std::optional<SmallVector<Dense>> rows = tables.empty() ? std::nullopt : rowsAt(tables, 0);
  if (!rows)
    return notFollowed(entry, node);
  // Repeating along the tokens is what a table does by itself.
  Parsed own = parsed;
  if (parsed.op == "Expand" && tables[0]->tokenAxis != -1) {
    int64_t at = static_cast<int64_t>(parsed.sizes.size()) - (tables[0]->rank - tables[0]->tokenAxis);
    if (at >= 0 && own.sizes[at] == LinearInt{.constant = entry.tokens})
      own.sizes[at] = {.constant = 1};
  }
  std::optional<DenseOp> op = denseOp(own, (*rows)[0].shape);
  std::optional<Dense> first = op ? evaluate(*op, *rows) : std::nullopt;
  if (!first)
    return notFollowed(entry, node);
  auto result = std::make_shared<Table>();
  result->rank = first->shape.size();
  // A row is the width of a head or of a token, and few steps make it; rows are kept, as others may read them too.
  constexpr size_t kMaxRow = 1 << 15;
  constexpr int64_t kMaxDepth = 256;
  for (const std::shared_ptr<const Table> &table : tables)
    result->depth = std::max(result->depth, table->depth + 1);
  if (first->values.size() > kMaxRow || result->depth > kMaxDepth)
    return notFollowed(entry, node);
  for (auto [i, table] : llvm::enumerate(tables)) {
    std::optional<int64_t> axis = movedAxis(*op, i, *table, result->rank);
    if (!axis || (*axis != -1 && result->tokenAxis != -1 && *axis != result->tokenAxis))
      return notFollowed(entry, node);
    result->tokenAxis = *axis != -1 ? *axis : result->tokenAxis;
    if (table->positions)
      result->positions = std::min(*table->positions, result->positions.value_or(*table->positions));
  }
  if (result->tokenAxis != -1 && first->shape[result->tokenAxis] != 1)
    return notFollowed(entry, node);
  auto last = std::make_shared<std::pair<int64_t, std::optional<Dense>>>(-1, std::nullopt);
  result->row = [op = *op, tables, rowsAt, last](int64_t position) -> std::optional<Dense> {
    if (last->first != position) {
      std::optional<SmallVector<Dense>> rows = rowsAt(tables, position);
      *last = {position, rows ? evaluate(op, *rows) : std::nullopt};
    }
    return last->second;
  };
  define(entry, node, 0, {.kind = Kind::Table, .table = result});
  return success();
}

} // namespace helix::onnximport
