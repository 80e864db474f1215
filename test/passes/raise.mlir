// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise | FileCheck %s
// RUN: helix-opt %s -split-input-file -helix-raise | FileCheck %s --check-prefix=KEEP

// The packed product is taken apart by windows of the stored weight, and the FFN raised.
// CHECK-NOT:  extract_slice
// CHECK-DAG:  helix.weight "qkv" {{.*}}window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 24>} : tensor<8x24xf32>
// CHECK-DAG:  helix.weight "qkv" {{.*}}window_offset = array<i64: 0, 24>, window_size = array<i64: 8, 8>} : tensor<8x8xf32>
// CHECK-DAG:  helix.weight "qkv" {{.*}}window_offset = array<i64: 0, 32>, window_size = array<i64: 8, 8>} : tensor<8x8xf32>
// CHECK:      helix.ffn %{{.*}} {activation = #helix.activation<silu>} : (tensor<2x1x8xf32>, tensor<8x10xf32>, tensor<8x10xf32>, tensor<10x8xf32>) -> tensor<2x1x8xf32>
// CHECK-NOT:  math.exp

// A cut of another dimension, or a second reader, leaves the product packed.
// KEEP-LABEL: func.func @rows
func.func @rows(%x: tensor<1x2x4xf32>) -> tensor<1x1x8xf32> {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<4x8xf32>} : tensor<4x8xf32>
  %y = helix.linear %x, %w : (tensor<1x2x4xf32>, tensor<4x8xf32>) -> tensor<1x2x8xf32>
  // KEEP: tensor.extract_slice
  %z = tensor.extract_slice %y[0, 1, 0] [1, 1, 8] [1, 1, 1] : tensor<1x2x8xf32> to tensor<1x1x8xf32>
  return %z : tensor<1x1x8xf32>
}

// -----

// KEEP-LABEL: func.func @second_reader
func.func @second_reader(%x: tensor<1x1x4xf32>) -> (tensor<1x1x4xf32>, tensor<1x1x8xf32>) {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<4x8xf32>} : tensor<4x8xf32>
  %y = helix.linear %x, %w : (tensor<1x1x4xf32>, tensor<4x8xf32>) -> tensor<1x1x8xf32>
  // KEEP: tensor.extract_slice
  %z = tensor.extract_slice %y[0, 0, 4] [1, 1, 4] [1, 1, 1] : tensor<1x1x8xf32> to tensor<1x1x4xf32>
  return %z, %y : tensor<1x1x4xf32>, tensor<1x1x8xf32>
}

// -----

// A gate whose sigmoid is of another value is no silu: never raised.
// KEEP-LABEL: func.func @look_alike
func.func @look_alike(%x: tensor<1x1x4xf32>, %wg: tensor<4x6xf32>, %wu: tensor<4x6xf32>, %wd: tensor<6x4xf32>) -> tensor<1x1x4xf32> {
  %g = helix.linear %x, %wg : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %u = helix.linear %x, %wu : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %one = arith.constant dense<1.0> : tensor<1x1x6xf32>
  %neg = arith.negf %u : tensor<1x1x6xf32>
  %exp = math.exp %neg : tensor<1x1x6xf32>
  %sum = arith.addf %one, %exp : tensor<1x1x6xf32>
  %sigmoid = arith.divf %one, %sum : tensor<1x1x6xf32>
  %s = arith.mulf %g, %sigmoid : tensor<1x1x6xf32>
  %gu = arith.mulf %s, %u : tensor<1x1x6xf32>
  // KEEP-NOT: helix.ffn
  // KEEP: math.exp
  %d = helix.linear %gu, %wd : (tensor<1x1x6xf32>, tensor<6x4xf32>) -> tensor<1x1x4xf32>
  return %d : tensor<1x1x4xf32>
}

// -----

