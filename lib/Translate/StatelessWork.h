//===- StatelessWork.h - Commands of stateless entries, as they are written ===//
#ifndef HELIX_LIB_TRANSLATE_STATELESSWORK_H
#define HELIX_LIB_TRANSLATE_STATELESSWORK_H

#include "dialects/Plan/Plan.h"
#include "lib/Artifact/Artifact_generated.h"

namespace helix {

/// Sets `work` to that of the op.
void setStatelessWork(artifact::WorkUnion &work, plan::DenseAttentionOp op);
void setStatelessWork(artifact::WorkUnion &work, plan::RotateOp op);
void setStatelessWork(artifact::WorkUnion &work, plan::ScatterOp op);
void setStatelessWork(artifact::WorkUnion &work, plan::TransposeOp op);

/// What is taken or given, without its place.
std::unique_ptr<artifact::PortT> portOf(IOAttr io, mlir::RankedTensorType type);

} // namespace helix

#endif // HELIX_LIB_TRANSLATE_STATELESSWORK_H
