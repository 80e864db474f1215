//===- HelixAttrs.td - Mesh, sharding, slices, entries ---------------------===//
#ifndef HELIX_ATTRS_TD
#define HELIX_ATTRS_TD

include "mlir/IR/AttrTypeBase.td"
include "dialects/Helix/HelixEnums.td"

class Helix_Attr<string name, string attrMnemonic> : AttrDef<Helix_Dialect, name> {
  let mnemonic = attrMnemonic;
}

def Helix_MeshAttr : Helix_Attr<"Mesh", "mesh"> {
  let summary = "The N ranks, factored for attention and for the FFN";
  let description = [{
    `rank = tpa_i * kvp + kvp_i = ep_i * tpf + tpf_i`, and `kvp * tpa = tpf * ep = N`.

    ```mlir
    module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>} {}
    ```
  }];
  let parameters = (ins "int64_t":$tpa, "int64_t":$kvp, "int64_t":$ep, "int64_t":$tpf);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Number of ranks.
    int64_t ranks() const { return getTpa() * getKvp(); }
    /// Number of ranks along `axis`.
    int64_t size(::helix::Axis axis) const;
    /// Coordinate of `rank` along `axis`.
    int64_t coordinate(::helix::Axis axis, int64_t rank) const;
  }];
}

def Helix_ShardingAttr : Helix_Attr<"Sharding", "sharding"> {
  let summary = "Per tensor dimension, the axes of one view that split it";
  let description = [{
    Written on the results of model-level ops by `helix-shard` (as `helix.sharding`) and read by `helix-partition`.
    An empty list is a replicated dimension.

    ```mlir
    #helix.sharding<attn, [[], [], ["tpa"], []]>
    ```
  }];
  let parameters = (ins "::helix::View":$view, "::mlir::ArrayAttr":$dims);
  let assemblyFormat = "`<` $view `,` $dims `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Whether no dimension is split.
    bool isReplicated() const;
    /// The axes that split dimension `dim`.
    ::llvm::SmallVector<::helix::Axis> axes(unsigned dim) const;
  }];
}

def Helix_SplitAttr : Helix_Attr<"Split", "split"> {
  let summary = "One step of slicing: the rank's coordinate along an axis picks a chunk";
  let description = [{
    The range `[lo, hi)` becomes `[lo + c * chunk, min(lo + (c + 1) * chunk, hi))`, empty if that starts at or past
    `hi`, with `c` the rank's coordinate along the axis, divided by `replicas`: so many neighbours along the axis hold
    the same chunk. Splits of one dimension apply in order.

    ```mlir
    #helix.split<tpa, 16>
    #helix.split<tpa, 16, replicas = 2>
    ```
  }];
  let parameters = (ins "::helix::Axis":$axis, "int64_t":$chunk, DefaultValuedParameter<"int64_t", "1">:$replicas);
  let assemblyFormat = "`<` $axis `,` $chunk (`,` `replicas` `=` $replicas^)? `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Number of different chunks that the ranks of `mesh` hold; 0 if `replicas` does not divide the axis.
    int64_t chunks(::helix::MeshAttr mesh) const;
    /// Which of them `rank` holds.
    int64_t index(::helix::MeshAttr mesh, int64_t rank) const;
  }];
}

def Helix_QuantAttr : Helix_Attr<"Quant", "quant"> {
  let summary = "The encoding of a weight whose elements are codes of a few bits, in blocks with a scale each";
  let description = [{
    An element is `(code - zero) * scale` with a code of `bits` bits, unsigned, and the scale and the zero point of the
    block that it is in: blocks are runs of `block` elements along dimension `axis` of the stored tensor, counted from
    its start, whatever part of it a value has. `scale` is the scales' element type. The zero point is `middle`,
    2^(bits - 1); `zero`; `packed`, a code per block; or `real`, a number of the scales' type per block.

    As encoding of a tensor type, the element type is that in which products with the weight are computed.

    With `activations = i8` products round what they multiply with the weight. The elements of a row that meet one block,
    or the part of it that a value has, are taken as code * s, s the largest of their magnitudes over 127 and the codes
    the integers next to x / s, halves to even, both in f32; where s is 0, the codes are 0. An infinity or a NaN makes the
    row NaN. Products of codes are summed as integers, so that blocks have at most 2^16 elements. Rows of the weight, as
    an embedding reads them, are not concerned.

    ```mlir
    tensor<64x128xf32, #helix.quant<bits = 4, block = 32, axis = 0, scale = f32, zero = packed>>
    tensor<64x128xf32, #helix.quant<bits = 4, block = 32, axis = 0, scale = f32, zero = middle, activations = i8>>
    ```
  }];
  let parameters = (ins "int64_t":$bits, "int64_t":$block, "int64_t":$axis, "::mlir::Type":$scale,
                        EnumParameter<Helix_ZeroPoint>:$zero, OptionalParameter<"::mlir::Type">:$activations);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// The longest block of which products of 8-bit codes are summed in 32 bits.
    static constexpr int64_t kLongestInt8Block = int64_t(1) << 16;

    /// Bytes of a block's scale and zero point.
    int64_t blockBytes() const;
  }];
}

