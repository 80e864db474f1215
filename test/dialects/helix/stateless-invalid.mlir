// RUN: helix-opt %s -split-input-file -verify-diagnostics

func.func @keys(%q: tensor<1x4x3x8xf32>, %k: tensor<1x3x5x8xf32>) {
  // expected-error @below {{heads in whole groups}}
  %0 = helix.dense_attention %q, %k {scale = 1.0 : f64, stage = #helix.stage<scaled>}
      : (tensor<1x4x3x8xf32>, tensor<1x3x5x8xf32>) -> tensor<1x4x3x5xf32>
  return
}

// -----

func.func @nothing(%q: tensor<1x4x3x8xf32>, %k: tensor<1x2x5x8xf32>) {
  // expected-error @below {{takes a value or stops at a stage}}
  %0 = helix.dense_attention %q, %k {scale = 1.0 : f64} : (tensor<1x4x3x8xf32>, tensor<1x2x5x8xf32>) -> tensor<1x4x3x5xf32>
  return
}

// -----

func.func @mask(%q: tensor<1x4x3x8xf32>, %k: tensor<1x2x5x8xf32>, %m: tensor<2x3x5xi1>) {
  // expected-error @below {{mask must repeat to [1, 4, 3, up to 5], but is 'tensor<2x3x5xi1>'}}
  %0 = helix.dense_attention %q, %k mask %m {scale = 1.0 : f64, stage = #helix.stage<scaled>}
      : (tensor<1x4x3x8xf32>, tensor<1x2x5x8xf32>, tensor<2x3x5xi1>) -> tensor<1x4x3x5xf32>
  return
}

// -----

func.func @offset(%q: tensor<1x4x3x8xf32>, %k: tensor<1x2x5x8xf32>, %l: tensor<1xi64>) {
  // expected-error @below {{takes an offset or lengths}}
  %0 = helix.dense_attention %q, %k lengths %l {offset = 1 : i64, scale = 1.0 : f64, stage = #helix.stage<scaled>}
      : (tensor<1x4x3x8xf32>, tensor<1x2x5x8xf32>, tensor<1xi64>) -> tensor<1x4x3x5xf32>
  return
}

// -----

func.func @result(%q: tensor<1x4x3x8xf32>, %k: tensor<1x2x5x8xf32>, %v: tensor<1x2x5x6xf32>) {
  // expected-error @below {{result must have shape [1, 4, 3, 6]}}
  %0 = helix.dense_attention %q, %k value %v {scale = 1.0 : f64}
      : (tensor<1x4x3x8xf32>, tensor<1x2x5x8xf32>, tensor<1x2x5x6xf32>) -> tensor<1x4x3x5xf32>
  return
}

// -----

func.func @rotate(%x: tensor<1x4x3x8xf32>, %t: tensor<1x3x5xf32>) {
  // expected-error @below {{rotates 10 of a head's 8 elements}}
  %0 = helix.rotate %x, %t, %t : tensor<1x4x3x8xf32>, tensor<1x3x5xf32>
  return
}

// -----

func.func @rows(%x: tensor<1x4x3x8xf32>, %t: tensor<3x4xf32>) {
  // expected-error @below {{cos must have shape [1, 3, 4]}}
  %0 = helix.rotate %x, %t, %t : tensor<1x4x3x8xf32>, tensor<3x4xf32>
  return
}

// -----

func.func @scatter(%u: tensor<2x4x3xf32>, %c: tensor<2x3x3xf32>) {
  // expected-error @below {{which must be a dimension behind the first and hold it}}
  %0 = helix.scatter %u into %c {axis = 1 : i64} : tensor<2x4x3xf32>, tensor<2x3x3xf32>
  return
}

// -----

func.func @transpose(%x: tensor<2x3xf32>) {
  // expected-error @below {{is no permutation}}
  %0 = helix.transpose %x, [0, 0] : tensor<2x3xf32> -> tensor<2x2xf32>
  return
}

// -----

func.func @statistic(%x: tensor<1x2x3xf32>) {
  // expected-error @below {{result must have shape [1, 2, 1]}}
  %0 = helix.row_statistic <mean> %x {epsilon = 0.0 : f64} : tensor<1x2x3xf32> -> tensor<1x2x3xf32>
  return
}

// -----

// expected-error @below {{inputs and outputs are f32, f16, bf16, i64 or i1, but "x" is 'i8'}}
func.func private @io(tensor<1xf32> {helix.io = #helix.io<"x", i8>})
