//===- DumpStages.cpp - The IR after each pass, as numbered files ----------===//
#include "tools/helix-compile/DumpStages.h"

#include "helix/Errors.h"

#include "mlir/Pass/Pass.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"

using namespace mlir;

namespace helix {

LogicalResult DumpStages::prepare(MLIRContext *context) {
  if (std::error_code error = llvm::sys::fs::create_directories(directory))
    return emitError(UnknownLoc::get(context))
           << errorPrefix(ErrorCode::DumpUnwritable) << "cannot make the directory '" << directory
           << "': " << error.message();
  return success();
}

void DumpStages::dump(ModuleOp module, StringRef stage) {
  if (failed)
    return;
  SmallString<256> path(directory);
  llvm::sys::path::append(path, llvm::formatv("{0:02}-{1}.mlir", next++, stage).str());
  llvm::Error error = llvm::writeToOutput(path, [&](llvm::raw_ostream &output) {
    module->print(output, OpPrintingFlags().enableDebugInfo());
    output << '\n';
    return llvm::Error::success();
  });
  if (!error)
    return;
  failed = true;
  emitError(UnknownLoc::get(module.getContext())) << errorPrefix(ErrorCode::DumpUnwritable) << "cannot write '" << path
                                                  << "': " << llvm::toString(std::move(error));
}

void DumpStages::runAfterPass(Pass *pass, Operation *op) {
  if (auto module = dyn_cast<ModuleOp>(op); module && !pass->getArgument().empty())
    dump(module, pass->getArgument());
}

} // namespace helix
