// What one rank of kvp = 2 computes of one layer, as helix-fuse leaves it: batch 2, hidden 8, 3 query heads of 4.
!kv = !helix.kv<slots = 2, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>, helix.vocabulary = 11 : i64} {
  func.func private @norm(%x: tensor<2x1x8xf32>, %s: tensor<8xf32>) -> tensor<2x1x8xf32> attributes {helix.kernel} {
    %y = helix.rms_norm %x, %s {epsilon = 1.0e-5 : f64} : tensor<2x1x8xf32>, tensor<8xf32>
    return %y : tensor<2x1x8xf32>
  }
  func.func @decode(%ids: tensor<2x1xi64>, %past: tensor<2xi32>, %q_len: tensor<2xi32>, %kv: !kv)
      -> (tensor<2x1x6xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 2, tokens = 1, logits = last>} {
    %table = helix.weight "embed" {file = "w", offset = 0 : i64, length = 352 : i64, stored = tensor<11x8xf32>, slice = [[#helix.split<n, 6>], []]} : tensor<6x8xf32>
    %e = helix.embedding %ids, %table : (tensor<2x1xi64>, tensor<6x8xf32>) -> !helix.partial<tensor<2x1x8xf32>, sum, [n]> loc("/embed")
    %x = helix.all_reduce %e : !helix.partial<tensor<2x1x8xf32>, sum, [n]> -> tensor<2x1x8xf32> loc("/embed")
    %s = helix.weight "norm" {file = "w", offset = 352 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %n = func.call @norm(%x, %s) : (tensor<2x1x8xf32>, tensor<8xf32>) -> tensor<2x1x8xf32> loc("/norm")
    %wq = helix.weight "qkv" {file = "w", offset = 384 : i64, length = 640 : i64, stored = tensor<8x20xf32>, window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 12>} : tensor<8x12xf32>
    %wk = helix.weight "qkv" {file = "w", offset = 384 : i64, length = 640 : i64, stored = tensor<8x20xf32>, window_offset = array<i64: 0, 12>, window_size = array<i64: 8, 4>} : tensor<8x4xf32>
    %wv = helix.weight "qkv" {file = "w", offset = 384 : i64, length = 640 : i64, stored = tensor<8x20xf32>, window_offset = array<i64: 0, 16>, window_size = array<i64: 8, 4>} : tensor<8x4xf32>
    %q0 = helix.linear %n, %wq {helix.phase = #helix.phase<kvp>} : (tensor<2x1x8xf32>, tensor<8x12xf32>) -> tensor<2x1x12xf32> loc("/qkv")
    %k0 = helix.linear %n, %wk {helix.phase = #helix.phase<kvp>} : (tensor<2x1x8xf32>, tensor<8x4xf32>) -> tensor<2x1x4xf32> loc("/qkv")
    %v0 = helix.linear %n, %wv {helix.phase = #helix.phase<kvp>} : (tensor<2x1x8xf32>, tensor<8x4xf32>) -> tensor<2x1x4xf32> loc("/qkv")
    %q = tensor.expand_shape %q0 [[0], [1], [2, 3]] output_shape [2, 1, 3, 4] : tensor<2x1x12xf32> into tensor<2x1x3x4xf32>
    %k = tensor.expand_shape %k0 [[0], [1], [2, 3]] output_shape [2, 1, 1, 4] : tensor<2x1x4xf32> into tensor<2x1x1x4xf32>
    %v = tensor.expand_shape %v0 [[0], [1], [2, 3]] output_shape [2, 1, 1, 4] : tensor<2x1x4xf32> into tensor<2x1x1x4xf32>
    %kv1 = helix.kv_append %k, %v, %past, %q_len into %kv {helix.phase = #helix.phase<kvp>} : tensor<2x1x1x4xf32>, tensor<2x1x1x4xf32>, tensor<2xi32>, !kv
    %p = helix.partial_attention %q, %kv1, %past, %q_len {scale = 0.5 : f64, helix.phase = #helix.phase<kvp>}
        : tensor<2x1x3x4xf32>, !kv, tensor<2xi32> -> !helix.partial<tensor<2x1x4x4xf32>, lse, [kvp]>
    %t = helix.all_to_all %p {helix.phase = #helix.phase<kvp>} : !helix.partial<tensor<2x1x4x4xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x2x1x2x5xf32>>
    %m = helix.merge_attention %t {helix.phase = #helix.phase<kvp>} : !helix.stacked<kvp, tensor<2x2x1x2x5xf32>> -> tensor<2x1x2x4xf32>
    %m1 = tensor.collapse_shape %m [[0], [1], [2, 3]] : tensor<2x1x2x4xf32> into tensor<2x1x8xf32>
    %wo = helix.weight "o" {file = "w", offset = 1024 : i64, length = 384 : i64, stored = tensor<12x8xf32>, slice = [[#helix.split<kvp, 8>], []]} : tensor<8x8xf32>
    %o = helix.linear %m1, %wo {helix.phase = #helix.phase<tp>} : (tensor<2x1x8xf32>, tensor<8x8xf32>) -> !helix.partial<tensor<2x1x8xf32>, sum, [n]>
    %y = helix.all_reduce %o {helix.phase = #helix.phase<tp>} : !helix.partial<tensor<2x1x8xf32>, sum, [n]> -> tensor<2x1x8xf32>
    %z = func.call @norm(%y, %s) {helix.phase = #helix.phase<tp>} : (tensor<2x1x8xf32>, tensor<8xf32>) -> tensor<2x1x8xf32>
    %l = helix.last_token %z, %q_len : tensor<2x1x8xf32>, tensor<2xi32> -> tensor<2x1x8xf32>
    %wh = helix.weight "head" {file = "w", offset = 1408 : i64, length = 352 : i64, stored = tensor<8x11xf32>, slice = [[], [#helix.split<n, 6>]]} : tensor<8x6xf32>
    %logits = helix.linear %l, %wh : (tensor<2x1x8xf32>, tensor<8x6xf32>) -> tensor<2x1x6xf32>
    return %logits, %kv1 : tensor<2x1x6xf32>, !kv
  }
}