def Helix_BytesAttr : Helix_Attr<"Bytes", "bytes"> {
  let summary = "Bytes of a file that hold elements of one type";
  let description = [{
    The scales or zero points of a quantised weight, row-major, a row per row of the weight's stored tensor; zero points
    of a few bits are packed, the first in the lowest bits, and a row of them ends with its last byte.

    ```mlir
    #helix.bytes<file = "model.onnx.data", offset = 4096, length = 1024, element = f32>
    ```
  }];
  let parameters = (ins "::mlir::StringAttr":$file, "int64_t":$offset, "int64_t":$length, "::mlir::Type":$element);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def Helix_KvScaleAttr : Helix_Attr<"KvScale", "kv_scale"> {
  let summary = "The scales of a KV cache that holds codes of 8 bits";
  let description = [{
    A number x is kept as the code of x / s, and read as code * s. `tensor`: one s, positive and finite, for all keys of
    the layer and one for all values. `token_head`: one s for the key, and one for the value, of each token and head,
    f32, chosen as they are appended: the largest |x| over the largest code; where that quotient is 0, the codes are 0,
    too. All in f32.

    Codes i8 are the nearest integers, halves to even, saturated to ±127; −128 stands for NaN. Codes f8E4M3FN are the
    nearest numbers of that format, halves to even, saturated to ±448; NaN stays NaN. With `token_head` an infinity or a
    NaN makes its whole head NaN.

    ```mlir
    #helix.kv_scale<token_head>
    #helix.kv_scale<tensor, key = 0.015625 : f64, value = 0.03125 : f64>
    ```
  }];
  let parameters = (ins EnumParameter<Helix_KvGranularity>:$granularity, OptionalParameter<"::mlir::FloatAttr">:$key,
                        OptionalParameter<"::mlir::FloatAttr">:$value);
  let assemblyFormat = "`<` $granularity (`,` `key` `=` $key^ `,` `value` `=` $value)? `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Whether each token and head has scales of its own.
    bool perToken() const { return getGranularity() == ::helix::KvGranularity::TokenHead; }
  }];
}

def Helix_EntryAttr : Helix_Attr<"Entry", "entry"> {
  let summary = "The signature of an entry: its kind, slots, query tokens per slot, and which logits it returns";
  let description = [{
    A stateless entry is a plain function of tensors, without slots, tokens and logits; a `#helix.io` on each argument
    and result names it.

    ```mlir
    #helix.entry<decode, batch = 1, tokens = 1, logits = last>
    #helix.entry<stateless>
    ```
  }];
  let parameters = (ins "::helix::EntryKind":$kind, "int64_t":$batch, "int64_t":$tokens,
                        "::helix::LogitRows":$logits);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    static EntryAttr getStateless(::mlir::MLIRContext *context);
    bool isStateless() const { return getKind() == ::helix::EntryKind::Stateless; }
  }];
}

def Helix_IOAttr : Helix_Attr<"IO", "io"> {
  let summary = "A tensor that a stateless entry takes or gives: its name, and its element type outside";
  let description = [{
    Written on arguments and results of the function (`helix.io`). Floats are f32 inside; where they are f16 or bf16
    outside, they are widened when they come in and rounded to nearest even when they go out.

    ```mlir
    #helix.io<"past_key", f16>
    ```
  }];
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::Type":$element);
  let assemblyFormat = "`<` $name `,` $element `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// The element type inside: f32 for every float.
    ::mlir::Type innerElement() const;
  }];
}

#endif // HELIX_ATTRS_TD
