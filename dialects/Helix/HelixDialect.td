//===- HelixDialect.td - The helix dialect --------------------------------===//
#ifndef HELIX_DIALECT_TD
#define HELIX_DIALECT_TD

include "mlir/IR/OpBase.td"

def Helix_Dialect : Dialect {
  let name = "helix";
  let cppNamespace = "::helix";
  let summary = "A transformer decoder, whole (model level) or as one of N ranks (SPMD level)";
  let description = [{
    One dialect, two levels.

    At **model level** a function says what the network computes: `helix.linear`, `helix.rms_norm`, `helix.rope`,
    `helix.kv_append`, `helix.attention`, `helix.ffn`, and ordinary `arith`, `math` and `tensor` ops on tensors.
    Shapes are global.

    At **SPMD level** the same function says what one rank of a mesh computes: shapes are local, weights carry the
    slice that a rank holds, partial results have a type of their own (`!helix.partial`), and collectives make them
    whole. `helix-partition` leads from the first level to the second.

    Module attributes, set by `helix-shard`: `helix.mesh` (a `#helix.mesh`), and `helix.ffn_ranks` (an i64) where only
    the first ranks hold the FFN. Function attributes of an entry: `helix.entry` (a `#helix.entry`); of a stateless one's
    arguments and results: `helix.io` (a `#helix.io`). What both levels mean is decided by the reference interpreter.
  }];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::tensor::TensorDialect"];
  let extraClassDeclaration = [{
    void registerAttributes();
    void registerTypes();
  }];
}

#endif // HELIX_DIALECT_TD
