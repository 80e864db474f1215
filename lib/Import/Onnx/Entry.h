//===- Entry.h - One function being imported: values, weights, operands ----===//
#ifndef HELIX_LIB_IMPORT_ONNX_ENTRY_H
#define HELIX_LIB_IMPORT_ONNX_ENTRY_H

#include "dialects/Helix/Helix.h"
#include "lib/Import/Onnx/Dense.h"
#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Explain.h"
#include "lib/Import/Onnx/Grid.h"
#include "lib/Import/Onnx/Integers.h"
#include "lib/Import/Onnx/Model.h"
#include "lib/Import/Onnx/Onnx.h"
#include "lib/Import/Onnx/Views.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

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
  /// Ops between it and what it is computed from.
  int64_t depth = 0;
  /// Positions that the constants behind it have; none if they do not say.
  std::optional<int64_t> positions = {};
};

class Attributes;
struct Cached;
struct HeadBias;
struct Mix;
struct Norm;
struct Scores;

/// What a name of the graph stands for.
struct GraphValue {
  enum class Kind {
    Tensor,    ///< activations, in `value` as `groups` shows it
    Mix,       ///< activations whose last dimension is rearranged and combined with tables, in `mix`
    Norm,      ///< activations on their way through a norm, in `norm`
    Cached,    ///< keys or values of all tokens, in `cached`
    Scores,    ///< products of queries and keys, in `scores`
    HeadBias,  ///< a bias of scores that differs from head to head, in `bias`
    Weight,    ///< a constant, in `weight`
    Turned,    ///< a constant of two dimensions, transposed, in `weight` as it is stored
    Grid,      ///< integers, truths or numbers as formulas, in `grid`
    Table,     ///< numbers that depend on a token's position alone, in `table`
    Ints,      ///< integers known from the shapes and lengths, in `ints`
    Ids,       ///< input_ids, in `value`
    Mask,      ///< attention_mask, of the plain form: past[b] + q_len[b] ones, then zeros
    Positions, ///< position_ids, of the plain form: past[b] + t
    Past,      ///< keys or values as they come in: past input number `cache`
    Given,     ///< integers or truths that a stateless function is given, in `value`
    Present,   ///< keys (part 0) or values (part 1) of cache number `cache` as they go out
  };
  Kind kind = Kind::Tensor;
  mlir::Value value = {};
  Groups groups = {};
  const StoredTensor *weight = nullptr;
  IntTensor ints = {};
  Grid grid = {};
  std::shared_ptr<const Table> table = {};
  std::shared_ptr<const Mix> mix = {};
  std::shared_ptr<const Norm> norm = {};
  std::shared_ptr<const Cached> cached = {};
  std::shared_ptr<const Scores> scores = {};
  std::shared_ptr<const HeadBias> bias = {};
  unsigned cache = 0, part = 0;
  /// Of a value that becomes one of the module only together with others, if that is to be explained.
  std::shared_ptr<const Origin> origin = {};
};

/// A graph input with past keys or values.
struct PastInput {
  std::string name;
  /// Dimensions as far as the model says, -1 where it does not: batch, heads, past, width; or batch, capacity, heads *
  /// width.
  llvm::SmallVector<int64_t> dims = {};
  /// Codes of 8 bits, which GroupQueryAttention may keep.
  bool isCodes = false;
  /// Tokens that a static buffer holds; 0 for a past that grows.
  int64_t capacity = 0;
  /// The cache and the part of it that it has become, and what was joined with it for that.
  std::optional<unsigned> cache = {};
  unsigned part = 0;
  mlir::Value origin = {};
};

/// One layer's cache: the inputs that its keys and values come from, and its value, newest version.
struct Cache {
  unsigned pasts[2] = {};
  mlir::BlockArgument argument = {};
  mlir::Value newest = {};
};

/// A reference of a `helix.weight` to bytes in the protobuf: of its elements or codes, or of what belongs to those.
struct InlineWeight {
  enum class Part { Bytes, Scales, ZeroPoints };
  WeightOp op = {};
  const StoredTensor *stored = nullptr;
  Part part = Part::Bytes;
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
  /// Constants of codes in another shape, and the constants that they are.
  std::deque<std::pair<StoredTensor, const StoredTensor *>> reshaped = {};
  /// What is to be given a place in the inline weights' file.
  std::vector<InlineWeight> inlineWeights = {};
};

/// One function being imported.
struct Entry {
  ImportState &state;
  mlir::MLIRContext *context;
  mlir::OpBuilder builder;
  int64_t sequences, tokens;
  mlir::Value past = {}, qLen = {};
  /// Filled with what becomes of the nodes, if it is wanted.
  Explanation *explanation = nullptr;
  std::vector<PastInput> pasts = {};
  std::vector<Cache> caches = {};
  /// Positions that the rotary tables so far have; 0 if none says.
  int64_t positions = 0;
  /// The model computes in half precision, here in f32.
  bool half = false;
  llvm::StringMap<GraphValue> values = {};
  /// Values of the module that were made of a Mix or a Norm.
  std::map<std::shared_ptr<const void>, View> made = {};
  /// Parts of values, by the value, its dimension, first and count, and whether the dimension was dropped: two parts
  /// that are the same are one.
  std::map<std::tuple<void *, unsigned, int64_t, int64_t, bool>, mlir::Value> parts = {};
  llvm::DenseMap<std::pair<const StoredTensor *, int>, mlir::Value> weights{};
  /// Activations by name, and what is to be looked for in `made`; filled if `observes`.
  std::vector<std::pair<ImportedValue, std::shared_ptr<const void>>> observed = {};
  bool observes = false;
  /// Of the node at hand.
  mlir::Location loc;

