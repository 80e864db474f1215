//===- HelixOps.td - Ops of the helix dialect ------------------------------===//
#ifndef HELIX_OPS_TD
#define HELIX_OPS_TD

include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "dialects/Helix/HelixAttrs.td"
include "dialects/Helix/HelixTypes.td"

class Helix_Op<string mnemonic, list<Trait> traits = []> : Op<Helix_Dialect, mnemonic, traits>;

def Helix_Activations : RankedTensorOf<[F32]>;
def Helix_WeightTensor : RankedTensorOf<[F32, F16, BF16]>;
def Helix_StoredTensor : RankedTensorOf<[F32, F16, BF16, UI<2>, UI<4>, UI<8>, SI<2>, SI<4>, SI<8>]>;
def Helix_Positive : ConfinedAttr<I64Attr, [IntPositive]>;
def Helix_Vector : TensorRankOf<[F32], [1]>;
def Helix_TokenIds : TensorRankOf<[I64], [2]>;
def Helix_Lengths : TensorRankOf<[I32], [1]>;
def Helix_WholeOrSum : AnyTypeOf<[Helix_Activations, Helix_PartialType], "whole tensor or partial sum">;

//===----------------------------------------------------------------------===//
// Model level (and local at SPMD level)
//===----------------------------------------------------------------------===//

def Helix_WeightOp : Helix_Op<"weight", [Pure]> {
  let summary = "A weight by reference: bytes of a file, never a constant in the IR";
  let description = [{
    `length` bytes at `offset` of `file` (relative to the model's directory) hold a row-major tensor of type `stored`.
    `window_offset` and `window_size` (one per dimension; the whole tensor if absent) pick the part that is this weight,
    so that the parts of a packed weight need no copy. `pieces`, a run and a stride per dimension, makes the window one of
    many pieces: its index i is `window_offset + i / run * stride + i mod run`; a run of 0 is one piece. So the queries of
    a product that packs queries, keys and values head by head are a window, too. At SPMD level `slice` holds, per dimension, the splits that take
    the rank's share of the window, counted from the window's start; what the local shape has beyond that share is
    zero. An element type other than the stored one rounds to nearest even when the weight is loaded.

    With `transposed` the weight is the transpose of all that: window, pieces, slice and `stored` count the stored tensor's
    dimensions, the type those of the weight. So a table [vocabulary, hidden] serves as the final product's matrix, too.

    A stored tensor of integers of 2, 4 or 8 bits holds codes, packed with the first element in the lowest bits; signed
    ones count as that number plus 2^(bits - 1). The type's encoding, a `#helix.quant`, says what they mean, with
    `scales` and, where blocks have their own, `zero_points`. Blocks lie along the stored tensor's last dimension, and
    windows and slices need not keep to them.

    ```mlir
    %w = helix.weight "k_proj" {file = "model.onnx.data", offset = 4096 : i64, length = 32768 : i64,
                                stored = tensor<64x128xf32>, window_offset = array<i64: 0, 64>,
                                window_size = array<i64: 64, 32>,
                                slice = [[], [#helix.split<tpa, 16>]]} : tensor<64x16xf32>
    %q = helix.weight "v_proj" {file = "model.onnx.data", offset = 0 : i64, length = 1024 : i64,
                                stored = tensor<32x64xui4>, transposed,
                                scales = #helix.bytes<file = "model.onnx.data", offset = 1024, length = 256, element = f32>}
        : tensor<64x32xf32, #helix.quant<bits = 4, block = 32, axis = 0, scale = f32, zero = middle>>
    ```
  }];
  let arguments = (ins StrAttr:$name, StrAttr:$file, ConfinedAttr<I64Attr, [IntNonNegative]>:$offset,
                       ConfinedAttr<I64Attr, [IntNonNegative]>:$length, TypeAttrOf<Helix_StoredTensor>:$stored,
                       OptionalAttr<DenseI64ArrayAttr>:$window_offset, OptionalAttr<DenseI64ArrayAttr>:$window_size,
                       OptionalAttr<ArrayAttr>:$slice, UnitAttr:$transposed,
                       OptionalAttr<DenseI64ArrayAttr>:$pieces, OptionalAttr<Helix_BytesAttr>:$scales,
                       OptionalAttr<Helix_BytesAttr>:$zero_points);
  let results = (outs Helix_WeightTensor:$result);
  let assemblyFormat = "$name attr-dict `:` type($result)";
  let builders = [
    // Of numbers that are stored as they are.
    OpBuilder<(ins "::mlir::Type":$result, "::mlir::StringAttr":$name, "::mlir::StringAttr":$file,
                   "::mlir::IntegerAttr":$offset, "::mlir::IntegerAttr":$length, "::mlir::TypeAttr":$stored,
                   "::mlir::DenseI64ArrayAttr":$window_offset, "::mlir::DenseI64ArrayAttr":$window_size,
                   "::mlir::ArrayAttr":$slice, "::mlir::UnitAttr":$transposed, "::mlir::DenseI64ArrayAttr":$pieces), [{
      build($_builder, $_state, result, name, file, offset, length, stored, window_offset, window_size, slice,
            transposed, pieces, ::helix::BytesAttr(), ::helix::BytesAttr());
    }]>
  ];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The dimension of the stored tensor that is dimension `dim` of the weight.
    unsigned storedDim(unsigned dim) { return getTransposed() ? 1 - dim : dim; }
    /// The stored tensor's type.
    ::mlir::RankedTensorType storedType() { return ::llvm::cast<::mlir::RankedTensorType>(getStored()); }
    /// What its codes mean; null if they are numbers.
    ::helix::QuantAttr quant() { return ::llvm::dyn_cast_or_null<::helix::QuantAttr>(getType().getEncoding()); }
    /// Another part of the same stored tensor: only the window, the slice and the local shape are other ones.
    WeightOp part(::mlir::OpBuilder &builder, ::llvm::ArrayRef<int64_t> shape, ::mlir::DenseI64ArrayAttr windowOffset,
                  ::mlir::DenseI64ArrayAttr windowSize, ::mlir::ArrayAttr slice);
    /// Start of the window per dimension, zeros if the window is the whole tensor.
    ::llvm::SmallVector<int64_t> windowOffset();
    /// Size of the window per dimension.
    ::llvm::SmallVector<int64_t> windowSize();
    /// Run and stride of the window's pieces along the stored tensor's dimension `dim`; a run of 0 is one piece.
    std::pair<int64_t, int64_t> piecesOf(unsigned dim);
    /// The splits of the stored tensor's dimension `dim`, in order; none if the weight is whole along it.
    ::llvm::SmallVector<::helix::SplitAttr> splits(unsigned dim);
  }];
}

