// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=1 tpa=3" 2>&1 | FileCheck %s --check-prefix=TPA
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="ranks=4 kvp=3" 2>&1 | FileCheck %s --check-prefix=DIVIDE
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="ranks=4 kvp=2 tpa=1" 2>&1 | FileCheck %s --check-prefix=PRODUCT
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpf=3" 2>&1 | FileCheck %s --check-prefix=FFN
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 ep=2" 2>&1 | FileCheck %s --check-prefix=EP
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=-1" 2>&1 | FileCheck %s --check-prefix=NEGATIVE
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=4096 tpa=2" 2>&1 | FileCheck %s --check-prefix=LARGE
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=2" -helix-spmd-phase -helix-shard 2>&1 | FileCheck %s --check-prefix=TWICE
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=1 tpa=4 kv-replicate" 2>&1 | FileCheck %s --check-prefix=GROUP
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=1 tpa=5 kv-replicate" 2>&1 | FileCheck %s --check-prefix=HEADS
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2 ffn-ranks=5" 2>&1 | FileCheck %s --check-prefix=SUBSET
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2 ffn-ranks=-1" 2>&1 | FileCheck %s --check-prefix=MINUS
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2 tpf=4 ffn-ranks=2" 2>&1 | FileCheck %s --check-prefix=BOTH
// RUN: helix-opt %s -split-input-file -verify-diagnostics -helix-shard

// TPA: error: HLX2002: tpa = 3, but the model has 2 KV heads; {{.*}}(--kv-replicate)
// GROUP: HLX2006: tpa = 4 does not give each of 2 KV heads to as many ranks, and each of those an equal part of its 3 query heads; what fits above tpa = 2 is 6{{$}}
// HEADS: HLX2006: tpa = 5 does not give
// SUBSET: error: HLX2007: the FFN cannot lie on 5 of 4 ranks; take from 1 to 4
// MINUS: error: HLX2007: the FFN cannot lie on -1 of 4 ranks
// BOTH: error: HLX2007: the FFN lies on the first 2 ranks, each with an equal part of its columns; leave ep and tpf out
// DIVIDE: error: HLX2001: kvp = 3 does not divide 4 ranks
// PRODUCT: error: HLX2001: kvp * tpa = 2 * 1 is not the 4 ranks asked for
// FFN: error: HLX2001: ep * tpf = 1 * 3 must be kvp * tpa = 2
// EP: error: HLX2001: ep = 2 splits experts, but the model has none
// NEGATIVE: error: HLX2001: a mesh has from 1 to 4096 ranks, but -1 along an axis were asked for
// LARGE: error: HLX2001: kvp * tpa = 4096 * 2 is more than the 4096 ranks that an artifact can be for
// TWICE: error: HLX2005:

// expected-error @below {{HLX2003: the module has no function with helix.entry}}
module {}

// -----

// expected-error @below {{HLX2003: no entry has a KV cache}}
module {
func.func @no_cache(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) -> tensor<1x1x8xf32>
    attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<1.0> : tensor<1x1x8xf32>
  return %x : tensor<1x1x8xf32>
}
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @query_used_twice(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<1.0> : tensor<1x1x8xf32>
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>} : tensor<8x8xf32>
  %y = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
  // expected-error @below {{HLX2003: cannot shard tensor.expand_shape: its result is split over heads for helix.attention but also used elsewhere}}
  %h = tensor.expand_shape %y [[0], [1], [2, 3]] output_shape [1, 1, 2, 4] : tensor<1x1x8xf32> into tensor<1x1x2x4xf32>
  %c1 = helix.kv_append %h, %h, %past, %q_len into %c : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
  %a = helix.attention %h, %c1, %past, %q_len {scale = 0.5 : f64} : tensor<1x1x2x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x2x4xf32>
  return %x, %c1 : tensor<1x1x8xf32>, !kv
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
// expected-error @below {{HLX2003: cannot shard func.func: the logits must come straight from one helix.linear}}
func.func @no_head(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<1.0> : tensor<1x1x8xf32>
  return %x, %c : tensor<1x1x8xf32>, !kv
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
// expected-error @below {{HLX2003: argument 1 of @signature must be 'tensor<1xi32>'}}
func.func @signature(%ids: tensor<1x1xi64>, %c: !kv) -> !kv
    attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  return %c : !kv
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @computed_table(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>} : tensor<8x8xf32>
  %n = arith.negf %w : tensor<8x8xf32>
  // expected-error @below {{HLX2003: cannot shard helix.embedding: its weights must be helix.weight, not computed}}
  %x = helix.embedding %ids, %n : (tensor<1x1xi64>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
  %y = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
  return %y, %c : tensor<1x1x8xf32>, !kv
}