  int64_t batch() const { return sequences; }
  LengthRange lengths() const;
};

/// Operand `index`, or null if the node leaves it out.
const GraphValue *operand(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as activations, as the graph sees them; an error if it is anything else.
mlir::FailureOr<View> viewOf(Entry &entry, const onnx::NodeProto &node, int index);

/// As cutView; parts that are the same are one value.
std::optional<View> partOf(Entry &entry, View view, int64_t axis, int64_t first, int64_t count, bool drop = false);

/// Operand `index` as activations in the order in which they are computed; an error if it is anything else.
mlir::FailureOr<mlir::Value> activation(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as activations in which the last dimension is the value's own, for a product.
mlir::FailureOr<View> rowsOperand(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as a constant of f32, f16 or bf16; an error if it is anything else.
mlir::FailureOr<const StoredTensor *> constant(Entry &entry, const onnx::NodeProto &node, int index);

/// Operand `index` as integers known at import; an error if it is anything else.
mlir::FailureOr<IntTensor> integers(Entry &entry, const onnx::NodeProto &node, int index);

/// The sizes that a Reshape is given (operand 1). An error if one is 0 and means that by attribute allowzero.
mlir::FailureOr<IntTensor> reshapeSizes(Entry &entry, const onnx::NodeProto &node);

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
mlir::Value weightOf(Entry &entry, const StoredTensor &stored, Dtype dtype, bool transposed = false);

/// Gives result `index` of the node a meaning. Results that the node leaves out are ignored.
void define(Entry &entry, const onnx::NodeProto &node, int index, GraphValue value);
void defineTensor(Entry &entry, const onnx::NodeProto &node, int index, mlir::Value value);
void defineView(Entry &entry, const onnx::NodeProto &node, int index, View view);
void defineInts(Entry &entry, const onnx::NodeProto &node, int index, IntTensor ints);

/// An error that the node casts to an element type in which values could differ.
mlir::LogicalResult castError(Entry &entry, const onnx::NodeProto &node, int64_t to);

/// Takes the attributes of a Cast of floats. An error unless it is to f32, or to f16 in a model of half precision,
/// which is computed in f32.
mlir::LogicalResult takeFloatCast(Entry &entry, const onnx::NodeProto &node, Attributes &attributes);

/// An error if the node has a result `index` with a name.
mlir::LogicalResult refuseResult(Entry &entry, const onnx::NodeProto &node, int index);

/// An error that operand `index` is not what the node needs: "operand 2 ('x') is ..., but must be ...".
mlir::LogicalResult operandError(Entry &entry, const onnx::NodeProto &node, int index, const llvm::Twine &expected);

mlir::RankedTensorType typeOf(mlir::Value value);
/// Rows of a table by position as activations, [batch, tokens, width]: learned positions.
mlir::FailureOr<View> viewOfTable(Entry &entry, const onnx::NodeProto &node, int index,
                                  const std::shared_ptr<const Table> &table);

/// The constant operand `index` [N] repeated to the type of `view`, whose last dimension it goes along; nothing if it
/// is none such.
std::optional<mlir::Value> broadcastVector(Entry &entry, const onnx::NodeProto &node, int index, const View &view);

/// Rearranged activations as a value: a part of what they were, or rotated by a position. An error if they are neither.
mlir::FailureOr<View> viewOfMix(Entry &entry, const onnx::NodeProto &node, int index, const Mix &mix);
/// Activations in the middle of a norm, where they are a value at all.
mlir::FailureOr<View> viewOfNorm(Entry &entry, const onnx::NodeProto &node, int index, const Norm &norm);

/// Imports one node by the table of ops.
mlir::LogicalResult importNode(Entry &entry, const onnx::NodeProto &node);

/// Whether a node computes with formulas, constants or tables of positions alone; then `importSymbolic` imports it.
bool isSymbolic(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSymbolic(Entry &entry, const onnx::NodeProto &node);

// Ops, by file. Each takes a node whose operand and result counts have been checked.
mlir::LogicalResult importGroupQueryAttention(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importBinary(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importAttention(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importMultiHeadAttention(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importTensorScatter(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importRotaryEmbedding(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importRmsNorm(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSkipRmsNorm(Entry &entry, const onnx::NodeProto &node);
/// Reshape, Transpose, Squeeze and Unsqueeze of activations.
mlir::LogicalResult importReshape(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importShapeOfView(Entry &entry, const onnx::NodeProto &node, View view);
mlir::LogicalResult importMatMulNBits(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importGatherBlockQuantized(Entry &entry, const onnx::NodeProto &node);
/// Reshape of a constant of codes, which is never computed with.
bool isReshapeOfCodes(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importReshapeOfCodes(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importGemm(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importLayerNorm(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSkipLayerNorm(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importUnary(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importGelu(Entry &entry, const onnx::NodeProto &node);
mlir::LogicalResult importSwish(Entry &entry, const onnx::NodeProto &node);
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
