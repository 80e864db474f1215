//===- EmulatedTensor.cpp - AttentionTensor.cu on the host ----===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/AttentionTensor.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_attention_f16_64)
HELIX_REGISTER(helix_attention_f16_80)
HELIX_REGISTER(helix_attention_f16_96)
HELIX_REGISTER(helix_attention_f16_128)
HELIX_REGISTER(helix_attention_f16_256)
HELIX_REGISTER(helix_attention_bf16_64)
HELIX_REGISTER(helix_attention_bf16_80)
HELIX_REGISTER(helix_attention_bf16_96)
HELIX_REGISTER(helix_attention_bf16_128)
HELIX_REGISTER(helix_attention_bf16_256)
HELIX_REGISTER(helix_attention_int8_64)
HELIX_REGISTER(helix_attention_int8_80)
HELIX_REGISTER(helix_attention_int8_96)
HELIX_REGISTER(helix_attention_int8_128)
HELIX_REGISTER(helix_attention_int8_256)
HELIX_REGISTER(helix_attention_fp8_64)
HELIX_REGISTER(helix_attention_fp8_80)
HELIX_REGISTER(helix_attention_fp8_96)
HELIX_REGISTER(helix_attention_fp8_128)
HELIX_REGISTER(helix_attention_fp8_256)

} // namespace helix::cuda
