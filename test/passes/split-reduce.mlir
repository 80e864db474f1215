// RUN: helix-opt %s -helix-split-reduce="chunks=3" -helix-verify-spmd | FileCheck %s
// RUN: helix-opt %s -helix-split-reduce="chunks=99" | FileCheck %s --check-prefix=MOST
// RUN: helix-opt %s -helix-split-reduce | FileCheck %s --check-prefix=OFF
// RUN: helix-opt %s -helix-split-reduce="chunks=0 hardware=%S/Inputs/slow-link.json" | FileCheck %s --check-prefix=AUTO
// RUN: helix-opt %s -helix-split-reduce="chunks=0 hardware=%S/Inputs/slow-start.json" | FileCheck %s --check-prefix=OFF

// 200 columns in three chunks of whole panels of 64: 128, 64 and the 8 that are left. The window of the weight is its
// own window's; its rows' slice stays. What follows sees all columns, and both entries cut alike.
// CHECK-LABEL: func.func @decode
// CHECK-DAG:     %[[W0:.*]] = helix.weight "w" {{.*}}slice = {{\[\[}}#helix.split<n, 4>], []]{{.*}}window_offset = array<i64: 0, 8>, window_size = array<i64: 8, 128>} : tensor<4x128xf32>
// CHECK-DAG:     %[[W1:.*]] = helix.weight "w" {{.*}}window_offset = array<i64: 0, 136>, window_size = array<i64: 8, 64>} : tensor<4x64xf32>
// CHECK-DAG:     %[[W2:.*]] = helix.weight "w" {{.*}}window_offset = array<i64: 0, 200>, window_size = array<i64: 8, 8>} : tensor<4x8xf32>
// CHECK-DAG:     %[[P0:.*]] = helix.linear %[[X:.*]], %[[W0]] {helix.phase = #helix.phase<tp>} : {{.*}} -> !helix.partial<tensor<1x1x128xf32>, sum, [n]>
// CHECK-DAG:     %[[Y0:.*]] = helix.all_reduce %[[P0]] {helix.phase = #helix.phase<tp>}
// CHECK-DAG:     %[[P1:.*]] = helix.linear %[[X]], %[[W1]]
// CHECK-DAG:     %[[Y1:.*]] = helix.all_reduce %[[P1]]
// CHECK-DAG:     %[[P2:.*]] = helix.linear %[[X]], %[[W2]]
// CHECK-DAG:     %[[Y2:.*]] = helix.all_reduce %[[P2]]
// CHECK:         %[[Y:.*]] = tensor.concat dim(2) %[[Y0]], %[[Y1]], %[[Y2]] {helix.phase = #helix.phase<tp>} : {{.*}} -> tensor<1x1x200xf32>
// CHECK:         return %[[Y]]
// CHECK-LABEL: func.func @prefill
// CHECK:         tensor.concat dim(2) {{.*}} : (tensor<1x4x128xf32>, tensor<1x4x64xf32>, tensor<1x4x8xf32>) -> tensor<1x4x200xf32>

// More chunks than panels: single columns at the least.
// MOST-LABEL:    func.func @decode
// MOST-COUNT-99:   helix.all_reduce
// MOST-NOT:        helix.all_reduce
// MOST-LABEL:    func.func @prefill

// OFF-LABEL:     func.func @decode
// OFF-COUNT-1:     helix.all_reduce
// OFF-NOT:         tensor.concat

// AUTO-LABEL:    func.func @decode
// AUTO-COUNT-3:    helix.all_reduce
// AUTO:            tensor.concat
module attributes {helix.vocabulary = 200 : i64, helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) -> tensor<1x1x200xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %x = tensor.empty() : tensor<1x1x4xf32>
    %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 8192 : i64, stored = tensor<8x256xf32>,
        window_offset = array<i64: 0, 8>, window_size = array<i64: 8, 200>, slice = [[#helix.split<n, 4>], []]} : tensor<4x200xf32>
    %p = helix.linear %x, %w {helix.phase = #helix.phase<tp>} : (tensor<1x1x4xf32>, tensor<4x200xf32>) -> !helix.partial<tensor<1x1x200xf32>, sum, [n]>
    %y = helix.all_reduce %p {helix.phase = #helix.phase<tp>} : !helix.partial<tensor<1x1x200xf32>, sum, [n]> -> tensor<1x1x200xf32>
    return %y : tensor<1x1x200xf32>
  }
  func.func @prefill(%ids: tensor<1x4xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) -> tensor<1x4x200xf32>
      attributes {helix.entry = #helix.entry<prefill, batch = 1, tokens = 4, logits = all>} {
    %x = tensor.empty() : tensor<1x4x4xf32>
    %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 8192 : i64, stored = tensor<8x256xf32>,
        window_offset = array<i64: 0, 8>, window_size = array<i64: 8, 200>, slice = [[#helix.split<n, 4>], []]} : tensor<4x200xf32>
    %p = helix.linear %x, %w {helix.phase = #helix.phase<tp>} : (tensor<1x4x4xf32>, tensor<4x200xf32>) -> !helix.partial<tensor<1x4x200xf32>, sum, [n]>
    %y = helix.all_reduce %p {helix.phase = #helix.phase<tp>} : !helix.partial<tensor<1x4x200xf32>, sum, [n]> -> tensor<1x4x200xf32>
    return %y : tensor<1x4x200xf32>
  }
}
