// RUN: helix-opt %s -helix-shard="kvp=2 tpa=2" -helix-partition -cse -helix-verify-spmd | FileCheck %s

// A layer with all that is beyond Llama: attention and FFN in parallel, on 2 x 2 ranks with 2 heads, 2 FFN columns and 2
// ids each.
// CHECK-LABEL: func.func @decode
// CHECK:      helix.all_reduce
// CHECK:      %[[AT:.*]] = helix.position_embedding
// CHECK:      %[[N:.*]] = helix.layer_norm

// Biases of q, k and v are cut as their heads are; slopes with the heads of the shard, sinks with those that a rank has
// after the exchange, where they enter once.
// CHECK:      helix.region kvp {
// CHECK:        helix.weight "bq" {{.*}}slice = {{\[\[}}#helix.split<tpa, 4>]]{{.*}} : tensor<4xf32>
// CHECK:        helix.linear %[[N]], %{{.*}}, %{{.*}} : (tensor<1x1x4xf32>, tensor<4x4xf32>, tensor<4xf32>) -> tensor<1x1x4xf32>
// CHECK:        helix.rms_norm %{{.*}} : tensor<1x1x2x2xf32>, tensor<2xf32>
// CHECK:        helix.weight "bk" {{.*}}slice = {{\[\[}}#helix.split<tpa, 2>]]
// CHECK:        helix.weight "bv" {{.*}}slice = {{\[\[}}#helix.split<tpa, 2>]]
// CHECK:        %[[SLOPES:.*]] = helix.weight "slopes" {{.*}}slice = {{\[\[}}#helix.split<tpa, 2>]]{{.*}} : tensor<2xf32>
// CHECK:        helix.partial_attention %{{.*}} slopes %[[SLOPES]] : tensor<2xf32> {scale = 5.000000e-01 : f64, softcap = 2.000000e+00 : f64, window = 3 : i64}
// CHECK-NOT:    sinks
// CHECK:        helix.all_to_all
// CHECK:        %[[SINKS:.*]] = helix.weight "sinks" {{.*}}slice = {{\[\[}}#helix.split<tpa, 2>, #helix.split<kvp, 1>]]{{.*}} : tensor<1xf32>
// CHECK:        helix.merge_attention %{{.*}} sinks %[[SINKS]]

// The biases behind the reductions are whole and added once.
// CHECK:      helix.region tp {
// CHECK:        helix.linear %{{.*}}, %{{.*}} : {{.*}} -> !helix.partial<tensor<1x1x4xf32>, sum, [n]>
// CHECK:        %[[O:.*]] = helix.all_reduce
// CHECK:        helix.broadcast %{{.*}} : tensor<4xf32> -> tensor<1x1x4xf32>
// CHECK:        arith.addf %[[O]]
// CHECK:        helix.weight "bup" {{.*}}slice = {{\[\[}}#helix.split<tpf, 2>]]
// CHECK:        helix.ffn %[[N]] up %{{.*}} down %{{.*}} up_bias %{{.*}} {activation = #helix.activation<gelu>} : {{.*}} -> !helix.partial<tensor<1x1x4xf32>, sum, [n]>
// CHECK:        %[[F:.*]] = helix.all_reduce
// CHECK:        helix.broadcast
// CHECK:        arith.addf %[[F]]

