//===- Ops.h - The formulas that mutants bend --------------------------------===//
#ifndef HELIX_INTERPRETER_OPS_H
#define HELIX_INTERPRETER_OPS_H

#include "lib/Interpreter/Machine.h"

#include "llvm/ADT/STLFunctionalExtras.h"

namespace helix {

/// `x` [batch, tokens, heads, dim] with token t of sequence b rotated for position(b, t).
Tensor rotate(const Tensor &x, const Tensor &cos, const Tensor &sin, bool interleaved,
              llvm::function_ref<int64_t(int64_t, int64_t)> position);

/// Places of a rank's storage: those that attention over `length` tokens reads, or that a token is written to.
using Places = llvm::SmallVector<int64_t> (*)(const Cache &cache, int64_t lengthOrPosition);
/// The places that hold the global positions below `length`, ascending.
llvm::SmallVector<int64_t> heldPlaces(const Cache &cache, int64_t length);

/// What an attention reads, on one rank, and the chunk of its sequences and query tokens that it computes.
struct AttentionInputs {
  const Tensor &q;
  const Cache &cache;
  const Tensor &past, &qLen;
  double scale;
  double softcap = 0;             ///< 0: none
  int64_t window = 0;             ///< 0: none
  const Tensor *slopes = nullptr; ///< [heads]
  const Tensor *sinks = nullptr;  ///< [heads], of a whole attention
  bool capsMasked = false;        ///< for a mutant: what is masked is capped after, and so gets weight
  int64_t firstSequence, sequences;
  int64_t firstToken, tokens;

  AttentionInputs(AttentionOp op, llvm::ArrayRef<RankValue> operands);
  AttentionInputs(PartialAttentionOp op, llvm::ArrayRef<RankValue> operands);
};

/// Attention output [sequences, tokens, heads, value_dim] and log-sum-exp [sequences, tokens, heads] over the visible
/// places; 0 and −inf for unused tokens, for heads that `q` lacks and where nothing is visible.
RankValue attend(const AttentionInputs &in, int64_t heads, Places visible);

/// The op's stacked inputs [peer, batch, tokens, heads, value_dim + 1] merged: Σ w_j o_j / Σ w_j, zero if every w_j is
/// zero, with w_j = weight(lse_j, max lse), which is zero for a peer that is skipped. Chunks join along the op's
/// dimension. A sink's weight is added to the sum once; for a mutant, once per peer.
Tensor merge(MergeAttentionOp op, Operands operands, double (*weight)(double lse, double max),
             bool sinkPerPeer = false);

/// The tensors one behind the other along `dim`; they differ there alone.
Tensor concat(llvm::ArrayRef<Tensor> parts, unsigned dim);

} // namespace helix

#endif // HELIX_INTERPRETER_OPS_H
