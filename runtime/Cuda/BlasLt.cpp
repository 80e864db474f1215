//===- BlasLt.cpp - cuBLASLt, loaded when it is asked for ------------------===//
#include "runtime/Cuda/BlasLt.h"
#include "runtime/Cuda/Library.h"

namespace helix::cuda {
namespace {

BlasLt load() {
  constexpr ErrorCode code = ErrorCode::CudaUnavailable;
  const std::string use = "cuBLASLt cannot be loaded here";
  void *library = openLibrary({"libcublasLt.so.13", "libcublasLt.so.12"}, "HELIX_LIBCUBLASLT", code, use);
  BlasLt lt;
#define HELIX_FIND(name, parameters) findFunction(library, #name, lt.name, code, use);
  HELIX_BLASLT_FUNCTIONS(HELIX_FIND)
#undef HELIX_FIND
  findFunction(library, "cublasLtGetVersion", lt.cublasLtGetVersion, code, use);
  return lt;
}

} // namespace

const BlasLt &blasLt() {
  static const BlasLt loaded = load();
  return loaded;
}

} // namespace helix::cuda
