// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-partition 2>&1 | FileCheck %s
// CHECK: error: HLX2005: the module has no helix.mesh; run helix-shard first

// Without raising, the packed product does not fit the pattern of attention.
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-shard="kvp=2" 2>&1 | FileCheck %s --check-prefix=PACKED
// PACKED: error: HLX2003: cannot shard tensor.expand_shape: it must be the only reader of a helix.linear with a helix.weight

// Partition takes whole models only.
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=2" -helix-partition -helix-partition 2>&1 | FileCheck %s --check-prefix=TWICE
// TWICE: error: HLX2005: weight has a slice at model level

// It does not rely on helix-shard for the baselines, either.
// RUN: helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=1 tpa=6 kv-replicate" | sed 's/tpa = 6, kvp = 1, ep = 1, tpf = 6/tpa = 4, kvp = 1, ep = 1, tpf = 4/' | not helix-opt -helix-partition 2>&1 | FileCheck %s --check-prefix=GROUP
// GROUP: error: HLX2006: tpa = 4 does not give each of 2 KV heads
// RUN: helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=2 ffn-ranks=2" | sed 's/ffn_ranks = 2/ffn_ranks = 3/' | not helix-opt -helix-partition 2>&1 | FileCheck %s --check-prefix=SUBSET
// SUBSET: error: HLX2005: helix.ffn_ranks = 3 is not from 1 to the mesh's 2 ranks
