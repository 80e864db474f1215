// RUN: helix-opt %s | helix-opt | FileCheck %s -enable-var-scope

plan.image @image triple "x86_64-unknown-linux-gnu" features "x86-64-v3" {code = dense<0> : tensor<4xi8>}
plan.kernel @k in @image groups 1 buffers [96] {bytes = 1.0 : f64, flops = 1.0 : f64}

// CHECK: plan.entry @f <stateless>
// CHECK-SAME: attributes {inputs = [#helix.io<"x", f16>, #helix.io<"m", i1>, #helix.io<"i", i64>], outputs = [#helix.io<"y", f32>, #helix.io<"z", bf16>]}
plan.entry @f <stateless>
    attributes {inputs = [#helix.io<"x", f16>, #helix.io<"m", i1>, #helix.io<"i", i64>],
                outputs = [#helix.io<"y", f32>, #helix.io<"z", bf16>]}
    (%x: tensor<2x4x3x8xf32>, %m: tensor<3x3xi1>, %i: tensor<2xi64>) {
  // CHECK: plan.dense_attention %{{.*}}, %{{.*}} value %{{.*}} mask %{{.*}} lengths %{{.*}} {batch = 2 : i64, heads = 4 : i64
  %y = plan.dense_attention %x, %x value %x mask %m lengths %i
      {batch = 2 : i64, heads = 4 : i64, kv_heads = 4 : i64, tokens = 3 : i64, keys = 3 : i64, key_dim = 8 : i64,
       value_dim = 8 : i64, mask_shape = array<i64: 1, 1, 3, 3>, scale = 1.0 : f64, right = 0 : i64}
      : (tensor<2x4x3x8xf32>, tensor<2x4x3x8xf32>, tensor<2x4x3x8xf32>, tensor<3x3xi1>, tensor<2xi64>)
      -> tensor<2x4x3x8xf32>
  // CHECK: plan.scatter %{{.*}} into %{{.*}} at %{{.*}} {batch = 2 : i64
  %z = plan.scatter %y into %x at %i
      {batch = 2 : i64, outer = 4 : i64, tokens = 3 : i64, capacity = 3 : i64, inner = 8 : i64, circular}
      : (tensor<2x4x3x8xf32>, tensor<2x4x3x8xf32>, tensor<2xi64>) -> tensor<2x4x3x8xf32>
  %c = plan.launch @k() : () -> tensor<6x4xf32>
  // CHECK: plan.rotate %{{.*}}, %{{.*}}, %{{.*}} {batch = 2 : i64
  %r = plan.rotate %z, %c, %c
      {batch = 2 : i64, heads = 4 : i64, tokens = 3 : i64, dim = 8 : i64, half = 4 : i64, rows = 6 : i64}
      : (tensor<2x4x3x8xf32>, tensor<6x4xf32>, tensor<6x4xf32>) -> tensor<2x4x3x8xf32>
  // CHECK: plan.transpose %{{.*}} {permutation = array<i64: 0, 2, 1, 3>, shape = array<i64: 2, 4, 3, 8>}
  %t = plan.transpose %r {shape = array<i64: 2, 4, 3, 8>, permutation = array<i64: 0, 2, 1, 3>}
      : (tensor<2x4x3x8xf32>) -> tensor<2x3x4x8xf32>
  // CHECK: plan.return %{{.*}}, %{{.*}} : tensor<2x4x3x8xf32>, tensor<2x3x4x8xf32>
  plan.return %y, %t : tensor<2x4x3x8xf32>, tensor<2x3x4x8xf32>
}