// Two is not one.
// KEEP-LABEL: func.func @other_constant
func.func @other_constant(%x: tensor<1x1x4xf32>, %wg: tensor<4x6xf32>, %wu: tensor<4x6xf32>, %wd: tensor<6x4xf32>) -> tensor<1x1x4xf32> {
  %g = helix.linear %x, %wg : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %u = helix.linear %x, %wu : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %one = arith.constant dense<1.0> : tensor<1x1x6xf32>
  %two = arith.constant dense<2.0> : tensor<1x1x6xf32>
  %neg = arith.negf %g : tensor<1x1x6xf32>
  %exp = math.exp %neg : tensor<1x1x6xf32>
  %sum = arith.addf %two, %exp : tensor<1x1x6xf32>
  %sigmoid = arith.divf %one, %sum : tensor<1x1x6xf32>
  %s = arith.mulf %g, %sigmoid : tensor<1x1x6xf32>
  %gu = arith.mulf %s, %u : tensor<1x1x6xf32>
  // KEEP-NOT: helix.ffn
  // KEEP: math.exp
  %d = helix.linear %gu, %wd : (tensor<1x1x6xf32>, tensor<6x4xf32>) -> tensor<1x1x4xf32>
  return %d : tensor<1x1x4xf32>
}

// -----

// A broadcast weight added to a product, on either side, is its bias; it is cut as the packed weight is.
// KEEP-LABEL: func.func @bias
func.func @bias(%x: tensor<1x1x4xf32>) -> tensor<1x1x3xf32> {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<4x8xf32>} : tensor<4x8xf32>
  %b = helix.weight "b" {file = "w", offset = 128 : i64, length = 32 : i64, stored = tensor<8xf32>} : tensor<8xf32>
  %y = helix.linear %x, %w : (tensor<1x1x4xf32>, tensor<4x8xf32>) -> tensor<1x1x8xf32>
  %rows = helix.broadcast %b : tensor<8xf32> -> tensor<1x1x8xf32>
  %z = arith.addf %rows, %y : tensor<1x1x8xf32>
  // KEEP: %[[W:.*]] = helix.weight "w" {{.*}}window_offset = array<i64: 0, 5>, window_size = array<i64: 4, 3>
  // KEEP: %[[B:.*]] = helix.weight "b" {{.*}}window_offset = array<i64: 5>, window_size = array<i64: 3>
  // KEEP: %[[Y:.*]] = helix.linear %{{.*}}, %[[W]], %[[B]]
  // KEEP-NOT: addf
  %cut = tensor.extract_slice %z[0, 0, 5] [1, 1, 3] [1, 1, 1] : tensor<1x1x8xf32> to tensor<1x1x3xf32>
  // KEEP: return %[[Y]]
  return %cut : tensor<1x1x3xf32>
}

// -----

// A bias that differs by position, or a product that is read without it too, stays a sum.
// KEEP-LABEL: func.func @no_bias
func.func @no_bias(%x: tensor<1x2x4xf32>) -> (tensor<1x2x4xf32>, tensor<1x2x4xf32>, tensor<1x2x4xf32>) {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<4x4xf32>} : tensor<4x4xf32>
  %b = helix.weight "b" {file = "w", offset = 64 : i64, length = 32 : i64, stored = tensor<2x4xf32>} : tensor<2x4xf32>
  %c = helix.weight "c" {file = "w", offset = 96 : i64, length = 16 : i64, stored = tensor<4xf32>} : tensor<4xf32>
  %y = helix.linear %x, %w : (tensor<1x2x4xf32>, tensor<4x4xf32>) -> tensor<1x2x4xf32>
  %rows = helix.broadcast %b : tensor<2x4xf32> -> tensor<1x2x4xf32>
  // KEEP-COUNT-2: arith.addf
  %z = arith.addf %y, %rows : tensor<1x2x4xf32>
  %u = helix.linear %x, %w : (tensor<1x2x4xf32>, tensor<4x4xf32>) -> tensor<1x2x4xf32>
  %all = helix.broadcast %c : tensor<4xf32> -> tensor<1x2x4xf32>
  %v = arith.addf %u, %all : tensor<1x2x4xf32>
  return %z, %u, %v : tensor<1x2x4xf32>, tensor<1x2x4xf32>, tensor<1x2x4xf32>
}

// -----

