//===- Cpu.cpp - Generated kernels as x86-64 code --------------------------===//
#include "lib/Codegen/Cpu/Cpu.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"

using namespace mlir;

namespace helix::codegen {

void registerCpuDialects(DialectRegistry &registry) {
  registry.insert<arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect,
                  linalg::LinalgDialect, math::MathDialect, memref::MemRefDialect, scf::SCFDialect,
                  tensor::TensorDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
}

FailureOr<Image> compileForCpu(ArrayRef<func::FuncOp> kernels, const CpuOptions &options) {
  Image image;
  image.triple = kCpuTriple.str();
  image.features = options.features;
  OwningOpRef<ModuleOp> work;
  for (func::FuncOp kernel : kernels) {
    if (!work)
      work = ModuleOp::create(kernel.getLoc());
    OwningOpRef<func::FuncOp> clone(kernel.clone());
    FailureOr<KernelCost> cost = lowerToLinalg(*clone);
    if (failed(cost))
      return failure();
    FailureOr<int64_t> groups = emitRows(*clone, *work);
    if (failed(groups))
      return failure();
    image.kernels.push_back({kernel.getName().str(), *groups, *cost});
  }
  if (kernels.empty())
    return image;
  if (failed(lowerToLlvm(*work)))
    return failure();
  FailureOr<std::string> code = emitSharedObject(*work, options);
  if (failed(code))
    return failure();
  image.code = std::move(*code);
  return image;
}

} // namespace helix::codegen
