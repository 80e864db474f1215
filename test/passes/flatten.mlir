// RUN: helix-opt %s -helix-flatten | FileCheck %s

// CHECK: func.func @flatten(%[[P:.*]]: !helix.partial<tensor<1x1x8xf32>, sum, [n]>, %[[X:.*]]: tensor<1x1x8xf32>)
func.func @flatten(%p: !helix.partial<tensor<1x1x8xf32>, sum, [n]>, %x: tensor<1x1x8xf32>) -> tensor<1x1x8xf32> {
  // CHECK-NEXT: %[[S:.*]] = helix.all_reduce %[[P]] {helix.phase = #helix.phase<tp>}
  // CHECK-NEXT: %[[Y:.*]] = arith.addf %[[S]], %[[X]] {helix.phase = #helix.phase<tp>}
  // CHECK-NEXT: %[[Z:.*]] = arith.mulf %[[Y]], %[[Y]] : tensor
  // CHECK-NEXT: return %[[Z]]
  %y = helix.region tp {
    %s = helix.all_reduce %p : !helix.partial<tensor<1x1x8xf32>, sum, [n]> -> tensor<1x1x8xf32>
    %t = arith.addf %s, %x : tensor<1x1x8xf32>
    helix.yield %t : tensor<1x1x8xf32>
  } : tensor<1x1x8xf32>
  %z = arith.mulf %y, %y : tensor<1x1x8xf32>
  return %z : tensor<1x1x8xf32>
}
