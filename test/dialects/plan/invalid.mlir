// RUN: helix-opt %s -split-input-file -verify-diagnostics

// expected-error @below {{is 'tensor<8xf32>', but a linear has two dimensions}}
plan.weight @w <linear> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>}

// -----

// expected-error @below {{is 'tensor<8xbf16>', but generated kernels read f32}}
plan.weight @w <vector> tensor<8xbf16> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>}

// -----

// expected-error @below {{needs static types of one or two dimensions}}
plan.weight @w <vector> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8x1xf32>}

// -----

// expected-error @below {{needs a window and a slice with one element per dimension}}
plan.weight @w <vector> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>, window_size = array<i64: 8>}

// -----

// expected-error @below {{slice must hold lists of #helix.split}}
plan.weight @w <vector> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>, slice = [7]}

// -----

// expected-error @below {{is in @image, which is no plan.image}}
plan.kernel @k in @image groups 1 buffers [4] {bytes = 1.0 : f64, flops = 1.0 : f64}

// -----

// expected-error @below {{attribute 'groups' failed to satisfy constraint}}
"plan.kernel"() {sym_name = "k", image = @image, groups = 0 : i64, buffers = array<i64>, bytes = 1.0 : f64, flops = 1.0 : f64} : () -> ()

// -----

// expected-error @below {{argument 1 must be 'tensor<2xi32>'}}
plan.entry @decode <decode, batch = 2, tokens = 1, logits = last> (%ids: tensor<2x1xi64>, %past: tensor<1xi32>, %q_len: tensor<2xi32>) {
  %x = plan.launch @k() : () -> tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

// expected-error @below {{argument 3 must be a cache}}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %x: tensor<1xf32>) {
  plan.return %x : tensor<1xf32>
}

// -----

plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{is not a command}}
  %x = arith.constant dense<0.0> : tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{@w is no plan.weight}}
  %x = plan.get_weight @w : tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

plan.weight @w <vector> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{@w is 'tensor<8xf32>', not 'tensor<4xf32>'}}
  %x = plan.get_weight @w : tensor<4xf32>
  plan.return %x : tensor<4xf32>
}

// -----

plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{@k is no plan.kernel}}
  %x = plan.launch @k() : () -> tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [8, 4] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{passes buffers of 4, 4 bytes, but @k takes 8, 4}}
  %x = plan.launch @k(%past) : (tensor<1xi32>) -> tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [4] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{has 2 places for 1 results}}
  %x = plan.launch @k() {places = [#plan.place<device, 0>, #plan.place<device, 64>]} : () -> tensor<1xf32>
  plan.return %x : tensor<1xf32>
}

// -----

plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [32] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.weight @w <linear> tensor<8x4xf32> {name = "w", file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  %x = plan.launch @k() : () -> tensor<1x1x8xf32>
  %w = plan.get_weight @w : tensor<8x4xf32>
  // expected-error @below {{x must have 1 * 4 elements, but is 'tensor<1x1x8xf32>'}}
  %y = plan.linear %x, %w {rows = 1 : i64, k = 4 : i64, n = 8 : i64} : (tensor<1x1x8xf32>, tensor<8x4xf32>) -> tensor<1x8xf32>
  plan.return %y : tensor<1x8xf32>
}

// -----

// Sizes whose product overflows are refused, not wrapped.
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [4] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  %x = plan.launch @k() : () -> tensor<1xf32>
  // expected-error @below {{stacked must have 4294967296 * 4294967296 * 1 * 1 * 2 elements}}
  %y = plan.merge_attention %x {peers = 4294967296 : i64, batch = 4294967296 : i64, tokens = 1 : i64, heads = 1 : i64, value_dim = 1 : i64} : (tensor<1xf32>) -> tensor<1xf32>
  plan.return %y : tensor<1xf32>
}

// -----

plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{values have static shapes of at most 2^46 bytes}}
  %x = plan.launch @k() : () -> tensor<4294967296x4294967296x1xf32>
  plan.return %x : tensor<4294967296x4294967296x1xf32>
}

// -----

!kv = !helix.kv<slots = 2, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [96] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 2, tokens = 1, logits = last> (%ids: tensor<2x1xi64>, %past: tensor<2xi32>, %q_len: tensor<2xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<2x1x3x4xf32>
  // expected-error @below {{3 heads, padded to 4, must be whole groups over 2 KV heads, and padded to a multiple of kvp = 2}}
  %p = plan.partial_attention %q, %kv, %past, %q_len {batch = 2 : i64, tokens = 1 : i64, heads = 3 : i64, padded_heads = 4 : i64, scale = 0.5 : f64}
      : (tensor<2x1x3x4xf32>, !kv, tensor<2xi32>, tensor<2xi32>) -> tensor<2x2x1x2x5xf32>
  plan.return %p : tensor<2x2x1x2x5xf32>
}

