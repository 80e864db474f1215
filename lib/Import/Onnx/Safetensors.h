//===- Safetensors.h - Weights whose bytes are inside the protobuf ---------===//
#ifndef HELIX_LIB_IMPORT_ONNX_SAFETENSORS_H
#define HELIX_LIB_IMPORT_ONNX_SAFETENSORS_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// Writes the constants behind `state.inlineWeights` to the file that the options name, in the order of their first
/// use, and points the ops to it. Does nothing if there are none; an error if there are and no file is named. The same
/// model gives the same file, byte for byte.
mlir::LogicalResult writeInlineWeights(mlir::MLIRContext *context, ImportState &state, llvm::StringRef modelPath);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_SAFETENSORS_H
