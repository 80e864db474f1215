//===- Graph.h - Names and the order of nodes ------------------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_GRAPH_H
#define HELIX_LIB_IMPORT_ONNX_GRAPH_H

#include "lib/Import/Onnx/Proto.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"

#include <vector>

namespace helix::onnximport {

struct Model;

using Nodes = std::vector<const onnx::NodeProto *>;

/// The nodes of a graph, each after those that it reads, otherwise in the order in which they stand. `isDefined` says
/// which names come from elsewhere. An error for a cycle and for a name that nothing produces.
llvm::FailureOr<Nodes> sortNodes(mlir::MLIRContext *context, const onnx::GraphProto &graph,
                                 llvm::function_ref<bool(llvm::StringRef)> isDefined);

/// Checks that each value of the model's graph has one producer and that its outputs are produced.
llvm::LogicalResult checkNames(mlir::MLIRContext *context, const Model &model);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_GRAPH_H
