//===- Graph.cpp - Names and the order of nodes ----------------------------===//
#include "lib/Import/Onnx/Graph.h"

#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Model.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

/// The names that a graph inside a node reads, those that it makes itself among them.
void collectInner(const onnx::GraphProto &graph, SmallVectorImpl<StringRef> &names) {
  for (const onnx::NodeProto &node : graph.node()) {
    names.append(node.input().begin(), node.input().end());
    for (const onnx::AttributeProto &attribute : node.attribute())
      if (attribute.has_g())
        collectInner(attribute.g(), names);
  }
  for (const onnx::ValueInfoProto &output : graph.output())
    names.push_back(output.name());
}

/// What is left to visit of the nodes that one node reads.
struct Visit {
  unsigned node;
  SmallVector<StringRef> names;
  size_t next = 0, operands = 0;
};

} // namespace

FailureOr<Nodes> sortNodes(MLIRContext *context, const onnx::GraphProto &graph,
                           llvm::function_ref<bool(StringRef)> isDefined) {
  llvm::StringMap<unsigned> producers;
  for (auto [i, node] : llvm::enumerate(graph.node()))
    for (const std::string &output : node.output())
      if (!output.empty())
        producers.try_emplace(output, i);

  enum : char { New, Open, Done };
  std::vector<char> state(graph.node_size(), New);
  Nodes sorted;
  SmallVector<Visit> stack;
  auto open = [&](unsigned index) {
    const onnx::NodeProto &node = graph.node(index);
    Visit visit{.node = index, .names = SmallVector<StringRef>(node.input().begin(), node.input().end())};
    visit.operands = visit.names.size();
    for (const onnx::AttributeProto &attribute : node.attribute())
      if (attribute.has_g())
        collectInner(attribute.g(), visit.names);
    state[index] = Open;
    stack.push_back(std::move(visit));
  };
  for (int root = 0; root < graph.node_size(); ++root) {
    if (state[root] == New)
      open(root);
    while (!stack.empty()) {
      Visit &visit = stack.back();
      const onnx::NodeProto &node = graph.node(visit.node);
      if (visit.next == visit.names.size()) {
        state[visit.node] = Done;
        sorted.push_back(&node);
        stack.pop_back();
        continue;
      }
      bool isOperand = visit.next < visit.operands;
      StringRef name = visit.names[visit.next++];
      if (name.empty())
        continue;
      auto producer = producers.find(name);
      if (producer == producers.end()) {
        // Names inside a node's graphs are checked when that graph is imported.
        if (!isOperand || isDefined(name))
          continue;
        nodeError(context, node, ErrorCode::NameInvalid) << "its operand " << quoted(name) << " is produced by nothing";
        return failure();
      }
      if (state[producer->second] == Open) {
        nodeError(context, node, ErrorCode::GraphCyclic)
            << "its operand " << quoted(name) << " is computed from its own result: the graph has a cycle";
        return failure();
      }
      if (state[producer->second] == New)
        open(producer->second);
    }
  }
  return sorted;
}

LogicalResult checkNames(MLIRContext *context, const Model &model) {
  const onnx::GraphProto &graph = model.graph();
  llvm::StringSet<> produced, inputs;
  auto produce = [&](StringRef name, StringRef what) -> LogicalResult {
    if (name.empty() || !produced.insert(name).second)
      return modelError(context, ErrorCode::NameInvalid)
             << what << ' ' << quoted(name) << (name.empty() ? " has no name" : " is defined twice");
    return success();
  };
  for (const onnx::ValueInfoProto &input : graph.input()) {
    if (!inputs.insert(input.name()).second)
      return modelError(context, ErrorCode::NameInvalid) << "input " << quoted(input.name()) << " is defined twice";
    // An initializer that is also an input is a default that no one overrides here.
    if (!model.initializers.contains(input.name()) && failed(produce(input.name(), "input")))
      return failure();
  }
  for (const onnx::TensorProto &tensor : graph.initializer())
    if (failed(produce(tensor.name(), "initializer")))
      return failure();
  for (const onnx::NodeProto &node : graph.node())
    for (const std::string &output : node.output())
      if (!output.empty() && failed(produce(output, "value")))
        return failure();
  for (const onnx::ValueInfoProto &output : graph.output())
    if (!produced.contains(output.name()))
      return modelError(context, ErrorCode::NameInvalid)
             << "the output " << quoted(output.name()) << " is produced by nothing";
  return success();
}

} // namespace helix::onnximport
