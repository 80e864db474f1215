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

def Helix_EntryAttr : Helix_Attr<"Entry", "entry"> {
  let summary = "The signature of an entry: its kind, slots, query tokens per slot, and which logits it returns";
  let parameters = (ins "::helix::EntryKind":$kind, "int64_t":$batch, "int64_t":$tokens,
                        "::helix::LogitRows":$logits);
  let assemblyFormat = "`<` $kind `,` `batch` `=` $batch `,` `tokens` `=` $tokens `,` `logits` `=` $logits `>`";
  let genVerifyDecl = 1;
}

#endif // HELIX_ATTRS_TD
