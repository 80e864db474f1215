// A stateless function through all phases: norms and elementwise ops become kernels, the rest commands.
// RUN: helix-opt %s -helix-model-phase -helix-spmd-phase | FileCheck %s -enable-var-scope --check-prefix=SPMD
// RUN: helix-opt %s -helix-model-phase -helix-spmd-phase -helix-plan-phase | FileCheck %s -enable-var-scope --check-prefix=PLAN

// SPMD: helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>
// SPMD: func.func @stateless
// SPMD: helix.dense_attention
// SPMD: call @kernel_
// SPMD: func.func private @kernel_{{.*}}helix.kernel

// PLAN: plan.entry @stateless <stateless>
// PLAN-SAME: inputs = [#helix.io<"q", f16>, #helix.io<"k", f32>, #helix.io<"m", i1>, #helix.io<"w", f32>]
// PLAN-SAME: outputs = [#helix.io<"y", f16>, #helix.io<"k_too", f32>]
// PLAN-SAME: (%[[Q:.*]]: tensor<1x2x3x4xf32>, %[[K:.*]]: tensor<1x2x3x4xf32>, %[[M:.*]]: tensor<3x3xi1>, %[[W:.*]]: tensor<4xf32>)
// PLAN: %[[A:.*]] = plan.dense_attention %[[Q]], %[[K]] value %[[K]] mask %[[M]]
// PLAN-SAME: kv_heads = 2 : i64, mask_shape = array<i64: 1, 1, 3, 3>
// PLAN: %[[T:.*]] = plan.transpose %[[A]]
// PLAN: %[[Y:.*]] = plan.launch @kernel_{{.*}}(%[[T]], %[[W]])
// An output that is an input is a copy of it.
// PLAN: %[[COPY:.*]] = plan.concat %[[K]]
// PLAN: plan.return %[[Y]], %[[COPY]]
func.func @stateless(%q: tensor<1x2x3x4xf32> {helix.io = #helix.io<"q", f16>},
                     %k: tensor<1x2x3x4xf32> {helix.io = #helix.io<"k", f32>},
                     %m: tensor<3x3xi1> {helix.io = #helix.io<"m", i1>},
                     %w: tensor<4xf32> {helix.io = #helix.io<"w", f32>})
    -> (tensor<1x3x2x4xf32> {helix.io = #helix.io<"y", f16>}, tensor<1x2x3x4xf32> {helix.io = #helix.io<"k_too", f32>})
    attributes {helix.entry = #helix.entry<stateless>} {
  %a = helix.dense_attention %q, %k value %k mask %m {scale = 0.5 : f64}
      : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<3x3xi1>) -> tensor<1x2x3x4xf32>
  %t = helix.transpose %a, [0, 2, 1, 3] : tensor<1x2x3x4xf32> -> tensor<1x3x2x4xf32>
  %n = helix.rms_norm %t, %w {epsilon = 1.0e-5 : f64} : tensor<1x3x2x4xf32>, tensor<4xf32>
  %e = math.tanh %n : tensor<1x3x2x4xf32>
  return %e, %k : tensor<1x3x2x4xf32>, tensor<1x2x3x4xf32>
}
