//===- Cuda.h - Generated kernels as PTX and cubins ------------------------===//
#ifndef HELIX_LIB_CODEGEN_CUDA_CUDA_H
#define HELIX_LIB_CODEGEN_CUDA_CUDA_H

#include "lib/Codegen/Image.h"

namespace helix::codegen {

struct CudaOptions {
  /// Architectures to assemble for where there is a CUDA toolkit: sm_80, sm_90a or sm_100, separated by commas. PTX is
  /// that of the lowest and runs on every newer one.
  std::string archs = "sm_80,sm_90a,sm_100";
};

/// Compiles the kernels that `helix-fuse` outlined (see lowerToLinalg) into one image, which the driver's module loader
/// takes: a fat binary of the cubins and the PTX, or the PTX alone where ptxas and fatbinary are not found (in
/// $CUDA_HOME/bin, on the path, in /usr/local/cuda/bin). `features` lists what is in it: "ptx_80,sm_80,sm_90a". The
/// functions stay as they are. Emits HLX2050 to HLX2052, HLX2080 where the toolkit refuses the code.
mlir::FailureOr<Image> compileForCuda(llvm::ArrayRef<mlir::func::FuncOp> kernels, const CudaOptions &options);

/// What compileForCuda needs of a context, loaded beforehand.
void registerCudaDialects(mlir::DialectRegistry &registry);

// The steps of it.

/// From linalg on tensors (lowerToLinalg) to what one of a block's threads does: adds the kernel, a function of one
/// pointer for each operand and result, to `target` and returns its number of blocks.
///
/// A block computes a row; rows of kernels without sums are divided among several. The elements of a row go to the
/// threads in turn. A sum over the last dimension of a row without others is the block's: thread t adds elements t,
/// t + 256, …, a warp adds its lanes in a butterfly, the first thread the warps in order. With other dimensions each
/// sum is a warp's: lane l adds l, l + 32, …, then the butterfly. So the result of a row depends on nothing but that
/// row.
mlir::FailureOr<int64_t> emitBlocks(mlir::func::FuncOp kernel, mlir::ModuleOp target);

/// Compiles a module of the LLVM and NVVM dialects into PTX for `arch` ("sm_80"), each of `kernels` a kernel.
mlir::FailureOr<std::string> emitPtx(mlir::ModuleOp module, llvm::StringRef arch, llvm::ArrayRef<std::string> kernels);

/// A fat binary of the PTX (for `ptxArch`) and what ptxas makes of it for each of `archs`; the PTX itself, ended by a
/// zero, where there is no toolkit. Sets `features`.
mlir::FailureOr<std::string> assemble(mlir::Location loc, llvm::StringRef ptx, llvm::StringRef ptxArch,
                                      llvm::ArrayRef<llvm::StringRef> archs, std::string &features);

/// The triple of generated code.
inline constexpr llvm::StringLiteral kCudaTriple = "nvptx64-nvidia-cuda";

} // namespace helix::codegen

#endif // HELIX_LIB_CODEGEN_CUDA_CUDA_H
