// RUN: helix-opt %s -split-input-file -verify-diagnostics -helix-verify-model
// RUN: not helix-opt %S/stateless.mlir -helix-model-phase="kvp=2" 2>&1 | FileCheck %s --check-prefix=MESH
// MESH: error: HLX2070: a stateless function is for one rank, but 2 along an axis were asked for; leave the mesh out
// RUN: helix-opt %S/stateless.mlir -helix-model-phase | sed 's/tpa = 1, kvp = 1, ep = 1, tpf = 1/tpa = 1, kvp = 2, ep = 1, tpf = 2/' > %t.mlir
// RUN: not helix-opt %t.mlir -helix-verify-spmd 2>&1 | FileCheck %s --check-prefix=SPMD
// SPMD: error: HLX2070: a stateless entry is for one rank, but the mesh has 2

// expected-error @below {{HLX2071: @f is stateless, so argument 0 must be a tensor of static shape with a helix.io}}
func.func @f(%x: tensor<3xf32>) -> (tensor<3xf32> {helix.io = #helix.io<"y", f32>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xf32>
}

// -----

// expected-error @below {{HLX2071: @f is stateless, so argument 0 must be a tensor of static shape}}
func.func @f(%x: tensor<3xf16> {helix.io = #helix.io<"x", f16>}) -> (tensor<3xf16> {helix.io = #helix.io<"y", f16>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xf16>
}

// -----

// expected-error @below {{HLX2071: @f has two arguments of the name "x"}}
func.func @f(%x: tensor<3xf32> {helix.io = #helix.io<"x", f32>}, %y: tensor<3xf32> {helix.io = #helix.io<"x", f32>})
    -> (tensor<3xf32> {helix.io = #helix.io<"y", f32>}) attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xf32>
}

// -----

// expected-error @below {{HLX2071: @f returns 'tensor<3xi64>', but results of a stateless entry are floats}}
func.func @f(%x: tensor<3xi64> {helix.io = #helix.io<"x", i64>}) -> (tensor<3xi64> {helix.io = #helix.io<"y", i64>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xi64>
}

// -----

// expected-error @below {{HLX2071: a stateless entry must be the only one of its module}}
func.func @f(%x: tensor<3xf32> {helix.io = #helix.io<"x", f32>}) -> (tensor<3xf32> {helix.io = #helix.io<"y", f32>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xf32>
}
func.func @g(%x: tensor<3xf32> {helix.io = #helix.io<"x", f32>}) -> (tensor<3xf32> {helix.io = #helix.io<"y", f32>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<3xf32>
}
