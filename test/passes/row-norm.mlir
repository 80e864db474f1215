// RUN: helix-opt %s -helix-shard="kvp=2 tpa=1" -helix-partition -helix-verify-spmd | FileCheck %s
// RUN: not helix-opt %s -helix-shard="kvp=2 tpa=2" 2>&1 | FileCheck %s --check-prefix=CUT

// Where a rank has all heads, the norm over them stays between the product and the split into heads.
// CHECK: helix.region kvp {
// CHECK: %[[Q:.*]] = helix.linear
// CHECK: %[[N:.*]] = helix.rms_norm %[[Q]], %{{.*}} : tensor<1x1x8xf32>, tensor<8xf32>
// CHECK: tensor.expand_shape %[[N]]

// CUT: error: HLX2010: helix.rms_norm reads all heads of a token at once, but tpa = 2 gives each rank a part of them. Take tpa = 1 and a larger kvp
!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
module attributes {helix.vocabulary = 8 : i64} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c: !kv) -> (tensor<1x1x8xf32>, !kv)
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 256 : i64, stored = tensor<8x8xf32>} : tensor<8x8xf32>
    %s = helix.weight "s" {file = "w", offset = 256 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %x = helix.embedding %ids, %w : (tensor<1x1xi64>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %q = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %k = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %v = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %qn = helix.rms_norm %q, %s {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<8xf32>
    %qh = tensor.expand_shape %qn [[0], [1], [2, 3]] output_shape [1, 1, 2, 4] : tensor<1x1x8xf32> into tensor<1x1x2x4xf32>
    %kh = tensor.expand_shape %k [[0], [1], [2, 3]] output_shape [1, 1, 2, 4] : tensor<1x1x8xf32> into tensor<1x1x2x4xf32>
    %vh = tensor.expand_shape %v [[0], [1], [2, 3]] output_shape [1, 1, 2, 4] : tensor<1x1x8xf32> into tensor<1x1x2x4xf32>
    %c1 = helix.kv_append %kh, %vh, %past, %q_len into %c : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
    %a = helix.attention %qh, %c1, %past, %q_len {scale = 0.5 : f64} : tensor<1x1x2x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x2x4xf32>
    %rows = tensor.collapse_shape %a [[0], [1], [2, 3]] : tensor<1x1x2x4xf32> into tensor<1x1x8xf32>
    %o = helix.linear %rows, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %logits = helix.linear %o, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    return %logits, %c1 : tensor<1x1x8xf32>, !kv
  }
}
