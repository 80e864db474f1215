//===- Machine.h - The simulated ranks, and what an op may ask of them -------===//
#ifndef HELIX_INTERPRETER_MACHINE_H
#define HELIX_INTERPRETER_MACHINE_H

#include "dialects/Helix/Helix.h"
#include "lib/Interpreter/Cache.h"
#include "lib/Interpreter/Tensor.h"
#include "lib/Interpreter/Weights.h"

#include "llvm/ADT/StringMap.h"

#include <functional>

namespace helix {

/// What one rank holds of one SSA value.
struct RankValue {
  /// A tensor, whole or partial, or a stacked value; the attention output of an lse partial.
  TensorRef tensor;
  /// The log-sum-exp of an lse partial, [batch, tokens, heads].
  TensorRef lse;
  /// A cache, and the number of appends that this value of it has seen.
  Cache *cache = nullptr;
  int64_t version = 0;

  RankValue() = default;
  RankValue(Tensor tensor) : tensor(std::make_shared<const Tensor>(std::move(tensor))) {}
  RankValue(Tensor o, Tensor lse) : RankValue(std::move(o)) {
    this->lse = std::make_shared<const Tensor>(std::move(lse));
  }
  RankValue(TensorRef tensor) : tensor(std::move(tensor)) {}
  explicit RankValue(Cache &cache) : cache(&cache), version(cache.version) {}
};

/// One SSA value: what each rank holds, by rank.
using RankValues = llvm::SmallVector<RankValue, 1>;

/// The ranks, and what they share.
struct Machine {
  /// Null at model level: one rank.
  MeshAttr mesh;
  Weights weights;

  int64_t ranks() const { return mesh ? mesh.ranks() : 1; }
  /// The ranks, ascending, that differ from `rank` at most in their coordinates along `axes`.
  llvm::SmallVector<int64_t> group(int64_t rank, llvm::ArrayRef<Axis> axes) const;
};

/// What an op does: from its operands to its one result, over all ranks at once. Emits an error where it fails.
using OpFunction = std::function<mlir::FailureOr<RankValues>(mlir::Operation *, llvm::ArrayRef<RankValues>, Machine &)>;

/// The meaning of every op that has exactly one result and no region, by name.
using OpTable = llvm::StringMap<OpFunction>;

/// Operands of an op on one rank.
using Operands = llvm::ArrayRef<RankValue>;

/// Enters an op that a rank does alone: `function(op, operands)` makes its result.
template <typename Op, typename Function> void addLocal(OpTable &table, Function function) {
  table[Op::getOperationName()] = [function](mlir::Operation *op, llvm::ArrayRef<RankValues> operands,
                                             Machine &machine) -> mlir::FailureOr<RankValues> {
    RankValues result;
    for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
      llvm::SmallVector<RankValue> mine;
      for (const RankValues &operand : operands)
        mine.push_back(operand[rank]);
      mlir::FailureOr<RankValue> value = function(llvm::cast<Op>(op), Operands(mine), rank);
      if (failed(value))
        return mlir::failure();
      result.push_back(std::move(*value));
    }
    return result;
  };
}

/// Enters an op that all ranks do together: `function(op, operands, machine)` makes the result of each.
template <typename Op, typename Function> void addJoint(OpTable &table, Function function) {
  table[Op::getOperationName()] = [function](mlir::Operation *op, llvm::ArrayRef<RankValues> operands,
                                             Machine &machine) {
    return mlir::FailureOr<RankValues>(function(llvm::cast<Op>(op), operands, machine));
  };
}

void addModelOps(OpTable &table);
void addAttentionOps(OpTable &table);
void addCollectives(OpTable &table);
void addElementwiseOps(OpTable &table);
void addShapeOps(OpTable &table);
void addStatelessOps(OpTable &table);

} // namespace helix

#endif // HELIX_INTERPRETER_MACHINE_H
