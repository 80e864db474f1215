//===- Control.cpp - Constants, branches and nodes that change nothing -----===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

/// A truth that is known at import, whatever the length.
std::optional<bool> knownTruth(Entry &entry, const GraphValue &value) {
  std::optional<Grid> grid = gridOf(entry, value);
  std::optional<Grid> truth = grid ? castGrid(*grid, Grid::Type::Bool, entry.lengths()) : std::nullopt;
  bool isOne = truth && llvm::all_of(truth->shape, [](LinearInt size) { return size == LinearInt{.constant = 1}; });
  std::optional<double> uniform = isOne ? truth->uniform() : std::nullopt;
  return uniform ? std::optional(*uniform != 0) : std::nullopt;
}

} // namespace

LogicalResult importConstant(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  const onnx::TensorProto *tensor = attributes.tensor("value");
  // The short forms are a scalar, or a list of one dimension.
  std::optional<Dense> dense;
  IntTensor ints;
  if (attributes.has("value_int"))
    ints.elements.push_back({.constant = attributes.integer("value_int", 0)});
  if (std::optional<SmallVector<int64_t>> list = attributes.integers("value_ints")) {
    ints.shape.push_back(list->size());
    for (int64_t value : *list)
      ints.elements.push_back({.constant = value});
  }
  if (attributes.has("value_float"))
    dense = Dense{.values = {attributes.real("value_float", 0)}};
  if (std::optional<SmallVector<double>> list = attributes.reals("value_floats"))
    dense = Dense{.shape = {static_cast<int64_t>(list->size())}, .values = {list->begin(), list->end()}};
  if (failed(attributes.finish()))
    return failure();
  if (node.attribute_size() != 1)
    return nodeError(entry.context, node, ErrorCode::AttributeUnsupported)
           << (node.attribute_size() == 0 ? "attribute 'value' is missing" : "must have one attribute");
  if (!tensor && !dense) {
    defineInts(entry, node, 0, std::move(ints));
    return success();
  }
  FailureOr<const StoredTensor *> stored =
      tensor ? storedOf(entry, *tensor, node.output(0)) : makeConstant(entry, node, node.output(0), *dense);
  if (failed(stored))
    return failure();
  define(entry, node, 0, {.kind = GraphValue::Kind::Weight, .weight = *stored});
  return success();
}

LogicalResult importIdentity(Entry &entry, const onnx::NodeProto &node) {
  if (failed(Attributes(entry.context, node).finish()))
    return failure();
  const GraphValue *value = operand(entry, node, 0);
  if (!value)
    return operandError(entry, node, 0, "a value");
  define(entry, node, 0, GraphValue(*value));
  return success();
}

/// Dropout outside of training: its operand.
LogicalResult importDropout(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  attributes.ignore("seed");
  if (failed(attributes.finish()) || failed(refuseResult(entry, node, 1)))
    return failure();
  const GraphValue *value = operand(entry, node, 0), *training = operand(entry, node, 2);
  if (!value)
    return operandError(entry, node, 0, "a value");
  if (training && knownTruth(entry, *training) != false)
    return operandError(entry, node, 2, "false: a model in training cannot be compiled");
  define(entry, node, 0, GraphValue(*value));
  return success();
}

LogicalResult importIf(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  const onnx::GraphProto *branches[] = {attributes.graph("else_branch"), attributes.graph("then_branch")};
  if (failed(attributes.finish()))
    return failure();
  const GraphValue *condition = operand(entry, node, 0);
  std::optional<bool> truth = condition ? knownTruth(entry, *condition) : std::nullopt;
  if (!truth)
    return nodeError(entry.context, node, ErrorCode::ConditionUnknown)
           << "its condition " << quoted(node.input(0))
           << " is not the same for every length of the context; "
              "set --max-context such that it is, or export a model without the branch";
  const onnx::GraphProto *branch = branches[*truth];
  if (!branch || branch->output_size() != node.output_size() || branch->input_size() != 0 ||
      branch->sparse_initializer_size() != 0)
    return nodeError(entry.context, node, ErrorCode::ControlFlowUnsupported)
           << "the branch that is taken must be a graph without inputs that gives " << node.output_size() << " results";

  // Names of the branch are gone after it, so that other branches may use them too.
  llvm::StringSet<> own;
  auto claim = [&](StringRef name) -> LogicalResult {
    if (name.empty() || entry.values.contains(name) || !own.insert(name).second)
      return nodeError(entry.context, node, ErrorCode::NameInvalid)
             << "its branch defines the value " << quoted(name) << " again";
    return success();
  };
  for (const onnx::TensorProto &tensor : branch->initializer()) {
    if (failed(claim(tensor.name())))
      return failure();
    FailureOr<const StoredTensor *> stored = storedOf(entry, tensor, tensor.name());
    if (failed(stored))
      return failure();
    entry.values[tensor.name()] = {.kind = GraphValue::Kind::Weight, .weight = *stored};
  }
  for (const onnx::NodeProto &inner : branch->node())
    for (const std::string &output : inner.output())
      if (!output.empty() && failed(claim(output)))
        return failure();
  FailureOr<Nodes> nodes =
      sortNodes(entry.context, *branch, [&](StringRef name) { return entry.values.contains(name); });
  if (failed(nodes))
    return failure();
  for (const onnx::NodeProto *inner : *nodes)
    if (failed(importNode(entry, *inner)))
      return failure();
  std::vector<GraphValue> results;
  for (const onnx::ValueInfoProto &output : branch->output()) {
    auto found = entry.values.find(output.name());
    if (found == entry.values.end())
      return nodeError(entry.context, node, ErrorCode::NameInvalid)
             << "the result " << quoted(output.name()) << " of its branch is produced by nothing";
    results.push_back(found->second);
  }
  for (const auto &name : own)
    entry.values.erase(name.getKey());
  for (auto [i, result] : llvm::enumerate(results))
    define(entry, node, i, std::move(result));
  return success();
}

} // namespace helix::onnximport
