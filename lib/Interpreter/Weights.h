//===- Weights.h - What a rank holds of a weight -----------------------------===//
#ifndef HELIX_INTERPRETER_WEIGHTS_H
#define HELIX_INTERPRETER_WEIGHTS_H

#include "dialects/Helix/Helix.h"
#include "lib/Interpreter/Tensor.h"

#include "llvm/Support/MemoryBuffer.h"

#include <map>
#include <string>

namespace helix {

/// Reads weights from the files they are in and keeps what it read.
class Weights {
public:
  explicit Weights(llvm::StringRef directory) : directory(directory) {}

  /// The share of `op` that `rank` of `mesh` holds (null: no mesh), rounded to the result's element type.
  mlir::FailureOr<TensorRef> load(WeightOp op, MeshAttr mesh, int64_t rank);

private:
  mlir::FailureOr<llvm::StringRef> bytes(WeightOp op, llvm::StringRef file, int64_t offset, int64_t length);

  std::string directory;
  std::map<std::string, std::unique_ptr<llvm::MemoryBuffer>> files;
  std::map<std::pair<mlir::Operation *, int64_t>, TensorRef> loaded;
};

} // namespace helix

#endif // HELIX_INTERPRETER_WEIGHTS_H
