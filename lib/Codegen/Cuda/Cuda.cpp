//===- Cuda.cpp - Generated kernels as PTX and cubins ----------------------===//
#include "lib/Codegen/Cuda/Cuda.h"

#include "helix/Errors.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"

using namespace mlir;

namespace helix::codegen {
namespace {

/// The architectures of a list, in ascending order.
FailureOr<SmallVector<StringRef>> parseArchs(Location loc, StringRef list) {
  constexpr StringLiteral known[] = {"sm_80", "sm_90a", "sm_100"};
  SmallVector<StringRef> given, archs;
  list.split(given, ',');
  for (StringRef arch : given)
    if (!llvm::is_contained(known, arch)) {
      emitError(loc, errorPrefix(ErrorCode::TargetUnsupported))
          << "unknown CUDA architecture '" << arch << "'; take one or more of sm_80, sm_90a, sm_100";
      return failure();
    }
  for (StringRef arch : known)
    if (llvm::is_contained(given, arch))
      archs.push_back(arch);
  return archs;
}

} // namespace

void registerCudaDialects(DialectRegistry &registry) {
  registry.insert<arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect,
                  linalg::LinalgDialect, math::MathDialect, memref::MemRefDialect, NVVM::NVVMDialect, scf::SCFDialect,
                  tensor::TensorDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
}

FailureOr<Image> compileForCuda(ArrayRef<func::FuncOp> kernels, const CudaOptions &options) {
  Image image;
  image.triple = kCudaTriple.str();
  if (kernels.empty())
    return image;
  func::FuncOp first = kernels.front();
  FailureOr<SmallVector<StringRef>> archs = parseArchs(first.getLoc(), options.archs);
  if (failed(archs))
    return failure();
  OwningOpRef<ModuleOp> work = ModuleOp::create(first.getLoc());
  SmallVector<std::string> symbols;
  for (func::FuncOp kernel : kernels) {
    OwningOpRef<func::FuncOp> clone(kernel.clone());
    FailureOr<KernelCost> cost = lowerToLinalg(*clone);
    if (failed(cost))
      return failure();
    FailureOr<int64_t> groups = emitBlocks(*clone, *work);
    if (failed(groups))
      return failure();
    symbols.push_back(kernel.getName().str());
    image.kernels.push_back({symbols.back(), *groups, *cost});
  }
  if (failed(lowerToLlvm(*work)))
    return failure();
  StringRef lowest = archs->front();
  lowest.consume_back("a"); // what only one architecture has no newer one runs
  FailureOr<std::string> ptx = emitPtx(*work, lowest, symbols);
  if (failed(ptx))
    return failure();
  FailureOr<std::string> code = assemble(first.getLoc(), *ptx, lowest, *archs, image.features);
  if (failed(code))
    return failure();
  image.code = std::move(*code);
  return image;
}

} // namespace helix::codegen
