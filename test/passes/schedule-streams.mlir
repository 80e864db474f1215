// RUN: helix-opt %s -helix-schedule="comm-stream hardware=%S/Inputs/slow-link.json" -helix-place -helix-verify-plan -split-input-file | FileCheck %s

// Collectives go to stream 1. The independent kernel, last in the program, is issued before what waits for the sum, as
// it can start; events are recorded once and only where a stream is not known to be far enough.
// CHECK-LABEL: plan.entry @decode
// CHECK:       %[[A:.*]] = plan.launch @make() {{.*}}stream = 0 : i64
// CHECK-NEXT:  plan.record {event = [[#READY:]] : i64, stream = 0 : i64}
// CHECK-NEXT:  plan.wait {event = [[#READY]] : i64, stream = 1 : i64}
// CHECK-NEXT:  %[[S:.*]] = plan.all_reduce %[[A]] over <n> {{.*}}stream = 1 : i64
// CHECK-NEXT:  plan.record {event = [[#DONE:]] : i64, stream = 1 : i64}
// CHECK-NEXT:  %[[I:.*]] = plan.launch @make() {{.*}}stream = 0 : i64
// CHECK-NEXT:  plan.wait {event = [[#DONE]] : i64, stream = 0 : i64}
// CHECK-NEXT:  %[[B:.*]] = plan.launch @pass(%[[S]]) {{.*}}stream = 0 : i64
// CHECK-NEXT:  %[[C:.*]] = plan.launch @join(%[[B]], %[[S]], %[[I]]) {{.*}}stream = 0 : i64
// CHECK-NOT:   plan.wait
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 64.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 128.0 : f64, flops = 1.0 : f64}
  plan.kernel @join in @image groups 1 buffers [64, 64, 64, 64] {bytes = 256.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() : () -> tensor<16xf32>
    %s = plan.all_reduce %a over <n> {peers = 2 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    %b = plan.launch @pass(%s) : (tensor<16xf32>) -> tensor<16xf32>
    %i = plan.launch @make() : () -> tensor<16xf32>
    %c = plan.launch @join(%b, %s, %i) : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    plan.return %c : tensor<16xf32>
  }
}

// -----

// Nothing could run beside the sum: it stays where it is, and there are no events.
// CHECK-LABEL: plan.entry @decode
// CHECK-NOT:   plan.record
// CHECK:       plan.all_reduce {{.*}}stream = 0 : i64
// CHECK-NOT:   plan.wait
// CHECK:       plan.return
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 64.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 128.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() : () -> tensor<16xf32>
    %s = plan.all_reduce %a over <n> {peers = 2 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    %b = plan.launch @pass(%s) : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}
