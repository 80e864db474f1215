// RUN: not helix-opt %S/Inputs/exchange.mlir -helix-split-reduce="chunks=-2" 2>&1 | FileCheck %s
// RUN: not helix-opt %S/Inputs/exchange.mlir -helix-split-reduce="chunks=0 hardware=no-such-system" 2>&1 | FileCheck %s --check-prefix=HARDWARE

// CHECK: HLX2060: cannot cut products into -2 chunks; take 1 or more, or 0 to have the number chosen
// HARDWARE: HLX6001: {{.*}}no-such-system
