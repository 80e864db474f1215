// One decoder layer at model level, as imported: packed q, k, v; 3 query heads per KV head, 2 KV heads of 4; FFN 10; 11 ids.
!kv = !helix.kv<slots = 2, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 12>
module attributes {helix.vocabulary = 11 : i64} {
  func.func @decode(%ids: tensor<2x1xi64>, %past: tensor<2xi32>, %q_len: tensor<2xi32>, %kv: !kv)
      -> (tensor<2x1x11xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 2, tokens = 1, logits = last>} {
    %table = helix.weight "embed" {file = "w", offset = 0 : i64, length = 352 : i64, stored = tensor<11x8xf32>} : tensor<11x8xf32>
    %x = helix.embedding %ids, %table : (tensor<2x1xi64>, tensor<11x8xf32>) -> tensor<2x1x8xf32>
    %s0 = helix.weight "norm0" {file = "w", offset = 352 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %n0 = helix.rms_norm %x, %s0 {epsilon = 1.0e-5 : f64} : tensor<2x1x8xf32>, tensor<8xf32>
    %wqkv = helix.weight "qkv" {file = "w", offset = 384 : i64, length = 1280 : i64, stored = tensor<8x40xf32>} : tensor<8x40xf32>
    %qkv = helix.linear %n0, %wqkv : (tensor<2x1x8xf32>, tensor<8x40xf32>) -> tensor<2x1x40xf32> loc("qkv")
    %q0 = tensor.extract_slice %qkv[0, 0, 0] [2, 1, 24] [1, 1, 1] : tensor<2x1x40xf32> to tensor<2x1x24xf32>
    %k0 = tensor.extract_slice %qkv[0, 0, 24] [2, 1, 8] [1, 1, 1] : tensor<2x1x40xf32> to tensor<2x1x8xf32>
    %v0 = tensor.extract_slice %qkv[0, 0, 32] [2, 1, 8] [1, 1, 1] : tensor<2x1x40xf32> to tensor<2x1x8xf32>
    %q1 = tensor.expand_shape %q0 [[0], [1], [2, 3]] output_shape [2, 1, 6, 4] : tensor<2x1x24xf32> into tensor<2x1x6x4xf32>
    %k1 = tensor.expand_shape %k0 [[0], [1], [2, 3]] output_shape [2, 1, 2, 4] : tensor<2x1x8xf32> into tensor<2x1x2x4xf32>
    %v1 = tensor.expand_shape %v0 [[0], [1], [2, 3]] output_shape [2, 1, 2, 4] : tensor<2x1x8xf32> into tensor<2x1x2x4xf32>
    %cos = helix.weight "cos" {file = "w", offset = 1664 : i64, length = 128 : i64, stored = tensor<16x2xf32>} : tensor<16x2xf32>
    %sin = helix.weight "sin" {file = "w", offset = 1792 : i64, length = 128 : i64, stored = tensor<16x2xf32>} : tensor<16x2xf32>
    %q2 = helix.rope %q1, %cos, %sin, %past : tensor<2x1x6x4xf32>, tensor<16x2xf32>, tensor<2xi32>
    %k2 = helix.rope %k1, %cos, %sin, %past : tensor<2x1x2x4xf32>, tensor<16x2xf32>, tensor<2xi32>
    %kv1 = helix.kv_append %k2, %v1, %past, %q_len into %kv : tensor<2x1x2x4xf32>, tensor<2x1x2x4xf32>, tensor<2xi32>, !kv
    %a = helix.attention %q2, %kv1, %past, %q_len {scale = 0.5 : f64} : tensor<2x1x6x4xf32>, !kv, tensor<2xi32> -> tensor<2x1x6x4xf32> loc("attn")
    %a1 = tensor.collapse_shape %a [[0], [1], [2, 3]] : tensor<2x1x6x4xf32> into tensor<2x1x24xf32>
    %wo = helix.weight "o" {file = "w", offset = 1920 : i64, length = 768 : i64, stored = tensor<24x8xf32>} : tensor<24x8xf32>
    %o = helix.linear %a1, %wo : (tensor<2x1x24xf32>, tensor<24x8xf32>) -> tensor<2x1x8xf32> loc("o")
    %x1 = arith.addf %x, %o : tensor<2x1x8xf32>
    %s1 = helix.weight "norm1" {file = "w", offset = 2688 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %n1 = helix.rms_norm %x1, %s1 {epsilon = 1.0e-5 : f64} : tensor<2x1x8xf32>, tensor<8xf32>
    %wg = helix.weight "gate" {file = "w", offset = 2720 : i64, length = 320 : i64, stored = tensor<8x10xf32>} : tensor<8x10xf32>
    %wu = helix.weight "up" {file = "w", offset = 3040 : i64, length = 320 : i64, stored = tensor<8x10xf32>} : tensor<8x10xf32>
    %wd = helix.weight "down" {file = "w", offset = 3360 : i64, length = 320 : i64, stored = tensor<10x8xf32>} : tensor<10x8xf32>
    %g = helix.linear %n1, %wg : (tensor<2x1x8xf32>, tensor<8x10xf32>) -> tensor<2x1x10xf32>
    %u = helix.linear %n1, %wu : (tensor<2x1x8xf32>, tensor<8x10xf32>) -> tensor<2x1x10xf32>
    %one = arith.constant dense<1.0> : tensor<2x1x10xf32>
    %neg = arith.negf %g : tensor<2x1x10xf32>
    %exp = math.exp %neg : tensor<2x1x10xf32>
    %sum = arith.addf %one, %exp : tensor<2x1x10xf32>
    %sigmoid = arith.divf %one, %sum : tensor<2x1x10xf32>
    %silu = arith.mulf %g, %sigmoid : tensor<2x1x10xf32>
    %gu = arith.mulf %silu, %u : tensor<2x1x10xf32>
    %d = helix.linear %gu, %wd : (tensor<2x1x10xf32>, tensor<10x8xf32>) -> tensor<2x1x8xf32>
    %x2 = arith.addf %x1, %d : tensor<2x1x8xf32>
    %s2 = helix.weight "norm2" {file = "w", offset = 3680 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
    %n2 = helix.rms_norm %x2, %s2 {epsilon = 1.0e-5 : f64} : tensor<2x1x8xf32>, tensor<8xf32>
    %last = helix.last_token %n2, %q_len : tensor<2x1x8xf32>, tensor<2xi32> -> tensor<2x1x8xf32>
    %wh = helix.weight "head" {file = "w", offset = 3712 : i64, length = 352 : i64, stored = tensor<8x11xf32>} : tensor<8x11xf32>
    %logits = helix.linear %last, %wh : (tensor<2x1x8xf32>, tensor<8x11xf32>) -> tensor<2x1x11xf32>
    return %logits, %kv1 : tensor<2x1x11xf32>, !kv
  }
}
