//===- GpuMachine.h - The kernel tests on a GPU ----------------------------===//
#ifndef HELIX_TEST_GPU_GPUMACHINE_H
#define HELIX_TEST_GPU_GPUMACHINE_H

#include "runtime/Cuda/KernelLibrary.h"
#include "test/unit/Cuda/Machine.h"

#include <functional>

namespace helix::cuda::test {

/// GPU 0, with the images and the driver that the runtime loads.
class GpuMachine : public Machine {
public:
  /// Throws CudaUnavailable where there is none.
  GpuMachine();

  DeviceShape shape() const override { return library.shape(); }
  /// Tensor cores may cut off what they add where the emulation rounds; an estimate until a GPU has said.
  double sumError() const override { return 1e-5; }
  void *allocate(size_t bytes) override;
  void free(void *memory) override;
  void upload(void *to, const void *from, size_t bytes) override;
  void download(void *to, const void *from, size_t bytes) override;
  void run(const std::vector<Launch> &launches) override;

  /// Launches, and what is put on the stream, for `seconds` to time.
  std::vector<Prepared> prepare(const std::vector<Launch> &launches) { return library.prepare(launches); }
  /// A product as the runtime does it: of many rows, by cuBLASLt if there is one.
  std::vector<Prepared> prepare(const LinearArgs &args, bool rounds) { return libraryThat(rounds).prepare(args); }
  size_t scratchBytes(const LinearArgs &args, bool rounds) { return libraryThat(rounds).scratchBytes(args); }
  HeldGraphExec capture(const std::function<void(Stream)> &work);
  /// What the GPU takes for the graph, its second-level cache full of something else.
  double seconds(GraphExec graph);

  KernelLibrary &kernels() { return library; }
  const std::string &name() const { return gpu.name(); }
  uint64_t freeBytes() const { return gpu.freeBytes(); }

private:
  KernelLibrary &libraryThat(bool rounds);
  void wait() { HELIX_CU(cuStreamSynchronize, stream.get()); }

  Gpu gpu;
  HeldStream stream;
  KernelLibrary library;
  std::unique_ptr<KernelLibrary> rounding; ///< rounds activations; once it was asked for
  HeldMemory other;                        ///< more than a second-level cache holds; of `seconds`
  HeldEvent begin, end;
};

/// The one that machine() gives.
GpuMachine &gpuMachine();

} // namespace helix::cuda::test

#endif // HELIX_TEST_GPU_GPUMACHINE_H
