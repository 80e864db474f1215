// RUN: helix-opt %s -canonicalize -split-input-file | FileCheck %s

// Results that nobody reads are dropped; those made outside are forwarded.
// CHECK: func.func @slim(%[[X:.*]]: tensor<1x1x4xf32>)
func.func @slim(%x: tensor<1x1x4xf32>) -> (tensor<1x1x4xf32>, tensor<1x1x4xf32>) {
  // CHECK-NEXT: %[[R:.*]] = helix.region tp {
  // CHECK-NEXT:   %[[S:.*]] = arith.addf %[[X]], %[[X]]
  // CHECK-NEXT:   helix.yield %[[S]] : tensor<1x1x4xf32>
  // CHECK-NEXT: } : tensor<1x1x4xf32>
  %a, %b, %c = helix.region tp {
    %s = arith.addf %x, %x : tensor<1x1x4xf32>
    %t = arith.mulf %x, %x : tensor<1x1x4xf32>
    helix.yield %s, %t, %x : tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>
  } : tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>
  // CHECK: return %[[R]], %[[X]]
  return %a, %c : tensor<1x1x4xf32>, tensor<1x1x4xf32>
}

// -----

// A region without ops goes away.
// CHECK: func.func @empty(%[[X:.*]]: tensor<1x1x4xf32>)
func.func @empty(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> {
  // CHECK-NEXT: return %[[X]]
  %a = helix.region kvp {
    helix.yield %x : tensor<1x1x4xf32>
  } : tensor<1x1x4xf32>
  return %a : tensor<1x1x4xf32>
}

// -----

// Ops without a reader go away, weights too.
// CHECK: func.func @dead
func.func @dead(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> {
  // CHECK-NOT: helix
  %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 64 : i64, stored = tensor<4x4xf32>} : tensor<4x4xf32>
  %y = helix.linear %x, %w : (tensor<1x1x4xf32>, tensor<4x4xf32>) -> tensor<1x1x4xf32>
  return %x : tensor<1x1x4xf32>
}
