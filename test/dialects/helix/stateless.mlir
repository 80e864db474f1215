// RUN: helix-opt %s | helix-opt | FileCheck %s -enable-var-scope
// RUN: helix-opt %s -mlir-print-op-generic | helix-opt | FileCheck %s -enable-var-scope

// CHECK: @f(%{{.*}}: tensor<2x3xf32> {helix.io = #helix.io<"x", f16>}) -> (tensor<2x3xf32> {helix.io = #helix.io<"y", bf16>})
// CHECK-SAME: helix.entry = #helix.entry<stateless>
func.func @f(%x: tensor<2x3xf32> {helix.io = #helix.io<"x", f16>}) -> (tensor<2x3xf32> {helix.io = #helix.io<"y", bf16>})
    attributes {helix.entry = #helix.entry<stateless>} {
  return %x : tensor<2x3xf32>
}

// CHECK: @attention
func.func @attention(%q: tensor<2x4x3x8xf32>, %k: tensor<2x2x5x8xf32>, %v: tensor<2x2x5x6xf32>, %m: tensor<3x5xi1>,
                     %n: tensor<4x1x4xf32>, %l: tensor<2xi64>) {
  // CHECK: helix.dense_attention %{{.*}}, %{{.*}} value %{{.*}} mask %{{.*}} {offset = 2 : i64, right = 0 : i64, scale = 5.000000e-01 : f64} :
  %0 = helix.dense_attention %q, %k value %v mask %m {offset = 2 : i64, right = 0 : i64, scale = 0.5 : f64}
      : (tensor<2x4x3x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x6xf32>, tensor<3x5xi1>) -> tensor<2x4x3x6xf32>
  // CHECK: helix.dense_attention %{{.*}}, %{{.*}} mask %{{.*}} lengths %{{.*}} {left = 3 : i64, scale = 5.000000e-01 : f64, softcap = 2.000000e+00 : f64, stage = #helix.stage<masked>} :
  %1 = helix.dense_attention %q, %k mask %n lengths %l
      {left = 3 : i64, scale = 0.5 : f64, softcap = 2.0 : f64, stage = #helix.stage<masked>}
      : (tensor<2x4x3x8xf32>, tensor<2x2x5x8xf32>, tensor<4x1x4xf32>, tensor<2xi64>) -> tensor<2x4x3x5xf32>
  return
}

// CHECK: @others
func.func @others(%x: tensor<2x4x3x8xf32>, %t: tensor<50x4xf32>, %each: tensor<2x3x2xf32>, %p: tensor<2x3xi64>,
                  %u: tensor<2x4x2x8xf32>, %i: tensor<2xi64>) {
  // CHECK: helix.rotate %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} {interleaved} : tensor<2x4x3x8xf32>, tensor<50x4xf32>, tensor<2x3xi64>
  %0 = helix.rotate %x, %t, %t at %p {interleaved} : tensor<2x4x3x8xf32>, tensor<50x4xf32>, tensor<2x3xi64>
  // CHECK: helix.rotate %{{.*}}, %{{.*}}, %{{.*}} : tensor<2x4x3x8xf32>, tensor<2x3x2xf32>
  %1 = helix.rotate %x, %each, %each : tensor<2x4x3x8xf32>, tensor<2x3x2xf32>
  // CHECK: helix.scatter %{{.*}} into %{{.*}} at %{{.*}} {axis = 2 : i64, circular} : tensor<2x4x2x8xf32>, tensor<2x4x3x8xf32>, tensor<2xi64>
  %2 = helix.scatter %u into %x at %i {axis = 2 : i64, circular} : tensor<2x4x2x8xf32>, tensor<2x4x3x8xf32>, tensor<2xi64>
  // CHECK: helix.transpose %{{.*}}, [0, 2, 1, 3] : tensor<2x4x3x8xf32> -> tensor<2x3x4x8xf32>
  %3 = helix.transpose %x, [0, 2, 1, 3] : tensor<2x4x3x8xf32> -> tensor<2x3x4x8xf32>
  // CHECK: helix.row_statistic <inverse_deviation> %{{.*}} {epsilon = 1.000000e-05 : f64} : tensor<2x4x3x8xf32> -> tensor<2x4x3x1xf32>
  %4 = helix.row_statistic <inverse_deviation> %x {epsilon = 1.0e-5 : f64} : tensor<2x4x3x8xf32> -> tensor<2x4x3x1xf32>
  return
}
