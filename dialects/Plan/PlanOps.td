//===- PlanOps.td - Ops of the plan dialect --------------------------------===//
#ifndef PLAN_OPS_TD
#define PLAN_OPS_TD

include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "dialects/Helix/HelixTypes.td"
include "dialects/Plan/PlanAttrs.td"
include "dialects/Plan/PlanInterfaces.td"

class Plan_Op<string mnemonic, list<Trait> traits = []> : Op<Plan_Dialect, mnemonic, traits>;

def Plan_Floats : RankedTensorOf<[F32]>;
def Plan_WeightTensor : RankedTensorOf<[F32, F16, BF16]>;
def Plan_StoredTensor : RankedTensorOf<[F32, F16, BF16, UI<2>, UI<4>, UI<8>, SI<2>, SI<4>, SI<8>]>;
def Plan_Ids : RankedTensorOf<[I64]>;
def Plan_Lengths : RankedTensorOf<[I32]>;
def Plan_Size : ConfinedAttr<I64Attr, [IntPositive]>;
def Plan_NonNegative : ConfinedAttr<I64Attr, [IntNonNegative]>;

//===----------------------------------------------------------------------===//
// The module's tables
//===----------------------------------------------------------------------===//

def Plan_WeightOp : Plan_Op<"weight", [Symbol]> {
  let summary = "A weight that entries share, by reference, with the slice that a rank holds";
  let description = [{
    As `helix.weight`, plus how the commands that read it use it.

    ```mlir
    plan.weight @q_proj <linear> tensor<64x16xf32>
        {name = "q_proj", file = "model.onnx.data", offset = 0 : i64, length = 32768 : i64, stored = tensor<64x128xf32>,
         slice = [[], [#helix.split<tpa, 16>]]}
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Plan_WeightUseAttr:$use, TypeAttrOf<Plan_WeightTensor>:$type,
                       StrAttr:$name, StrAttr:$file, Plan_NonNegative:$offset, Plan_NonNegative:$length,
                       TypeAttrOf<Plan_StoredTensor>:$stored, OptionalAttr<DenseI64ArrayAttr>:$window_offset,
                       OptionalAttr<DenseI64ArrayAttr>:$window_size, OptionalAttr<ArrayAttr>:$slice,
                       UnitAttr:$transposed, OptionalAttr<DenseI64ArrayAttr>:$pieces,
                       OptionalAttr<Helix_BytesAttr>:$scales, OptionalAttr<Helix_BytesAttr>:$zero_points);
  let extraClassDeclaration = [{
    /// What its codes mean; null if they are numbers.
    ::helix::QuantAttr quant() {
      return ::llvm::dyn_cast_or_null<::helix::QuantAttr>(
          ::llvm::cast<::mlir::RankedTensorType>(getType()).getEncoding());
    }
  }];
  let assemblyFormat = "$sym_name $use $type attr-dict";
  let hasVerifier = 1;
}

def Plan_ImageOp : Plan_Op<"image", [Symbol]> {
  let summary = "Native code: a shared object without undefined symbols";
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$triple, StrAttr:$features, SignlessIntElementsAttr<8>:$code);
  let assemblyFormat = "$sym_name `triple` $triple `features` $features attr-dict";
}

def Plan_KernelOp : Plan_Op<"kernel", [Symbol, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "A function of an image, called once for each of its groups";
  let description = [{
    `void kernel(void *const *buffers, const int64_t *scalars, int64_t group)` for group in [0, groups), in any order.
    `buffers` are the bytes of each operand, then of each result; `bytes` and `flops` what all groups together move and
    compute.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, FlatSymbolRefAttr:$image, Plan_Size:$groups,
                       DenseI64ArrayAttr:$buffers, F64Attr:$bytes, F64Attr:$flops);
  let assemblyFormat = "$sym_name `in` $image `groups` $groups `buffers` $buffers attr-dict";
}

//===----------------------------------------------------------------------===//
// Entries
//===----------------------------------------------------------------------===//

def Plan_EntryOp : Plan_Op<"entry", [Symbol, IsolatedFromAbove, SingleBlock]> {
  let summary = "A straight line of commands, the same on every rank";
  let description = [{
    Arguments are the token ids, past, q_len and one cache per layer. `device_bytes` and `comm_bytes` are the sizes of
    the arenas, set by `helix-place`. A stateless entry takes and gives the tensors that `inputs` and `outputs`, lists
    of `#helix.io`, name.

    ```mlir
    plan.entry @decode #helix.entry<decode, batch = 1, tokens = 1, logits = last>
        (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %kv: !kv) {
      ...
      plan.return %logits : tensor<1x1x32xf32>
    }
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Helix_EntryAttr:$signature,
                       OptionalAttr<Plan_NonNegative>:$device_bytes, OptionalAttr<Plan_NonNegative>:$comm_bytes,
                       OptionalAttr<TypedArrayAttrBase<Helix_IOAttr, "inputs">>:$inputs,
                       OptionalAttr<TypedArrayAttrBase<Helix_IOAttr, "outputs">>:$outputs);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name $signature attr-dict-with-keyword custom<EntryBody>($body)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The values that it returns: the logits, or the outputs of a stateless entry.
    ::mlir::OperandRange getReturned() { return getBody().front().getTerminator()->getOperands(); }
  }];
}

def Plan_ReturnOp : Plan_Op<"return", [Pure, Terminator, HasParent<"EntryOp">]> {
  let summary = "The end of an entry: the value that holds its logits, or the outputs of a stateless one";
  let arguments = (ins Variadic<Plan_Floats>:$values);
  let assemblyFormat = "$values attr-dict `:` type($values)";
}

def Plan_GetWeightOp : Plan_Op<"get_weight", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "A weight as a value";
  let arguments = (ins FlatSymbolRefAttr:$weight);
  let results = (outs Plan_WeightTensor:$result);
  let assemblyFormat = "$weight attr-dict `:` type($result)";
}

//===----------------------------------------------------------------------===//
// Commands
//===----------------------------------------------------------------------===//

class Plan_Command<string mnemonic, list<Trait> traits = [], list<string> methods = []>
    : Plan_Op<mnemonic, traits # [DeclareOpInterfaceMethods<Plan_CommandOpInterface, methods>,
                                  DeclareOpInterfaceMethods<Plan_CostOpInterface>]> {
  dag common = (ins OptionalAttr<Plan_NonNegative>:$stream, OptionalAttr<TypedArrayAttrBase<Plan_PlaceAttr,
                    "places">>:$places, OptionalAttr<Helix_PhaseAttr>:$phase);
  let hasVerifier = 1;
}

def Plan_EmbeddingOp : Plan_Command<"embedding"> {
  let summary = "ids, table → y [rows, hidden]; zeros for ids that the rank's table does not hold";
  let description = [{
    The table is [vocabulary, hidden], or, if it is `tied` to a product, that product's matrix [hidden, vocabulary].
  }];
  let arguments = !con((ins Plan_Ids:$ids, Plan_WeightTensor:$table, Plan_Size:$rows, Plan_Size:$vocabulary,
                            Plan_Size:$hidden, UnitAttr:$tied), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$ids `,` $table attr-dict `:` functional-type(operands, results)";
}

def Plan_LinearOp : Plan_Command<"linear"> {
  let summary = "x [rows, k], weight [k, n] → y [rows, n]";
  let arguments = !con((ins Plan_Floats:$x, Plan_WeightTensor:$weight, Plan_Size:$rows, Plan_Size:$k, Plan_Size:$n),
                       common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$x `,` $weight attr-dict `:` functional-type(operands, results)";
}

def Plan_KVAppendOp : Plan_Command<"kv_append", [AllTypesMatch<["cache", "result"]>]> {
  let summary = "Write the rank's share of the new tokens' keys and values into the cache";
  let description = [{ The result is the same cache after the write; no older version is read later. }];
  let arguments = !con((ins Plan_Floats:$key, Plan_Floats:$value, Plan_Lengths:$past, Plan_Lengths:$q_len,
                            Helix_KVType:$cache, Plan_Size:$batch, Plan_Size:$tokens), common);
  let results = (outs Helix_KVType:$result);
  let assemblyFormat = [{
    $key `,` $value `,` $past `,` $q_len `into` $cache attr-dict
    `:` type($key) `,` type($value) `,` type($past) `,` type($q_len) `,` type($cache)
  }];
}

def Plan_PartialAttentionOp : Plan_Command<"partial_attention"> {
  let summary = "Attention over the cached tokens → send [kvp, batch, tokens, padded_heads / kvp, value_dim + 1]";
  let description = [{
    `sequences` and `query_tokens`, each (first, count), pick a chunk of the batch and of the query tokens, which is all
    that the result has; q [batch, tokens, heads, key_dim], the lengths and the cache are whole. `softcap`, `window` and
    `slopes` [heads] are those of `helix.attention`.
  }];
  let arguments = !con((ins Plan_Floats:$q, Helix_KVType:$cache, Plan_Lengths:$past, Plan_Lengths:$q_len,
                            Optional<Plan_Floats>:$slopes, Plan_Size:$batch, Plan_Size:$tokens, Plan_Size:$heads,
                            Plan_Size:$padded_heads,
                            F64Attr:$scale, OptionalAttr<F64Attr>:$softcap, OptionalAttr<Plan_Size>:$window,
                            OptionalAttr<DenseI64ArrayAttr>:$sequences,
                            OptionalAttr<DenseI64ArrayAttr>:$query_tokens), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = [{
    $q `,` $cache `,` $past `,` $q_len (`slopes` $slopes^)? attr-dict `:` functional-type(operands, results)
  }];
  let extraClassDeclaration = [{
    /// First and number of the sequences of its result.
    std::pair<int64_t, int64_t> sequenceRange();
    /// First and number of the query tokens of its result.
    std::pair<int64_t, int64_t> tokenRange();
  }];
}

def Plan_MergeAttentionOp : Plan_Command<"merge_attention", [AttrSizedOperandSegments]> {
  let summary = "stacked [peers, batch, tokens, heads, value_dim + 1] → y [batch, tokens, heads, value_dim]";
  let description = [{
    With `batch_chunks` or `token_chunks` every operand is a chunk of the batch or of the query tokens, of these sizes.
    `sinks` [heads] count once.
  }];
  let arguments = !con((ins Variadic<Plan_Floats>:$stacked, Optional<Plan_Floats>:$sinks, Plan_Size:$peers,
                            Plan_Size:$batch, Plan_Size:$tokens,
                            Plan_Size:$heads, Plan_Size:$value_dim, OptionalAttr<DenseI64ArrayAttr>:$batch_chunks,
                            OptionalAttr<DenseI64ArrayAttr>:$token_chunks), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$stacked (`sinks` $sinks^)? attr-dict `:` functional-type(operands, results)";
}

def Plan_ConcatOp : Plan_Command<"concat"> {
  let summary = "Columns [rows, widths[i]] side by side → y [rows, sum of widths]";
  let arguments = !con((ins Variadic<Plan_Floats>:$parts, Plan_Size:$rows, DenseI64ArrayAttr:$widths), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$parts attr-dict `:` functional-type(operands, results)";
}

def Plan_LastTokenOp : Plan_Command<"last_token"> {
  let summary = "x [batch, tokens, hidden], q_len → y [batch, 1, hidden], the last used token of each sequence";
  let arguments = !con((ins Plan_Floats:$x, Plan_Lengths:$q_len, Plan_Size:$batch, Plan_Size:$tokens,
                            Plan_Size:$hidden), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$x `,` $q_len attr-dict `:` functional-type(operands, results)";
}

def Plan_LaunchOp : Plan_Command<"launch", [DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "A generated kernel on operands, then results, as it takes them";
  let arguments = !con((ins FlatSymbolRefAttr:$kernel, Variadic<AnyRankedTensor>:$operands), common);
  let results = (outs Variadic<Plan_Floats>:$results);
  let assemblyFormat = "$kernel `(` $operands `)` attr-dict `:` functional-type(operands, results)";
}

def Plan_AllToAllOp : Plan_Command<"all_to_all", [], ["getExchangeAxis"]> {
  let summary = "send [peers, chunk] → receive [peers, chunk], peers along the axis in ascending coordinate";
  let arguments = !con((ins Plan_Floats:$send, Plan_AxisAttr:$axis, Plan_Size:$peers), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$send `over` $axis attr-dict `:` functional-type(operands, results)";
  let extraClassDeclaration = [{
    /// Bytes that go to each peer.
    int64_t chunkBytes();
  }];
}

def Plan_AllReduceOp : Plan_Command<"all_reduce", [], ["getExchangeAxis"]> {
  let summary = "partial → whole, summed in ascending rank along the axis";
  let arguments = !con((ins Plan_Floats:$partial, Plan_AxisAttr:$axis, Plan_Size:$peers), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$partial `over` $axis attr-dict `:` functional-type(operands, results)";
}

//===----------------------------------------------------------------------===//
// Order between streams
//===----------------------------------------------------------------------===//

def Plan_RecordOp : Plan_Command<"record"> {
  let summary = "Mark an event: all commands before this one on its stream are done";
  let description = [{
    An event is recorded once in an entry. `helix-schedule` makes these two where a command needs what another stream
    computes.

    ```mlir
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    ```
  }];
  let arguments = !con((ins Plan_NonNegative:$event), common);
  let assemblyFormat = "attr-dict";
}

def Plan_WaitOp : Plan_Command<"wait"> {
  let summary = "Hold back the commands behind this one on its stream until an event was recorded";
  let arguments = !con((ins Plan_NonNegative:$event), common);
  let assemblyFormat = "attr-dict";
}

include "dialects/Plan/PlanStatelessOps.td"

#endif // PLAN_OPS_TD
