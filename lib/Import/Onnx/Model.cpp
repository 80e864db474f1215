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
  StringRef directory = llvm::sys::fs::is_directory(path) ? path : llvm::sys::path::parent_path(path);
  SmallString<256> real;
  if (llvm::sys::fs::real_path(directory.empty() ? "." : directory, real))
    return {};
  return std::string(real);
}

} // namespace helix

namespace helix::onnximport {
namespace {

// The versions whose meaning this importer knows. Opset 13 is the first with ReduceSum, Squeeze and Softmax as
// handled here, 27 the newest of the schema it was written against.
constexpr int64_t kOldestIr = 3, kNewestIr = 13;
constexpr int64_t kOldestOpset = 13, kNewestOpset = 27;

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
  auto domainText = [](StringRef domain) { return quoted(domain.empty() ? "ai.onnx" : domain); };
  auto checkOpsets = [&](const auto &opsets) -> FailureOr<llvm::StringMap<int64_t>> {
    llvm::StringMap<int64_t> domains;
    for (const onnx::OperatorSetIdProto &opset : opsets) {
      StringRef domain = canonicalDomain(opset.domain());
      if (!domains.try_emplace(domain, opset.version()).second) {
        modelError(context, ErrorCode::VersionUnsupported)
            << "the model imports the operator domain " << domainText(domain) << " twice";
        return failure();
      }
      int64_t oldest = domain.empty() ? kOldestOpset : 1, newest = domain.empty() ? kNewestOpset : 1;
      if ((domain.empty() || domain == "com.microsoft") && (opset.version() < oldest || opset.version() > newest)) {
        modelError(context, ErrorCode::VersionUnsupported)
            << "the model imports version " << opset.version() << " of the operator domain " << domainText(domain)
            << "; known are " << oldest << " to " << newest;
        return failure();
      }
    }
    return domains;
  };
  auto checkDomains = [&](const auto &nodes, const llvm::StringMap<int64_t> &known) -> LogicalResult {
    for (const onnx::NodeProto &node : nodes)
      if (!known.contains(canonicalDomain(node.domain())))
        return nodeError(context, node, ErrorCode::VersionUnsupported)
               << "its domain " << domainText(node.domain()) << " is not among the model's opset imports";
    return success();
  };
  FailureOr<llvm::StringMap<int64_t>> domains = checkOpsets(proto.opset_import());
  if (failed(domains) || failed(checkDomains(proto.graph().node(), *domains)))
    return failure();
  // What the ops handled here mean has not changed between the known versions, so functions may have their own.
  for (const onnx::FunctionProto &function : proto.functions()) {
    FailureOr<llvm::StringMap<int64_t>> own = checkOpsets(function.opset_import());
    if (failed(own) || failed(checkDomains(function.node(), *own)))
      return failure();
  }
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

  if (model->graph().sparse_initializer_size() != 0) {
    modelError(context, ErrorCode::TypeUnsupported)
        << "sparse initializer " << quoted(model->graph().sparse_initializer(0).values().name()) << " is not supported";
    return nullptr;
  }
  for (const onnx::TensorProto &tensor : model->graph().initializer()) {
    FailureOr<StoredTensor> stored = describe(context, tensor.name(), tensor, model->directories);
    if (failed(stored))
      return nullptr;
    // A second one of the same name is reported by checkNames.
    model->initializers.try_emplace(tensor.name(), std::move(*stored));
  }
  if (failed(expandFunctions(context, model->proto)) || failed(checkNames(context, *model)))
    return nullptr;
  // Checked to be produced by a node or to be one of these; a node's name cannot hide one.
  llvm::StringSet<> given;
  for (const onnx::ValueInfoProto &input : model->graph().input())
    given.insert(input.name());
  FailureOr<Nodes> nodes = sortNodes(context, model->graph(), [&](StringRef name) {
    return given.contains(name) || model->initializers.contains(name);
  });
  if (failed(nodes))
    return nullptr;
  model->nodes = std::move(*nodes);
  return model;
}

} // namespace helix::onnximport
