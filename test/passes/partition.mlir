// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=4 tpa=2" -helix-partition -cse -helix-verify-spmd | FileCheck %s
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard -helix-partition -cse -helix-verify-spmd | FileCheck %s --check-prefix=ONE
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=6 kv-replicate" -helix-partition -cse -helix-verify-spmd | FileCheck %s --check-prefix=COPIES
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2 ffn-ranks=3" -helix-partition -cse -helix-verify-spmd | FileCheck %s --check-prefix=SUBSET

// 8 ranks: one KV head and 3 query heads per tpa shard, padded to 4 for the exchange; capacity 12 becomes 16;
// 11 ids are 2 per rank, 10 FFN columns too.
// CHECK:      func.func @decode({{.*}}!helix.kv<slots = 2, heads = 1, key_dim = 4, value_dim = 4, element = f32, block = 4, kvp = 4, capacity = 16>) -> (tensor<2x1x2xf32>,
// CHECK:      helix.weight "embed" {{.*}}slice = {{\[\[}}#helix.split<n, 2>], []]{{.*}} : tensor<2x8xf32>
// CHECK:      %[[E:.*]] = helix.embedding {{.*}} -> !helix.partial<tensor<2x1x8xf32>, sum, [n]>
// CHECK:      %[[X:.*]] = helix.all_reduce %[[E]]
// CHECK:      %[[N:.*]] = helix.rms_norm %[[X]]
// CHECK:      %[[A:.*]]:2 = helix.region kvp {
// CHECK:        %[[WQ:.*]] = helix.weight "qkv" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 12>]]{{.*}} : tensor<8x12xf32>
// CHECK:        helix.linear %[[N]], %[[WQ]]
// CHECK:        %[[Q:.*]] = helix.rope {{.*}} : tensor<2x1x3x4xf32>
// CHECK:        helix.weight "qkv" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 4>]]{{.*}} : tensor<8x4xf32>
// CHECK:        %[[K:.*]] = helix.rope {{.*}} : tensor<2x1x1x4xf32>
// CHECK:        %[[C:.*]] = helix.kv_append %[[K]]
// CHECK:        %[[P:.*]] = helix.partial_attention %[[Q]], %[[C]], {{.*}} -> <tensor<2x1x4x4xf32>, lse, [kvp]>
// CHECK:        %[[S:.*]] = helix.all_to_all %[[P]] : {{.*}} -> <kvp, tensor<4x2x1x1x5xf32>>
// CHECK:        %[[M:.*]] = helix.merge_attention %[[S]]
// CHECK:        helix.yield %[[M]], %[[C]]
// CHECK:      helix.region tp {
// CHECK:        %[[R:.*]] = tensor.collapse_shape %[[A]]#0
// CHECK:        helix.weight "o" {{.*}}slice = {{\[\[}}#helix.split<tpa, 12>, #helix.split<kvp, 4>], []]{{.*}} : tensor<4x8xf32>
// CHECK:        helix.linear %[[R]], {{.*}} -> !helix.partial<tensor<2x1x8xf32>, sum, [n]>
// CHECK:        helix.all_reduce
// CHECK:        arith.addf %[[X]]
// CHECK:        helix.rms_norm
// CHECK:        helix.weight "gate" {{.*}}#helix.split<tpf, 2>{{.*}} : tensor<8x2xf32>
// CHECK:        helix.ffn {{.*}} -> !helix.partial<tensor<2x1x8xf32>, sum, [n]>
// CHECK:        helix.all_reduce
// CHECK:        arith.addf
// CHECK:        helix.yield
// CHECK:      helix.weight "head" {{.*}}#helix.split<n, 2>{{.*}} : tensor<8x2xf32>
// CHECK:      return %{{.*}}, %[[A]]#1

// One rank holds everything: no slices.
// ONE-NOT: slice =
// ONE:     helix.all_to_all {{.*}} -> <kvp, tensor<1x2x1x6x5xf32>>

// 12 ranks: each of the 2 KV heads on 3 of the tpa ranks, with one of its query heads on each.
// COPIES:      func.func @decode({{.*}}!helix.kv<slots = 2, heads = 1, {{.*}}kvp = 2,
// COPIES:      helix.weight "qkv" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 4>]]{{.*}}window_size = array<i64: 8, 24>{{.*}} : tensor<8x4xf32>
// COPIES:      helix.weight "qkv" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 4, replicas = 3>]]{{.*}}window_offset = array<i64: 0, 24>{{.*}} : tensor<8x4xf32>
// COPIES:      helix.weight "qkv" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 4, replicas = 3>]]{{.*}}window_offset = array<i64: 0, 32>{{.*}} : tensor<8x4xf32>
// COPIES:      helix.partial_attention {{.*}} : tensor<2x1x1x4xf32>, {{.*}} -> <tensor<2x1x2x4xf32>, lse, [kvp]>
// COPIES:      helix.weight "o" {{.*}}slice = {{\[\[}}#helix.split<tpa, 4>, #helix.split<kvp, 4>], []]{{.*}} : tensor<4x8xf32>

// 10 FFN columns are 4, 4 and 2 on three ranks, none on the fourth.
// SUBSET:      helix.weight "gate" {{.*}}slice = {{\[\[}}], [#helix.split<n, 4>]]{{.*}} : tensor<8x4xf32>
// SUBSET:      helix.weight "down" {{.*}}slice = {{\[\[}}#helix.split<n, 4>], []]{{.*}} : tensor<4x8xf32>
// SUBSET:      helix.ffn {{.*}} -> !helix.partial<tensor<2x1x8xf32>, sum, [n]>