// The head is the embedding's table, and what follows it is cut with it.
// CHECK:      helix.weight "embed" {{.*}}slice = {{\[\[}}#helix.split<n, 2>], []]{{.*}}transposed} : tensor<4x2xf32>
// CHECK:      helix.weight "per_id" {{.*}}slice = {{\[\[}}#helix.split<n, 2>]]{{.*}} : tensor<2xf32>
// CHECK:      %[[LOGITS:.*]] = arith.mulf %{{.*}} : tensor<1x1x2xf32>
// CHECK:      return %[[LOGITS]]
!kv = !helix.kv<slots = 1, heads = 2, key_dim = 2, value_dim = 2, element = f32, block = 4, kvp = 1, capacity = 8>
module attributes {helix.vocabulary = 5 : i64} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv) -> (tensor<1x1x5xf32>, !kv)
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %embed = helix.weight "embed" {file = "w", offset = 0 : i64, length = 80 : i64, stored = tensor<5x4xf32>} : tensor<5x4xf32>
    %x = helix.embedding %ids, %embed : (tensor<1x1xi64>, tensor<5x4xf32>) -> tensor<1x1x4xf32>
    %positions = helix.weight "positions" {file = "w", offset = 80 : i64, length = 128 : i64, stored = tensor<8x4xf32>} : tensor<8x4xf32>
    %at = helix.position_embedding %positions, %past : tensor<8x4xf32>, tensor<1xi32> -> tensor<1x1x4xf32>
    %x0 = arith.addf %x, %at : tensor<1x1x4xf32>
    %scale = helix.weight "scale" {file = "w", offset = 208 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %shift = helix.weight "shift" {file = "w", offset = 224 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %n = helix.layer_norm %x0, %scale, %shift {epsilon = 1.0e-5 : f64} : tensor<1x1x4xf32>, tensor<4xf32>, tensor<4xf32>
    %wq = helix.weight "wq" {file = "w", offset = 240 : i64, length = 128 : i64, stored = tensor<4x8xf32>} : tensor<4x8xf32>
    %bq = helix.weight "bq" {file = "w", offset = 368 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %q = helix.linear %n, %wq, %bq : (tensor<1x1x4xf32>, tensor<4x8xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
    %qh = tensor.expand_shape %q [[0], [1], [2, 3]] output_shape [1, 1, 4, 2] : tensor<1x1x8xf32> into tensor<1x1x4x2xf32>
    %wk = helix.weight "wk" {file = "w", offset = 400 : i64, length = 64 : i64, stored = tensor<4x4xf32>} : tensor<4x4xf32>
    %bk = helix.weight "bk" {file = "w", offset = 464 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %k = helix.linear %n, %wk, %bk : (tensor<1x1x4xf32>, tensor<4x4xf32>, tensor<4xf32>) -> tensor<1x1x4xf32>
    %kh = tensor.expand_shape %k [[0], [1], [2, 3]] output_shape [1, 1, 2, 2] : tensor<1x1x4xf32> into tensor<1x1x2x2xf32>
    %wv = helix.weight "wv" {file = "w", offset = 480 : i64, length = 64 : i64, stored = tensor<4x4xf32>} : tensor<4x4xf32>
    %bv = helix.weight "bv" {file = "w", offset = 544 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %v = helix.linear %n, %wv, %bv : (tensor<1x1x4xf32>, tensor<4x4xf32>, tensor<4xf32>) -> tensor<1x1x4xf32>
    %vh = tensor.expand_shape %v [[0], [1], [2, 3]] output_shape [1, 1, 2, 2] : tensor<1x1x4xf32> into tensor<1x1x2x2xf32>
    %head_norm = helix.weight "head_norm" {file = "w", offset = 560 : i64, length = 8 : i64, stored = tensor<2xf32>} : tensor<2xf32>
    %qn = helix.rms_norm %qh, %head_norm {epsilon = 1.0e-5 : f64} : tensor<1x1x4x2xf32>, tensor<2xf32>
    %c1 = helix.kv_append %kh, %vh, %past, %q_len into %c : tensor<1x1x2x2xf32>, tensor<1x1x2x2xf32>, tensor<1xi32>, !kv
    %slopes = helix.weight "slopes" {file = "w", offset = 568 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %sinks = helix.weight "sinks" {file = "w", offset = 584 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %a = helix.attention %qn, %c1, %past, %q_len slopes %slopes : tensor<4xf32> sinks %sinks : tensor<4xf32> {scale = 0.5 : f64, softcap = 2.0 : f64, window = 3 : i64} : tensor<1x1x4x2xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x2xf32>
    %ac = tensor.collapse_shape %a [[0], [1], [2, 3]] : tensor<1x1x4x2xf32> into tensor<1x1x8xf32>
    %wo = helix.weight "wo" {file = "w", offset = 600 : i64, length = 128 : i64, stored = tensor<8x4xf32>} : tensor<8x4xf32>
    %bo = helix.weight "bo" {file = "w", offset = 728 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %o = helix.linear %ac, %wo, %bo : (tensor<1x1x8xf32>, tensor<8x4xf32>, tensor<4xf32>) -> tensor<1x1x4xf32>
    %up = helix.weight "up" {file = "w", offset = 744 : i64, length = 96 : i64, stored = tensor<4x6xf32>} : tensor<4x6xf32>
    %down = helix.weight "down" {file = "w", offset = 840 : i64, length = 96 : i64, stored = tensor<6x4xf32>} : tensor<6x4xf32>
    %bup = helix.weight "bup" {file = "w", offset = 936 : i64, length = 24 : i64, stored = tensor<6xf32>} : tensor<6xf32>
    %bdown = helix.weight "bdown" {file = "w", offset = 960 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
    %f = helix.ffn %n up %up down %down up_bias %bup down_bias %bdown {activation = #helix.activation<gelu>} : (tensor<1x1x4xf32>, tensor<4x6xf32>, tensor<6x4xf32>, tensor<6xf32>, tensor<4xf32>) -> tensor<1x1x4xf32>
    %x1 = arith.addf %x0, %o : tensor<1x1x4xf32>
    %x2 = arith.addf %x1, %f : tensor<1x1x4xf32>
    %head = helix.weight "embed" {file = "w", offset = 0 : i64, length = 80 : i64, stored = tensor<5x4xf32>, transposed} : tensor<4x5xf32>
    %l = helix.linear %x2, %head : (tensor<1x1x4xf32>, tensor<4x5xf32>) -> tensor<1x1x5xf32>
    %per_id = helix.weight "per_id" {file = "w", offset = 976 : i64, length = 20 : i64, stored = tensor<5xf32>} : tensor<5xf32>
    %ids_all = helix.broadcast %per_id : tensor<5xf32> -> tensor<1x1x5xf32>
    %logits = arith.mulf %l, %ids_all : tensor<1x1x5xf32>
    return %logits, %c1 : tensor<1x1x5xf32>, !kv
  }
}
