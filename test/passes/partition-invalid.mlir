// RUN: not helix-opt %S/Inputs/layer.mlir -helix-raise -helix-partition 2>&1 | FileCheck %s
// CHECK: error: HLX2005: the module has no helix.mesh; run helix-shard first

// Without raising, the packed product does not fit the pattern of attention.
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-shard="kvp=2" 2>&1 | FileCheck %s --check-prefix=PACKED
// PACKED: error: HLX2003: cannot shard tensor.expand_shape: it must be the only reader of a helix.linear with a helix.weight

// Partition takes whole models only.
// RUN: not helix-opt %S/Inputs/layer.mlir -helix-model-phase="kvp=2" -helix-partition -helix-partition 2>&1 | FileCheck %s --check-prefix=TWICE
// TWICE: error: HLX2005: weight has a slice at model level
