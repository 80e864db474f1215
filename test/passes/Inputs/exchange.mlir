// Attention of one layer at SPMD level, kvp = 2: a decode entry for 5 sequences, and a prefill entry with 4 tokens each.
!kv = !helix.kv<slots = 5, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
module attributes {helix.vocabulary = 8 : i64, helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  func.func @decode(%ids: tensor<5x1xi64>, %past: tensor<5xi32>, %q_len: tensor<5xi32>, %kv: !kv)
      -> (tensor<5x1x4xf32>, !kv) attributes {helix.entry = #helix.entry<decode, batch = 5, tokens = 1, logits = last>} {
    %q = tensor.empty() : tensor<5x1x2x4xf32>
    %kv1 = helix.kv_append %q, %q, %past, %q_len into %kv : tensor<5x1x2x4xf32>, tensor<5x1x2x4xf32>, tensor<5xi32>, !kv
    %p = helix.partial_attention %q, %kv1, %past, %q_len {scale = 0.5 : f64}
        : tensor<5x1x2x4xf32>, !kv, tensor<5xi32> -> !helix.partial<tensor<5x1x2x4xf32>, lse, [kvp]>
    %s = helix.all_to_all %p : !helix.partial<tensor<5x1x2x4xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x5x1x1x5xf32>>
    %m = helix.merge_attention %s : !helix.stacked<kvp, tensor<2x5x1x1x5xf32>> -> tensor<5x1x1x4xf32>
    %y = tensor.collapse_shape %m [[0], [1], [2, 3]] : tensor<5x1x1x4xf32> into tensor<5x1x4xf32>
    return %y, %kv1 : tensor<5x1x4xf32>, !kv
  }
  func.func @prefill(%ids: tensor<5x4xi64>, %past: tensor<5xi32>, %q_len: tensor<5xi32>, %kv: !kv)
      -> (tensor<5x4x4xf32>, !kv) attributes {helix.entry = #helix.entry<prefill, batch = 5, tokens = 4, logits = all>} {
    %q = tensor.empty() : tensor<5x4x2x4xf32>
    %kv1 = helix.kv_append %q, %q, %past, %q_len into %kv : tensor<5x4x2x4xf32>, tensor<5x4x2x4xf32>, tensor<5xi32>, !kv
    %p = helix.partial_attention %q, %kv1, %past, %q_len {scale = 0.5 : f64}
        : tensor<5x4x2x4xf32>, !kv, tensor<5xi32> -> !helix.partial<tensor<5x4x2x4xf32>, lse, [kvp]>
    %s = helix.all_to_all %p : !helix.partial<tensor<5x4x2x4xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x5x4x1x5xf32>>
    %m = helix.merge_attention %s : !helix.stacked<kvp, tensor<2x5x4x1x5xf32>> -> tensor<5x4x1x4xf32>
    %y = tensor.collapse_shape %m [[0], [1], [2, 3]] : tensor<5x4x1x4xf32> into tensor<5x4x4xf32>
    return %y, %kv1 : tensor<5x4x4xf32>, !kv
  }
}
