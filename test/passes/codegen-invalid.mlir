// RUN: helix-opt %s -helix-codegen -split-input-file -verify-diagnostics
// RUN: not helix-opt %S/Inputs/fused.mlir -helix-codegen=cpu-features=sse2 2>&1 | FileCheck %s --check-prefix=FEATURES
// RUN: not helix-opt %S/Inputs/fused.mlir -helix-codegen=target=tpu 2>&1 | FileCheck %s --check-prefix=TARGET
// FEATURES: HLX2052: unknown CPU features 'sse2'; take x86-64-v3 or x86-64-v4
// TARGET: HLX2052: unknown target 'tpu'; take cpu

// expected-error @below {{HLX2053: the module needs helix.mesh and a function with helix.entry}}
module {}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %w: tensor<4x4xf32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    // expected-error @below {{HLX2053: no command does the work of arith.constant: run helix-flatten and helix-fuse first}}
    %x = arith.constant dense<0.0> : tensor<1x1x4xf32>
    return %x : tensor<1x1x4xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  func.func private @plain(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    // expected-error @below {{HLX2053: no command does the work of func.call: @plain has no helix.kernel}}
    %y = func.call @plain(%x) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 16 : i64, stored = tensor<1x4xf32>} : tensor<1x4xf32>
    // expected-error @below {{HLX2053: no command does the work of tensor.expand_shape: it reads a weight}}
    %x = tensor.expand_shape %w [[0, 1], [2]] output_shape [1, 1, 4] : tensor<1x4xf32> into tensor<1x1x4xf32>
    return %x : tensor<1x1x4xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  func.func private @k(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> attributes {helix.kernel} {
    // expected-error @below {{HLX2050: cannot generate code for tensor.empty: a kernel holds helix.rms_norm, helix.rope and elementwise ops}}
    %y = tensor.empty() : tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %y = func.call @k(%x) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  // expected-error @below {{HLX2050: cannot generate code for func.func: every result must be computed by the kernel, and returned once}}
  func.func private @k(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> attributes {helix.kernel} {
    return %x : tensor<1x1x4xf32>
  }
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %y = func.call @k(%x) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
}

// -----

// No instruction and no polynomial: it would have to be called in libm.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  // expected-error @below {{HLX2051: cannot make native code: the linker says: }}
  func.func private @k(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> attributes {helix.kernel} {
    %y = math.powf %x, %x : tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
  func.func @decode(%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
      attributes {helix.entry = #helix.entry<decode, batch = 1, tokens = 1, logits = last>} {
    %y = func.call @k(%x) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
    return %y : tensor<1x1x4xf32>
  }
}
