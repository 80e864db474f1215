//===- KernelLibrary.h - Kernels that are loaded on a GPU ------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELLIBRARY_H
#define HELIX_RUNTIME_CUDA_KERNELLIBRARY_H

#include "lib/Artifact/Reader.h"
#include "runtime/Cuda/Blas.h"
#include "runtime/Cuda/Kernels.h"
#include "runtime/Cuda/Resources.h"

#include <algorithm>
#include <map>
#include <vector>

namespace helix::cuda {

/// A launch whose function is known, or a call of cuBLASLt.
struct Prepared {
  Function function = nullptr;
  std::array<uint32_t, 3> grid = {1, 1, 1}, block = {1, 1, 1};
  uint32_t sharedBytes = 0;
  std::vector<std::byte> argument;   ///< the one parameter, or
  std::vector<Address> buffers = {}; ///< a parameter each
  std::shared_ptr<const BlasCall> call = {};

  void launch(Stream stream) const;
};

/// The kernels of this library and those of an artifact, if there is one.
class KernelLibrary {
public:
  /// Throws KernelsMissing if this build has no CUDA kernels, ImageUnloadable if the driver refuses an image or one
  /// lacks a kernel. `roundsActivations`: products of many rows with weights of 16 bits round x to the weights' type.
  KernelLibrary(const artifact::Artifact *artifact, const Gpu &gpu, bool roundsActivations = false);

  const DeviceShape &shape() const { return deviceShape; }

  /// Leaves so many multiprocessors to others, in what is prepared after this.
  void leaveFree(uint32_t multiprocessors) {
    deviceShape.multiprocessors -= std::min(multiprocessors, deviceShape.multiprocessors - 1);
  }

  /// The launches that the arguments ask for.
  template <typename Args> std::vector<Prepared> prepare(const Args &args) { return prepare(launches(args, shape())); }
  std::vector<Prepared> prepare(std::vector<Launch> launches);

  /// The product by cuBLASLt where it has many rows and there is one, else by the written kernels; and what scratch
  /// that takes.
  std::vector<Prepared> prepare(const LinearArgs &args);
  size_t scratchBytes(const LinearArgs &args);

  /// How products of many rows are done; empty if none was asked for.
  const std::string &products() const { return productNote; }

  /// A kernel of the artifact on its operands.
  Prepared generated(uint32_t kernel, std::vector<Address> buffers) const;

private:
  struct Known {
    Function function;
    uint32_t allowedShared; ///< dynamic bytes that a launch may ask for
  };
  Function find(const Launch &launch);
  /// cuBLASLt, if the product is for it and it is there.
  const Blas *blasFor(const LinearArgs &args);

  const artifact::Artifact *artifact;
  DeviceShape deviceShape;
  bool roundsActivations;
  std::unique_ptr<Blas> blas; ///< from the first product of many rows on
  std::string productNote;
  std::vector<HeldModule> library, images;
  std::map<std::string, Known> functions; ///< of the library
  std::vector<Function> kernels;          ///< of the artifact
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELLIBRARY_H
