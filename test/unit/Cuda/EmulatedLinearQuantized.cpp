//===- EmulatedLinearQuantized.cpp - LinearQuantized.cu on the host --------===//
#include "Emulation.h"

#include "runtime/Cuda/Kernels/LinearQuantized.cu"

namespace helix::cuda {

HELIX_REGISTER(helix_linear_q2_1)
HELIX_REGISTER(helix_linear_q2_2)
HELIX_REGISTER(helix_linear_q4_1)
HELIX_REGISTER(helix_linear_q4_2)
HELIX_REGISTER(helix_linear_q8_1)
HELIX_REGISTER(helix_linear_q8_2)
HELIX_REGISTER(helix_linear_grouped_q2)
HELIX_REGISTER(helix_linear_grouped_q4)
HELIX_REGISTER(helix_linear_grouped_q8)
HELIX_REGISTER(helix_linear_fp4_1)
HELIX_REGISTER(helix_linear_fp4_2)
HELIX_REGISTER(helix_linear_grouped_fp4)
HELIX_REGISTER(helix_linear_fp8_1)
HELIX_REGISTER(helix_linear_fp8_2)
HELIX_REGISTER(helix_linear_grouped_fp8)

} // namespace helix::cuda
