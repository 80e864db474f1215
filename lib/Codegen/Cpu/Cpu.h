//===- Cpu.h - Generated kernels as x86-64 code ----------------------------===//
#ifndef HELIX_LIB_CODEGEN_CPU_CPU_H
#define HELIX_LIB_CODEGEN_CPU_CPU_H

#include "lib/Codegen/Image.h"

namespace helix::codegen {

struct CpuOptions {
  std::string features = "x86-64-v3"; ///< x86-64-v3 or x86-64-v4
};

/// Compiles the kernels that `helix-fuse` outlined (functions on tensors, see lowerToLinalg) into one image, a shared object. The same
/// kernels give the same bytes. The functions stay as they are. Emits HLX2050 to HLX2052.
mlir::FailureOr<Image> compileForCpu(llvm::ArrayRef<mlir::func::FuncOp> kernels, const CpuOptions &options);

/// What compileForCpu needs of a context, loaded beforehand.
void registerCpuDialects(mlir::DialectRegistry &registry);

// The steps of it.

/// From linalg on tensors (lowerToLinalg) to loops over rows and vectors along the last dimension: adds the function
/// with the kernel's ABI to `target` and returns its number of groups, a function of the number of rows.
///
/// A sum over the last dimension runs in 32 lanes, lane l adding elements l, l + 32, … in order; the lanes are then
/// added in a tree of halves. So the result of a row depends on nothing but that row.
mlir::FailureOr<int64_t> emitRows(mlir::func::FuncOp kernel, mlir::ModuleOp target);

/// Compiles a module of the LLVM dialect into a shared object that exports `symbols` and needs nothing.
mlir::FailureOr<std::string> emitSharedObject(mlir::ModuleOp module, const CpuOptions &options);

/// The triple of generated code.
inline constexpr llvm::StringLiteral kCpuTriple = "x86_64-unknown-linux-gnu";

} // namespace helix::codegen

#endif // HELIX_LIB_CODEGEN_CPU_CPU_H
