//===- Interpreter.h - What the helix dialect means --------------------------===//
#ifndef HELIX_INTERPRETER_INTERPRETER_H
#define HELIX_INTERPRETER_INTERPRETER_H

#include "lib/Interpreter/Machine.h"
#include "lib/Interpreter/Mutants.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace helix {

struct InterpreterOptions {
  /// Round the elements of every op's result to f32.
  bool roundActivations = false;
  /// A deliberate bug, for tests.
  Mutant mutant = Mutant::None;
  /// Called with each op and its results, after it has run.
  std::function<void(mlir::Operation *, llvm::ArrayRef<RankValues>)> observe = {};
};

/// Runs a module of either helix level in float64, op by op, on as many simulated ranks as its `helix.mesh` has (one if
/// it has none). The caches of the entries, which all entries share, are its state. Errors are diagnostics.
class Interpreter {
public:
  /// `module` must outlive the interpreter; weights are read from `modelDir`.
  static mlir::FailureOr<std::unique_ptr<Interpreter>> create(mlir::ModuleOp module, llvm::StringRef modelDir,
                                                              const InterpreterOptions &options = {});

  /// Runs entry `name` on `ids` [batch * tokens], `past` and `qLen` [batch]. Returns the logits of the whole vocabulary
  /// [batch, T', vocabulary], gathered from the ranks.
  mlir::FailureOr<Tensor> runEntry(llvm::StringRef name, llvm::ArrayRef<int64_t> ids, llvm::ArrayRef<int64_t> past,
                                   llvm::ArrayRef<int64_t> qLen);

  /// Runs any function of the module on values of all ranks.
  mlir::FailureOr<llvm::SmallVector<RankValues>> call(llvm::StringRef name, llvm::ArrayRef<RankValues> arguments);

  /// The signature of entry `name`; null if there is none.
  EntryAttr entry(llvm::StringRef name) const;
  int64_t vocabulary() const { return vocabularySize; }
  /// Tokens that a slot holds at most.
  int64_t capacity() const { return slotCapacity; }

  /// Forgets the tokens of `slot` from position `length` on; what later reads them reads NaN.
  void truncate(int64_t slot, int64_t length);
  /// Forgets the tokens of all slots.
  void reset();

private:
  Interpreter(mlir::ModuleOp module, llvm::StringRef modelDir, const InterpreterOptions &options);
  mlir::LogicalResult prepare();
  mlir::LogicalResult addCaches(mlir::func::FuncOp entry);

  using Scope = llvm::DenseMap<mlir::Value, RankValues>;
  mlir::FailureOr<llvm::SmallVector<RankValues>> runFunction(mlir::func::FuncOp function,
                                                             llvm::ArrayRef<RankValues> arguments, int depth);
  mlir::FailureOr<llvm::SmallVector<RankValues>> runBlock(mlir::Block &block, Scope &scope, int depth);
  mlir::FailureOr<llvm::SmallVector<RankValues>> runOp(mlir::Operation &op, Scope &scope, int depth);

  mlir::ModuleOp module;
  InterpreterOptions options;
  Machine machine;
  OpTable table;
  int64_t vocabularySize = 0, slotCapacity = 0;
  /// By cache argument, then by rank.
  std::vector<std::vector<Cache>> caches;
};

} // namespace helix

#endif // HELIX_INTERPRETER_INTERPRETER_H
