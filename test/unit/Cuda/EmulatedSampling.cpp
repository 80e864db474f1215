//===- EmulatedSampling.cpp - Sampling.cu on the host ----------------------===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/Sampling.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_best_token)
HELIX_REGISTER(helix_draw_chunk)
HELIX_REGISTER(helix_draw_row)

} // namespace helix::cuda
