//===- Images.h - Native code of an artifact -------------------------------===//
#ifndef HELIX_RUNTIME_CORE_IMAGES_H
#define HELIX_RUNTIME_CORE_IMAGES_H

#include "helix-c/kernel.h"
#include "lib/Artifact/Reader.h"

#include <memory>
#include <vector>

namespace helix {

/// The images of an artifact, loaded into this process, and the kernels in them.
class Images {
public:
  /// Loads them. Throws ProcessorUnsupported if one is for another processor than this, ImageUnloadable if it cannot be
  /// loaded or lacks a kernel.
  explicit Images(const artifact::Artifact &artifact);
  ~Images();
  Images(const Images &) = delete;
  Images &operator=(const Images &) = delete;

  HelixKernel kernel(uint32_t index) const { return kernels[index]; }

private:
  struct Loaded {
    int file = -1;
    void *handle = nullptr;
  };
  void load(const artifact::Image &image, Loaded &to);
  void unload();
  std::vector<Loaded> images;
  std::vector<HelixKernel> kernels;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_IMAGES_H
