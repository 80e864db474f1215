//===- Diagnostics.h - Numbered errors that name the node ------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_DIAGNOSTICS_H
#define HELIX_LIB_IMPORT_ONNX_DIAGNOSTICS_H

#include "helix/Errors.h"
#include "lib/Import/Onnx/Proto.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Location.h"

namespace helix::onnximport {

/// A name of the model in quotes, fit for a terminal: escaped, and cut where it is very long.
std::string quoted(llvm::StringRef name);

/// The node's name, or where it has none that of its first output.
llvm::StringRef nodeName(const onnx::NodeProto &node);

/// An error about the model as a whole.
mlir::InFlightDiagnostic modelError(mlir::MLIRContext *context, ErrorCode code);

/// An error about a node: "HLX1010: node '/a/b' (MatMul): ".
mlir::InFlightDiagnostic nodeError(mlir::MLIRContext *context, const onnx::NodeProto &node, ErrorCode code);

/// "[1, 2, 3]".
std::string shapeText(llvm::ArrayRef<int64_t> shape);

/// "FLOAT16", or "element type 12345" if ONNX has no such type.
std::string typeText(int64_t type);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_DIAGNOSTICS_H
