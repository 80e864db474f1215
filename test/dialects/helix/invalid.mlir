// RUN: helix-opt %s -split-input-file -verify-diagnostics

// A partial value cannot be read as whole.
func.func @partial_as_whole(%x: tensor<1x1x8xf32>, %w: tensor<8x8xf32>) {
  // expected-note @below {{prior use here}}
  %p = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> !helix.partial<tensor<1x1x8xf32>, sum, [n]>
  // expected-error @below {{use of value '%p' expects different type than prior uses}}
  %y = arith.addf %p, %x : tensor<1x1x8xf32>
  return
}

// -----

func.func @partial_into_linear(%p: !helix.partial<tensor<1x1x8xf32>, sum, [n]>, %w: tensor<8x8xf32>) {
  // expected-error @below {{operand #0 must be ranked tensor of 32-bit float values, but got '!helix.partial<tensor<1x1x8xf32>, sum, [n]>'}}
  %y = "helix.linear"(%p, %w) : (!helix.partial<tensor<1x1x8xf32>, sum, [n]>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @lse_is_not_reduced(%p: !helix.partial<tensor<1x1x4x8xf32>, lse, [kvp]>) {
  // expected-error @below {{reduces a partial sum, not}}
  %y = helix.all_reduce %p : !helix.partial<tensor<1x1x4x8xf32>, lse, [kvp]> -> tensor<1x1x4x8xf32>
  return
}

// -----

func.func @sum_is_not_exchanged(%p: !helix.partial<tensor<1x1x4x8xf32>, sum, [n]>) {
  // expected-error @below {{exchanges an lse partial}}
  %y = helix.all_to_all %p : !helix.partial<tensor<1x1x4x8xf32>, sum, [n]> -> !helix.stacked<kvp, tensor<2x1x1x2x9xf32>>
  return
}

// -----

func.func @heads_do_not_split(%p: !helix.partial<tensor<1x1x3x8xf32>, lse, [kvp]>) {
  // expected-error @below {{3 heads do not split over 2 peers}}
  %y = helix.all_to_all %p : !helix.partial<tensor<1x1x3x8xf32>, lse, [kvp]> -> !helix.stacked<kvp, tensor<2x1x1x2x9xf32>>
  return
}

// -----

func.func @merge_shape(%s: !helix.stacked<kvp, tensor<2x1x1x2x9xf32>>) {
  // expected-error @below {{result must have shape 'tensor<1x1x2x8xf32>'}}
  %y = helix.merge_attention %s : !helix.stacked<kvp, tensor<2x1x1x2x9xf32>> -> tensor<1x1x2x9xf32>
  return
}

// -----

// expected-error @below {{tpa * kvp = 4 and ep * tpf = 6 must be the same number of ranks}}
module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 6>} {}

// -----

// expected-error @below {{a mesh axis has from 1 to 2^20 ranks, but one has 0}}
module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 0, ep = 1, tpf = 6>} {}

// -----

