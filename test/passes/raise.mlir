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
