//===- Geometry.h - What the planners of launches share --------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_GEOMETRY_H
#define HELIX_RUNTIME_CUDA_KERNELS_GEOMETRY_H

#include "runtime/Cuda/Kernels/Arguments.h"

#include <cstring>
#include <type_traits>

namespace helix::cuda {

constexpr auto divideUp(auto a, auto b) { return (a + b - 1) / b; }
constexpr auto roundUp(auto a, auto b) { return divideUp(a, b) * b; }

template <typename Argument>
Launch launchOf(ImageId image, const char *kernel, std::array<uint32_t, 3> grid, std::array<uint32_t, 3> block,
                uint32_t sharedBytes, const Argument &argument) {
  static_assert(std::is_trivially_copyable_v<Argument> && sizeof(Argument) <= 4096); // what every driver takes
  Launch launch{image, kernel, grid, block, sharedBytes, std::vector<std::byte>(sizeof(Argument))};
  std::memcpy(launch.argument.data(), &argument, sizeof(Argument));
  return launch;
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_GEOMETRY_H
