//===- Images.cpp - Native code of an artifact -----------------------------===//
#include "runtime/Core/Images.h"
#include "runtime/Error.h"

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

namespace helix {
namespace {

bool hasFeature(std::string_view feature) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (feature == "x86-64")
    return true;
  if (feature == "x86-64-v2")
    return __builtin_cpu_supports("x86-64-v2");
  if (feature == "x86-64-v3")
    return __builtin_cpu_supports("x86-64-v3");
  if (feature == "x86-64-v4")
    return __builtin_cpu_supports("x86-64-v4");
#endif
  return false;
}

constexpr std::string_view kArchitecture =
#if defined(__x86_64__)
    "x86_64-";
#elif defined(__aarch64__)
    "aarch64-";
#else
    "unknown-";
#endif

void checkProcessor(const artifact::Image &image) {
  std::string_view triple = image.triple()->string_view(), features = image.features()->string_view();
  if (!triple.starts_with(kArchitecture) || triple.find("linux") == std::string_view::npos)
    throw Error(ErrorCode::ProcessorUnsupported, "a kernel image is for '" + std::string(triple) +
                                                     "', this machine is " + std::string(kArchitecture) +
                                                     "linux; compile the model for it");
  if (!hasFeature(features))
    throw Error(ErrorCode::ProcessorUnsupported, "a kernel image needs a processor with '" + std::string(features) +
                                                     "', which this one is not; compile the model for it");
}

} // namespace

Images::Images(const artifact::Artifact &artifact) {
  try {
    if (artifact.images())
      for (const artifact::Image *image : *artifact.images()) {
        checkProcessor(*image);
        load(*image, images.emplace_back());
      }
    if (artifact.kernels())
      for (const artifact::Kernel *kernel : *artifact.kernels()) {
        void *symbol = ::dlsym(images[kernel->image()].handle, kernel->symbol()->c_str());
        if (!symbol)
          throw Error(ErrorCode::ImageUnloadable,
                      "image " + std::to_string(kernel->image()) + " has no kernel '" + kernel->symbol()->str() + "'");
        kernels.push_back(reinterpret_cast<HelixKernel>(symbol));
      }
  } catch (...) {
    unload();
    throw;
  }
}

Images::~Images() { unload(); }

void Images::load(const artifact::Image &image, Loaded &to) {
  auto fail = [](const std::string &reason) {
    return Error(ErrorCode::ImageUnloadable, "a kernel image cannot be loaded: " + reason);
  };
  to.file = ::memfd_create("helix-image", MFD_CLOEXEC);
  if (to.file < 0)
    throw fail(std::strerror(errno));
  const uint8_t *code = image.code()->data();
  for (size_t done = 0; done < image.code()->size();) {
    ssize_t count = ::write(to.file, code + done, image.code()->size() - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      throw fail(std::strerror(errno));
    done += size_t(count);
  }
  // The file stays open: the loader knows libraries by name, and a number that is used again would give the old one.
  std::string path = "/proc/self/fd/" + std::to_string(to.file);
  to.handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!to.handle)
    throw fail(::dlerror());
}

void Images::unload() {
  for (Loaded &image : images) {
    if (image.handle)
      ::dlclose(image.handle);
    if (image.file >= 0)
      ::close(image.file);
  }
  images.clear();
}

} // namespace helix
