// RUN: not helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=-1" 2>&1 | FileCheck %s
// RUN: not helix-opt %S/Inputs/exchange.mlir -helix-hopb="chunks=0 hardware=no-such-system" 2>&1 | FileCheck %s --check-prefix=HARDWARE

// CHECK: HLX2060: cannot cut attention into -1 chunks; take 1 or more, or 0 to have the number chosen
// HARDWARE: HLX6001: {{.*}}no-such-system