def Helix_EmbeddingOp : Helix_Op<"embedding", [Pure]> {
  let summary = "Rows of a table by token id";
  let description = [{
    `ids` [batch, tokens] i64, `table` [vocabulary, hidden] → [batch, tokens, hidden] f32. At SPMD level the rank's
    table holds the rows from `rank * local vocabulary` on, other ids give zero, and the result is a partial sum over n.
  }];
  let arguments = (ins Helix_TokenIds:$ids, TensorRankOf<[F32, F16, BF16], [2]>:$table);
  let results = (outs Helix_WholeOrSum:$result);
  let assemblyFormat = "$ids `,` $table attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Helix_LinearOp : Helix_Op<"linear", [Pure]> {
  let summary = "Product of the last dimension with a weight in ONNX order";
  let description = [{
    `x` [..., K] f32 times `weight` [K, N], plus `bias` [N] if there is one → [..., N], accumulated in f32. A row shard
    of the weight gives a partial sum, which takes no bias: it would be added once per rank.

    ```mlir
    %y = helix.linear %x, %w : (tensor<1x1x64xf32>, tensor<64x32xf32>) -> tensor<1x1x32xf32>
    %z = helix.linear %x, %w, %b : (tensor<1x1x64xf32>, tensor<64x32xf32>, tensor<32xf32>) -> tensor<1x1x32xf32>
    ```
  }];
  let arguments = (ins Helix_Activations:$x, TensorRankOf<[F32, F16, BF16], [2]>:$weight,
                       Optional<Helix_Vector>:$bias);
  let results = (outs Helix_WholeOrSum:$result);
  let assemblyFormat = "$x `,` $weight (`,` $bias^)? attr-dict `:` functional-type(operands, results)";
  let builders = [OpBuilder<(ins "::mlir::Type":$result, "::mlir::Value":$x, "::mlir::Value":$weight)>];
  let hasVerifier = 1;
}

