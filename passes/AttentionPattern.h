//===- AttentionPattern.h - What surrounds an attention that can be sharded -===//
#ifndef HELIX_PASSES_ATTENTIONPATTERN_H
#define HELIX_PASSES_ATTENTIONPATTERN_H

#include "passes/Entries.h"

namespace helix {

/// The ops around one attention. `heads` are those whose results are split over heads: from the products with a weight,
/// through expand_shape to [batch, tokens, heads, dim] and rope, to the operands of attention and append.
struct AttentionPattern {
  KVAppendOp append;
  llvm::SmallVector<mlir::Operation *> heads;
  mlir::tensor::CollapseShapeOp collapse;
  LinearOp output;
};

/// Matches the surroundings of `attention`; emits HLX2003 with the op that does not fit.
mlir::FailureOr<AttentionPattern> matchAttention(AttentionOp attention);

/// On how many neighbours along tpa each KV head of `attention` lies: 1 where tpa is at most the number of KV heads.
/// More ranks than KV heads must be so many for each head, and each of them needs as many query heads; emits HLX2006
/// otherwise.
mlir::FailureOr<int64_t> kvReplicas(AttentionOp attention, AttentionPattern pattern, MeshAttr mesh);

/// The product that makes the entry's logits, alone and with a weight; emits HLX2003 if it is anything else.
mlir::FailureOr<LinearOp> matchHead(mlir::func::FuncOp entry);

/// Checks that the embeddings and FFNs of `entry` read weights by reference, which can be sliced; emits HLX2003.
mlir::LogicalResult matchWeights(mlir::func::FuncOp entry);

} // namespace helix

#endif // HELIX_PASSES_ATTENTIONPATTERN_H
