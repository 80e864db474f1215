// RUN: not helix-opt %S/schedule-streams.mlir -helix-schedule="comm-stream hardware=cray-1" 2>&1 | FileCheck %s --check-prefix=HARDWARE
// RUN: helix-opt %s -helix-schedule -split-input-file -verify-diagnostics

!kv = !helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [16] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last>
    (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %kv: !kv) {
  %x = plan.launch @k() : () -> tensor<1x1x1x4xf32>
  %kv1 = plan.kv_append %x, %x, %past, %q_len into %kv {batch = 1 : i64, tokens = 1 : i64}
      : tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>, tensor<1xi32>, tensor<1xi32>, !kv
  // expected-error @below {{HLX2055: takes a version of a cache that an append before it has changed; take the result of that append}}
  %p = plan.partial_attention %x, %kv, %past, %q_len {batch = 1 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 1 : i64, scale = 0.5 : f64}
      : (tensor<1x1x1x4xf32>, !kv, tensor<1xi32>, tensor<1xi32>) -> tensor<1x1x1x1x5xf32>
  plan.return %p : tensor<1x1x1x1x5xf32>
}

// -----

!kv = !helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [16] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last>
    (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %kv: !kv) {
  %x = plan.launch @k() : () -> tensor<1x1x1x4xf32>
  %kv1 = plan.kv_append %x, %x, %past, %q_len into %kv {batch = 1 : i64, tokens = 1 : i64}
      : tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>, tensor<1xi32>, tensor<1xi32>, !kv
  %kv2 = plan.kv_append %x, %x, %past, %q_len into %kv1 {batch = 1 : i64, tokens = 1 : i64}
      : tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>, tensor<1xi32>, tensor<1xi32>, !kv
  // expected-error @below {{HLX2055: takes a version of a cache that an append before it has changed; take the result of that append}}
  %kv3 = plan.kv_append %x, %x, %past, %q_len into %kv1 {batch = 1 : i64, tokens = 1 : i64}
      : tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>, tensor<1xi32>, tensor<1xi32>, !kv
  plan.return %x : tensor<1x1x1x4xf32>
}

// HARDWARE: HLX6001: there is no hardware 'cray-1'