def Helix_BroadcastOp : Helix_Op<"broadcast", [Pure]> {
  let summary = "A small tensor repeated over leading dimensions";
  let description = [{
    The last dimensions of the result are those of `x`; every slice along the others is `x`. Elementwise ops of `arith`
    and `math` read it: a bias behind a reduction, a scale per channel.

    ```mlir
    %all = helix.broadcast %bias : tensor<64xf32> -> tensor<2x1x64xf32>
    %z = arith.addf %y, %all : tensor<2x1x64xf32>
    ```
  }];
  let arguments = (ins Helix_Activations:$x);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}

def Helix_RMSNormOp : Helix_Op<"rms_norm", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "x / sqrt(mean(x^2) + epsilon) * scale over the last dimension";
  let arguments = (ins Helix_Activations:$x, TensorRankOf<[F32], [1]>:$scale, F64Attr:$epsilon);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = "$x `,` $scale attr-dict `:` type($x) `,` type($scale)";
  let hasVerifier = 1;
}

def Helix_LayerNormOp : Helix_Op<"layer_norm", [Pure, AllTypesMatch<["x", "result"]>]> {
  let summary = "(x - mean(x)) / sqrt(variance(x) + epsilon) * scale + bias over the last dimension";
  let description = [{
    The variance is that of the row itself, mean((x - mean(x))²). Without `bias` nothing is added.

    ```mlir
    %y = helix.layer_norm %x, %scale, %bias {epsilon = 1.0e-5 : f64} : tensor<2x1x8xf32>, tensor<8xf32>, tensor<8xf32>
    ```
  }];
  let arguments = (ins Helix_Activations:$x, Helix_Vector:$scale, Optional<Helix_Vector>:$bias, F64Attr:$epsilon);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = [{
    $x `,` $scale (`,` $bias^)? attr-dict `:` type($x) `,` type($scale) (`,` type($bias)^)?
  }];
  let hasVerifier = 1;
}

