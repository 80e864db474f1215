// RUN: helix-opt %s -helix-verify-plan -split-input-file -verify-diagnostics

// expected-error @below {{HLX2054: the module needs helix.mesh and a plan.entry}}
module {}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  // expected-error @below {{HLX2054: the entry has no arenas; run helix-place}}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %a = plan.launch @make() : () -> tensor<16xf32>
    plan.return %a : tensor<16xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 64 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2054: the command is on no stream; run helix-schedule}}
    %a = plan.launch @make() {places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    plan.return %a : tensor<16xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 64 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2054: the command's results have no places; run helix-place}}
    %a = plan.launch @make() {stream = 0 : i64} : () -> tensor<16xf32>
    plan.return %a : tensor<16xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.weight @w <vector> tensor<8xf32> {name = "w", file = "w", offset = 0 : i64, length = 32 : i64, stored = tensor<8xf32>}
  // expected-error @below {{HLX2054: no command makes the logits}}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 64 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    %w = plan.get_weight @w : tensor<8xf32>
    plan.return %w : tensor<8xf32>
  }
}

// -----

// Past the arena's end; not aligned; before its start.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [68] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 128 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2056: a value of 68 bytes at offset 64 must lie in the device arena of 128 bytes, at a multiple of 64}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 64>]} : () -> tensor<17xf32>
    plan.return %a : tensor<17xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 128 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2056: a value of 64 bytes at offset 4}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 4>]} : () -> tensor<16xf32>
    plan.return %a : tensor<16xf32>
  }
}

// -----

module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 128 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2056: a value of 64 bytes at offset -64}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, -64>]} : () -> tensor<16xf32>
    plan.return %a : tensor<16xf32>
  }
}

// -----

// Collectives reach the comm arena alone.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 2, ep = 1, tpf = 2>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 64 : i64, comm_bytes = 64 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-error @below {{HLX2056: a value of this command must live in the comm arena, but is in device}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<16xf32>
    %b = plan.all_reduce %a over <n> {stream = 0 : i64, peers = 2 : i64, places = [#plan.place<comm, 0>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %b : tensor<16xf32>
  }
}

// -----

// A command must not write over what it reads.
module attributes {helix.mesh = #helix.mesh<tpa = 1, kvp = 1, ep = 1, tpf = 1>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [128] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.kernel @pass in @image groups 1 buffers [128, 128] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 192 : i64, comm_bytes = 0 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-note @below {{the other, at offset 0}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<device, 0>]} : () -> tensor<32xf32>
    // expected-error @below {{HLX2056: its value at offset 64 of the device arena lies over another that is still needed}}
    %b = plan.launch @pass(%a) {stream = 0 : i64, places = [#plan.place<device, 64>]} : (tensor<32xf32>) -> tensor<32xf32>
    plan.return %b : tensor<32xf32>
  }
}

// -----

// No command of this rank needs %a any more, but a peer may: only %e comes behind a collective of all its readers.
module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>} {
  plan.image @image triple "t" features "f" {code = dense<0> : tensor<4xi8>}
  plan.kernel @make in @image groups 1 buffers [64] {bytes = 1.0 : f64, flops = 1.0 : f64}
  plan.entry @decode <decode, batch = 1, tokens = 1, logits = last> attributes {device_bytes = 0 : i64, comm_bytes = 256 : i64}
      (%ids: tensor<1x1xi64>, %past: tensor<1xi32>, %q_len: tensor<1xi32>) {
    // expected-note @below {{the other, at offset 0}}
    %a = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    %b = plan.all_reduce %a over <n> {stream = 0 : i64, peers = 4 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    %c = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 128>]} : () -> tensor<16xf32>
    %d = plan.all_to_all %c over <kvp> {stream = 0 : i64, peers = 2 : i64, places = [#plan.place<comm, 192>]} : (tensor<16xf32>) -> tensor<16xf32>
    // expected-error @below {{HLX2056: its value at offset 0 of the comm arena lies over another that is still needed, if only by a peer}}
    %e = plan.launch @make() {stream = 0 : i64, places = [#plan.place<comm, 0>]} : () -> tensor<16xf32>
    %f = plan.all_reduce %e over <n> {stream = 0 : i64, peers = 4 : i64, places = [#plan.place<comm, 64>]} : (tensor<16xf32>) -> tensor<16xf32>
    plan.return %f : tensor<16xf32>
  }
}
