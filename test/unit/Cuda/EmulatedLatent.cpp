//===- EmulatedLatent.cpp - AttentionLatent.cu on the host ----===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/AttentionLatent.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_attention_f16_latent)
HELIX_REGISTER(helix_attention_bf16_latent)

} // namespace helix::cuda
