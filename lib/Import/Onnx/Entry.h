//===- Entry.h - One function being imported: values, weights, operands ----===//
#ifndef HELIX_LIB_IMPORT_ONNX_ENTRY_H
#define HELIX_LIB_IMPORT_ONNX_ENTRY_H

#include "dialects/Helix/Helix.h"
#include "lib/Import/Onnx/Dense.h"
#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Grid.h"
#include "lib/Import/Onnx/Integers.h"
#include "lib/Import/Onnx/Model.h"
#include "lib/Import/Onnx/Onnx.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <deque>
#include <functional>
#include <map>
#include <memory>

namespace helix::onnximport {

/// Numbers that depend on a token's position and constants alone, as rotary tables do. `row` gives those at one
/// position as a constant whose dimension `tokenAxis` has size 1. In a step of one token no dimension need be the
/// tokens' own, and tokenAxis may be -1. Dimensions along which nothing changes may have size 1 there, whatever the
/// graph repeats them to.
struct Table {
  int64_t rank = 0, tokenAxis = -1;
  std::function<std::optional<Dense>(int64_t position)> row = {};
  /// The constant whose rows these are, as they are stored, if that is all there is to it.
  const StoredTensor *stored = nullptr;
  /// Positions that the constants behind it have; none if they do not say.
  std::optional<int64_t> positions = {};
};

/// What a name of the graph stands for.
struct GraphValue {
  enum class Kind {
    Tensor,    ///< activations, in `value`
    Weight,    ///< a constant, in `weight`
    Grid,      ///< integers, truths or numbers as formulas, in `grid`
    Table,     ///< numbers that depend on a token's position alone, in `table`
    Ints,      ///< integers known from the shapes and lengths, in `ints`
    Ids,       ///< input_ids, in `value`
    Mask,      ///< attention_mask, of the plain form: past[b] + q_len[b] ones, then zeros
    Positions, ///< position_ids, of the plain form: past[b] + t
    Past,      ///< keys (part 0) or values (part 1) of cache number `cache` as they come in
    Present,   ///< the same as they go out
  };
  Kind kind = Kind::Tensor;
  mlir::Value value = {};
  const StoredTensor *weight = nullptr;
  IntTensor ints = {};
  Grid grid = {};
  std::shared_ptr<const Table> table = {};
  unsigned cache = 0, part = 0;
};

/// One layer's cache: the graph inputs that it comes from and its value, newest version.
struct Cache {
  std::string names[2];
  /// Dimensions of the inputs as far as the model says, -1 where it does not: batch, heads, past, width.
  llvm::SmallVector<int64_t> dims[2];
  mlir::BlockArgument argument = {};
  mlir::Value newest = {};
};

/// What both entries share.
struct ImportState {
  const Model &model;
  const ImportOptions &options;
  /// Constants of nodes and of nested graphs, by their protobuf.
  std::map<const onnx::TensorProto *, StoredTensor> constants = {};
  /// Constants that were computed or come as attributes of another kind, by node and name.
  std::map<std::pair<const onnx::NodeProto *, std::string>, std::vector<onnx::TensorProto *>> made = {};
  std::deque<onnx::TensorProto> protos = {};
  int64_t madeBytes = 0;
  /// `helix.weight` ops whose bytes are in the protobuf, to be given a place in the inline weights' file.
  std::vector<std::pair<WeightOp, const StoredTensor *>> inlineWeights = {};
};

/// One function being imported.
struct Entry {
  ImportState &state;
  mlir::MLIRContext *context;
  mlir::OpBuilder builder;
  int64_t tokens;
  mlir::Value past = {}, qLen = {};
  std::vector<Cache> caches = {};
  llvm::StringMap<GraphValue> values = {};
  llvm::DenseMap<std::pair<const StoredTensor *, int>, mlir::Value> weights{};
  /// Of the node at hand.
  mlir::Location loc;

  int64_t batch() const { return state.options.batch; }
  LengthRange lengths() const;
};

/// Operand `index`, or null if the node leaves it out.
const GraphValue *operand(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as activations; an error if it is anything else.
mlir::FailureOr<mlir::Value> activation(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as a constant of f32, f16 or bf16; an error if it is anything else.
mlir::FailureOr<const StoredTensor *> constant(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as integers known at import; an error if it is anything else.
mlir::FailureOr<IntTensor> integers(Entry &entry, const onnx::NodeProto &node, int index);

/// Whether operand `index` is integers known at import, as results of Shape, constants, or what was computed from them.
bool isInteger(Entry &entry, const onnx::NodeProto &node, int index);

/// A value as a formula; nothing if it is none. Attention mask and position ids count as what they are by definition.
std::optional<Grid> gridOf(Entry &entry, const GraphValue &value);

/// A constant of at most 2^22 elements, read; nothing if it is larger or of another type. An error if it is unreadable.
mlir::FailureOr<std::optional<Dense>> denseOf(Entry &entry, const StoredTensor &stored);

/// The constant behind a protobuf, checked once.
mlir::FailureOr<const StoredTensor *> storedOf(Entry &entry, const onnx::TensorProto &tensor, llvm::StringRef name);

/// A constant that the node computes, f32 where `dense` is of numbers.
mlir::FailureOr<const StoredTensor *> makeConstant(Entry &entry, const onnx::NodeProto &node, llvm::StringRef name,
                                                   const Dense &dense);
mlir::FailureOr<const StoredTensor *> makeConstant(Entry &entry, const onnx::NodeProto &node, llvm::StringRef name,
                                                   Dense::Type type, llvm::ArrayRef<int64_t> shape, std::string bytes);

/// A `helix.weight` for a constant, one per function and element type.
mlir::Value weightOf(Entry &entry, const StoredTensor &stored, Dtype dtype);

/// Gives result `index` of the node a meaning. Results that the node leaves out are ignored.
void define(Entry &entry, const onnx::NodeProto &node, int index, GraphValue value);
void defineTensor(Entry &entry, const onnx::NodeProto &node, int index, mlir::Value value);
void defineInts(Entry &entry, const onnx::NodeProto &node, int index, IntTensor ints);

/// An error if the node has a result `index` with a name.
mlir::LogicalResult refuseResult(Entry &entry, const onnx::NodeProto &node, int index);

/// An error that operand `index` is not what the node needs: "operand 2 ('x') is ..., but must be ...".
mlir::LogicalResult operandError(Entry &entry, const onnx::NodeProto &node, int index, const llvm::Twine &expected);

mlir::RankedTensorType typeOf(mlir::Value value);
mlir::Type elementType(mlir::MLIRContext *context, Dtype dtype);

/// Imports one node by the table of ops.
mlir::LogicalResult importNode(Entry &entry, const onnx::NodeProto &node);

/// Whether a node computes with formulas, constants or tables of positions alone; then `importSymbolic` imports it.
bool isSymbolic(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSymbolic(Entry &entry, const onnx::NodeProto &node);

// Ops, by file. Each takes a node whose operand and result counts have been checked.
mlir::LogicalResult importGroupQueryAttention(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importBinary(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSigmoid(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importCast(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importCastLike(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importShape(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importReduceSum(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSqueeze(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importUnsqueeze(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importConcat(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importConstant(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importIdentity(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importDropout(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importIf(Entry &entry, const onnx::NodeProto &node);
/// Add, Sub, Mul or Div of integers known at import.
mlir::LogicalResult foldBinary(Entry &entry, const onnx::NodeProto &node);
/// Gather from integers known at import.
mlir::LogicalResult foldGather(Entry &entry, const onnx::NodeProto &node);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_ENTRY_H