// The last token is taken before the product, through what follows it.
// KEEP-LABEL: func.func @last
func.func @last(%x: tensor<2x3x4xf32>, %n: tensor<2xi32>) -> tensor<2x1x8xf32> {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 128 : i64, stored = tensor<4x8xf32>} : tensor<4x8xf32>
  // KEEP: %[[X:.*]] = helix.last_token %{{.*}} : tensor<2x3x4xf32>, tensor<2xi32> -> tensor<2x1x4xf32>
  // KEEP: %[[Y:.*]] = helix.linear %[[X]]
  // KEEP: %[[Z:.*]] = arith.mulf %[[Y]], %{{.*}} : tensor<2x1x8xf32>
  // KEEP: return %[[Z]]
  %y = helix.linear %x, %w : (tensor<2x3x4xf32>, tensor<4x8xf32>) -> tensor<2x3x8xf32>
  %two = arith.constant dense<2.0> : tensor<2x3x8xf32>
  %z = arith.mulf %y, %two : tensor<2x3x8xf32>
  %l = helix.last_token %z, %n : tensor<2x3x8xf32>, tensor<2xi32> -> tensor<2x1x8xf32>
  return %l : tensor<2x1x8xf32>
}

// -----

// x/2 (1 + tanh(x (b + a x²))), with √(2/π) multiplied into both constants: still the tanh form of gelu.
// KEEP-LABEL: func.func @gelu_tanh
func.func @gelu_tanh(%x: tensor<1x1x4xf32>, %wu: tensor<4x6xf32>, %wd: tensor<6x4xf32>) -> tensor<1x1x4xf32> {
  %u = helix.linear %x, %wu : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %half = arith.constant dense<0.5> : tensor<1x1x6xf32>
  %one = arith.constant dense<1.0> : tensor<1x1x6xf32>
  %a = arith.constant dense<0.0356774069> : tensor<1x1x6xf32>
  %b = arith.constant dense<0.797884583> : tensor<1x1x6xf32>
  %x2 = arith.mulf %u, %u : tensor<1x1x6xf32>
  %ax2 = arith.mulf %x2, %a : tensor<1x1x6xf32>
  %in = arith.addf %b, %ax2 : tensor<1x1x6xf32>
  %arg = arith.mulf %in, %u : tensor<1x1x6xf32>
  %t = math.tanh %arg : tensor<1x1x6xf32>
  %t1 = arith.addf %t, %one : tensor<1x1x6xf32>
  %hu = arith.mulf %u, %half : tensor<1x1x6xf32>
  %act = arith.mulf %t1, %hu : tensor<1x1x6xf32>
  // KEEP: helix.ffn %{{.*}} up %{{.*}} down %{{.*}} {activation = #helix.activation<gelu_tanh>}
  %d = helix.linear %act, %wd : (tensor<1x1x6xf32>, tensor<6x4xf32>) -> tensor<1x1x4xf32>
  return %d : tensor<1x1x4xf32>
}

// -----

// x σ(1.702 x) is near gelu, and is not gelu.
// KEEP-LABEL: func.func @quick
func.func @quick(%x: tensor<1x1x4xf32>, %wu: tensor<4x6xf32>, %wd: tensor<6x4xf32>) -> tensor<1x1x4xf32> {
  %u = helix.linear %x, %wu : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %k = arith.constant dense<1.702> : tensor<1x1x6xf32>
  %one = arith.constant dense<1.0> : tensor<1x1x6xf32>
  %kx = arith.mulf %u, %k : tensor<1x1x6xf32>
  %n = arith.negf %kx : tensor<1x1x6xf32>
  %e = math.exp %n : tensor<1x1x6xf32>
  %e1 = arith.addf %e, %one : tensor<1x1x6xf32>
  %act = arith.divf %u, %e1 : tensor<1x1x6xf32>
  // KEEP-NOT: helix.ffn
  %d = helix.linear %act, %wd : (tensor<1x1x6xf32>, tensor<6x4xf32>) -> tensor<1x1x4xf32>
  return %d : tensor<1x1x4xf32>
}

// -----