// -----

!kv = !helix.kv<slots = 2, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [32] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 2, tokens = 1, logits = last> (%ids: tensor<2x1xi64>, %past: tensor<2xi32>, %q_len: tensor<2xi32>, %kv: !kv) {
  %k = plan.launch @k() : () -> tensor<2x1x1x4xf32>
  // expected-error @below {{works on 1 sequences, but}}
  %kv1 = plan.kv_append %k, %k, %past, %q_len into %kv {batch = 1 : i64, tokens = 1 : i64}
      : tensor<2x1x1x4xf32>, tensor<2x1x1x4xf32>, tensor<2xi32>, tensor<2xi32>, !kv
  plan.return %k : tensor<2x1x1x4xf32>
}

// -----

plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [12] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  %x = plan.launch @k() : () -> tensor<3xf32>
  // expected-error @below {{does not split over 2 peers}}
  %y = plan.all_to_all %x over <kvp> {peers = 2 : i64} : (tensor<3xf32>) -> tensor<3xf32>
  plan.return %y : tensor<3xf32>
}

// -----

plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [12] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  %x = plan.launch @k() : () -> tensor<3xf32>
  // expected-error @below {{result must have 3 elements}}
  %y = plan.all_reduce %x over <n> {peers = 2 : i64} : (tensor<3xf32>) -> tensor<4xf32>
  plan.return %y : tensor<4xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{sequences from 3 on, 2 of them, must lie within 4}}
  %p = plan.partial_attention %q, %kv, %past, %q_len {batch = 4 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64, sequences = array<i64: 3, 2>}
      : (tensor<4x1x1x4xf32>, !kv, tensor<4xi32>, tensor<4xi32>) -> tensor<2x2x1x1x5xf32>
  plan.return %p : tensor<2x2x1x1x5xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{sequences and query_tokens must be (first, count)}}
  %p = plan.partial_attention %q, %kv, %past, %q_len {batch = 4 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64, sequences = array<i64: 3>}
      : (tensor<4x1x1x4xf32>, !kv, tensor<4xi32>, tensor<4xi32>) -> tensor<2x2x1x1x5xf32>
  plan.return %p : tensor<2x2x1x1x5xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{result must have 2 * 1 * 2 * 5 elements}}
  %p = plan.partial_attention %q, %kv, %past, %q_len {batch = 4 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64, sequences = array<i64: 2, 2>}
      : (tensor<4x1x1x4xf32>, !kv, tensor<4xi32>, tensor<4xi32>) -> tensor<2x4x1x1x5xf32>
  plan.return %p : tensor<2x4x1x1x5xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{has 2 operands of sizes 1, 2, which must make up 4}}
  %p = plan.merge_attention %q, %q {peers = 2 : i64, batch = 4 : i64, tokens = 1 : i64, heads = 1 : i64, value_dim = 1 : i64, batch_chunks = array<i64: 1, 2>}
      : (tensor<4x1x1x4xf32>, tensor<4x1x1x4xf32>) -> tensor<4x1x1x1xf32>
  plan.return %p : tensor<4x1x1x1xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{has chunks of the batch or of the query tokens, not of both}}
  %p = plan.merge_attention %q {peers = 2 : i64, batch = 4 : i64, tokens = 1 : i64, heads = 1 : i64, value_dim = 1 : i64, batch_chunks = array<i64: 4>, token_chunks = array<i64: 1>}
      : (tensor<4x1x1x4xf32>) -> tensor<4x1x1x1xf32>
  plan.return %p : tensor<4x1x1x1xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{part must have 4 * 3 elements}}
  %p = plan.concat %q, %q {rows = 4 : i64, widths = array<i64: 3, 5>} : (tensor<4x1x1x4xf32>, tensor<4x1x1x4xf32>) -> tensor<4x8xf32>
  plan.return %p : tensor<4x8xf32>
}

// -----

!kv = !helix.kv<slots = 4, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
plan.entry @decode <decode, batch = 4, tokens = 1, logits = last> (%ids: tensor<4x1xi64>, %past: tensor<4xi32>, %q_len: tensor<4xi32>, %kv: !kv) {
  %q = plan.launch @k() : () -> tensor<4x1x1x4xf32>
  // expected-error @below {{has 1 operands of sizes 4, 4, which must make up 8}}
  %p = plan.concat %q {rows = 4 : i64, widths = array<i64: 4, 4>} : (tensor<4x1x1x4xf32>) -> tensor<4x8xf32>
  plan.return %p : tensor<4x8xf32>
}

// -----

plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
  // expected-error @below {{has no results that could have places}}
  plan.record {event = 0 : i64, places = [#plan.place<device, 0>]}
  %x = plan.launch @k() : () -> tensor<1xf32>
  plan.return %x : tensor<1xf32>
}
