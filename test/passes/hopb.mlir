// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=3" -helix-verify-spmd | FileCheck %s
// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=99" | FileCheck %s --check-prefix=MOST
// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb | FileCheck %s --check-prefix=OFF
// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=0 hardware=%S/Inputs/slow-link.json" | FileCheck %s --check-prefix=AUTO
// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=0 hardware=%S/Inputs/slow-start.json" | FileCheck %s --check-prefix=OFF
// RUN: helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=2" -helix-hopb="chunks=2" | FileCheck %s --check-prefix=ONCE
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard -helix-partition -helix-hopb="chunks=2" | FileCheck %s --check-prefix=ALONE

// Five sequences in three chunks: 2, 2, 1, each exchanged by itself, merged together.
// CHECK-LABEL: func.func @decode
// CHECK:         %[[C:.*]] = helix.kv_append
// CHECK-NEXT:    %[[P0:.*]] = helix.partial_attention %[[Q:.*]], %[[C]], {{.*}} {scale = 5.000000e-01 : f64, sequences = array<i64: 0, 2>} {{.*}} -> <tensor<2x1x2x4xf32>, lse, [kvp]>
// CHECK-NEXT:    %[[S0:.*]] = helix.all_to_all %[[P0]] : {{.*}} -> <kvp, tensor<2x2x1x1x5xf32>>
// CHECK-NEXT:    %[[P1:.*]] = helix.partial_attention %[[Q]], %[[C]], {{.*}} {scale = 5.000000e-01 : f64, sequences = array<i64: 2, 2>}
// CHECK-NEXT:    %[[S1:.*]] = helix.all_to_all %[[P1]]
// CHECK-NEXT:    %[[P2:.*]] = helix.partial_attention %[[Q]], %[[C]], {{.*}} {scale = 5.000000e-01 : f64, sequences = array<i64: 4, 1>}
// CHECK-NEXT:    %[[S2:.*]] = helix.all_to_all %[[P2]] : {{.*}} -> <kvp, tensor<2x1x1x1x5xf32>>
// CHECK-NEXT:    helix.merge_attention %[[S0]], %[[S1]], %[[S2]] : {{.*}} -> tensor<5x1x1x4xf32>

// A prefill chunk is cut along its query tokens.
// CHECK-LABEL: func.func @prefill
// CHECK:         helix.partial_attention {{.*}} {query_tokens = array<i64: 0, 2>, scale = {{.*}} -> <tensor<5x2x2x4xf32>, lse, [kvp]>
// CHECK:         helix.partial_attention {{.*}} {query_tokens = array<i64: 2, 1>, scale = {{.*}} -> <tensor<5x1x2x4xf32>, lse, [kvp]>
// CHECK:         helix.partial_attention {{.*}} {query_tokens = array<i64: 3, 1>
// CHECK:         helix.merge_attention {{.*}} -> tensor<5x4x1x4xf32>

// No more chunks than items.
// MOST-LABEL:    func.func @decode
// MOST-COUNT-5:    helix.partial_attention
// MOST-NOT:        helix.partial_attention
// MOST-LABEL:    func.func @prefill
// MOST-COUNT-4:    helix.partial_attention
// MOST-NOT:        helix.partial_attention

// Where bytes are all that counts and attention takes longer than its exchange, the last chunk's exchange is what shows:
// with 2, 2, 1 it is as short as it can be, and more chunks gain nothing. Chunks of tokens would each read the cache.
// AUTO-LABEL:    func.func @decode
// AUTO-COUNT-3:    helix.partial_attention
// AUTO-NOT:        helix.partial_attention
// AUTO-LABEL:    func.func @prefill
// AUTO:            helix.partial_attention
// AUTO-NOT:        helix.partial_attention

// Off is off; and where each message costs much to start, it does not pay.
// OFF-LABEL:     func.func @decode
// OFF-COUNT-1:     helix.partial_attention
// OFF-NOT:         sequences

// A chunk is not cut again.
// ONCE-LABEL:    func.func @decode
// ONCE-COUNT-2:    helix.partial_attention
// ONCE-NOT:        helix.partial_attention
// ONCE-LABEL:    func.func @prefill

// A rank alone exchanges nothing.
// ALONE-NOT:     sequences
