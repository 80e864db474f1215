//===- Functions.cpp - Calls of the model's own functions, expanded --------===//
#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Model.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

// Far above what exporters nest and write; what doubles at every level ends here.
constexpr size_t kMaxDepth = 32;
constexpr int64_t kMaxNodes = 1 << 18, kMaxBytes = int64_t(1) << 30;

// Debian's schema is older than overloads and default attributes; with it there are none.
template <typename T> StringRef overloadOf(const T &proto) {
  if constexpr (requires { proto.overload(); })
    return proto.overload();
  return {};
}
template <typename T> const onnx::AttributeProto *defaultOf(const T &function, StringRef name) {
  if constexpr (requires { function.attribute_proto(); })
    for (const onnx::AttributeProto &attribute : function.attribute_proto())
      if (attribute.name() == name)
        return &attribute;
  return nullptr;
}

/// What identifies a function: domain, name and overload, none of which holds a NUL that could join two of them.
std::string keyOf(StringRef domain, StringRef name, StringRef overload) {
  return (canonicalDomain(domain) + Twine('\0') + name + Twine('\0') + overload).str();
}

struct Expansion {
  MLIRContext *context;
  llvm::StringMap<const onnx::FunctionProto *> functions = {};
  SmallVector<const onnx::FunctionProto *> stack = {};
  int64_t calls = 0, nodes = 0, bytes = 0;
};

LogicalResult functionError(Expansion &expansion, const onnx::NodeProto &call, const Twine &reason) {
  return nodeError(expansion.context, call, ErrorCode::FunctionInvalid) << reason;
}

/// What the names and attributes of one function become in one call of it.
struct Binding {
  const onnx::FunctionProto &function;
  const onnx::NodeProto &call;
  std::string prefix;
  llvm::StringMap<std::string> names = {};

  std::string valueName(StringRef name) const {
    if (name.empty())
      return {};
    auto found = names.find(name);
    return found == names.end() ? prefix + name.str() : found->second;
  }
};

void bindGraph(const Binding &binding, onnx::GraphProto &graph);

/// Gives an attribute that refers to one of the function's the value of the call, or its default. False if there is
/// none: the attribute is then left out, as the call left it out.
bool bindAttribute(const Binding &binding, onnx::AttributeProto &attribute) {
  if (attribute.ref_attr_name().empty())
    return true;
  auto given =
      llvm::find_if(binding.call.attribute(), [&](const auto &a) { return a.name() == attribute.ref_attr_name(); });
  const onnx::AttributeProto *value =
      given != binding.call.attribute().end() ? &*given : defaultOf(binding.function, attribute.ref_attr_name());
  if (!value)
    return false;
  std::string name = attribute.name();
  attribute.CopyFrom(*value);
  attribute.set_name(name);
  return true;
}

void bindNode(const Binding &binding, onnx::NodeProto &node) {
  node.set_name((nodeName(binding.call) + "/" + nodeName(node)).str());
  for (std::string &input : *node.mutable_input())
    input = binding.valueName(input);
  for (std::string &output : *node.mutable_output())
    output = binding.valueName(output);
  for (int i = node.attribute_size(); i-- > 0;) {
    onnx::AttributeProto &attribute = *node.mutable_attribute(i);
    if (!bindAttribute(binding, attribute))
      node.mutable_attribute()->DeleteSubrange(i, 1);
    else if (attribute.has_g())
      bindGraph(binding, *attribute.mutable_g());
  }
}

void bindGraph(const Binding &binding, onnx::GraphProto &graph) {
  for (onnx::TensorProto &tensor : *graph.mutable_initializer())
    tensor.set_name(binding.valueName(tensor.name()));
  for (onnx::ValueInfoProto &output : *graph.mutable_output())
    output.set_name(binding.valueName(output.name()));
  for (onnx::NodeProto &node : *graph.mutable_node())
    bindNode(binding, node);
}

