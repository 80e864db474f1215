//===- Model.h - A model file, parsed and checked as a graph ---------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_MODEL_H
#define HELIX_LIB_IMPORT_ONNX_MODEL_H

#include "lib/Import/Onnx/Graph.h"
#include "lib/Import/Onnx/StoredTensor.h"

#include "llvm/ADT/StringMap.h"

#include <memory>

namespace helix::onnximport {

/// A model, its directories, and its initializers.
struct Model {
  onnx::ModelProto proto;
  Directories directories;
  /// By name; every one has been checked against the file that holds it.
  llvm::StringMap<StoredTensor> initializers;

  /// The nodes of the graph, calls of functions expanded, each after those that it reads.
  Nodes nodes;

  const onnx::GraphProto &graph() const { return proto.graph(); }
};

/// Replaces every call of one of the model's functions, in nested graphs too, by the function's nodes. An error for
/// recursion, and for calls that do not fit or that grow the model beyond measure.
mlir::LogicalResult expandFunctions(mlir::MLIRContext *context, onnx::ModelProto &model);

/// Reads and checks the model: the file, versions, functions, names, the order of the nodes, initializers. Null after a
/// diagnostic.
std::unique_ptr<Model> readModel(mlir::MLIRContext *context, llvm::StringRef path, llvm::StringRef weightsRoot);

/// The domain by which an op is known here: the default domain has two spellings.
inline llvm::StringRef canonicalDomain(llvm::StringRef domain) { return domain == "ai.onnx" ? "" : domain; }

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_MODEL_H
