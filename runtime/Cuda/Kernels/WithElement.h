//===- WithElement.h - From an element type's number to the type -----------===//
//
// For kernels; include it after Device.h.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_WITHELEMENT_H
#define HELIX_RUNTIME_CUDA_KERNELS_WITHELEMENT_H

#include "runtime/Cpu/Codes.h"
#include "runtime/Cuda/Kernels.h"
#include "runtime/Cuda/Kernels/Elements.h"

namespace helix::cuda {

template <typename Function> __device__ __forceinline__ void withElement(DType dtype, Function function) {
  if (dtype == DType::F32)
    function(float());
  else if (dtype == DType::F16)
    function(Half());
  else
    function(BFloat());
}

/// The same for the types that caches may have.
template <typename Function> __device__ __forceinline__ void withCacheElement(DType dtype, Function function) {
  if (dtype == DType::I8)
    function(cpu::Int8());
  else if (dtype == DType::F8E4M3)
    function(cpu::Fp8());
  else
    withElement(dtype, function);
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_WITHELEMENT_H
