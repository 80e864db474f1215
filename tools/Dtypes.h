//===- Dtypes.h - Element types on command lines ---------------------------===//
#ifndef HELIX_TOOLS_DTYPES_H
#define HELIX_TOOLS_DTYPES_H

#include "lib/Import/Onnx/Onnx.h"

#include "llvm/Support/CommandLine.h"

namespace helix {

/// Those of weights.
inline auto weightDtypes() {
  return llvm::cl::values(clEnumValN(Dtype::F32, "f32", ""), clEnumValN(Dtype::F16, "f16", ""),
                          clEnumValN(Dtype::BF16, "bf16", ""));
}

/// What activations are rounded to in products with weights of a few bits.
inline auto activationDtypes() {
  return llvm::cl::values(clEnumValN(Dtype::F32, "f32", ""), clEnumValN(Dtype::I8, "int8", ""));
}

/// Those of caches.
inline auto kvDtypes() {
  return llvm::cl::values(clEnumValN(Dtype::F32, "f32", ""), clEnumValN(Dtype::F16, "f16", ""),
                          clEnumValN(Dtype::BF16, "bf16", ""), clEnumValN(Dtype::I8, "int8", ""),
                          clEnumValN(Dtype::F8E4M3, "fp8-e4m3", ""));
}

} // namespace helix

#endif // HELIX_TOOLS_DTYPES_H
