// RUN: helix-opt %S/Inputs/fused.mlir -helix-codegen -mlir-elide-elementsattrs-if-larger=16 -mlir-print-debuginfo | FileCheck %s
// RUN: helix-opt %S/Inputs/fused.mlir -helix-codegen=cpu-features=x86-64-v4 | FileCheck %s --check-prefix=V4

// The same module gives the same bytes.
// RUN: helix-opt %S/Inputs/fused.mlir -helix-codegen -o %t.1
// RUN: helix-opt %S/Inputs/fused.mlir -helix-codegen -o %t.2
// RUN: cmp %t.1 %t.2

// A rank alone exchanges nothing: all of its collectives vanish.
// RUN: sed -e 's/kvp = 2/kvp = 1/g; s/tpf = 2/tpf = 1/; s/2x2x1x2x5/1x2x1x4x5/g; s/2x1x2x4/2x1x4x4/g; s/tensor<2x1x8xf32>$/&/' \
// RUN:   -e 's/%%m1 = .*/%%m1 = tensor.collapse_shape %%m [[0], [1], [2, 3]] : tensor<2x1x4x4xf32> into tensor<2x1x16xf32>/' \
// RUN:   -e 's/kvp, 8>], \[\]\]} : tensor<8x8xf32>/kvp, 12>], []]} : tensor<16x8xf32>/; s/%%m1, %%wo \(.*\) : (tensor<2x1x8xf32>, tensor<8x8xf32>)/%%m1, %%wo \1 : (tensor<2x1x16xf32>, tensor<16x8xf32>)/' \
// RUN:   %S/Inputs/fused.mlir | helix-opt -helix-codegen | FileCheck %s --check-prefix=ALONE
// ALONE: plan.partial_attention
// ALONE-NOT: plan.all_

// V4: plan.image @image triple "x86_64-unknown-linux-gnu" features "x86-64-v4"

// Weights are shared: the entry fetches one by one what the module lists once, each slice under a name of its own.
// CHECK: plan.weight @embed <table> tensor<6x8xf32> {file = "w", length = 352 : i64, name = "embed", offset = 0 : i64, slice = {{\[\[}}#helix.split<n, 6>], []], stored = tensor<11x8xf32>}
// CHECK-NEXT: plan.weight @norm_0 <vector> tensor<8xf32>
// CHECK-NEXT: plan.weight @qkv <linear> tensor<8x12xf32>
// CHECK-NEXT: plan.weight @qkv_1 <linear> tensor<8x4xf32> {{.*}}window_offset = array<i64: 0, 12>
// CHECK-NEXT: plan.weight @qkv_2 <linear> tensor<8x4xf32> {{.*}}window_offset = array<i64: 0, 16>
// CHECK-NEXT: plan.weight @o <linear> tensor<8x8xf32>
// CHECK-NEXT: plan.weight @head <linear> tensor<8x6xf32>
// CHECK-NEXT: plan.image @image triple "x86_64-unknown-linux-gnu" features "x86-64-v3" {code = dense_resource<__elided__>
// CHECK-NEXT: plan.kernel @norm in @image groups 2 buffers [64, 32, 64] {bytes = 1.600000e+02 : f64, flops = 6.400000e+01 : f64}
// CHECK-NOT: func.func

// CHECK: plan.entry @decode <decode, batch = 2, tokens = 1, logits = last> (%[[IDS:.*]]: tensor<2x1xi64>{{.*}}, %[[PAST:.*]]: tensor<2xi32>{{.*}}, %[[QLEN:.*]]: tensor<2xi32>{{.*}}, %[[KV:.*]]: !helix.kv<
// CHECK: %[[TABLE:.*]] = plan.get_weight @embed
// CHECK: %[[E:.*]] = plan.embedding %[[IDS]], %[[TABLE]] {hidden = 8 : i64, rows = 2 : i64, vocabulary = 6 : i64} {{.*}} loc(#[[EMBED:.*]])
// CHECK: %[[X:.*]] = plan.all_reduce %[[E]] over <n> {peers = 2 : i64}
// CHECK: %[[S:.*]] = plan.get_weight @norm_0
// CHECK: %[[N:.*]] = plan.launch @norm(%[[X]], %[[S]]) : (tensor<2x1x8xf32>, tensor<8xf32>) -> tensor<2x1x8xf32>
// CHECK: %[[Q:.*]] = plan.linear %[[N]], %{{.*}} {k = 8 : i64, n = 12 : i64, phase = #helix.phase<kvp>, rows = 2 : i64}
// CHECK: %[[K:.*]] = plan.linear %[[N]]
// CHECK: %[[V:.*]] = plan.linear %[[N]]
// A reshape is no command.
// CHECK: %[[KV1:.*]] = plan.kv_append %[[K]], %[[V]], %[[PAST]], %[[QLEN]] into %[[KV]] {batch = 2 : i64, phase = #helix.phase<kvp>, tokens = 1 : i64} : tensor<2x1x4xf32>
// CHECK: %[[P:.*]] = plan.partial_attention %[[Q]], %[[KV1]], %[[PAST]], %[[QLEN]] {batch = 2 : i64, heads = 3 : i64, padded_heads = 4 : i64, phase = #helix.phase<kvp>, scale = 5.000000e-01 : f64, tokens = 1 : i64} {{.*}} -> tensor<2x2x1x2x5xf32>
// CHECK: %[[T:.*]] = plan.all_to_all %[[P]] over <kvp> {peers = 2 : i64, phase = #helix.phase<kvp>}
// CHECK: %[[M:.*]] = plan.merge_attention %[[T]] {batch = 2 : i64, heads = 2 : i64, peers = 2 : i64, phase = #helix.phase<kvp>, tokens = 1 : i64, value_dim = 4 : i64}
// CHECK: %[[O:.*]] = plan.linear %[[M]], %{{.*}} {k = 8 : i64, n = 8 : i64, phase = #helix.phase<tp>, rows = 2 : i64}
// CHECK: %[[Y:.*]] = plan.all_reduce %[[O]] over <n> {peers = 2 : i64, phase = #helix.phase<tp>}
// CHECK: %[[Z:.*]] = plan.launch @norm(%[[Y]], %{{.*}}) {phase = #helix.phase<tp>}
// CHECK: %[[L:.*]] = plan.last_token %[[Z]], %[[QLEN]] {batch = 2 : i64, hidden = 8 : i64, tokens = 1 : i64}
// CHECK: %[[LOGITS:.*]] = plan.linear %[[L]], %{{.*}} {k = 8 : i64, n = 6 : i64, rows = 2 : i64}
// CHECK: plan.return %[[LOGITS]] : tensor<2x1x6xf32>
// CHECK: #[[EMBED]] = loc("/embed")
