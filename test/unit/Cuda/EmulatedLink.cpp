//===- EmulatedLink.cpp - Link.cu on the host ------------------------------===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/Link.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_link_begin)
HELIX_REGISTER(helix_link_end)

} // namespace helix::cuda
