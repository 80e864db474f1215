// RUN: helix-opt %s -helix-codegen | FileCheck %s
// RUN: sed -e 's/"lm_head" {file = "w"/"lm_head" {file = "v"/' %s | helix-opt -helix-codegen | FileCheck %s --check-prefix=APART

// A table that is the final product's matrix too is kept once, as the product reads it.
// CHECK-COUNT-1: plan.weight
// CHECK-SAME: <linear> tensor<4x3xf32>
// CHECK-SAME: transposed
// CHECK-NOT: plan.weight
// CHECK: %[[W:.*]] = plan.get_weight
// CHECK: plan.embedding %{{.*}}, %[[W]] {hidden = 4 : i64, rows = 1 : i64, tied, vocabulary = 3 : i64}
// CHECK: plan.linear %{{.*}}, %{{.*}} {k = 4 : i64, n = 3 : i64, rows = 1 : i64}

// Other bytes are another weight.
// APART-COUNT-2: plan.weight
// APART: plan.embedding
// APART-NOT: tied
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>, helix.vocabulary = 5 : i64} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) -> tensor<1x1x3xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %table = helix.weight "embed" {file = "w", offset = 0 : i64, length = 80 : i64, stored = tensor<5x4xf32>, slice = [[#helix.split<n, 3>], []]} : tensor<3x4xf32>
    %p = helix.embedding %ids, %table : (tensor<1x1xi64>, tensor<3x4xf32>) -> !helix.partial<tensor<1x1x4xf32>, sum, [n]>
    %x = helix.all_reduce %p : <tensor<1x1x4xf32>, sum, [n]> -> tensor<1x1x4xf32>
    %head = helix.weight "lm_head" {file = "w", offset = 0 : i64, length = 80 : i64, stored = tensor<5x4xf32>, transposed, slice = [[#helix.split<n, 3>], []]} : tensor<4x3xf32>
    %logits = helix.linear %x, %head : (tensor<1x1x4xf32>, tensor<4x3xf32>) -> tensor<1x1x3xf32>
    return %logits : tensor<1x1x3xf32>
  }
}
