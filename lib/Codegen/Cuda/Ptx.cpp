//===- Ptx.cpp - From the LLVM dialect to PTX ------------------------------===//
#include "lib/Codegen/Cuda/Cuda.h"

#include "helix-c/kernel.h"
#include "helix/Errors.h"

#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

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

void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cgam;
  llvm::ModuleAnalysisManager mam;
  llvm::PassBuilder builder(&machine);
  // There is no library to call.
  llvm::TargetLibraryInfoImpl library(machine.getTargetTriple());
  library.disableAllFunctions();
  fam.registerPass([&] { return llvm::TargetLibraryAnalysis(library); });
  builder.registerModuleAnalyses(mam);
  builder.registerCGSCCAnalyses(cgam);
  builder.registerFunctionAnalyses(fam);
  builder.registerLoopAnalyses(lam);
  builder.crossRegisterProxies(lam, fam, cgam, mam);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3).run(module, mam);
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
  optimize(*code, *machine);

  SmallString<0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager emit;
  if (machine->addPassesToEmitFile(emit, stream, nullptr, llvm::CodeGenFileType::AssemblyFile)) {
    codegenError(module) << "the target emits no text";
    return failure();
  }
  emit.run(*code);
  // A module that calls what nobody defines fails only when it is loaded.
  if (size_t at = text.str().find(".extern"); at != StringRef::npos) {
    codegenError(module) << "it would call what no one defines: "
                         << text.str().substr(at).take_until([](char c) { return c == '\n'; });
    return failure();
  }
  return text.str().str();
}

} // namespace helix::codegen
