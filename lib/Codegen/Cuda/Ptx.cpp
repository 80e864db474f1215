//===- Ptx.cpp - From the LLVM dialect to PTX ------------------------------===//
#include "lib/Codegen/Cuda/Cuda.h"
#include "lib/Codegen/Native.h"

#include "helix-c/kernel.h"
#include "helix/Errors.h"

#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"

using namespace mlir;

namespace helix::codegen {
namespace {

InFlightDiagnostic codegenError(ModuleOp module) {
  return module.emitError(errorPrefix(ErrorCode::CodegenFailed)) << "cannot make PTX: ";
}

std::unique_ptr<llvm::TargetMachine> targetMachine(ModuleOp module, StringRef arch) {
  static const bool initialised = [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    return true;
  }();
  (void)initialised;
  llvm::Triple triple(kCudaTriple);
  std::string error;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target) {
    codegenError(module) << error;
    return nullptr;
  }
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, arch, "", llvm::TargetOptions(), std::nullopt, std::nullopt, llvm::CodeGenOptLevel::Aggressive));
}

} // namespace

FailureOr<std::string> emitPtx(ModuleOp module, StringRef arch, ArrayRef<std::string> kernels) {
  std::unique_ptr<llvm::TargetMachine> machine = targetMachine(module, arch);
  if (!machine)
    return failure();
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> code = translateModuleToLLVMIR(module, context, "kernels");
  if (!code) {
    codegenError(module) << "the kernels have no LLVM form";
    return failure();
  }
  code->setTargetTriple(machine->getTargetTriple());
  code->setDataLayout(machine->createDataLayout());
  for (const std::string &name : kernels) {
    llvm::Function *kernel = code->getFunction(name);
    kernel->setCallingConv(llvm::CallingConv::PTX_Kernel);
    kernel->addFnAttr("nvvm.reqntid", std::to_string(HELIX_CUDA_THREADS));
  }
  std::optional<SmallString<0>> text = emitNative(*code, *machine, llvm::CodeGenFileType::AssemblyFile);
  if (!text) {
    codegenError(module) << "the target emits no text";
    return failure();
  }
  // A module that calls what nobody defines fails only when it is loaded.
  if (size_t at = text->str().find(".extern"); at != StringRef::npos) {
    codegenError(module) << "it would call what no one defines: "
                         << text->str().substr(at).take_until([](char c) { return c == '\n'; });
    return failure();
  }
  return text->str().str();
}

} // namespace helix::codegen