/// The nodes of one call.
LogicalResult instantiate(Expansion &expansion, const onnx::FunctionProto &function, const onnx::NodeProto &call,
                          Nodes &body) {
  if (call.input_size() > function.input_size() || call.output_size() > function.output_size())
    return functionError(expansion, call,
                         "has " + Twine(call.input_size()) + " operands and " + Twine(call.output_size()) +
                             " results; the function takes at most " + Twine(function.input_size()) + " and gives " +
                             Twine(function.output_size()));
  for (const onnx::AttributeProto &attribute : call.attribute())
    if (!llvm::is_contained(function.attribute(), attribute.name()) && !defaultOf(function, attribute.name()))
      return functionError(expansion, call,
                           "has the attribute " + quoted(attribute.name()) + ", which the function does not have");
  expansion.nodes += function.node_size() + 1;
  expansion.bytes += function.ByteSizeLong();
  if (expansion.nodes > kMaxNodes || expansion.bytes > kMaxBytes)
    return functionError(expansion, call,
                         "brings the model's expanded functions above " + Twine(kMaxNodes) + " nodes or " +
                             Twine(kMaxBytes) + " bytes");

  Binding binding{function, call, (nodeName(call) + "#" + Twine(expansion.calls++) + "/").str()};
  for (int i = 0; i < function.input_size(); ++i)
    binding.names[function.input(i)] = i < call.input_size() ? call.input(i) : std::string();
  SmallVector<std::pair<std::string, std::string>> passed;
  for (int i = 0; i < call.output_size(); ++i) {
    if (call.output(i).empty())
      continue;
    auto [known, isNew] = binding.names.try_emplace(function.output(i), call.output(i));
    if (!isNew) // An operand, or a result that is given twice, is a result as it is.
      passed.emplace_back(known->second, call.output(i));
  }
  for (const onnx::NodeProto &node : function.node()) {
    onnx::NodeProto &copy = *body.Add();
    copy = node;
    bindNode(binding, copy);
  }
  for (auto &[from, to] : passed) {
    onnx::NodeProto &node = *body.Add();
    node.set_op_type("Identity");
    node.set_name(call.name());
    node.add_input(from);
    node.add_output(to);
  }
  return success();
}

/// The names that the graph's nodes, nested graphs and outputs read.
void collectReads(const onnx::GraphProto &graph, llvm::StringSet<> &read) {
  for (const onnx::NodeProto &node : graph.node()) {
    for (const std::string &input : node.input())
      read.insert(input);
    for (const onnx::AttributeProto &attribute : node.attribute())
      if (attribute.has_g())
        collectReads(attribute.g(), read);
  }
  for (const onnx::ValueInfoProto &output : graph.output())
    read.insert(output.name());
}

LogicalResult expand(Expansion &expansion, Nodes &nodes) {
  Nodes result;
  for (onnx::NodeProto &node : nodes) {
    for (onnx::AttributeProto &attribute : *node.mutable_attribute())
      if (attribute.has_g() && failed(expand(expansion, *attribute.mutable_g()->mutable_node())))
        return failure();
    const onnx::FunctionProto *function =
        expansion.functions.lookup(keyOf(node.domain(), node.op_type(), overloadOf(node)));
    if (!function) {
      result.Add()->Swap(&node);
      continue;
    }
    if (llvm::is_contained(expansion.stack, function))
      return functionError(expansion, node, "calls a function from within that function");
    if (expansion.stack.size() == kMaxDepth)
      return functionError(expansion, node, "nests functions more than " + Twine(kMaxDepth) + " deep");
    Nodes body;
    if (failed(instantiate(expansion, *function, node, body)))
      return failure();
    expansion.stack.push_back(function);
    LogicalResult expanded = expand(expansion, body);
    expansion.stack.pop_back();
    if (failed(expanded))
      return failure();
    for (onnx::NodeProto &inner : body)
      result.Add()->Swap(&inner);
  }
  nodes.Swap(&result);
  return success();
}

} // namespace

LogicalResult expandFunctions(MLIRContext *context, onnx::ModelProto &model) {
  Expansion expansion{.context = context};
  for (const onnx::FunctionProto &function : model.functions())
    if (!expansion.functions.try_emplace(keyOf(function.domain(), function.name(), overloadOf(function)), &function)
             .second)
      return modelError(context, ErrorCode::NameInvalid)
             << "the function " << quoted(function.name()) << " is defined twice";
  if (expansion.functions.empty())
    return success();
  if (failed(expand(expansion, *model.mutable_graph()->mutable_node())))
    return failure();
  // A function gives all of its results, also those of its nodes that no call takes.
  llvm::StringSet<> read;
  collectReads(model.graph(), read);
  for (onnx::NodeProto &node : *model.mutable_graph()->mutable_node())
    for (int i = 1; i < node.output_size(); ++i)
      if (!read.contains(node.output(i)))
        node.mutable_output(i)->clear();
  return success();
}

} // namespace helix::onnximport
