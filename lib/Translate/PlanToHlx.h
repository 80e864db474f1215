//===- PlanToHlx.h - From the plan dialect to an artifact ------------------===//
#ifndef HELIX_LIB_TRANSLATE_PLANTOHLX_H
#define HELIX_LIB_TRANSLATE_PLANTOHLX_H

#include "lib/Artifact/Artifact_generated.h"

#include "mlir/IR/BuiltinOps.h"

#include <optional>
#include <string>

namespace helix {

/// Where things are, as paths that need not be absolute.
struct HlxPaths {
  std::string weights;  ///< the directory that the files of weights are relative to: the model's
  std::string artifact; ///< the directory that the artifact will lie in
  std::string output;   ///< the file that it will be, which must not hold weights; empty if it is not known
  std::string suffix{}; ///< what follows the name of a file of weights that has still to be renamed
};

/// The artifact that a complete plan (`helix-verify-plan`) says. Weight files are named relative to the artifact and
/// are looked at for their size alone. Nothing, after HLX2054 or HLX2057 to HLX2059, if it cannot be written. The same
/// module and the same relation between the two directories give the same artifact.
std::optional<artifact::ArtifactT> planToArtifact(mlir::ModuleOp module, const HlxPaths &paths);

} // namespace helix

#endif // HELIX_LIB_TRANSLATE_PLANTOHLX_H
