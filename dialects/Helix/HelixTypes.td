//===- HelixTypes.td - KV caches and partial values ------------------------===//
#ifndef HELIX_TYPES_TD
#define HELIX_TYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinTypes.td"
include "dialects/Helix/HelixEnums.td"

class Helix_Type<string name, string typeMnemonic> : TypeDef<Helix_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Helix_KVType : Helix_Type<"KV", "kv"> {
  let summary = "The key/value cache of one layer, an SSA value used linearly";
  let description = [{
    `slots` sequences of up to `capacity` tokens (global count) of `heads` heads; `key_dim` and `value_dim` elements of
    `element` type per head and token. Tokens are spread over `kvp` ranks in round-robin blocks of `block`:
    `owner(p) = p / block mod kvp`, `local(p) = p / (block * kvp) * block + p mod block`. Heads are global at model
    level, where `kvp` is 1, and local at SPMD level. `capacity` is a multiple of `block * kvp`.

    Elements are f32, f16, bf16, or, with a `scale`, codes of type i8 or f8E4M3FN; the `#helix.kv_scale` says what they
    mean.

    ```mlir
    !helix.kv<slots = 1, heads = 2, key_dim = 16, value_dim = 16, element = f32, block = 16, kvp = 2, capacity = 128>
    !helix.kv<slots = 1, heads = 2, key_dim = 16, value_dim = 16, element = i8, block = 16, kvp = 2, capacity = 128,
              scale = #helix.kv_scale<token_head>>
    ```
  }];
  let parameters = (ins "int64_t":$slots, "int64_t":$heads, "int64_t":$key_dim, "int64_t":$value_dim,
                        "::mlir::Type":$element, "int64_t":$block, "int64_t":$kvp, "int64_t":$capacity,
                        OptionalParameter<"::helix::KvScaleAttr">:$scale);
  let assemblyFormat = "`<` struct(params) `>`";
  let builders = [
    // Of numbers that are kept as they are.
    TypeBuilder<(ins "int64_t":$slots, "int64_t":$heads, "int64_t":$key_dim, "int64_t":$value_dim,
                     "::mlir::Type":$element, "int64_t":$block, "int64_t":$kvp, "int64_t":$capacity), [{
      return $_get($_ctxt, slots, heads, key_dim, value_dim, element, block, kvp, capacity, ::helix::KvScaleAttr());
    }]>
  ];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Bytes of one token of one head: its key and value, and their scales if they have some of their own.
    int64_t tokenBytes() const;
    /// Tokens that each rank holds per slot at most.
    int64_t localCapacity() const { return getCapacity() / getKvp(); }
  }];
}

def Helix_PartialType : Helix_Type<"Partial", "partial"> {
  let summary = "A value of which every rank along some axes holds a part";
  let description = [{
    `sum` over the axes: the whole is the sum of the parts. `lse` over kvp: each part is the attention output over the
    rank's own tokens, [batch, tokens, heads, value_dim], together with the natural-log log-sum-exp of its scores,
    [batch, tokens, heads] (one value, two parts). Ordinary ops do not take this type, so a part cannot be read as the
    whole: `helix.all_reduce` makes a sum whole, `helix.all_to_all` and `helix.merge_attention` an lse.

    ```mlir
    !helix.partial<tensor<1x1x64xf32>, sum, [n]>
    !helix.partial<tensor<1x1x4x16xf32>, lse, [kvp]>
    ```
  }];
  let parameters = (ins "::mlir::RankedTensorType":$value, "::helix::Reduction":$reduction,
                        ArrayRefParameter<"::helix::Axis", "axes">:$axes);
  let assemblyFormat = "`<` $value `,` $reduction `,` `[` $axes `]` `>`";
  let genVerifyDecl = 1;
}

def Helix_StackedType : Helix_Type<"Stacked", "stacked"> {
  let summary = "The partial attention outputs of all peers for this rank's heads, after the all-to-all";
  let description = [{
    Layout [peer, batch, tokens, heads, value_dim + 1] in f32, peers in ascending coordinate along `axis`; the last
    element of a row is the natural-log LSE. Only `helix.merge_attention` takes it.

    ```mlir
    !helix.stacked<kvp, tensor<2x1x1x2x17xf32>>
    ```
  }];
  let parameters = (ins "::helix::Axis":$axis, "::mlir::RankedTensorType":$value);
  let assemblyFormat = "`<` $axis `,` $value `>`";
  let genVerifyDecl = 1;
}

#endif // HELIX_TYPES_TD
