// RUN: helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=2 tpa=2" -helix-spmd-phase | FileCheck %s
// RUN: helix-opt %s -helix-fuse | FileCheck %s --check-prefix=ORDER

// CHECK:     func.func @decode
// CHECK-NOT: helix.rms_norm
// CHECK-NOT: helix.rope
// CHECK-NOT: arith.
// CHECK:     call @kernel_rope({{.*}}) {helix.phase = #helix.phase<kvp>}
// CHECK:     %[[AN:.*]]:2 = call @kernel_addf_rms_norm
// CHECK:     %[[G:.*]] = helix.linear %[[AN]]#1
// CHECK:     %[[U:.*]] = helix.linear %[[AN]]#1
// CHECK:     call @kernel_negf_exp_addf_divf_mulf(%[[G]], %[[U]])
// CHECK:     func.func private @kernel_rms_norm
// CHECK-SAME: attributes {helix.kernel}

// A value that a product needs before the next row-wise op closes the cluster; equal clusters share a kernel.
// ORDER: func.func @order
func.func @order(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>)
    -> tensor<1x1x8xf32> attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
  %x = helix.weight "x" {file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<1x1x8xf32>} : tensor<1x1x8xf32>
  %w = helix.weight "w" {file = "w", offset = 32 : i64, length = 256 : i64, stored = tensor<8x8xf32>} : tensor<8x8xf32>
  // ORDER: %[[A:.*]] = call @kernel_addf(%[[X:.*]])
  %a = arith.addf %x, %x : tensor<1x1x8xf32>
  // ORDER: %[[Y:.*]] = helix.linear %[[A]]
  %y = helix.linear %a, %w : (tensor<1x1x8xf32>, tensor<8x8xf32>) -> tensor<1x1x8xf32>
  // ORDER: call @kernel_addf(%[[Y]])
  %b = arith.addf %y, %y : tensor<1x1x8xf32>
  return %b : tensor<1x1x8xf32>
}
// ORDER: func.func private @kernel_addf(
// ORDER-NOT: func.func private
