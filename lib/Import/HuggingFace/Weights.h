//===- Weights.h - Weights of a checkpoint in the module -------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_WEIGHTS_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_WEIGHTS_H

#include "dialects/Helix/Helix.h"
#include "lib/Import/HuggingFace/HuggingFace.h"
#include "lib/Import/HuggingFace/Layout.h"

#include "llvm/ADT/MapVector.h"

namespace helix::checkpoint {

mlir::InFlightDiagnostic checkpointError(mlir::MLIRContext *context, const Error &error);

/// The weights of one module: in the checkpoint's files, or computed and written to a file of their own.
class Weights {
public:
  Weights(mlir::MLIRContext *context, const ImportOptions &options, const Checkpoint &checkpoint, const Config &config)
      : context(context), options(options), checkpoint(checkpoint), config(config) {}

  /// Rows [first, first + rows) of a linear layer's weight [out, in], as [in, rows]; all rows if `rows` is 0.
  mlir::Value linear(mlir::OpBuilder &builder, llvm::StringRef name, int64_t first = 0, int64_t rows = 0);
  /// The table [vocabulary, hidden].
  mlir::Value table(mlir::OpBuilder &builder, llvm::StringRef name);
  /// A vector in f32: a bias.
  mlir::Value vector(mlir::OpBuilder &builder, llvm::StringRef name);
  /// What a norm multiplies by, in f32. Null after a diagnostic if it is to be computed and its weight cannot be read.
  mlir::Value norm(mlir::OpBuilder &builder, llvm::StringRef name);
  /// cos and sin of a rotary embedding, [positions, width / 2].
  std::pair<mlir::Value, mlir::Value> rope(mlir::OpBuilder &builder, const Rope &rope, int64_t positions);

  /// Writes what was computed and points its ops to it. An error (HLX1036, HLX1037) if that cannot be.
  mlir::LogicalResult write();

private:
  struct Computed {
    llvm::SmallVector<int64_t> shape;
    std::vector<float> values;
    std::vector<WeightOp> ops = {};
  };

  mlir::Value stored(mlir::OpBuilder &builder, llvm::StringRef name, Dtype dtype, bool transposed, int64_t first,
                     int64_t rows);
  mlir::Value computed(mlir::OpBuilder &builder, llvm::StringRef name);

  mlir::MLIRContext *context;
  const ImportOptions &options;
  const Checkpoint &checkpoint;
  const Config &config;
  llvm::MapVector<std::string, Computed, std::map<std::string, unsigned>> made = {};
};

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_WEIGHTS_H
