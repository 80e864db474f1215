//===- DumpStages.h - The IR after each pass, as numbered files ------------===//
#ifndef HELIX_TOOLS_HELIX_COMPILE_DUMPSTAGES_H
#define HELIX_TOOLS_HELIX_COMPILE_DUMPSTAGES_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassInstrumentation.h"

#include <string>

namespace helix {

/// Writes `directory`/NN-stage.mlir, with locations, so that a compile can resume from any of them.
class DumpStages : public mlir::PassInstrumentation {
public:
  explicit DumpStages(std::string directory) : directory(std::move(directory)) {}

  /// Makes the directory; emits HLX5031 if that fails.
  mlir::LogicalResult prepare(mlir::MLIRContext *context);
  /// Writes the next file. The first that fails emits HLX5031 and is the last.
  void dump(mlir::ModuleOp module, llvm::StringRef stage);
  void runAfterPass(mlir::Pass *pass, mlir::Operation *op) override;
  bool hasFailed() const { return failed; }

private:
  std::string directory;
  unsigned next = 0;
  bool failed = false;
};

} // namespace helix

#endif // HELIX_TOOLS_HELIX_COMPILE_DUMPSTAGES_H
