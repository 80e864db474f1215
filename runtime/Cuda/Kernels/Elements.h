//===- Elements.h - Types that kernels and their emulation share -----------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_ELEMENTS_H
#define HELIX_RUNTIME_CUDA_KERNELS_ELEMENTS_H

#include <cstddef>
#include <cstdint>

namespace helix::cuda {

/// Element types as they lie in memory.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

struct Bits128 {
  uint32_t word[4];
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_ELEMENTS_H
