//===- KernelLibrary.h - Kernels that are loaded on a GPU ------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELLIBRARY_H
#define HELIX_RUNTIME_CUDA_KERNELLIBRARY_H

#include "lib/Artifact/Reader.h"
#include "runtime/Cuda/Kernels.h"
#include "runtime/Cuda/Resources.h"

#include <algorithm>
#include <map>
#include <vector>

namespace helix::cuda {

/// A launch whose function is known.
struct Prepared {
  Function function = nullptr;
  std::array<uint32_t, 3> grid = {1, 1, 1}, block = {1, 1, 1};
  uint32_t sharedBytes = 0;
  std::vector<std::byte> argument;   ///< the one parameter, or
  std::vector<Address> buffers = {}; ///< a parameter each

  void launch(Stream stream) const;
};

/// The kernels of this library and those of an artifact, if there is one.
class KernelLibrary {
public:
  /// Throws KernelsMissing if this build has no CUDA kernels, ImageUnloadable if the driver refuses an image or one
  /// lacks a kernel.
  KernelLibrary(const artifact::Artifact *artifact, const Gpu &gpu);

  const DeviceShape &shape() const { return deviceShape; }

  /// Leaves so many multiprocessors to others, in what is prepared after this.
  void leaveFree(uint32_t multiprocessors) {
    deviceShape.multiprocessors -= std::min(multiprocessors, deviceShape.multiprocessors - 1);
  }

  /// The launches that the arguments ask for.
  template <typename Args> std::vector<Prepared> prepare(const Args &args) { return prepare(launches(args, shape())); }
  std::vector<Prepared> prepare(std::vector<Launch> launches);

  /// A kernel of the artifact on its operands.
  Prepared generated(uint32_t kernel, std::vector<Address> buffers) const;

private:
  struct Known {
    Function function;
    uint32_t allowedShared; ///< dynamic bytes that a launch may ask for
  };
  Function find(const Launch &launch);

  const artifact::Artifact *artifact;
  DeviceShape deviceShape;
  std::vector<HeldModule> library, images;
  std::map<std::string, Known> functions; ///< of the library
  std::vector<Function> kernels;          ///< of the artifact
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELLIBRARY_H
