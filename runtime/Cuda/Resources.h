//===- Resources.h - What is held of the driver, and given back ------------===//
#ifndef HELIX_RUNTIME_CUDA_RESOURCES_H
#define HELIX_RUNTIME_CUDA_RESOURCES_H

#include "runtime/Cuda/Driver.h"

#include <cstddef>
#include <string>
#include <utility>

namespace helix::cuda {

/// Something of the driver's that one holder gives back; errors of that are no one's.
template <typename T, typename Release> class Held {
public:
  Held() = default;
  explicit Held(T value) : value(value) {}
  Held(Held &&other) noexcept : value(std::exchange(other.value, T())) {}
  Held &operator=(Held &&other) noexcept {
    std::swap(value, other.value);
    return *this;
  }
  ~Held() {
    if (value != T())
      Release()(value);
  }
  T get() const { return value; }
  T *out() { return &value; }

private:
  T value = T();
};

#define HELIX_RELEASE(Name, Type, function)                                                                            \
  struct Name {                                                                                                        \
    void operator()(Type value) const { driver().function(value); }                                                    \
  };
HELIX_RELEASE(ReleaseStream, Stream, cuStreamDestroy_v2)
HELIX_RELEASE(ReleaseEvent, Event, cuEventDestroy_v2)
HELIX_RELEASE(ReleaseModule, Module, cuModuleUnload)
HELIX_RELEASE(ReleaseGraph, Graph, cuGraphDestroy)
HELIX_RELEASE(ReleaseGraphExec, GraphExec, cuGraphExecDestroy)
HELIX_RELEASE(ReleaseMemory, Address, cuMemFree_v2)
HELIX_RELEASE(ReleasePinned, void *, cuMemFreeHost)
#undef HELIX_RELEASE

using HeldStream = Held<Stream, ReleaseStream>;
using HeldEvent = Held<Event, ReleaseEvent>;
using HeldModule = Held<Module, ReleaseModule>;
using HeldGraph = Held<Graph, ReleaseGraph>;
using HeldGraphExec = Held<GraphExec, ReleaseGraphExec>;
using HeldMemory = Held<Address, ReleaseMemory>;
using HeldPinned = Held<void *, ReleasePinned>;

/// Throw CudaFailed. No bytes give no memory, which is null.
HeldMemory allocate(uint64_t bytes);
HeldPinned allocatePinned(uint64_t bytes);
/// Blocks of kernels on an urgent stream go before those on others that wait for room.
HeldStream makeStream(bool urgent = false);
HeldEvent makeEvent(bool timed);

/// The GPU's primary context, retained while this lives; its numbers.
class Gpu {
public:
  /// Throws CudaUnavailable if there is no such GPU, or one older than compute capability 8.0.
  explicit Gpu(int ordinal);
  ~Gpu();
  Gpu(const Gpu &) = delete;

  /// Makes it the one that this thread's calls are for.
  void use() const { HELIX_CU(cuCtxSetCurrent, context); }
  Context current() const { return context; }
  int attribute(int which) const;
  const std::string &name() const { return model; }
  uint64_t freeBytes() const;

private:
  int device = 0;
  Context context = nullptr;
  std::string model;
};

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_RESOURCES_H
