//===- Bisect.h - The first node that differs from a reference -------------===//
#ifndef HELIX_TOOLS_HELIX_COMPILE_BISECT_H
#define HELIX_TOOLS_HELIX_COMPILE_BISECT_H

#include "lib/Import/Onnx/Onnx.h"
#include "passes/Passes.h"

namespace helix {

struct BisectOptions {
  std::string model, reference;
  /// The most that a value may differ: max|ours - theirs| / max|theirs|.
  double tolerance = 0;
  /// A deliberate bug of the sharded run, by its name in the interpreter; for tests.
  std::string mutant;
};

/// Runs the model in the reference interpreter on the sequences `input_ids` [batch, tokens] of the reference, in one
/// pass, and compares its values with those of the same names there: first of the imported graph, then of what one rank
/// computes on the pipeline's mesh, where values are whole. Reports on standard output. A failure, after HLX5040 with
/// the first node that differs, or another error.
llvm::LogicalResult bisect(mlir::MLIRContext &context, const BisectOptions &options, ImportOptions import,
                           const PipelineOptions &pipeline);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_COMPILE_BISECT_H
