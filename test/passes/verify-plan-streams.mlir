// RUN: helix-opt %s -helix-verify-plan -split-input-file -verify-diagnostics

// A plan in order: what each stream needs of the other is behind an event.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.record {event = 1 : i64, stream = 1 : i64}
    plan.wait {event = 1 : i64, stream = 0 : i64}
    %c = plan.launch @pass(%b) {stream = 0 : i64, places = [#plan.place<device, 0>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %c : tensor<16xf32>
  }
}

// -----

// Never recorded.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    // expected-error @below {{HLX2061: waits for event 3, which is never recorded}}
    plan.wait {event = 3 : i64, stream = 1 : i64}
    %b = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}

// -----

// A cycle: each stream would wait for what the other records behind its own wait.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2061: waits for event 1, which is recorded behind it: that could wait for ever}}
    plan.wait {event = 1 : i64, stream = 0 : i64}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.record {event = 1 : i64, stream = 1 : i64}
    plan.return %b : tensor<16xf32>
  }
}

// -----

// Twice.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    // expected-error @below {{HLX2061: event 0 is recorded twice}}
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}

// -----

// On one stream.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    // expected-error @below {{HLX2061: waits for event 0 on the stream that records it}}
    plan.wait {event = 0 : i64, stream = 0 : i64}
    %b = plan.all_reduce %a over <n> {stream = 0 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}

// -----

// The event is recorded before the command that is needed.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    plan.record {event = 0 : i64, stream = 0 : i64}
    // expected-note @below {{the other}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    plan.wait {event = 0 : i64, stream = 1 : i64}
    // expected-error @below {{HLX2061: may start on stream 1 before a command that it needs is done on stream 0; an event must tell}}
    %b = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}

// -----

// What one stream knows of a second it knows of a third: no event of its own is needed.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.launch @pass(%a) {stream = 1 : i64, places = [#plan.place<device, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.record {event = 1 : i64, stream = 1 : i64}
    plan.wait {event = 1 : i64, stream = 2 : i64}
    %c = plan.launch @pass(%b) {stream = 2 : i64, places = [#plan.place<device, 128>]} : (tensor<16xf32>) -> tensor<16xf32>
    %d = plan.launch @pass(%a) {stream = 2 : i64, places = [#plan.place<device, 192>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %d : tensor<16xf32>
  }
}

// -----

// Two collectives on two streams, each in order with what it reads, but not with each other.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    %b = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 64>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %c = plan.all_reduce %a over <n> {stream = 1 : i64, peers = 2 : i64, places = [#plan.place<comm, 128>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.wait {event = 0 : i64, stream = 2 : i64}
    // expected-error @below {{HLX2061: has no order with the collective issued before it, on stream 1; ranks could come to them in different orders}}
    %d = plan.all_reduce %b over <n> {stream = 2 : i64, peers = 2 : i64, places = [#plan.place<comm, 192>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %d : tensor<16xf32>
  }
}

// -----

// The third value takes the bytes of the first, which stream 1 may not have read yet.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-note @below {{the other, at offset 0}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.launch @pass(%a) {stream = 1 : i64, places = [#plan.place<device, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    // expected-error @below {{HLX2056: its value at offset 0 of the device arena lies over another that is still needed}}
    %c = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    plan.record {event = 1 : i64, stream = 1 : i64}
    plan.wait {event = 1 : i64, stream = 0 : i64}
    %d = plan.launch @pass(%b) {stream = 0 : i64, places = [#plan.place<device, 128>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %d : tensor<16xf32>
  }
}

// -----

// With an event between, it may.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 256 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    %b = plan.launch @pass(%a) {stream = 1 : i64, places = [#plan.place<device, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.record {event = 1 : i64, stream = 1 : i64}
    plan.wait {event = 1 : i64, stream = 0 : i64}
    %c = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    %d = plan.launch @pass(%b) {stream = 0 : i64, places = [#plan.place<device, 128>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %d : tensor<16xf32>
  }
}

// -----

// An append changes a cache that the other stream may still read.
!kv = !helix.kv<slots = 1, heads = 1, key_dim = 8, value_dim = 8, element = f32, block = 4, kvp = 2, capacity = 16>
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [64, 64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @eight in @image groups 1 buffers [32] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 320 : i64, comm_bytes = 512 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>, %kv: !kv) {
    %q = plan.launch @eight() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<8xf32>
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 64>]} : () -> tensor<16xf32>
    plan.record {event = 0 : i64, stream = 0 : i64}
    plan.wait {event = 0 : i64, stream = 1 : i64}
    // expected-note @below {{the other}}
    %p = plan.partial_attention %q, %kv, %past, %q_len {batch = 1 : i64, tokens = 1 : i64, heads = 1 : i64, padded_heads = 2 : i64, scale = 0.5 : f64, stream = 1 : i64, places = [#plan.place<device, 192>]}
        : (tensor<8xf32>, !kv, tensor<1xi32>, tensor<1xi32>) -> tensor<18xf32>
    // expected-error @below {{HLX2061: may start on stream 0 before a command that it needs is done on stream 1; an event must tell}}
    %kv1 = plan.kv_append %q, %q, %past, %q_len into %kv {batch = 1 : i64, tokens = 1 : i64, stream = 0 : i64}
        : tensor<8xf32>, tensor<8xf32>, tensor<1xi32>, tensor<1xi32>, !kv
    plan.return %a : tensor<16xf32>
  }
}
