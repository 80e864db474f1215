//===- Entry.h - One function being imported: values, weights, operands ----===//
#ifndef HELIX_LIB_IMPORT_ONNX_ENTRY_H
#define HELIX_LIB_IMPORT_ONNX_ENTRY_H

#include "dialects/Helix/Helix.h"
#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Integers.h"
#include "lib/Import/Onnx/Model.h"
#include "lib/Import/Onnx/Onnx.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <map>

namespace helix::onnximport {

/// What a name of the graph stands for.
struct GraphValue {
  enum class Kind {
    Tensor,    ///< activations, in `value`
    Weight,    ///< a constant, in `weight`
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
  /// Constants of Constant nodes, by node.
  std::map<const onnx::NodeProto *, StoredTensor> constants = {};
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

// Ops, by file. Each takes a node whose operand and result counts have been checked.
mlir::LogicalResult importGroupQueryAttention(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importBinary(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSigmoid(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importCast(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importShape(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importReduceSum(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSqueeze(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importUnsqueeze(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importConcat(Entry &entry, const onnx::NodeProto &node);
/// Add, Sub, Mul or Div of integers known at import.
mlir::LogicalResult foldBinary(Entry &entry, const onnx::NodeProto &node);
/// Gather from integers known at import.
mlir::LogicalResult foldGather(Entry &entry, const onnx::NodeProto &node);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_ENTRY_H
