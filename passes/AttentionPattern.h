//===- AttentionPattern.h - What surrounds an attention that can be sharded -===//
#ifndef HELIX_PASSES_ATTENTIONPATTERN_H
#define HELIX_PASSES_ATTENTIONPATTERN_H

#include "passes/Entries.h"

namespace helix {

/// The ops around one attention. `heads` are those whose results are split over heads: from the products with a weight,
/// through a norm of the whole row, expand_shape to [batch, tokens, heads, dim], norms of each head and rope, to the
/// operands of attention and append.
struct AttentionPattern {
  KVAppendOp append;
  llvm::SmallVector<mlir::Operation *> heads;
  mlir::tensor::CollapseShapeOp collapse;
  LinearOp output;
};

/// Matches the surroundings of `attention`; emits HLX2003 with the op that does not fit, or HLX2010 where a norm reads
/// whole rows of queries or keys that `mesh` would cut.
mlir::FailureOr<AttentionPattern> matchAttention(AttentionOp attention, MeshAttr mesh);

/// On how many neighbours along tpa each KV head of `attention` lies: 1 where tpa is at most the number of KV heads.
/// More ranks than KV heads must be so many for each head, and each of them needs as many query heads; emits HLX2006
/// otherwise.
mlir::FailureOr<int64_t> kvReplicas(AttentionOp attention, AttentionPattern pattern, MeshAttr mesh);

/// What makes the entry's logits: a product with a weight, then ops that change each logit by itself, in order.
struct HeadPattern {
  LinearOp product;
  llvm::SmallVector<mlir::Operation *> tail;
};

/// Matches what makes the entry's logits; emits HLX2003 if it is anything else.
mlir::FailureOr<HeadPattern> matchHead(mlir::func::FuncOp entry);

/// Whether `op` is an elementwise op of arith or math on tensors of f32.
bool isElementwise(mlir::Operation *op);

/// Whether `value` is the same for every token: one number everywhere, or a broadcast weight.
bool isPerChannel(mlir::Value value);

/// Checks that the embeddings and FFNs of `entry` read weights by reference, which can be sliced; emits HLX2003.
mlir::LogicalResult matchWeights(mlir::func::FuncOp entry);

} // namespace helix

#endif // HELIX_PASSES_ATTENTIONPATTERN_H
