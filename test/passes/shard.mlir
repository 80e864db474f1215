// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2" | FileCheck %s
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="ranks=6" | FileCheck %s --check-prefix=SIX
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=5" | FileCheck %s --check-prefix=FIVE
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard | FileCheck %s --check-prefix=ONE
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=6 kv-replicate" | FileCheck %s --check-prefix=COPIES
// RUN: helix-opt %S/Inputs/layer.mlir -helix-raise -helix-shard="kvp=2 tpa=2 ffn-ranks=3" | FileCheck %s --check-prefix=SUBSET

// CHECK: helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>
// Query, key and value are split over heads from the product on; what attention gives, over tpa then kvp.
// CHECK-DAG: helix.linear {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa"]]>} : (tensor<2x1x8xf32>, tensor<8x24xf32>)
// CHECK-DAG: tensor.expand_shape {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa"], []]>} : tensor<2x1x8xf32>
// CHECK-DAG: helix.rope {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa"], []]>}
// CHECK-DAG: helix.attention {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa", "kvp"], []]>
// CHECK-DAG: tensor.collapse_shape {{.*}} {helix.sharding = #helix.sharding<attn, {{\[\[}}], [], ["tpa", "kvp"]]>}
// The logits are split over the vocabulary.
// CHECK: helix.linear {{.*}} {helix.sharding = #helix.sharding<flat, {{\[\[}}], [], ["n"]]>} : (tensor<2x1x8xf32>, tensor<8x11xf32>)

// tpa is the largest divisor of N that divides the two KV heads.
// SIX: #helix.mesh<tpa = 2, kvp = 3, ep = 1, tpf = 6>
// FIVE: #helix.mesh<tpa = 1, kvp = 5, ep = 1, tpf = 5>
// ONE: #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>

// COPIES-NOT: helix.ffn_ranks
// COPIES: #helix.mesh<tpa = 6, kvp = 2, ep = 1, tpf = 12>
// SUBSET: helix.ffn_ranks = 3 : i64, helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>
