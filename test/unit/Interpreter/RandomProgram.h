//===- RandomProgram.h - Small random decoders, and how two of them compare --===//
#ifndef HELIX_TEST_UNIT_INTERPRETER_RANDOMPROGRAM_H
#define HELIX_TEST_UNIT_INTERPRETER_RANDOMPROGRAM_H

#include "lib/Interpreter/Interpreter.h"

#include "mlir/IR/OwningOpRef.h"

#include <random>
#include <string>

namespace helix::test {

/// A directory that is removed with everything in it.
class TemporaryDirectory {
public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory &) = delete;
  const std::string &path() const { return name; }

private:
  std::string name;
};

/// The sizes and forms of a decoder at model level, as an importer may write it.
struct ProgramShape {
  int64_t layers = 1, hidden = 8, heads = 2, kvHeads = 1, headDim = 4, ffn = 8, vocabulary = 11;
  int64_t batch = 1, chunk = 3, block = 4, capacity = 48;
  bool packed = false;      ///< one product for q, k and v, cut apart
  bool decomposed = false;  ///< the FFN as products and elementwise ops instead of helix.ffn
  bool interleaved = false; ///< rope in pairs (2i, 2i + 1)
  bool bias = false;        ///< of every product but the last
  bool layerNorm = false;   ///< in place of RMS norms; with a bias where products have one
  bool postNorm = false;    ///< norms of what attention and the FFN add
  bool parallel = false;    ///< attention and the FFN read the same norm
  bool learned = false;     ///< learned positions, beside rope
  bool tied = false;        ///< the embedding's table is the final product's matrix, transposed
  double softcap = 0;       ///< of attention scores; 0: none
  int64_t window = 0;       ///< of every other layer, from the first on; 0: none
  bool slopes = false;      ///< ALiBi, beside rope
  bool sinks = false;       ///< one score per head that takes weight
  bool transposed = false;  ///< products' matrices are stored [out, in]
  bool gated = true;        ///< the FFN
  std::string activation = "silu";
  bool headNorm = false;      ///< norms of the heads of q and k before rope
  bool rowNorm = false;       ///< a norm of the whole rows of q and k in place of those; tpa = 1
  bool scaled = false;        ///< the embedding and the residuals times a number
  bool tail = false;          ///< the logits times a number per id and under a soft cap
  bool allLogits = true;      ///< @prefill returns the logits of all tokens
  double sharpness = 2;       ///< scale of q and k: the standard deviation of scores is about its square
  std::string weight = "f32"; ///< element type of the products' weights
};

/// Random sizes that do not divide one another.
ProgramShape randomShape(std::mt19937_64 &random);

/// What `shape` is, for a failed test's message.
std::string describe(const ProgramShape &shape);

/// A context with the dialects of both helix levels.
std::unique_ptr<mlir::MLIRContext> makeContext();

/// A module with @decode and @prefill; its random weights are written to a file in `directory`.
mlir::OwningOpRef<mlir::ModuleOp> makeProgram(mlir::MLIRContext &context, const ProgramShape &shape,
                                              std::mt19937_64 &random, llvm::StringRef directory);

/// max |a − b| / max |a| over the logits of random steps: ragged prefill and decode with idle slots, and slots that are
/// truncated and used again. Infinite where one has a NaN; negative if one cannot run.
double maxRelativeError(mlir::ModuleOp a, mlir::ModuleOp b, llvm::StringRef modelDir, uint64_t seed,
                        const InterpreterOptions &optionsOfB = {});

} // namespace helix::test

#endif // HELIX_TEST_UNIT_INTERPRETER_RANDOMPROGRAM_H
