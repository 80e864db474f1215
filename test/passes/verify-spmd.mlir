// RUN: helix-opt %s -split-input-file -verify-diagnostics -helix-verify-spmd

// expected-error @below {{HLX2005: the module needs helix.mesh and a function with helix.entry}}
module {}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
func.func @unread(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  %w = arith.constant dense<0.0> : tensor<8x8xf32>
  // expected-error @below {{must be completed by exactly one op, but has 0 uses}}
  %p = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> !helix.partial<tensor<1x1x8xf32>, sum, [n]>
  return %x : tensor<1x1x8xf32>
}
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
func.func @uncovered(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  // expected-error @below {{HLX2005: dimension 1: 2 chunks of 3 do not cover 8 elements}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>,
                         slice = [[], [#helix.split<n, 3>]]} : tensor<8x3xf32>
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  return %x : tensor<1x1x8xf32>
}
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 4, kvp = 1, ep = 1, tpf = 4>} {
func.func @copies_uncovered(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  // expected-error @below {{HLX2005: dimension 1: 2 chunks of 3 do not cover 8 elements}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>,
                         slice = [[], [#helix.split<tpa, 3, replicas = 2>]]} : tensor<8x3xf32>
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  return %x : tensor<1x1x8xf32>
}
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 4, kvp = 1, ep = 1, tpf = 4>} {
func.func @copies_uneven(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  // expected-error @below {{HLX2005: dimension 1: 3 copies do not divide the 4 ranks along tpa}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>,
                         slice = [[], [#helix.split<tpa, 8, replicas = 3>]]} : tensor<8x8xf32>
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  return %x : tensor<1x1x8xf32>
}
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
func.func @whole_cache(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv)
    -> (tensor<1x1x8xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = arith.constant dense<0.0> : tensor<1x1x8xf32>
  // expected-error @below {{is spread over 1 ranks, but the mesh has kvp = 2}}
  return %x, %c : tensor<1x1x8xf32>, !kv
}
}
