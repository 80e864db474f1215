//===- HelixStatelessOps.td - Ops of stateless functions -------------------===//
//
// Included by HelixOps.td. Attention, rotation and scattering as functions of plain tensors: no cache, no lengths of
// slots; both levels, since a stateless function is for one rank.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_STATELESS_OPS_TD
#define HELIX_STATELESS_OPS_TD

def Helix_Indices : RankedTensorOf<[I64]>;
def Helix_NonNegative : ConfinedAttr<I64Attr, [IntNonNegative]>;

def Helix_DenseAttentionOp : Helix_Op<"dense_attention", [Pure, AttrSizedOperandSegments]> {
  let summary = "Attention over plain keys and values, with an optional dense mask";
  let description = [{
    `q` [batch, heads, tokens, key_dim], `key` [batch, KV heads, keys, key_dim], `value` [batch, KV heads, keys,
    value_dim] → [batch, heads, tokens, value_dim]. Query head h reads KV head h / (heads / KV heads). Query i stands at
    position p = `offset` + i, or, with `lengths` [batch], at p = lengths[b] − tokens + i. It sees key j if

    - j ≥ p − `left`, if there is a `left`, and j ≤ p + `right`, if there is a `right` (0 is causal);
    - j < lengths[b], if there are lengths;
    - the `mask` lets it: [..., keys] of up to four dimensions, those of size 1 and missing ones repeated to [batch,
      heads, tokens, keys]. Truths say who is seen; numbers are added to the scores, and −inf hides. A last dimension
      shorter than the keys hides those behind it.

    The weights are those of `helix.attention`: scale · (q · k_j), `softcap`, mask, softmax over the keys that are seen.
    What a query does not see is not part of its result, whatever it holds; where it sees nothing, the result is zero.

    With a `stage` the result is the scores as they are then, [batch, heads, tokens, keys], and there is no `value`:
    `scaled`, `capped` (the same without a softcap), `masked` (−inf where nothing is seen) or `probabilities`.

    Every length must be from 0 to keys.

    ```mlir
    %y = helix.dense_attention %q, %k value %v mask %m {offset = 3 : i64, right = 0 : i64, scale = 0.5 : f64}
        : (tensor<1x4x2x8xf32>, tensor<1x2x5x8xf32>, tensor<1x2x5x6xf32>, tensor<2x5xi1>) -> tensor<1x4x2x6xf32>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$q, TensorRankOf<[F32], [4]>:$key,
                       Optional<TensorRankOf<[F32], [4]>>:$value, Optional<RankedTensorOf<[F32, I1]>>:$mask,
                       Optional<TensorRankOf<[I64], [1]>>:$lengths, F64Attr:$scale, OptionalAttr<F64Attr>:$softcap,
                       DefaultValuedAttr<Helix_NonNegative, "0">:$offset, OptionalAttr<Helix_NonNegative>:$left,
                       OptionalAttr<Helix_NonNegative>:$right, OptionalAttr<Helix_ScoreStageAttr>:$stage);
  let results = (outs TensorRankOf<[F32], [4]>:$result);
  let assemblyFormat = [{
    $q `,` $key (`value` $value^)? (`mask` $mask^)? (`lengths` $lengths^)? attr-dict
    `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The mask's shape with leading dimensions of size 1; empty if there is none.
    ::llvm::SmallVector<int64_t> maskShape();
  }];
}

def Helix_RotateOp : Helix_Op<"rotate", [Pure, AllTypesMatch<["x", "result"]>, AllTypesMatch<["cos", "sin"]>]> {
  let summary = "Rotary position embedding with plain cosines and sines";
  let description = [{
    As `helix.rope`, on `x` [batch, heads, tokens, dim]: token t of sequence b takes row positions[b, t] of `cos` and
    `sin` [rows, r], or, without `positions` [batch, tokens], row [b, t] of [batch, tokens, r]; 2r ≤ dim. Every position
    must be from 0 to rows − 1.

    ```mlir
    %y = helix.rotate %x, %cos, %sin at %p {interleaved}
        : tensor<2x4x3x8xf32>, tensor<50x4xf32>, tensor<2x3xi64>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$x, TensorRankOf<[F32], [2, 3]>:$cos, TensorRankOf<[F32], [2, 3]>:$sin,
                       Optional<TensorRankOf<[I64], [2]>>:$positions, UnitAttr:$interleaved);
  let results = (outs TensorRankOf<[F32], [4]>:$result);
  let assemblyFormat = [{
    $x `,` $cos `,` $sin (`at` $positions^)? attr-dict `:` type($x) `,` type($cos) (`,` type($positions)^)?
  }];
  let hasVerifier = 1;
}

def Helix_ScatterOp : Helix_Op<"scatter", [Pure, AllTypesMatch<["cache", "result"]>]> {
  let summary = "Tokens written over those of a buffer";
  let description = [{
    `cache` and `update` are equal but along `axis`, where the update is the shorter: its token t goes to place
    indices[b] + t, b the index along dimension 0, or to t without `indices` [batch]. If `circular`, places are taken
    modulo the capacity; else they must all lie within it. No index is negative.

    ```mlir
    %c1 = helix.scatter %u into %c0 at %i {axis = 2 : i64, circular}
        : tensor<2x1x2x5xf32>, tensor<2x1x4x5xf32>, tensor<2xi64>
    ```
  }];
  let arguments = (ins Helix_Activations:$update, Helix_Activations:$cache, Optional<TensorRankOf<[I64], [1]>>:$indices,
                       Helix_NonNegative:$axis, UnitAttr:$circular);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = [{
    $update `into` $cache (`at` $indices^)? attr-dict `:` type($update) `,` type($cache) (`,` type($indices)^)?
  }];
  let hasVerifier = 1;
}

def Helix_TransposeOp : Helix_Op<"transpose", [Pure]> {
  let summary = "The dimensions of a tensor in another order";
  let description = [{
    Dimension d of the result is dimension permutation[d] of `x`.

    ```mlir
    %y = helix.transpose %x, [0, 2, 1, 3] : tensor<2x4x3x8xf32> -> tensor<2x3x4x8xf32>
    ```
  }];
  let arguments = (ins Helix_Activations:$x, DenseI64ArrayAttr:$permutation);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = "$x `,` $permutation attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}

def Helix_RowStatisticOp : Helix_Op<"row_statistic", [Pure]> {
  let summary = "The mean of every row, or 1 / sqrt(variance + epsilon)";
  let description = [{
    `x` [..., W] → [..., 1]; the variance is that of the row itself, as in `helix.layer_norm`.

    ```mlir
    %m = helix.row_statistic <mean> %x {epsilon = 1.0e-5 : f64} : tensor<1x6x8xf32> -> tensor<1x6x1xf32>
    ```
  }];
  let arguments = (ins Helix_StatisticAttr:$statistic, Helix_Activations:$x, F64Attr:$epsilon);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = "$statistic $x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}

#endif // HELIX_STATELESS_OPS_TD
