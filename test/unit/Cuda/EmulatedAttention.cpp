//===- EmulatedAttention.cpp - Attention.cu on the host ----===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/Attention.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_attention_f32_any)
HELIX_REGISTER(helix_attention_f16_any)
HELIX_REGISTER(helix_attention_bf16_any)
HELIX_REGISTER(helix_attention_int8_any)
HELIX_REGISTER(helix_attention_fp8_any)
HELIX_REGISTER(helix_attention_finish)

} // namespace helix::cuda
