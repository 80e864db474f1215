//===- Image.h - Generated kernels as native code --------------------------===//
#ifndef HELIX_LIB_CODEGEN_IMAGE_H
#define HELIX_LIB_CODEGEN_IMAGE_H

#include "lib/Codegen/Linalg.h"

#include "mlir/IR/BuiltinOps.h"

#include <string>

namespace helix::codegen {

/// A kernel of an image, called once for each group in [0, groups), in any order, on the bytes of its operands, then of
/// its results: include/helix-c/kernel.h has the prototype of each target.
struct CompiledKernel {
  std::string symbol;
  int64_t groups = 0;
  KernelCost cost;
};

struct Image {
  std::string triple;
  std::string features; ///< what the code needs of the processor
  std::string code;     ///< without undefined symbols
  llvm::SmallVector<CompiledKernel> kernels;
};

/// Lowers loops, arithmetic, functions and vectors to the LLVM dialect, in place. What is not an instruction becomes a
/// polynomial, so that nothing calls a library.
mlir::LogicalResult lowerToLlvm(mlir::ModuleOp module);

} // namespace helix::codegen

#endif // HELIX_LIB_CODEGEN_IMAGE_H
