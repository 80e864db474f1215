// Every op prints as it parses.
// RUN: helix-opt %s | helix-opt | FileCheck %s

!kv = !helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 2, element = bf16, block = 4, kvp = 2, capacity = 16>

module {
  // CHECK: plan.weight @table <table> tensor<6x8xbf16> {file = "w", length = 352 : i64, name = "embed", offset = 64 : i64, slice = {{\[\[}}#helix.split<n, 6>], []], stored = tensor<11x8xf32>}
  plan.weight @table <table> tensor<6x8xbf16> {name = "embed", file = "w", offset = 64 : i64, length = 352 : i64,
                                               stored = tensor<11x8xf32>, slice = [[#helix.split<n, 6>], []]}
  // CHECK: plan.weight @matrix <linear> tensor<8x4xf16>
  // CHECK-SAME: window_offset = array<i64: 0, 4>, window_size = array<i64: 8, 4>
  plan.weight @matrix <linear> tensor<8x4xf16> {name = "qkv", file = "w", offset = 416 : i64, length = 256 : i64,
                                                stored = tensor<8x8xf32>, window_offset = array<i64: 0, 4>,
                                                window_size = array<i64: 8, 4>}
  // CHECK: plan.weight @vector <vector> tensor<8xf32>
  plan.weight @vector <vector> tensor<8xf32> {name = "norm", file = "w", offset = 0 : i64, length = 32 : i64,
                                              stored = tensor<8xf32>}
  // CHECK: plan.image @image triple "x86_64-unknown-linux-gnu" features "x86-64-v3" {code = dense<[127, 69, 0, -1]> : tensor<4xi8>}
  plan.image @image triple "x86_64-unknown-linux-gnu" features "x86-64-v3" {code = dense<[127, 69, 0, -1]> : tensor<4xi8>}
  // CHECK: plan.kernel @norm in @image groups 1 buffers [32, 32, 32, 32] {bytes = 1.280000e+02 : f64, flops = 6.400000e+01 : f64}
  plan.kernel @norm in @image groups 1 buffers [32, 32, 32, 32] {bytes = 128.0 : f64, flops = 64.0 : f64}

  // CHECK: plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {comm_bytes = 128 : i64, device_bytes = 256 : i64}
  // CHECK-SAME: (%[[IDS:.*]]: tensor<1x1xi64>, %[[PAST:.*]]: tensor<1xi32>, %[[QLEN:.*]]: tensor<1xi32>, %[[KV:.*]]: !helix.kv<{{.*}}>) {
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 128 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %kv: !kv) {
    // CHECK: %[[TABLE:.*]] = plan.get_weight @table : tensor<6x8xbf16>
    %table = plan.get_weight @table : tensor<6x8xbf16>
    %matrix = plan.get_weight @matrix : tensor<8x4xf16>
    %vector = plan.get_weight @vector : tensor<8xf32>
    // CHECK: %[[X:.*]] = plan.embedding %[[IDS]], %[[TABLE]] {hidden = 8 : i64, places = [#plan.place<comm, 64>], rows = 1 : i64, stream = 0 : i64, vocabulary = 6 : i64} : (tensor<1x1xi64>, tensor<6x8xbf16>) -> tensor<1x1x8xf32>
    %x = plan.embedding %ids, %table {rows = 1 : i64, vocabulary = 6 : i64, hidden = 8 : i64, stream = 0 : i64,
                                      places = [#plan.place<comm, 64>]} : (tensor<1x1xi64>, tensor<6x8xbf16>) -> tensor<1x1x8xf32>
    // CHECK: %[[W:.*]] = plan.all_reduce %[[X]] over <n> {peers = 2 : i64} : (tensor<1x1x8xf32>) -> tensor<1x1x8xf32>
    %w = plan.all_reduce %x over <n> {peers = 2 : i64} : (tensor<1x1x8xf32>) -> tensor<1x1x8xf32>
    // CHECK: %[[N:.*]]:2 = plan.launch @norm(%[[W]], %{{.*}}) : (tensor<1x1x8xf32>, tensor<8xf32>) -> (tensor<1x1x8xf32>, tensor<1x1x8xf32>)
    %h, %n = plan.launch @norm(%w, %vector) : (tensor<1x1x8xf32>, tensor<8xf32>) -> (tensor<1x1x8xf32>, tensor<1x1x8xf32>)
    // CHECK: %[[Q:.*]] = plan.linear %[[N]]#1, %{{.*}} {k = 8 : i64, n = 4 : i64, phase = #helix.phase<kvp>, rows = 1 : i64} : (tensor<1x1x8xf32>, tensor<8x4xf16>) -> tensor<1x1x4xf32>
    %q = plan.linear %n, %matrix {rows = 1 : i64, k = 8 : i64, n = 4 : i64, phase = #helix.phase<kvp>} : (tensor<1x1x8xf32>, tensor<8x4xf16>) -> tensor<1x1x4xf32>
    %v = plan.launch @half(%n) : (tensor<1x1x8xf32>) -> tensor<1x1x2xf32>
    // CHECK: %[[KV1:.*]] = plan.kv_append %[[Q]], %{{.*}}, %[[PAST]], %[[QLEN]] into %[[KV]] {batch = 1 : i64, tokens = 1 : i64} : tensor<1x1x4xf32>, tensor<1x1x2xf32>, tensor<1xi32>, tensor<1xi32>, <
    %kv1 = plan.kv_append %q, %v, %past, %q_len into %kv {batch = 1 : i64, tokens = 1 : i64}
        : tensor<1x1x4xf32>, tensor<1x1x2xf32>, tensor<1xi32>, tensor<1xi32>, !kv
    // CHECK: %[[P:.*]] = plan.partial_attention %[[Q]], %[[KV1]], %[[PAST]], %[[QLEN]] {batch = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 5.000000e-01 : f64, tokens = 1 : i64}
    %p = plan.partial_attention %q, %kv1, %past, %q_len {batch = 1 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64}
        : (tensor<1x1x4xf32>, !kv, tensor<1xi32>, tensor<1xi32>) -> tensor<2x1x1x1x3xf32>
    // CHECK: %[[S:.*]] = plan.all_to_all %[[P]] over <kvp> {peers = 2 : i64}
    %s = plan.all_to_all %p over <kvp> {peers = 2 : i64} : (tensor<2x1x1x1x3xf32>) -> tensor<2x1x1x1x3xf32>
    // CHECK: %[[M:.*]] = plan.merge_attention %[[S]] {batch = 1 : i64, heads = 1 : i64, peers = 2 : i64, tokens = 1 : i64, value_dim = 2 : i64}
    %m = plan.merge_attention %s {peers = 2 : i64, batch = 1 : i64, tokens = 1 : i64, heads = 1 : i64, value_dim = 2 : i64}
        : (tensor<2x1x1x1x3xf32>) -> tensor<1x1x1x2xf32>
    // CHECK: plan.partial_attention {{.*}}query_tokens = array<i64: 0, 1>, scale = 5.000000e-01 : f64, sequences = array<i64: 0, 1>
    %p1 = plan.partial_attention %q, %kv1, %past, %q_len {batch = 1 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64, sequences = array<i64: 0, 1>, query_tokens = array<i64: 0, 1>}
        : (tensor<1x1x4xf32>, !kv, tensor<1xi32>, tensor<1xi32>) -> tensor<2x1x1x1x3xf32>
    // CHECK: plan.merge_attention %[[S]], %[[S]] {batch = 2 : i64, batch_chunks = array<i64: 1, 1>,
    %m2 = plan.merge_attention %s, %s {peers = 2 : i64, batch = 2 : i64, tokens = 1 : i64, heads = 1 : i64, value_dim = 2 : i64, batch_chunks = array<i64: 1, 1>}
        : (tensor<2x1x1x1x3xf32>, tensor<2x1x1x1x3xf32>) -> tensor<2x1x1x2xf32>
    // CHECK: plan.concat %[[Q]], %{{.*}} {rows = 1 : i64, widths = array<i64: 4, 2>} : (tensor<1x1x4xf32>, tensor<1x1x2xf32>) -> tensor<1x6xf32>
    %j = plan.concat %q, %v {rows = 1 : i64, widths = array<i64: 4, 2>} : (tensor<1x1x4xf32>, tensor<1x1x2xf32>) -> tensor<1x6xf32>
    // CHECK: plan.record {event = 0 : i64, stream = 0 : i64}
    plan.record {event = 0 : i64, stream = 0 : i64}
    // CHECK: plan.wait {event = 0 : i64, stream = 1 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    // CHECK: %[[L:.*]] = plan.last_token %[[M]], %[[QLEN]] {batch = 1 : i64, hidden = 2 : i64, tokens = 1 : i64}
    %l = plan.last_token %m, %q_len {batch = 1 : i64, tokens = 1 : i64, hidden = 2 : i64} : (tensor<1x1x1x2xf32>, tensor<1xi32>) -> tensor<1x1x2xf32>
    // CHECK: plan.return %[[L]] : tensor<1x1x2xf32>
    plan.return %l : tensor<1x1x2xf32>
  }
  plan.kernel @half in @image groups 1 buffers [32, 8] {bytes = 40.0 : f64, flops = 2.0 : f64}
}
