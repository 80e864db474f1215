//===- Images.cpp - The kernels' code inside the library -------------------===//
#include "runtime/Cuda/Kernels.h"

namespace helix::cuda {

#ifdef HELIX_CUDA_IMAGES

// Fat binaries start with 64-bit fields.
#define HELIX_EMBED(name)                                                                                              \
  __asm__(".pushsection .rodata\n.balign 16\nhelixImage" #name ":\n.incbin \"" HELIX_CUDA_IMAGES "/" #name             \
          ".fatbin\"\nhelixImageEnd" #name ":\n.popsection");                                                          \
  extern "C" const std::byte helixImage##name[], helixImageEnd##name[];

HELIX_EMBED(Rows)
HELIX_EMBED(Attention)
HELIX_EMBED(AttentionTensor)
HELIX_EMBED(AttentionLatent)
HELIX_EMBED(Linear)
HELIX_EMBED(LinearQuantized)
HELIX_EMBED(Link)
HELIX_EMBED(Sampling)

std::span<const KernelImage> kernelImages() {
#define HELIX_IMAGE(name)                                                                                              \
  {                                                                                                                    \
    #name, { helixImage##name, helixImageEnd##name }                                                                   \
  }
  static const KernelImage images[] = {HELIX_IMAGE(Rows),
                                       HELIX_IMAGE(Attention),
                                       HELIX_IMAGE(AttentionTensor),
                                       HELIX_IMAGE(AttentionLatent),
                                       HELIX_IMAGE(Linear),
                                       HELIX_IMAGE(LinearQuantized),
                                       HELIX_IMAGE(Link),
                                       HELIX_IMAGE(Sampling)};
  return images;
}

#else

std::span<const KernelImage> kernelImages() { return {}; }

#endif

} // namespace helix::cuda
