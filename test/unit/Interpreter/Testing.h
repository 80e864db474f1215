//===- Testing.h - Running one function on given tensors ---------------------===//
#ifndef HELIX_TEST_UNIT_INTERPRETER_TESTING_H
#define HELIX_TEST_UNIT_INTERPRETER_TESTING_H

#include "lib/Interpreter/Interpreter.h"

#include "mlir/IR/OwningOpRef.h"
#include "gtest/gtest.h"

#include <random>
#include <string>

namespace helix::test {

/// A module, parsed, and its interpreter.
class Program {
public:
  /// `text` is the module; weights are read from `modelDir`.
  explicit Program(llvm::StringRef text, llvm::StringRef modelDir = "");

  /// Runs @f on what each rank holds of each argument; empty (and a failed test) if it cannot.
  llvm::SmallVector<RankValues> run(llvm::ArrayRef<RankValues> arguments);
  /// The same on one rank, with one tensor as the result.
  Tensor run(llvm::ArrayRef<Tensor> arguments);

  mlir::ModuleOp module() { return *parsed; }

private:
  std::unique_ptr<mlir::MLIRContext> context;
  mlir::OwningOpRef<mlir::ModuleOp> parsed;
  std::unique_ptr<Interpreter> interpreter;
};

/// Standard normal values.
Tensor randomTensor(llvm::ArrayRef<int64_t> shape, std::mt19937_64 &random);

/// The same tensor on every rank.
RankValues everywhere(const Tensor &tensor, int64_t ranks);

/// Fails the test where the shapes differ or an element differs by more than `tolerance`.
void expectNear(const Tensor &actual, const Tensor &expected, double tolerance);

} // namespace helix::test

#endif // HELIX_TEST_UNIT_INTERPRETER_TESTING_H
