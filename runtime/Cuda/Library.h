//===- Library.h - Tables of functions of a shared library -----------------===//
#ifndef HELIX_RUNTIME_CUDA_LIBRARY_H
#define HELIX_RUNTIME_CUDA_LIBRARY_H

#include "runtime/Error.h"

#include <cstdlib>
#include <dlfcn.h>

namespace helix::cuda {

/// Opens the first of `names` that there is, or what the environment variable `variable` names. Throws `code`, with the
/// loader's reason, if that fails. Libraries of the driver stay loaded.
inline void *openLibrary(std::initializer_list<const char *> names, const char *variable, ErrorCode code,
                         const std::string &use) {
  const char *chosen = std::getenv(variable);
  std::string reason;
  auto attempt = [&](const char *name) {
    void *library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
      reason += (reason.empty() ? "" : "; ") + std::string(::dlerror());
    return library;
  };
  if (chosen) {
    if (void *library = attempt(chosen))
      return library;
  } else {
    for (const char *name : names)
      if (void *library = attempt(name))
        return library;
  }
  throw Error(code, use + ": " + reason);
}

/// Fills in a function pointer. Throws `code` if the library lacks the function.
template <typename Function>
void findFunction(void *library, const char *name, Function *&function, ErrorCode code, const std::string &use) {
  void *symbol = ::dlsym(library, name);
  if (!symbol)
    throw Error(code, use + ": it has no function " + name + "; a newer one is needed");
  function = reinterpret_cast<Function *>(symbol);
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_LIBRARY_H