// expected-error @below {{axis "tpf" is not of view attn}}
module attributes {test = #helix.sharding<attn, [["tpf"]]>} {}

// -----

// expected-error @below {{axis "tpa" splits two dimensions}}
module attributes {test = #helix.sharding<attn, [["tpa"], ["tpa"]]>} {}

// -----

// expected-error @below {{unknown axis "x"}}
module attributes {test = #helix.sharding<attn, [["x"]]>} {}

// -----

// expected-error @below {{an entry has at least one slot}}
module attributes {test = #helix.entry<decode, batch = 0, tokens = 1, logits = last>} {}

// -----

// expected-error @below {{a split's chunk must be at least 1}}
module attributes {test = #helix.split<tpa, 0>} {}

// -----

// expected-error @below {{a split's replicas must be at least 1, but are 0}}
module attributes {test = #helix.split<tpa, 1, replicas = 0>} {}

// -----

// expected-error @below {{capacity 20 must be a multiple of block * kvp = 8}}
func.func private @capacity(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 20>)

// -----

// expected-error @below {{a KV cache holds f32, f16, bf16, i8 or f8E4M3FN}}
func.func private @element(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = i16, block = 4, kvp = 2, capacity = 16>)

// -----

// expected-error @below {{an lse partial lies along kvp alone}}
func.func private @lse_axis(!helix.partial<tensor<1x1x4x8xf32>, lse, [tpa]>)

// -----

// expected-error @below {{the axes of a partial value must be of one view}}
func.func private @views(!helix.partial<tensor<1x8xf32>, sum, [tpa, tpf]>)

// -----

// expected-error @below {{partial attention is stacked along kvp}}
func.func private @stacked(!helix.stacked<tpa, tensor<2x1x1x2x9xf32>>)

// -----

func.func @weight_length() {
  // expected-error @below {{has 128 bytes, but length is 64}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x4xf32>} : tensor<8x4xf32>
  return
}

// -----

func.func @weight_overflow() {
  // expected-error @below {{more than 2^63 bytes}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 0 : i64, stored = tensor<4611686018427387904x4xf32>} : tensor<1x4xf32>
  return
}

// -----

func.func @weight_pieces_count() {
  // expected-error @below {{needs a run and a stride of pieces per dimension}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                         window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 4>,
                         pieces = array<i64: 0, 0>} : tensor<8x4xf32>
  return
}

// -----

func.func @weight_pieces_overlap() {
  // expected-error @below {{pieces of 4 at a stride of 3 along dimension 0 overlap or go backwards}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                         window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 4>,
                         pieces = array<i64: 4, 3, 0, 0>} : tensor<8x4xf32>
  return
}

// -----

func.func @weight_pieces_outside() {
  // expected-error @below {{window [1, +8) is not inside dimension 0}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                         window_offset = array<i64: 1, 0>, window_size = array<i64: 4, 4>,
                         pieces = array<i64: 2, 6, 0, 0>} : tensor<4x4xf32>
  return
}

// -----

func.func @weight_window() {
  // expected-error @below {{window [6, +4) is not inside dimension 0}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                         window_offset = array<i64: 6, 0>, window_size = array<i64: 4, 4>} : tensor<4x4xf32>
  return
}

// -----

func.func @weight_share() {
  // expected-error @below {{dimension 0 holds a share of 4 elements, but its local size is 2}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x4xf32>,
                         slice = [[#helix.split<tpa, 4>], []]} : tensor<2x4xf32>
  return
}

// -----

func.func @linear_shape(%x: tensor<1x1x8xf32>, %w: tensor<4x8xf32>) {
  // expected-error @below {{contracts 'tensor<1x1x8xf32>' with the first dimension of 'tensor<4x8xf32>'}}
  %y = helix.linear %x, %w : (tensor<1x1x8xf32>, tensor<4x8xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @linear_lse(%x: tensor<1x1x1x8xf32>, %w: tensor<8x8xf32>) {
  // expected-error @below {{result must be a whole tensor or a partial sum}}
  %y = helix.linear %x, %w : (tensor<1x1x1x8xf32>, tensor<8x8xf32>) -> !helix.partial<tensor<1x1x1x8xf32>, lse, [kvp]>
  return
}

// -----

func.func @embedding_shape(%ids: tensor<1x2xi64>, %t: tensor<4x8xf32>) {
  // expected-error @below {{result must have shape 'tensor<1x2x8xf32>'}}
  %y = helix.embedding %ids, %t : (tensor<1x2xi64>, tensor<4x8xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @norm_scale(%x: tensor<1x1x8xf32>, %s: tensor<4xf32>) {
  // expected-error @below {{scale must have shape 'tensor<8xf32>'}}
  %y = helix.rms_norm %x, %s {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<4xf32>
  return
}

// -----

func.func @rope_width(%x: tensor<1x1x2x8xf32>, %cos: tensor<16x5xf32>, %past: tensor<1xi32>) {
  // expected-error @below {{rotates 10 elements of heads that have 8}}
  %y = helix.rope %x, %cos, %cos, %past : tensor<1x1x2x8xf32>, tensor<16x5xf32>, tensor<1xi32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @append_heads(%k: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{does not fit the cache}}
  %c1 = helix.kv_append %k, %k, %past, %past into %c : tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>, tensor<1xi32>, !kv
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @groups(%q: tensor<1x1x3x4xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{3 query heads do not divide into groups over 2 KV heads}}
  %a = helix.attention %q, %c, %past, %past {scale = 0.5 : f64} : tensor<1x1x3x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x3x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @attention_width(%q: tensor<1x1x4x8xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{query width is 8, but the cache's key width is 4}}
  %a = helix.attention %q, %c, %past, %past {scale = 0.5 : f64} : tensor<1x1x4x8xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @partial_is_lse(%q: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{result must be an lse partial over kvp}}
  %a = helix.partial_attention %q, %c, %past, %past {scale = 0.5 : f64} : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> !helix.partial<tensor<1x1x4x4xf32>, sum, [n]>
  return
}

// -----

func.func @ffn_shape(%x: tensor<1x1x8xf32>, %g: tensor<8x6xf32>, %u: tensor<8x5xf32>, %d: tensor<6x8xf32>) {
  // expected-error @below {{up must have shape 'tensor<8x6xf32>'}}
  %y = helix.ffn %x gate %g up %u down %d {activation = #helix.activation<silu>} : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<8x5xf32>, tensor<6x8xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @last_token_shape(%x: tensor<2x3x8xf32>, %q_len: tensor<2xi32>) {
  // expected-error @below {{result must have shape 'tensor<2x1x8xf32>'}}
  %y = helix.last_token %x, %q_len : tensor<2x3x8xf32>, tensor<2xi32> -> tensor<2x3x8xf32>
  return
}

// -----

func.func @nested(%x: tensor<1x1x4xf32>) {
  %a = helix.region tp {
    // expected-error @below {{must not be nested}}
    %b = helix.region tp {
      helix.yield %x : tensor<1x1x4xf32>
    } : tensor<1x1x4xf32>
    helix.yield %b : tensor<1x1x4xf32>
  } : tensor<1x1x4xf32>
  return
}

// -----

func.func @yield_types(%x: tensor<1x1x4xf32>) {
  // expected-error @below {{yields 'tensor<1x1x4xf32>', but has results 'tensor<1x1x8xf32>'}}
  %a = helix.region tp {
    helix.yield %x : tensor<1x1x4xf32>
  } : tensor<1x1x8xf32>
  return
}

// -----

func.func @phase(%x: tensor<1x1x4xf32>) {
  // expected-error @below {{unknown phase 'ffn'; a region is kvp or tp}}
  %a = helix.region ffn {
    helix.yield %x : tensor<1x1x4xf32>
  } : tensor<1x1x4xf32>
  return
}

// -----

func.func @linear_bias(%x: tensor<1x1x8xf32>, %w: tensor<8x4xf32>, %b: tensor<8xf32>) {
  // expected-error @below {{bias must have shape 'tensor<4xf32>', but has 'tensor<8xf32>'}}
  %y = helix.linear %x, %w, %b : (tensor<1x1x8xf32>, tensor<8x4xf32>, tensor<8xf32>) -> tensor<1x1x4xf32>
  return
}

// -----

func.func @bias_of_partial(%x: tensor<1x1x8xf32>, %w: tensor<8x4xf32>, %b: tensor<4xf32>) {
  // expected-error @below {{adds a bias to a partial sum, so once per rank; add it behind the reduction}}
  %y = helix.linear %x, %w, %b : (tensor<1x1x8xf32>, tensor<8x4xf32>, tensor<4xf32>) -> !helix.partial<tensor<1x1x4xf32>, sum, [n]>
  return
}

// -----

func.func @broadcast_shape(%x: tensor<4xf32>) {
  // expected-error @below {{repeats 'tensor<4xf32>' to 'tensor<1x4x8xf32>', whose last dimensions must be the operand's}}
  %y = helix.broadcast %x : tensor<4xf32> -> tensor<1x4x8xf32>
  return
}

// -----

func.func @ffn_gate_bias(%x: tensor<1x1x8xf32>, %u: tensor<8x6xf32>, %d: tensor<6x8xf32>, %b: tensor<6xf32>) {
  // expected-error @below {{has a bias of a gate, but no gate}}
  %y = helix.ffn %x up %u down %d gate_bias %b {activation = #helix.activation<relu>} : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<6x8xf32>, tensor<6xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @ffn_bias_of_partial(%x: tensor<1x1x8xf32>, %u: tensor<8x6xf32>, %d: tensor<6x8xf32>, %b: tensor<8xf32>) {
  // expected-error @below {{adds a bias to a partial sum, so once per rank; add it behind the reduction}}
  %y = helix.ffn %x up %u down %d down_bias %b {activation = #helix.activation<relu>} : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<6x8xf32>, tensor<8xf32>) -> !helix.partial<tensor<1x1x8xf32>, sum, [n]>
  return
}

// -----

func.func @ffn_bias(%x: tensor<1x1x8xf32>, %u: tensor<8x6xf32>, %d: tensor<6x8xf32>, %b: tensor<8xf32>) {
  // expected-error @below {{up_bias must have shape 'tensor<6xf32>', but has 'tensor<8xf32>'}}
  %y = helix.ffn %x up %u down %d up_bias %b {activation = #helix.activation<relu>} : (tensor<1x1x8xf32>, tensor<8x6xf32>, tensor<6x8xf32>, tensor<8xf32>) -> tensor<1x1x8xf32>
  return
}

// -----

func.func @layer_norm_bias(%x: tensor<1x1x8xf32>, %s: tensor<8xf32>, %b: tensor<6xf32>) {
  // expected-error @below {{bias must have shape 'tensor<8xf32>', but has 'tensor<6xf32>'}}
  %y = helix.layer_norm %x, %s, %b {epsilon = 1.0e-5 : f64} : tensor<1x1x8xf32>, tensor<8xf32>, tensor<6xf32>
  return
}

// -----

func.func @position_shape(%t: tensor<9x8xf32>, %p: tensor<1xi32>) {
  // expected-error @below {{result must have shape 'tensor<1x2x8xf32>', but has 'tensor<1x2x6xf32>'}}
  %y = helix.position_embedding %t, %p : tensor<9x8xf32>, tensor<1xi32> -> tensor<1x2x6xf32>
  return
}

// -----

func.func @transposed_vector() {
  // expected-error @below {{is transposed, but has rank 1}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 16 : i64, stored = tensor<4xf32>, transposed} : tensor<4xf32>
  return
}

// -----

func.func @transposed_shape() {
  // expected-error @below {{has shape 'tensor<4x6xf32>', but its window is 'tensor<6x4xf32>'}}
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 96 : i64, stored = tensor<4x6xf32>, transposed} : tensor<4x6xf32>
  return
}

// -----

!kv = !helix.kv<slots = 4, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
func.func @chunk_outside(%q: tensor<4x1x2x4xf32>, %past: tensor<4xi32>, %c: !kv) {
  // expected-error @below {{sequences from 3 on, 2 of them, must lie within the 4 of q and be the 2 of the result}}
  %a = helix.partial_attention %q, %c, %past, %past {scale = 0.5 : f64, sequences = array<i64: 3, 2>} : tensor<4x1x2x4xf32>, !kv, tensor<4xi32> -> !helix.partial<tensor<2x1x2x4xf32>, lse, [kvp]>
  return
}

// -----

!kv = !helix.kv<slots = 4, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
func.func @chunk_result(%q: tensor<4x1x2x4xf32>, %past: tensor<4xi32>, %c: !kv) {
  // expected-error @below {{sequences from 0 on, 2 of them, must lie within the 4 of q and be the 4 of the result}}
  %a = helix.partial_attention %q, %c, %past, %past {scale = 0.5 : f64, sequences = array<i64: 0, 2>} : tensor<4x1x2x4xf32>, !kv, tensor<4xi32> -> !helix.partial<tensor<4x1x2x4xf32>, lse, [kvp]>
  return
}

// -----

!kv = !helix.kv<slots = 4, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 2, capacity = 16>
func.func @chunk_pair(%q: tensor<4x1x2x4xf32>, %past: tensor<4xi32>, %c: !kv) {
  // expected-error @below {{query_tokens must be (first, count)}}
  %a = helix.partial_attention %q, %c, %past, %past {scale = 0.5 : f64, query_tokens = array<i64: 0>} : tensor<4x1x2x4xf32>, !kv, tensor<4xi32> -> !helix.partial<tensor<4x1x2x4xf32>, lse, [kvp]>
  return
}

// -----

func.func @chunks_differ(%a: !helix.stacked<kvp, tensor<2x1x2x1x5xf32>>, %b: !helix.stacked<kvp, tensor<2x2x1x1x5xf32>>) {
  // expected-error @below {{chunks must differ in the batch or in the query tokens alone}}
  %y = helix.merge_attention %a, %b : !helix.stacked<kvp, tensor<2x1x2x1x5xf32>>, !helix.stacked<kvp, tensor<2x2x1x1x5xf32>> -> tensor<3x3x1x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @softcap_zero(%q: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{softcap must be finite and positive}}
  %a = helix.attention %q, %c, %past, %past {scale = 0.5 : f64, softcap = 0.0 : f64} : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @window_zero(%q: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv) {
  // expected-error @below {{attribute 'window' failed to satisfy constraint}}
  %a = helix.attention %q, %c, %past, %past {scale = 0.5 : f64, window = 0 : i64} : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @sinks_shape(%q: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv, %s: tensor<2xf32>) {
  // expected-error @below {{sinks must have shape 'tensor<4xf32>', but has 'tensor<2xf32>'}}
  %a = helix.attention %q, %c, %past, %past sinks %s : tensor<2xf32> {scale = 0.5 : f64} : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return
}

// -----

!kv = !helix.kv<slots = 1, heads = 2, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 1, capacity = 16>
func.func @slopes_shape(%q: tensor<1x1x4x4xf32>, %past: tensor<1xi32>, %c: !kv, %s: tensor<2xf32>) {
  // expected-error @below {{slopes must have shape 'tensor<4xf32>', but has 'tensor<2xf32>'}}
  %a = helix.attention %q, %c, %past, %past slopes %s : tensor<2xf32> {scale = 0.5 : f64} : tensor<1x1x4x4xf32>, !kv, tensor<1xi32> -> tensor<1x1x4x4xf32>
  return
}

// -----

// expected-error @below {{a KV cache of 'i8' needs a scale}}
func.func private @codes(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = i8, block = 4, kvp = 2, capacity = 16>)

// -----

// expected-error @below {{a KV cache of 'f16' has no scale}}
func.func private @numbers(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = f16, block = 4, kvp = 2, capacity = 16, scale = #helix.kv_scale<token_head>>)

// -----

// expected-error @below {{failed to parse Helix_KVType parameter 'scale'}}
// expected-error @below {{a scale per tensor says which for keys and for values}}
func.func private @unsaid(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = i8, block = 4, kvp = 2, capacity = 16, scale = #helix.kv_scale<tensor>>)

// -----

// expected-error @below {{failed to parse Helix_KVType parameter 'scale'}}
// expected-error @below {{the scale of a KV cache is from 2^-126 to 2^126, not 0.000000e+00 : f64}}
func.func private @none(!helix.kv<slots = 1, heads = 1, key_dim = 4, value_dim = 4, element = i8, block = 4, kvp = 2, capacity = 16, scale = #helix.kv_scale<tensor, key = 0.0 : f64, value = 1.0 : f64>>)

// -----

func.func @codes_without_meaning() {
  // expected-error @below {{is stored as 'tensor<8x16xui4>', so its type needs a #helix.quant}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<16x8xf32>
  return
}

// -----

func.func @other_bits() {
  // expected-error @below {{has codes of 4 bits, but is stored as 'tensor<8x16xui8>'}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<8x16xui8>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  return
}

// -----

func.func @other_axis() {
  // expected-error @below {{has blocks along dimension 1, which is not the last of the stored tensor}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 1, scale = f32, zero = middle>>
  return
}

// -----

func.func @half_products() {
  // expected-error @below {{is quantised, so that products with it are computed in f32}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<16x8xf16, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  return
}

// -----

func.func @no_zero_points() {
  // expected-error @below {{needs scales of 'f32' and zero points}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = packed>>
  return
}

// -----

func.func @short_scales() {
  // expected-error @below {{scales of 'tensor<8x16xui4>' have 32 bytes, but length is 28}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 28, element = f32>} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  return
}

// -----

func.func @short_zero_points() {
  // expected-error @below {{zero points of 'tensor<8x16xui4>' have 8 bytes, but length is 4}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<8x16xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>, zero_points = #helix.bytes<file = "w", offset = 0, length = 4, element = ui4>} : tensor<16x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = packed>>
  return
}

// -----

func.func @rows_within_bytes() {
  // expected-error @below {{has rows that do not end with a byte}}
  %0 = helix.weight "w" {file = "w", offset = 0 : i64, length = 60 : i64, stored = tensor<8x15xui4>, transposed, scales = #helix.bytes<file = "w", offset = 64, length = 32, element = f32>} : tensor<15x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
  return
}

// -----

// expected-error @below {{codes have 2, 4 or 8 bits, not 3}}
func.func private @bits(tensor<8x8xf32, #helix.quant<bits = 3, block = 16, axis = 0, scale = f32, zero = middle>>)

// -----

// expected-error @below {{activations are rounded to i8 or not at all, not to 'i4'}}
func.func private @activations(tensor<8x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle, activations = i4>>)

// -----

// expected-error @below {{with activations of i8 a block has at most 65536 elements, not 65537}}
func.func private @long_blocks(tensor<8x8xf32, #helix.quant<bits = 4, block = 65537, axis = 0, scale = f32, zero = middle, activations = i8>>)
