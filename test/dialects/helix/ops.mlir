// Every op prints as it parses.
// RUN: helix-opt %s | helix-opt | FileCheck %s

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = bf16, block = 4, kvp = 2, capacity = 16>

// CHECK: module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>}
module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>} {

// CHECK: func.func @weights
func.func @weights() {
  // CHECK: helix.weight "whole" {file = "w", length = 128 : i64, offset = 64 : i64, stored = tensor<8x4xf32>} : tensor<8x4xf32>
  %0 = helix.weight "whole" {file = "w", offset = 64 : i64, length = 128 : i64, stored = tensor<8x4xf32>} : tensor<8x4xf32>
  // CHECK: helix.weight "rounded" {{.*}} : tensor<8x4xbf16>
  %1 = helix.weight "rounded" {file = "w", offset = 64 : i64, length = 128 : i64, stored = tensor<8x4xf32>} : tensor<8x4xbf16>
  // CHECK: slice = {{\[\[}}#helix.split<tpa, 4>, #helix.split<kvp, 2>], []], stored = tensor<8x4xf32>, window_offset = array<i64: 0, 1>, window_size = array<i64: 8, 2>} : tensor<2x2xf32>
  %2 = helix.weight "part" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                            window_offset = array<i64: 0, 1>, window_size = array<i64: 8, 2>,
                            slice = [[#helix.split<tpa, 4>, #helix.split<kvp, 2>], []]} : tensor<2x2xf32>
  // CHECK: helix.weight "pieces" {{.*}}pieces = array<i64: 0, 0, 2, 6>{{.*}}window_offset = array<i64: 0, 4>, window_size = array<i64: 8, 4>} : tensor<8x4xf32>
  %p = helix.weight "pieces" {file = "w", offset = 0 : i64, length = 384 : i64, stored = tensor<8x12xf32>,
                              window_offset = array<i64: 0, 4>, window_size = array<i64: 8, 4>,
                              pieces = array<i64: 0, 0, 2, 6>} : tensor<8x4xf32>
  // CHECK: slice = {{\[\[}}#helix.split<tpa, 8, replicas = 2>], [#helix.split<tpa, 4>]]
  %3 = helix.weight "copied" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                              slice = [[#helix.split<tpa, 8, replicas = 2>], [#helix.split<tpa, 4, replicas = 1>]]} : tensor<8x4xf32>
  // CHECK: helix.weight "codes" {{.*}}scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>, slice = {{\[\[}}], [#helix.split<tpa, 6>]], stored = tensor<8x16xui4>, transposed, window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 12>} : tensor<6x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  %4 = helix.weight "codes" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed,
                             window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 12>,
                             slice = [[], [#helix.split<tpa, 6>]],
                             scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>}
      : tensor<6x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  // CHECK: helix.weight "rows" {{.*}}stored = tensor<3x16xsi2>, zero_points = #helix.bytes<file = "z", offset = 0, length = 6, element = si2>} : tensor<3x16xf32, #helix.quant<bits = 2, block = 2, axis = 1, scale = f16, zero = packed>>
  %5 = helix.weight "rows" {file = "w", offset = 0 : i64, length = 12 : i64, stored = tensor<3x16xsi2>,
                            scales = #helix.bytes<file = "w", offset = 64, length = 48, element = f16>,
                            zero_points = #helix.bytes<file = "z", offset = 0, length = 6, element = si2>}
      : tensor<3x16xf32, #helix.quant<bits = 2, block = 2, axis = 1, scale = f16, zero = packed>>
  // CHECK: helix.weight "rounding" {{.*}} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = zero, activations = i8>>
  %6 = helix.weight "rounding" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed,
                                scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>}
      : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = zero, activations = i8>>
  return
}

// CHECK: func.func private @caches
// CHECK-SAME: element = i8, block = 4, kvp = 1, capacity = 16, scale = <token_head>>
// CHECK-SAME: element = f8E4M3FN, block = 4, kvp = 1, capacity = 16, scale = <tensor, key = 1.562500e-02 : f64, value = 1.000000e+00 : f64>>
func.func private @caches(
    !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = i8, block = 4, kvp = 1, capacity = 16,
              scale = #helix.kv_scale<token_head>>,
    !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f8E4M3FN, block = 4, kvp = 1, capacity = 16,
              scale = #helix.kv_scale<tensor, key = 0.015625 : f64, value = 1.0 : f64>>)

// CHECK: func.func @products
func.func @products(%x: tensor<1x1x6xf32>, %w: tensor<6x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>) {
  // CHECK: helix.linear %{{.*}}, %{{.*}} : (tensor<1x1x6xf32>, tensor<6x8xf32, #helix.quant<{{.*}}>>) -> tensor<1x1x8xf32>
  %0 = helix.linear %x, %w : (tensor<1x1x6xf32>, tensor<6x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>) -> tensor<1x1x8xf32>
  return
}

// CHECK: func.func @layer
func.func @layer(%ids: tensor<1x1xi64>, %table: tensor<3x8xbf16>, %w: tensor<8x8xf32>, %s: tensor<8xf32>,
                 %cos: tensor<16x2xf32>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %c0: !kv,
                 %gate: tensor<8x6xf16>, %down: tensor<6x8xf16>, %six: tensor<6xf32>)
    attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  // CHECK: helix.embedding %{{.*}}, %{{.*}} : (tensor<1x1xi64>, tensor<3x8xbf16>) -> !helix.partial<tensor<1x1x8xf32>, sum, [n]>
  %e = helix.embedding %ids, %table : (tensor<1x1xi64>, tensor<3x8xbf16>) -> !helix.partial<tensor<1x1x8xf32>, sum, [n]>
  // CHECK: helix.all_reduce
  %x = helix.all_reduce %e : !helix.partial<tensor<1x1x8xf32>, sum, [n]> -> tensor<1x1x8xf32>
  // CHECK: helix.rms_norm %{{.*}}, %{{.*}} {epsilon = 1.000000e-05 : f64} : tensor<1x1x8xf32>, tensor<8xf32>
  %n = helix.rms_norm %x, %s {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<8xf32>
  // CHECK: helix.region kvp {
  %a, %c = helix.region kvp {
    // CHECK: helix.broadcast %{{.*}} : tensor<8xf32> -> tensor<1x1x8xf32>
    %all = helix.broadcast %s : tensor<8xf32> -> tensor<1x1x8xf32>
    // CHECK: helix.linear %{{.*}}, %{{.*}}, %{{.*}} : (tensor<1x1x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
    %biased = helix.linear %all, %w, %s : (tensor<1x1x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
    // CHECK: helix.linear %{{.*}}, %{{.*}} : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %q0 = helix.linear %n, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
    %q1 = tensor.expand_shape %q0 [[0], [1], [2, 3]] output_shape [1, 1, 2, 4] : tensor<1x1x8xf32> into tensor<1x1x2x4xf32>
    // CHECK: helix.rope {{.*}} {interleaved} : tensor<1x1x2x4xf32>, tensor<16x2xf32>, tensor<1xi32>
    %q = helix.rope %q1, %cos, %cos, %past {interleaved} : tensor<1x1x2x4xf32>, tensor<16x2xf32>, tensor<1xi32>
    // CHECK: helix.kv_append %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} into %{{.*}} : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, <slots = 1
    %c1 = helix.kv_append %q, %q1, %past, %q_len into %c0 : tensor<1x1x2x4xf32>, tensor<1x1x2x4xf32>, tensor<1xi32>, !kv
    // CHECK: helix.partial_attention {{.*}} -> <tensor<1x1x2x4xf32>, lse, [kvp]>
    %p = helix.partial_attention %q, %c1, %past, %q_len {scale = 0.5 : f64} : tensor<1x1x2x4xf32>, !kv, tensor<1xi32> -> !helix.partial<tensor<1x1x2x4xf32>, lse, [kvp]>
    // CHECK: helix.all_to_all {{.*}} -> <kvp, tensor<2x1x1x1x5xf32>>
    %t = helix.all_to_all %p : !helix.partial<tensor<1x1x2x4xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x1x1x1x5xf32>>
    // CHECK: helix.merge_attention {{.*}} -> tensor<1x1x1x4xf32>
    %m = helix.merge_attention %t : !helix.stacked<kvp, tensor<2x1x1x1x5xf32>> -> tensor<1x1x1x4xf32>
    // CHECK: helix.partial_attention {{.*}} {query_tokens = array<i64: 0, 1>, scale = 5.000000e-01 : f64, sequences = array<i64: 0, 1>}
    %p1 = helix.partial_attention %q, %c1, %past, %q_len {scale = 0.5 : f64, sequences = array<i64: 0, 1>, query_tokens = array<i64: 0, 1>} : tensor<1x1x2x4xf32>, !kv, tensor<1xi32> -> !helix.partial<tensor<1x1x2x4xf32>, lse, [kvp]>
    %t1 = helix.all_to_all %p1 : !helix.partial<tensor<1x1x2x4xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x1x1x1x5xf32>>
    // CHECK: helix.merge_attention %{{.*}}, %{{.*}} : {{.*}} -> tensor<2x1x1x4xf32>
    %m1 = helix.merge_attention %t1, %t1 : !helix.stacked<kvp, tensor<2x1x1x1x5xf32>>, !helix.stacked<kvp, tensor<2x1x1x1x5xf32>> -> tensor<2x1x1x4xf32>
    // CHECK: helix.yield
    helix.yield %m, %c1 : tensor<1x1x1x4xf32>, !kv
  } : tensor<1x1x1x4xf32>, !kv
  // CHECK: helix.ffn {{.*}} {activation = #helix.activation<silu>}
  %f = helix.ffn %n gate %gate up %gate down %down {activation = #helix.activation<silu>}
      : (tensor<1x1x8xf32>, tensor<8x6xf16>, tensor<8x6xf16>, tensor<6x8xf16>) -> !helix.partial<tensor<1x1x8xf32>, sum, [ep, tpf]>
  // CHECK: helix.ffn %{{.*}} up %{{.*}} down %{{.*}} up_bias %{{.*}} down_bias %{{.*}} {activation = #helix.activation<gelu_tanh>}
  %f2 = helix.ffn %n up %gate down %down up_bias %six down_bias %s {activation = #helix.activation<gelu_tanh>}
      : (tensor<1x1x8xf32>, tensor<8x6xf16>, tensor<6x8xf16>, tensor<6xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
  // CHECK: helix.layer_norm %{{.*}}, %{{.*}}, %{{.*}} {epsilon = 1.000000e-05 : f64} : tensor<1x1x8xf32>, tensor<8xf32>, tensor<8xf32>
  %ln = helix.layer_norm %f2, %s, %s {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<8xf32>, tensor<8xf32>
  // CHECK: helix.layer_norm %{{.*}}, %{{.*}} {epsilon = 1.000000e-05 : f64} : tensor<1x1x8xf32>, tensor<8xf32>{{$}}
  %ln2 = helix.layer_norm %ln, %s {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<8xf32>
  // CHECK: helix.position_embedding %{{.*}}, %{{.*}} : tensor<16x2xf32>, tensor<1xi32> -> tensor<1x1x2xf32>
  %positions = helix.position_embedding %cos, %past : tensor<16x2xf32>, tensor<1xi32> -> tensor<1x1x2xf32>
  // CHECK: helix.last_token
  %l = helix.last_token %n, %q_len : tensor<1x1x8xf32>, tensor<1xi32> -> tensor<1x1x8xf32>
  return
}

// CHECK: func.func @attention
func.func @attention(%q: tensor<1x1x4x4xf32>, %c: !kv, %past: tensor<1xi32>) -> tensor<1x1x4x4xf32> {
  // CHECK: helix.attention {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa"], []]>, scale = 5.000000e-01 : f64} : tensor<1x1x4x4xf32>
  %a = helix.attention %q, %c, %past, %past {scale = 0.5 : f64, helix.sharding = #helix.sharding<attn, [[], [], ["tpa"], []]>}
      : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return %a : tensor<1x1x4x4xf32>
}
}

!whole = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
// CHECK-LABEL: func.func @scores
func.func @scores(%q: tensor<1x1x2x4xf32>, %past: tensor<1xi32>, %c: !whole, %two: tensor<2xf32>, %one: tensor<1xf32>,
                  %t: !helix.stacked<kvp, tensor<2x1x1x1x5xf32>>) {
  // CHECK: helix.attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} slopes %{{.*}} : tensor<2xf32> sinks %{{.*}} : tensor<2xf32> {scale = 5.000000e-01 : f64, softcap = 3.000000e+01 : f64, window = 128 : i64} : tensor<1x1x2x4xf32>
  %a = helix.attention %q, %c, %past, %past slopes %two : tensor<2xf32> sinks %two : tensor<2xf32> {scale = 0.5 : f64, softcap = 30.0 : f64, window = 128 : i64} : tensor<1x1x2x4xf32>, !whole, tensor<1xi32> -> tensor<1x1x2x4xf32>
  // CHECK: helix.attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} sinks %{{.*}} : tensor<2xf32> {scale = 5.000000e-01 : f64} : tensor<1x1x2x4xf32>
  %b = helix.attention %a, %c, %past, %past sinks %two : tensor<2xf32> {scale = 0.5 : f64} : tensor<1x1x2x4xf32>, !whole, tensor<1xi32> -> tensor<1x1x2x4xf32>
  // CHECK: helix.partial_attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} slopes %{{.*}} : tensor<2xf32> {scale = 5.000000e-01 : f64, softcap = 3.000000e+01 : f64, window = 128 : i64}
  %p = helix.partial_attention %b, %c, %past, %past slopes %two : tensor<2xf32> {scale = 0.5 : f64, softcap = 30.0 : f64, window = 128 : i64} : tensor<1x1x2x4xf32>, !whole, tensor<1xi32> -> !helix.partial<tensor<1x1x2x4xf32>, lse, [kvp]>
  // CHECK: helix.merge_attention %{{.*}} sinks %{{.*}} : tensor<1xf32> : !helix.stacked<kvp, tensor<2x1x1x1x5xf32>> -> tensor<1x1x1x4xf32>
  %m = helix.merge_attention %t sinks %one : tensor<1xf32> : !helix.stacked<kvp, tensor<2x1x1x1x5xf32>> -> tensor<1x1x1x4xf32>
  return
}
