//===- Driver.cpp - The CUDA driver, loaded when it is asked for -----------===//
#include "runtime/Cuda/Driver.h"
#include "runtime/Cuda/Library.h"

namespace helix::cuda {
namespace {

Driver load() {
  const std::string use = "the artifact runs on NVIDIA GPUs, and the CUDA driver cannot be loaded here";
  void *library = openLibrary({"libcuda.so.1"}, "HELIX_LIBCUDA", ErrorCode::CudaUnavailable, use);
  Driver driver;
#define HELIX_FIND(name, parameters) findFunction(library, #name, driver.name, ErrorCode::CudaUnavailable, use);
  HELIX_CUDA_DRIVER_FUNCTIONS(HELIX_FIND)
#undef HELIX_FIND
  return driver;
}

} // namespace

const Driver &driver() {
  static const Driver loaded = load(); // tried again if it throws
  return loaded;
}

void check(int result, const char *what) {
  if (result == kSuccess)
    return;
  const char *name = nullptr, *text = nullptr;
  driver().cuGetErrorName(result, &name);
  driver().cuGetErrorString(result, &text);
  throw Error(ErrorCode::CudaFailed, std::string(what) + " returned " + (name ? name : std::to_string(result).c_str()) +
                                         (text ? std::string(" (") + text + ")" : ""));
}

} // namespace helix::cuda