// A relu that leaks is none.
// KEEP-LABEL: func.func @leaky
func.func @leaky(%x: tensor<1x1x4xf32>, %wu: tensor<4x6xf32>, %wd: tensor<6x4xf32>) -> tensor<1x1x4xf32> {
  %u = helix.linear %x, %wu : (tensor<1x1x4xf32>, tensor<4x6xf32>) -> tensor<1x1x6xf32>
  %k = arith.constant dense<0.01> : tensor<1x1x6xf32>
  %kx = arith.mulf %u, %k : tensor<1x1x6xf32>
  %act = arith.maximumf %u, %kx : tensor<1x1x6xf32>
  // KEEP-NOT: helix.ffn
  %d = helix.linear %act, %wd : (tensor<1x1x6xf32>, tensor<6x4xf32>) -> tensor<1x1x4xf32>
  return %d : tensor<1x1x4xf32>
}

// -----

// Queries, keys and values packed head by head: each is a window in pieces, of the bias too.
// KEEP-LABEL: func.func @interleaved
func.func @interleaved(%x: tensor<1x1x4xf32>) -> (tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>) {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 288 : i64, stored = tensor<4x18xf32>} : tensor<4x18xf32>
  %b = helix.weight "b" {file = "w", offset = 288 : i64, length = 72 : i64, stored = tensor<18xf32>} : tensor<18xf32>
  %y = helix.linear %x, %w, %b : (tensor<1x1x4xf32>, tensor<4x18xf32>, tensor<18xf32>) -> tensor<1x1x18xf32>
  // KEEP-DAG: helix.weight "w" {{.*}}pieces = array<i64: 0, 0, 2, 6>, {{.*}}window_offset = array<i64: 0, 0>, window_size = array<i64: 4, 6>
  // KEEP-DAG: helix.weight "w" {{.*}}pieces = array<i64: 0, 0, 2, 6>, {{.*}}window_offset = array<i64: 0, 2>, window_size = array<i64: 4, 6>
  // KEEP-DAG: helix.weight "b" {{.*}}pieces = array<i64: 2, 6>, {{.*}}window_offset = array<i64: 4>, window_size = array<i64: 6>
  // KEEP-NOT: tensor.extract_slice
  %h = tensor.expand_shape %y [[0], [1], [2, 3, 4]] output_shape [1, 1, 3, 3, 2] : tensor<1x1x18xf32> into tensor<1x1x3x3x2xf32>
  %q = tensor.extract_slice %h[0, 0, 0, 0, 0] [1, 1, 3, 1, 2] [1, 1, 1, 1, 1] : tensor<1x1x3x3x2xf32> to tensor<1x1x3x2xf32>
  %k = tensor.extract_slice %h[0, 0, 0, 1, 0] [1, 1, 3, 1, 2] [1, 1, 1, 1, 1] : tensor<1x1x3x3x2xf32> to tensor<1x1x3x2xf32>
  %g = tensor.expand_shape %y [[0], [1], [2, 3]] output_shape [1, 1, 3, 6] : tensor<1x1x18xf32> into tensor<1x1x3x6xf32>
  %v = tensor.extract_slice %g[0, 0, 0, 4] [1, 1, 3, 2] [1, 1, 1, 1] : tensor<1x1x3x6xf32> to tensor<1x1x3x2xf32>
  return %q, %k, %v : tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>
}

// -----

// Pieces of pieces are no window: two of three rows of two of three columns.
// KEEP-LABEL: func.func @pieces_of_pieces
func.func @pieces_of_pieces(%x: tensor<1x1x4xf32>) -> tensor<1x1x2x2x2xf32> {
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 288 : i64, stored = tensor<4x18xf32>} : tensor<4x18xf32>
  %y = helix.linear %x, %w : (tensor<1x1x4xf32>, tensor<4x18xf32>) -> tensor<1x1x18xf32>
  %h = tensor.expand_shape %y [[0], [1], [2, 3, 4]] output_shape [1, 1, 2, 3, 3] : tensor<1x1x18xf32> into tensor<1x1x2x3x3xf32>
  // KEEP: tensor.extract_slice
  %z = tensor.extract_slice %h[0, 0, 0, 1, 1] [1, 1, 2, 2, 2] [1, 1, 1, 1, 1] : tensor<1x1x2x3x3xf32> to tensor<1x1x2x2x2xf32>
  return %z : tensor<1x1x2x2x2xf32>
}
