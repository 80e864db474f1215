//===- Model.cpp - A model file, parsed and checked as a graph -------------===//
#include "lib/Import/Onnx/Model.h"

#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/Onnx/Onnx.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <limits>

using namespace mlir;

namespace helix {

std::string modelDirectory(StringRef path) {
  StringRef parent = llvm::sys::path::parent_path(path);
  SmallString<256> real;
  if (llvm::sys::fs::real_path(parent.empty() ? "." : parent, real))
    return {};
  return std::string(real);
}

} // namespace helix

namespace helix::onnximport {
namespace {

// The versions whose meaning this importer knows. Opset 14 is the first with ReduceSum, Squeeze and arithmetic as
// handled here, 27 the newest of the schema it was written against.
constexpr int64_t kOldestIr = 3, kNewestIr = 13;
constexpr int64_t kOldestOpset = 14, kNewestOpset = 27;

LogicalResult parseFile(MLIRContext *context, StringRef path, onnx::ModelProto &proto) {
  // Looked at before it is opened: opening a pipe would wait for ever.
  llvm::sys::fs::file_status status;
  if (std::error_code error = llvm::sys::fs::status(path, status))
    return modelError(context, ErrorCode::ModelUnreadable)
           << "cannot read the model " << quoted(path) << ": " << error.message();
  if (status.type() != llvm::sys::fs::file_type::regular_file)
    return modelError(context, ErrorCode::ModelUnreadable)
           << "cannot read the model " << quoted(path) << ": it is not a regular file; give the path of the .onnx file";
  if (status.getSize() > static_cast<uint64_t>(std::numeric_limits<int32_t>::max()))
    return modelError(context, ErrorCode::ModelTooLarge)
           << "the model " << quoted(path) << " has " << status.getSize()
           << " bytes, and a protobuf holds less than 2^31; export it with its weights as external data";
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer)
    return modelError(context, ErrorCode::ModelUnreadable)
           << "cannot read the model " << quoted(path) << ": " << buffer.getError().message();
  if ((*buffer)->getBufferSize() > static_cast<size_t>(std::numeric_limits<int32_t>::max()) ||
      !proto.ParseFromArray((*buffer)->getBufferStart(), static_cast<int>((*buffer)->getBufferSize())))
    return modelError(context, ErrorCode::ModelNotOnnx)
           << quoted(path) << " is not a whole ONNX protobuf; it may be truncated or of another format";
  if (!proto.has_graph() || proto.graph().node_size() == 0)
    return modelError(context, ErrorCode::ModelNotOnnx) << quoted(path) << " holds no ONNX graph";
  return success();
}

LogicalResult checkVersions(MLIRContext *context, const onnx::ModelProto &proto) {
  if (proto.ir_version() < kOldestIr || proto.ir_version() > kNewestIr)
    return modelError(context, ErrorCode::VersionUnsupported)
           << "the model has IR version " << proto.ir_version() << "; known are " << kOldestIr << " to " << kNewestIr;
  llvm::StringMap<int64_t> domains;
  auto domainText = [](StringRef domain) { return quoted(domain.empty() ? "ai.onnx" : domain); };
  for (const onnx::OperatorSetIdProto &opset : proto.opset_import()) {
    StringRef domain = canonicalDomain(opset.domain());
    if (!domains.try_emplace(domain, opset.version()).second)
      return modelError(context, ErrorCode::VersionUnsupported)
             << "the model imports the operator domain " << domainText(domain) << " twice";
    int64_t oldest = domain.empty() ? kOldestOpset : 1, newest = domain.empty() ? kNewestOpset : 1;
    if ((domain.empty() || domain == "com.microsoft") && (opset.version() < oldest || opset.version() > newest))
      return modelError(context, ErrorCode::VersionUnsupported)
             << "the model imports version " << opset.version() << " of the operator domain " << domainText(domain)
             << "; known are " << oldest << " to " << newest;
  }
  for (const onnx::NodeProto &node : proto.graph().node())
    if (!domains.contains(canonicalDomain(node.domain())))
      return nodeError(context, node, ErrorCode::VersionUnsupported)
             << "its domain " << domainText(node.domain()) << " is not among the model's opset imports";
  if (proto.functions_size() != 0)
    return modelError(context, ErrorCode::ControlFlowUnsupported)
           << "the model defines functions, the first is " << quoted(proto.functions(0).name())
           << "; export it with functions inlined";
  return success();
}

/// Each value has one producer, which precedes its uses. No recursion: the nodes must come sorted.
LogicalResult checkGraph(MLIRContext *context, const Model &model) {
  const onnx::GraphProto &graph = model.graph();
  if (graph.sparse_initializer_size() != 0)
    return modelError(context, ErrorCode::TypeUnsupported)
           << "sparse initializer " << quoted(graph.sparse_initializer(0).values().name()) << " is not supported";

  llvm::StringSet<> produced, defined;
  auto produce = [&](StringRef name, StringRef what) -> LogicalResult {
    if (name.empty() || !produced.insert(name).second)
      return modelError(context, ErrorCode::NameInvalid)
             << what << ' ' << quoted(name) << (name.empty() ? " has no name" : " is defined twice");
    return success();
  };
  llvm::StringSet<> inputs;
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
  for (const auto &entry : produced)
    defined.insert(entry.getKey());
  for (const onnx::NodeProto &node : graph.node())
    for (const std::string &output : node.output())
      if (!output.empty() && failed(produce(output, "value")))
        return failure();

  for (const onnx::NodeProto &node : graph.node()) {
    for (const std::string &input : node.input()) {
      if (input.empty() || defined.contains(input))
        continue;
      if (produced.contains(input))
        return nodeError(context, node, ErrorCode::GraphCyclic)
               << "its operand " << quoted(input)
               << " is produced later: the graph has a cycle or its nodes are not sorted";
      return nodeError(context, node, ErrorCode::NameInvalid)
             << "its operand " << quoted(input) << " is produced by nothing";
    }
    for (const std::string &output : node.output())
      if (!output.empty())
        defined.insert(output);
  }
  for (const onnx::ValueInfoProto &output : graph.output())
    if (!defined.contains(output.name()))
      return modelError(context, ErrorCode::NameInvalid)
             << "the output " << quoted(output.name()) << " is produced by nothing";
  return success();
}

} // namespace

std::unique_ptr<Model> readModel(MLIRContext *context, StringRef path, StringRef weightsRoot) {
  auto model = std::make_unique<Model>();
  if (failed(parseFile(context, path, model->proto)) || failed(checkVersions(context, model->proto)))
    return nullptr;

  model->directories.given = modelDirectory(path);
  SmallString<256> real;
  if (!llvm::sys::fs::real_path(path, real))
    model->directories.resolved = llvm::sys::path::parent_path(real).str();
  if (!weightsRoot.empty()) {
    SmallString<256> root;
    if (llvm::sys::fs::real_path(weightsRoot, root) || !llvm::sys::fs::is_directory(root)) {
      modelError(context, ErrorCode::ImportOptionInvalid)
          << "the weights root " << quoted(weightsRoot) << " is not a directory";
      return nullptr;
    }
    model->directories.weightsRoot = std::string(root);
  }

  for (const onnx::TensorProto &tensor : model->graph().initializer()) {
    FailureOr<StoredTensor> stored = describe(context, tensor.name(), tensor, model->directories);
    if (failed(stored))
      return nullptr;
    // A second one of the same name is reported by checkGraph.
    model->initializers.try_emplace(tensor.name(), std::move(*stored));
  }
  if (failed(checkGraph(context, *model)))
    return nullptr;
  return model;
}

} // namespace helix::onnximport
