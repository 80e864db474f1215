// RUN: helix-opt %s -split-input-file -verify-diagnostics

// expected-error @below {{is stateless: it needs an #helix.io for each of its tensors}}
plan.entry @f <stateless> (%x: tensor<2x3xf32>) {
  %y = plan.transpose %x {shape = array<i64: 2, 3>, permutation = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  plan.return %y : tensor<3x2xf32>
}

// -----

// expected-error @below {{must return its logits, and has no other inputs and outputs}}
plan.entry @f <decode, batch = 1, tokens = 1, logits = last> attributes {inputs = []}
    (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  %y = plan.launch @k() : () -> tensor<1xf32>
  plan.return %y : tensor<1xf32>
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // expected-error @below {{needs a permutation of 1 to 8 dimensions}}
  %y = plan.transpose %x {shape = array<i64: 2, 3>, permutation = array<i64: 1, 1>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // expected-error @below {{writes 3 tokens into 2}}
  %y = plan.scatter %x into %x {batch = 1 : i64, outer = 1 : i64, tokens = 3 : i64, capacity = 2 : i64, inner = 3 : i64}
      : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  return
}

// -----

func.func @f(%x: tensor<1x1x2x4xf32>, %c: tensor<3x2xf32>) {
  // expected-error @below {{has a row for every token where there are no positions}}
  %y = plan.rotate %x, %c, %c
      {batch = 1 : i64, heads = 1 : i64, tokens = 2 : i64, dim = 4 : i64, half = 2 : i64, rows = 3 : i64}
      : (tensor<1x1x2x4xf32>, tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<1x1x2x4xf32>
  return
}

// -----

func.func @f(%x: tensor<1x1x2x4xf32>, %m: tensor<2x2xi1>) {
  // expected-error @below {{mask_shape [1, 1, 2, 3] does not repeat to [1, 1, 2, up to 2]}}
  %y = plan.dense_attention %x, %x mask %m
      {batch = 1 : i64, heads = 1 : i64, kv_heads = 1 : i64, tokens = 2 : i64, keys = 2 : i64, key_dim = 4 : i64,
       value_dim = 0 : i64, mask_shape = array<i64: 1, 1, 2, 3>, scale = 1.0 : f64, stage = #helix.stage<scaled>}
      : (tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<2x2xi1>) -> tensor<1x1x2x2xf32>
  return
}
