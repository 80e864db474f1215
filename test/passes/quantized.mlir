// The layer of Inputs/layer.mlir with its packed q, k and v, its output projection and the FFN's last product in codes of
// 4 bits: every pass hands on what the codes mean, and cuts through blocks as through anything.
// RUN: sed -f %S/Inputs/quantized.sed %S/Inputs/layer.mlir > %t.mlir
// RUN: helix-opt %t.mlir -helix-raise -helix-shard="kvp=3 tpa=2" -helix-partition -cse -helix-verify-spmd | FileCheck %s
// RUN: helix-opt %t.mlir -helix-raise -helix-shard="kvp=3 tpa=2" -helix-partition -cse -helix-split-reduce=chunks=2 | FileCheck %s --check-prefix=CHUNKS
// RUN: helix-opt %t.mlir -helix-model-phase="kvp=3 tpa=2" -helix-spmd-phase -helix-plan-phase | FileCheck %s --check-prefix=PLAN

// CHECK-DAG: helix.weight "qkv" {{.*}}scales = #helix.bytes<file = "w", offset = 5000, length = 160, element = f32>, slice = {{\[\[}}#helix.split<tpa, 12>], []], stored = tensor<40x16xui4>, transposed, window_offset = array<i64: 0, 0>, window_size = array<i64: 24, 8>} : tensor<8x12xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>
// CHECK-DAG: helix.weight "qkv" {{.*}}slice = {{\[\[}}#helix.split<tpa, 4>], []]{{.*}}window_offset = array<i64: 24, 0>, window_size = array<i64: 8, 8>} : tensor<8x4xf32, #helix.quant<{{.*}}>>
// CHECK-DAG: helix.weight "o" {{.*}}slice = {{\[\[}}], [#helix.split<tpa, 12>, #helix.split<kvp, 4>]]{{.*}} : tensor<4x8xf32, #helix.quant<{{.*}}>>
// CHECK-DAG: helix.weight "down" {{.*}}slice = {{\[\[}}], [#helix.split<tpf, 2>]]{{.*}}zero_points = #helix.bytes<file = "w", offset = 7000, length = 8, element = ui4>} : tensor<2x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f16, zero = packed>>

// CHUNKS-DAG: helix.weight "o" {{.*}}window_offset = array<i64: 0, 0>, window_size = array<i64: 4, 24>} : tensor<4x4xf32, #helix.quant<{{.*}}>>
// CHUNKS-DAG: helix.weight "o" {{.*}}window_offset = array<i64: 4, 0>, window_size = array<i64: 4, 24>} : tensor<4x4xf32, #helix.quant<{{.*}}>>

// RUN: sed "s/zero = middle>/zero = middle, activations = i8>/g" %t.mlir | helix-opt -helix-model-phase="kvp=3 tpa=2" -helix-spmd-phase -helix-plan-phase | FileCheck %s --check-prefix=ROUNDED

// ROUNDED-DAG: plan.weight @qkv <linear> {{.*}}activations = i8>>
// ROUNDED-DAG: plan.weight @o <linear> {{.*}}activations = i8>>
// ROUNDED-DAG: plan.linear {{.*}} {k = 4 : i64, n = 8 : i64, {{.*}}activations = i8>>) -> tensor<2x1x8xf32>

// PLAN-DAG: plan.weight @o <linear> tensor<4x8xf32, #helix.quant<{{.*}}>> {{.*}}scales = #helix.bytes<file = "w", offset = 6000, length = 64, element = f32>
// PLAN-DAG: plan.weight @down <linear> {{.*}}zero_points = #helix.bytes<
// PLAN-DAG: plan.linear {{.*}} {k = 2 : i64, n = 8 : i64, {{.*}} : (tensor<2x1x2xf32>, tensor<2x8xf32, #helix.quant<{{.*}}>>) -> tensor<2x1x8xf32>
