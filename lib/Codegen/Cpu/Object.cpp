//===- Object.cpp - From the LLVM dialect to a shared object ---------------===//
#include "lib/Codegen/Cpu/Cpu.h"
#include "lib/Codegen/Native.h"

#include "helix/Errors.h"

#include "lld/Common/Driver.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/TargetSelect.h"

LLD_HAS_DRIVER(elf)

using namespace mlir;

namespace helix::codegen {
namespace {

InFlightDiagnostic codegenError(ModuleOp module) {
  return module.emitError(errorPrefix(ErrorCode::CodegenFailed)) << "cannot make native code: ";
}

std::unique_ptr<llvm::TargetMachine> targetMachine(ModuleOp module, StringRef features) {
  static const bool initialised = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    return true;
  }();
  (void)initialised;
  if (features != "x86-64-v3" && features != "x86-64-v4") {
    module.emitError(errorPrefix(ErrorCode::TargetUnsupported))
        << "unknown CPU features '" << features << "'; take x86-64-v3 or x86-64-v4";
    return nullptr;
  }
  llvm::Triple triple(kCpuTriple);
  std::string error;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target) {
    codegenError(module) << error;
    return nullptr;
  }
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, features, "", llvm::TargetOptions(), llvm::Reloc::PIC_, std::nullopt, llvm::CodeGenOptLevel::Aggressive));
}

/// lld sets all command-line options of the process back to their defaults, as if it were alone in it. While this lives
/// none are registered.
class CommandLineShield {
public:
  CommandLineShield() {
    for (llvm::cl::SubCommand *command : llvm::cl::getRegisteredSubcommands()) {
      for (auto &named : command->OptionsMap)
        options.insert(named.second);
      options.insert(command->PositionalOpts.begin(), command->PositionalOpts.end());
      options.insert(command->SinkOpts.begin(), command->SinkOpts.end());
      if (command->ConsumeAfterOpt)
        options.insert(command->ConsumeAfterOpt);
    }
    for (llvm::cl::Option *option : options)
      option->removeArgument();
  }
  ~CommandLineShield() {
    for (llvm::cl::Option *option : options)
      option->addArgument();
  }

private:
  llvm::SetVector<llvm::cl::Option *> options;
};

/// Links `object` with lld, in this process. lld reads and writes files, so both are temporary ones.
FailureOr<std::string> link(ModuleOp module, StringRef object) {
  SmallString<128> directory;
  if (std::error_code error = llvm::sys::fs::createUniqueDirectory("helix-codegen", directory)) {
    codegenError(module) << "cannot make a temporary directory: " << error.message();
    return failure();
  }
  SmallString<128> input(directory), output(directory);
  llvm::sys::path::append(input, "kernels.o");
  llvm::sys::path::append(output, "kernels.so");
  // Removed in reverse: the files, then the directory.
  llvm::FileRemover removeDirectory(directory), removeOutput(output), removeInput(input);

  std::error_code error;
  llvm::raw_fd_ostream file(input, error);
  file << object;
  file.close();
  if (error || file.has_error()) {
    file.clear_error();
    codegenError(module) << "cannot write " << input.str();
    return failure();
  }
  std::string messages;
  llvm::raw_string_ostream log(messages);
  const char *arguments[] = {"ld.lld",           "-shared",     "--no-undefined", "--build-id=none",
                             "--hash-style=gnu", "--strip-all", "--threads=1",    "-z",
                             "noexecstack",      "-o",          output.c_str(),   input.c_str()};
  CommandLineShield shield;
  lld::Result result = lld::lldMain(arguments, log, log, {{lld::Gnu, &lld::elf::link}});
  if (result.retCode != 0) {
    codegenError(module) << "the linker says: " << StringRef(messages).trim();
    return failure();
  }
  auto linked = llvm::MemoryBuffer::getFile(output, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!linked) {
    codegenError(module) << "cannot read " << output.str() << ": " << linked.getError().message();
    return failure();
  }
  return (*linked)->getBuffer().str();
}

} // namespace

FailureOr<std::string> emitSharedObject(ModuleOp module, const CpuOptions &options) {
  std::unique_ptr<llvm::TargetMachine> machine = targetMachine(module, options.features);
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
  for (llvm::Function &function : *code)
    function.addFnAttr(llvm::Attribute::NoUnwind); // no unwinding tables
  std::optional<SmallString<0>> object = emitNative(*code, *machine, llvm::CodeGenFileType::ObjectFile);
  if (!object) {
    codegenError(module) << "the target emits no object files";
    return failure();
  }
  return link(module, *object);
}

} // namespace helix::codegen
