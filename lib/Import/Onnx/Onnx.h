//===- Onnx.h - From an ONNX decoder to the helix dialect ------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_ONNX_H
#define HELIX_LIB_IMPORT_ONNX_ONNX_H

#include "dialects/Helix/Helix.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/IR/Value.h"

#include "llvm/Support/raw_ostream.h"

#include <string>
#include <vector>

namespace helix {

/// Element types that weights and caches may be given; I8 and F8E4M3 are codes of caches.
enum class Dtype { F32, F16, BF16, I8, F8E4M3 };

/// A value of an ONNX graph, and what it is in the module.
struct ImportedValue {
  std::string name, node, op;
  /// Null if the module has no such value: it became part of an op.
  mlir::Value value = {};
  /// Per dimension that the graph sees, the dimensions of `value` that it is the product of, slowest first; empty if
  /// the graph sees those of `value`.
  llvm::SmallVector<llvm::SmallVector<unsigned, 2>, 4> groups = {};
};

/// What an import binds and chooses.
struct ImportOptions {
  /// Slots: sequences per step.
  int64_t batch = 1;
  /// Tokens that a slot can hold; 0 takes the length of the model's rotary table.
  int64_t maxContext = 0;
  /// Query tokens per slot of the prefill entry; 0 for no such entry.
  int64_t prefillChunk = 0;
  /// Whether the prefill entry returns the logits of all its tokens instead of the last one's.
  bool allLogits = false;
  /// Tokens in a block of the KV cache.
  int64_t block = 16;
  /// Element type of linear weights and of the embedding table. Norm scales and rotary tables stay f32.
  Dtype weightDtype = Dtype::F32;
  /// What activations are rounded to before they are multiplied with weights of a few bits: F32 for not at all, or I8.
  Dtype activations = Dtype::F32;
  /// Element type of the KV caches.
  Dtype kvDtype = Dtype::F32;
  /// Of caches of codes, one scale for all keys and all values; 0: one for each token and head, as they are appended.
  double kvScale = 0;
  /// A directory, besides the model's own, that external data may lie in; none if empty.
  std::string weightsRoot;
  /// The .safetensors file to write for weights whose bytes are inside the protobuf, or are computed at import. Needed
  /// only if there are any.
  std::string inlineWeightsPath;
  /// Follows that file's name until the caller, who then is to rename it, has all else; nothing if empty.
  std::string inlineWeightsSuffix;
  /// Where to write what was raised from which nodes, and what was taken as it is; nowhere if null.
  llvm::raw_ostream *explanation = nullptr;
  /// Where to put the activations of the prefill entry, in the order of the nodes; nowhere if null. The entry must
  /// return all logits.
  std::vector<ImportedValue> *values = nullptr;
};

/// Imports the decoder at `path` as a module at model level: a function `decode` (one query token per slot) and, if a
/// prefill chunk is given, `prefill`. Dialects are loaded into `context`. Weights are `helix.weight` references whose
/// files are relative to `modelDirectory(path)`. Null, after a numbered diagnostic (HLX10xx) that names the node, its
/// op and the reason, if the model is not one that can be imported faithfully.
mlir::OwningOpRef<mlir::ModuleOp> importOnnx(mlir::MLIRContext &context, llvm::StringRef path,
                                             const ImportOptions &options);

/// An error (HLX1020) if an option is out of its range.
llvm::LogicalResult checkImportOptions(mlir::MLIRContext *context, const ImportOptions &options);

/// The type of the elements.
mlir::Type elementType(mlir::MLIRContext *context, Dtype dtype);

/// The scales of the caches that the options ask for; null if they hold numbers.
KvScaleAttr kvScaleOf(mlir::MLIRContext *context, const ImportOptions &options);

/// Imports the model at `path` as one stateless function, `stateless`: its inputs and outputs are those of the graph,
/// of fixed shapes; floats, and 64-bit integers and truths where ops take them as such. Of the options, the weights'
/// type and files count. Otherwise as `importOnnx`.
mlir::OwningOpRef<mlir::ModuleOp> importStateless(mlir::MLIRContext &context, llvm::StringRef path,
                                                  const ImportOptions &options);

/// The real path of the directory of the model at `path`, to which the files of its weights are relative: `path` itself
/// where that is a directory. Empty if there is no such directory.
std::string modelDirectory(llvm::StringRef path);

} // namespace helix

#endif // HELIX_LIB_IMPORT_ONNX_ONNX_H
