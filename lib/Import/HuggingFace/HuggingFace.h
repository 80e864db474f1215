//===- HuggingFace.h - From a Hugging Face checkpoint to the helix dialect -===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_HUGGINGFACE_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_HUGGINGFACE_H

#include "lib/Import/Onnx/Onnx.h"

namespace helix {

/// Imports the checkpoint in `directory`, config.json and safetensors, as a module like that of `importOnnx`. The graph
/// is built from the configuration; weights are references into the safetensors files. What is computed, rotary tables
/// and norms that multiply by one more than their weight, goes to the file of inline weights. Null after a numbered
/// diagnostic (HLX11xx) if the checkpoint is not whole or not of a known kind.
mlir::OwningOpRef<mlir::ModuleOp> importHuggingFace(mlir::MLIRContext &context, llvm::StringRef directory,
                                                    const ImportOptions &options);

} // namespace helix

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_HUGGINGFACE_H