def Helix_PositionEmbeddingOp : Helix_Op<"position_embedding", [Pure]> {
  let summary = "Rows of a table by position: learned positions";
  let description = [{
    `table` [positions, hidden]; row [b, t] of the result [batch, tokens, hidden] is row `past[b] + t` of the table.
    Positions are clamped to it (only unused tokens exceed it). Every rank holds the whole table.

    ```mlir
    %p = helix.position_embedding %table, %past : tensor<1024x8xf32>, tensor<2xi32> -> tensor<2x1x8xf32>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [2]>:$table, Helix_Lengths:$past);
  let results = (outs TensorRankOf<[F32], [3]>:$result);
  let assemblyFormat = "$table `,` $past attr-dict `:` type($table) `,` type($past) `->` type($result)";
  let hasVerifier = 1;
}

def Helix_RopeOp : Helix_Op<"rope", [Pure, AllTypesMatch<["x", "result"]>, AllTypesMatch<["cos", "sin"]>]> {
  let summary = "Rotary position embedding at global positions";
  let description = [{
    `x` [batch, tokens, heads, dim]; `cos`, `sin` [positions, r] with 2r ≤ dim; token t of sequence b is at position
    `past[b] + t`. The first 2r elements of a head are rotated: pairs (i, i + r), or (2i, 2i + 1) if `interleaved`:
    (a cos − b sin, b cos + a sin). The others pass. Positions are clamped to the table (only unused tokens exceed it).
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$x, TensorRankOf<[F32], [2]>:$cos, TensorRankOf<[F32], [2]>:$sin,
                       Helix_Lengths:$past, UnitAttr:$interleaved);
  let results = (outs TensorRankOf<[F32], [4]>:$result);
  let assemblyFormat = "$x `,` $cos `,` $sin `,` $past attr-dict `:` type($x) `,` type($cos) `,` type($past)";
  let builders = [OpBuilder<(ins "::mlir::Value":$x, "::mlir::Value":$cos, "::mlir::Value":$sin,
                                 "::mlir::Value":$past, "bool":$interleaved)>];
  let extraClassDeclaration = [{ static constexpr unsigned headDim = 2; }];
  let hasVerifier = 1;
}

def Helix_KVAppendOp : Helix_Op<"kv_append", [Pure, AllTypesMatch<["cache", "result"]>,
                                            AllTypesMatch<["past", "q_len"]>]> {
  let summary = "Append the new tokens' keys and values to a layer's cache, in place";
  let description = [{
    `key` [batch, tokens, heads, key_dim], `value` [batch, tokens, heads, value_dim]; token t < q_len[b] of slot b goes
    to position `past[b] + t`. At SPMD level only the owner of a position writes it. The operand must not be used after.

    ```mlir
    %c1 = helix.kv_append %k, %v, %past, %q_len into %c0
        : tensor<1x1x2x16xf32>, tensor<1x1x2x16xf32>, tensor<1xi32>, !kv
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$key, TensorRankOf<[F32], [4]>:$value, Helix_Lengths:$past,
                       Helix_Lengths:$q_len, Helix_KVType:$cache);
  let results = (outs Helix_KVType:$result);
  let assemblyFormat = [{
    $key `,` $value `,` $past `,` $q_len `into` $cache attr-dict
    `:` type($key) `,` type($value) `,` type($past) `,` type($cache)
  }];
  let hasVerifier = 1;
}

def Helix_AttentionOp : Helix_Op<"attention", [Pure, AttrSizedOperandSegments, AllTypesMatch<["past", "q_len"]>]> {
  let summary = "Causal attention of new tokens over a cache that already holds them";
  let description = [{
    `q` [batch, tokens, heads, key_dim]; query token t < q_len[b] at position p = past[b] + t sees the cached positions
    0 … p, or the last `window` of them (p − window < j ≤ p). Query head h reads KV head h / (heads / KV heads). Result
    [batch, tokens, heads, value_dim]; zero for t ≥ q_len[b]. The weight of position j, in this order:

    - s = scale · (q · k_j);
    - with `softcap` c, s becomes c tanh(s / c);
    - with `slopes` [heads], s becomes s + slopes[h] (j − p): ALiBi, arXiv 2108.12409, at global positions;
    - the softmax of s over the visible j; with `sinks` [heads], e^sinks[h] is added to its denominator: a score that
      takes weight and gives no value.

    ```mlir
    %y = helix.attention %q, %c, %past, %q_len sinks %s : tensor<4xf32>
        {scale = 0.25 : f64, softcap = 50.0 : f64, window = 128 : i64}
        : tensor<1x1x4x16xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x16xf32>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$q, Helix_KVType:$cache, Helix_Lengths:$past, Helix_Lengths:$q_len,
                       Optional<Helix_Vector>:$slopes, Optional<Helix_Vector>:$sinks, F64Attr:$scale,
                       OptionalAttr<F64Attr>:$softcap, OptionalAttr<Helix_Positive>:$window);
  let results = (outs TensorRankOf<[F32], [4]>:$result);
  let assemblyFormat = [{
    $q `,` $cache `,` $past `,` $q_len (`slopes` $slopes^ `:` type($slopes))? (`sinks` $sinks^ `:` type($sinks))?
    attr-dict `:` type($q) `,` type($cache) `,` type($past) `->` type($result)
  }];
  let builders = [OpBuilder<(ins "::mlir::Type":$result, "::mlir::Value":$q, "::mlir::Value":$cache,
                                 "::mlir::Value":$past, "::mlir::Value":$q_len, "::mlir::FloatAttr":$scale)>];
  let hasVerifier = 1;
}

def Helix_FFNOp : Helix_Op<"ffn", [Pure, AttrSizedOperandSegments]> {
  let summary = "Feed-forward network: (act(x gate) * (x up)) down, or act(x up) down without a gate";
  let description = [{
    `x` [..., H], `gate` and `up` [H, F], `down` [F, H]; a bias, where there is one, is added to its product. At SPMD
    level F is the rank's share over tpf and the result a partial sum, which takes no `down_bias`: it would be added once
    per rank.

    | activation | act(g) |
    |---|---|
    | silu | g / (1 + e^−g) |
    | gelu | g (1 + erf(g / √2)) / 2 |
    | gelu_tanh | g (1 + tanh(√(2/π) (g + 0.044715 g³))) / 2 |
    | relu | max(g, 0) |

    ```mlir
    %y = helix.ffn %x gate %g up %u down %d {activation = #helix.activation<silu>}
        : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<8x6xf32>, tensor<6x8xf32>) -> tensor<1x1x8xf32>
    %z = helix.ffn %x up %u down %d up_bias %ub down_bias %db {activation = #helix.activation<gelu>}
        : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<6x8xf32>, tensor<6xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
    ```
  }];
  let arguments = (ins Helix_Activations:$x, Optional<TensorRankOf<[F32, F16, BF16], [2]>>:$gate,
                       TensorRankOf<[F32, F16, BF16], [2]>:$up, TensorRankOf<[F32, F16, BF16], [2]>:$down,
                       Optional<Helix_Vector>:$gate_bias, Optional<Helix_Vector>:$up_bias,
                       Optional<Helix_Vector>:$down_bias, Helix_ActivationAttr:$activation);
  let results = (outs Helix_WholeOrSum:$result);
  let assemblyFormat = [{
    $x (`gate` $gate^)? `up` $up `down` $down (`gate_bias` $gate_bias^)? (`up_bias` $up_bias^)?
    (`down_bias` $down_bias^)? attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Helix_LastTokenOp : Helix_Op<"last_token", [Pure]> {
  let summary = "The last used token of every sequence";
  let description = [{
    `x` [batch, tokens, H] → [batch, 1, H], row q_len[b] − 1 of sequence b; zeros where q_len[b] is 0.
  }];
  let arguments = (ins TensorRankOf<[F32], [3]>:$x, Helix_Lengths:$q_len);
  let results = (outs TensorRankOf<[F32], [3]>:$result);
  let assemblyFormat = "$x `,` $q_len attr-dict `:` type($x) `,` type($q_len) `->` type($result)";
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// SPMD level
//===----------------------------------------------------------------------===//

def Helix_RegionOp : Helix_Op<"region", [SingleBlock, NoRegionArguments, RecursiveMemoryEffects]> {
  let summary = "A group of ops of one phase of a layer";
  let description = [{
    Not isolated, not nested; `helix-flatten` dissolves it into a `helix.phase` attribute. Results that nobody reads, or
    that were made outside, are dropped when it is canonicalised, and a region without ops goes away.

    ```mlir
    %y = helix.region kvp {
      ...
      helix.yield %merged : tensor<1x1x2x16xf32>
    } : tensor<1x1x2x16xf32>
    ```
  }];
  let arguments = (ins Helix_PhaseAttr:$phase);
  let results = (outs Variadic<AnyType>:$results);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let hasCanonicalizeMethod = 1;
  let hasVerifier = 1;
}

def Helix_YieldOp : Helix_Op<"yield", [Pure, Terminator, HasParent<"RegionOp">]> {
  let summary = "The results of a region";
  let arguments = (ins Variadic<AnyType>:$operands);
  let assemblyFormat = "($operands^ `:` type($operands))? attr-dict";
}

def Helix_PartialAttentionOp : Helix_Op<"partial_attention", [Pure, AllTypesMatch<["past", "q_len"]>]> {
  let summary = "Attention over this rank's share of the cache, with its log-sum-exp";
  let description = [{
    As `helix.attention` on the rank's heads and tokens, but for sinks, which enter once, in the merge; the causal bound,
    the window and the slopes count global positions. The result is an `lse` partial over kvp. It may have more heads
    than `q`: padding up to a multiple of kvp, o = 0 and lse = −inf, as for tokens t ≥ q_len[b] and for a rank that holds
    no visible token.

    `sequences` and `query_tokens`, each (first, count), pick a chunk of the batch and of the query tokens: the result
    has these alone, while `q`, `past`, `q_len` and the cache stay whole. Without them it has all.

    ```mlir
    %p = helix.partial_attention %q, %cache, %past, %q_len {scale = 0.25 : f64, sequences = array<i64: 2, 2>}
        : tensor<4x1x2x16xf32>, !kv, tensor<4xi32> -> !helix.partial<tensor<2x1x2x16xf32>, lse, [kvp]>
    ```
  }];
  let arguments = (ins TensorRankOf<[F32], [4]>:$q, Helix_KVType:$cache, Helix_Lengths:$past, Helix_Lengths:$q_len,
                       Optional<Helix_Vector>:$slopes, F64Attr:$scale, OptionalAttr<F64Attr>:$softcap,
                       OptionalAttr<Helix_Positive>:$window, OptionalAttr<DenseI64ArrayAttr>:$sequences,
                       OptionalAttr<DenseI64ArrayAttr>:$query_tokens);
  let results = (outs Helix_PartialType:$result);
  let assemblyFormat = [{
    $q `,` $cache `,` $past `,` $q_len (`slopes` $slopes^ `:` type($slopes))? attr-dict
    `:` type($q) `,` type($cache) `,` type($past) `->` type($result)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// First and number along dimension 0 (sequences) or 1 (query tokens) of `q` that the result has.
    std::pair<int64_t, int64_t> range(unsigned dim);
  }];
}

def Helix_AllToAllOp : Helix_Op<"all_to_all", [Pure]> {
  let summary = "Give every peer along kvp its heads' partial attention, o and lse in one message";
  let description = [{
    Peer j gets heads [j h, (j + 1) h), h = heads / kvp; the result stacks what all peers sent, in ascending coordinate.
  }];
  let arguments = (ins Helix_PartialType:$input);
  let results = (outs Helix_StackedType:$result);
  let assemblyFormat = "$input attr-dict `:` type($input) `->` type($result)";
  let hasVerifier = 1;
}

def Helix_MergeAttentionOp : Helix_Op<"merge_attention", [Pure, AttrSizedOperandSegments]> {
  let summary = "Exact attention from the partials of all peers";
  let description = [{
    o = Σ_j e^(lse_j − m) o_j / Σ_j e^(lse_j − m), m = max_j lse_j, peers in ascending order, peers with lse = −inf
    skipped; zero if all are. With `sinks` [heads] m is their maximum, too, and e^(sinks[h] − m) is added to the
    denominator, once. A NaN is passed on. [peer, batch, tokens, heads, value_dim + 1] → [batch, tokens, heads,
    value_dim]. Several inputs are chunks of the batch, or of the query tokens, in order.

    ```mlir
    %m = helix.merge_attention %s0, %s1
        : !helix.stacked<kvp, tensor<2x2x1x1x17xf32>>, !helix.stacked<kvp, tensor<2x2x1x1x17xf32>>
        -> tensor<4x1x1x16xf32>
    ```
  }];
  let arguments = (ins Variadic<Helix_StackedType>:$inputs, Optional<Helix_Vector>:$sinks);
  let results = (outs TensorRankOf<[F32], [4]>:$result);
  let assemblyFormat = [{
    $inputs (`sinks` $sinks^ `:` type($sinks))? attr-dict `:` type($inputs) `->` type($result)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The dimension of the result along which the inputs are chunks: 0 (the batch) or 1 (query tokens).
    unsigned chunkedDim();
  }];
}

def Helix_AllReduceOp : Helix_Op<"all_reduce", [Pure]> {
  let summary = "Make a partial sum whole on every rank, summed in ascending rank order";
  let arguments = (ins Helix_PartialType:$input);
  let results = (outs Helix_Activations:$result);
  let assemblyFormat = "$input attr-dict `:` type($input) `->` type($result)";
  let hasVerifier = 1;
}

include "dialects/Helix/HelixStatelessOps.td"

#endif // HELIX_OPS_TD
