//===- SafetensorsFile.h - Weights that an import has to write -------------===//
#ifndef HELIX_LIB_IMPORT_SAFETENSORSFILE_H
#define HELIX_LIB_IMPORT_SAFETENSORSFILE_H

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/MLIRContext.h"

#include <functional>
#include <string>

namespace helix {

/// A tensor for a .safetensors file.
struct NewTensor {
  std::string name;
  mlir::Type element; ///< f32, f16 or bf16; null: bytes, for which the format has no other name
  llvm::SmallVector<int64_t> shape;
  int64_t bytes = 0;
  /// Its elements, row-major and little-endian; a failure has been reported.
  std::function<mlir::FailureOr<std::string>()> contents;
};

/// The real path of a file that need not be there yet; its directory must, else HLX1037.
mlir::FailureOr<std::string> realTarget(mlir::MLIRContext *context, llvm::StringRef path);

/// Writes the tensors, in their order, to a .safetensors file; whole or not at all (HLX1037). Returns the byte at which
/// each begins. Names that are not distinct UTF-8 are changed until they are. The same tensors give the same file.
mlir::FailureOr<llvm::SmallVector<int64_t>> writeSafetensors(mlir::MLIRContext *context, llvm::StringRef path,
                                                             llvm::ArrayRef<NewTensor> tensors);

/// `path` as seen from `directory`; both absolute and without dots.
std::string relativePath(llvm::StringRef path, llvm::StringRef directory);

} // namespace helix

#endif // HELIX_LIB_IMPORT_SAFETENSORSFILE_H
