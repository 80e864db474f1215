//===- Native.h - From LLVM IR to what a target reads ----------------------===//
#ifndef HELIX_LIB_CODEGEN_NATIVE_H
#define HELIX_LIB_CODEGEN_NATIVE_H

#include "llvm/ADT/SmallString.h"
#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"

#include <optional>

namespace helix::codegen {

/// Optimises the module for the machine, as code that has no library to call: a loop that copies must not become
/// memcpy. Returns it as text or as an object file; nothing if the target emits no such files.
std::optional<llvm::SmallString<0>> emitNative(llvm::Module &module, llvm::TargetMachine &machine,
                                               llvm::CodeGenFileType type);

} // namespace helix::codegen

#endif // HELIX_LIB_CODEGEN_NATIVE_H
