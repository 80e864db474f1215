// RUN: helix-opt %s -helix-schedule -helix-place -helix-verify-plan -split-input-file | FileCheck %s

// Dead values give way: of a chain of three, the third takes the first one's bytes. Two that one command reads and
// writes never share. Offsets are multiples of 64.
// CHECK: plan.entry @decode {{.*}} attributes {comm_bytes = 0 : i64, device_bytes = 256 : i64}
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [100] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [100, 100] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // CHECK: plan.launch @make() {places = [#plan.place<device, 0>]
    %a = plan.launch @make() : () -> tensor<25xf32>
    // CHECK: places = [#plan.place<device, 128>]
    %b = plan.launch @pass(%a) : (tensor<25xf32>) -> tensor<25xf32>
    // CHECK: places = [#plan.place<device, 0>]
    %c = plan.launch @pass(%b) : (tensor<25xf32>) -> tensor<25xf32>
    plan.return %c : tensor<25xf32>
  }
}

// -----

// Largest first: the small value that lives through does not split the space of the large ones. The logits live on.
// CHECK: plan.entry @decode {{.*}} attributes {comm_bytes = 0 : i64, device_bytes = 2112 : i64}
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @small in @image groups 1 buffers [4] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @large in @image groups 1 buffers [1024] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [1024, 1024] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // CHECK: @small() {places = [#plan.place<device, 2048>]
    %s = plan.launch @small() : () -> tensor<1xf32>
    // CHECK: @large() {places = [#plan.place<device, 0>]
    %a = plan.launch @large() : () -> tensor<256xf32>
    // CHECK: places = [#plan.place<device, 1024>]
    %b = plan.launch @pass(%a) : (tensor<256xf32>) -> tensor<256xf32>
    // CHECK: places = [#plan.place<device, 0>]
    %c = plan.launch @pass(%b) : (tensor<256xf32>) -> tensor<256xf32>
    plan.return %s : tensor<1xf32>
  }
}

// -----

// What a peer may still read keeps its bytes. Two layers on kvp = 2, tpa = 2: the exchange of layer 0 is known to be
// over once the sum over all ranks behind it is; the sum over all ranks not before the next one, for the exchange along
// kvp in between says nothing about ranks of the other tpa shard.
// CHECK: plan.entry @decode {{.*}} attributes {comm_bytes = 384 : i64, device_bytes = 0 : i64}
module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // CHECK: @make() {places = [#plan.place<comm, 0>]
    %p0 = plan.launch @make() : () -> tensor<16xf32>
    // CHECK: plan.all_to_all {{.*}} places = [#plan.place<comm, 64>]
    %s0 = plan.all_to_all %p0 over <kvp> {peers = 2 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: @pass{{.*}}places = [#plan.place<comm, 128>]
    %o0 = plan.launch @pass(%s0) : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: plan.all_reduce {{.*}} places = [#plan.place<comm, 192>]
    %y0 = plan.all_reduce %o0 over <n> {peers = 4 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: @pass{{.*}}places = [#plan.place<comm, 0>]
    %p1 = plan.launch @pass(%y0) : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: plan.all_to_all {{.*}} places = [#plan.place<comm, 64>]
    %s1 = plan.all_to_all %p1 over <kvp> {peers = 2 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: @pass{{.*}}places = [#plan.place<comm, 256>]
    %o1 = plan.launch @pass(%s1) : (tensor<16xf32>) -> tensor<16xf32>
    // CHECK: plan.all_reduce {{.*}} places = [#plan.place<comm, 320>]
    %y1 = plan.all_reduce %o1 over <n> {peers = 4 : i64} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %y1 : tensor<16xf32>
  }
}
