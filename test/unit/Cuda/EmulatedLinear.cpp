//===- EmulatedLinear.cpp - Linear.cu on the host --------------------------===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/Linear.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_linear_f32)
HELIX_REGISTER(helix_linear_f16_1_1)
HELIX_REGISTER(helix_linear_f16_1_2)
HELIX_REGISTER(helix_linear_f16_2_1)
HELIX_REGISTER(helix_linear_f16_2_2)
HELIX_REGISTER(helix_linear_bf16_1_1)
HELIX_REGISTER(helix_linear_bf16_1_2)
HELIX_REGISTER(helix_linear_bf16_2_1)
HELIX_REGISTER(helix_linear_bf16_2_2)
HELIX_REGISTER(helix_linear_grouped_f32)
HELIX_REGISTER(helix_linear_grouped_f16)
HELIX_REGISTER(helix_linear_grouped_bf16)

} // namespace helix::cuda
