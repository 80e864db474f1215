// RUN: helix-opt %S/Inputs/layer.mlir -helix-verify-model -o /dev/null
// RUN: helix-opt %s -split-input-file -verify-diagnostics -helix-verify-model

// expected-error @below {{HLX2003: the module has no function with helix.entry}}
module {}

// -----

// expected-error @below {{HLX2003: argument 1 of @signature must be 'tensor<1xi32>'}}
func.func @signature(%ids: tensor<1x1xi64>, %past: tensor<2xi32>) -> tensor<1x1x8xf32>
    attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %0 = arith.constant dense<0.0> : tensor<1x1x8xf32>
  return %0 : tensor<1x1x8xf32>
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @stale(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %k = arith.constant dense<0.0> : tensor<1x1x2x4xf32>
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  %c1 = helix.kv_append %k, %k, %past, %q_len into %c : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
  // expected-error @below {{HLX2004: reads a cache after it was appended to}}
  %a = helix.attention %k, %c, %past, %q_len {scale = 0.5 : f64} : tensor<1x1x2x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x2x4xf32>
  return %x, %c1 : tensor<1x1x8xf32>, !kv
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @forked(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %k = arith.constant dense<0.0> : tensor<1x1x2x4xf32>
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  // expected-error @below {{HLX2004: appends to or returns a cache that}}
  %c1 = helix.kv_append %k, %k, %past, %q_len into %c : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
  %c2 = helix.kv_append %k, %k, %past, %q_len into %c : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
  return %x, %c2 : tensor<1x1x8xf32>, !kv
}

// -----

func.func @spmd_op(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  // expected-error @below {{HLX2005: helix.region belongs to the SPMD level}}
  %y = helix.region tp {
    %z = arith.addf %x, %x : tensor<1x1x8xf32>
    helix.yield %z : tensor<1x1x8xf32>
  } : tensor<1x1x8xf32>
  return %y : tensor<1x1x8xf32>
}
