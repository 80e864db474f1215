//===- GpuMachine.cpp - The kernel tests on a GPU --------------------------===//
#include "GpuMachine.h"

namespace helix::cuda::test {

GpuMachine::GpuMachine() : gpu(0), stream(makeStream()), library(nullptr, gpu) {}

void *GpuMachine::allocate(size_t bytes) {
  HeldMemory memory = cuda::allocate(bytes);
  if (bytes != 0)
    HELIX_CU(cuMemsetD8Async, memory.get(), 0xff, bytes, stream.get());
  wait();
  return reinterpret_cast<void *>(std::exchange(*memory.out(), 0));
}

void GpuMachine::free(void *memory) {
  // An error is that of a kernel before, whose test has failed.
  driver().cuMemFree_v2(reinterpret_cast<Address>(memory));
}

void GpuMachine::upload(void *to, const void *from, size_t bytes) {
  if (bytes == 0)
    return;
  HELIX_CU(cuMemcpyHtoDAsync_v2, reinterpret_cast<Address>(to), from, bytes, stream.get());
  wait();
}

void GpuMachine::download(void *to, const void *from, size_t bytes) {
  if (bytes == 0)
    return;
  HELIX_CU(cuMemcpyDtoHAsync_v2, to, reinterpret_cast<Address>(from), bytes, stream.get());
  wait();
}

void GpuMachine::run(const std::vector<Launch> &launches) {
  for (const Prepared &launch : library.prepare(launches))
    launch.launch(stream.get());
  wait();
}

KernelLibrary &GpuMachine::libraryThat(bool rounds) {
  if (rounds && !rounding)
    rounding = std::make_unique<KernelLibrary>(nullptr, gpu, true);
  return rounds ? *rounding : library;
}

HeldGraphExec GpuMachine::capture(const std::function<void(Stream)> &work) {
  HeldGraph graph;
  HeldGraphExec executable;
  HELIX_CU(cuStreamBeginCapture_v2, stream.get(), kCaptureThreadLocal);
  work(stream.get());
  HELIX_CU(cuStreamEndCapture, stream.get(), graph.out());
  HELIX_CU(cuGraphInstantiateWithFlags, executable.out(), graph.get(), 0);
  return executable;
}

double GpuMachine::seconds(GraphExec graph) {
  constexpr uint64_t otherBytes = uint64_t(256) << 20;
  if (other.get() == 0)
    other = cuda::allocate(otherBytes), begin = makeEvent(true), end = makeEvent(true);
  HELIX_CU(cuMemsetD8Async, other.get(), 0, otherBytes, stream.get());
  HELIX_CU(cuEventRecord, begin.get(), stream.get());
  HELIX_CU(cuGraphLaunch, graph, stream.get());
  HELIX_CU(cuEventRecord, end.get(), stream.get());
  wait();
  float milliseconds = 0;
  HELIX_CU(cuEventElapsedTime_v2, &milliseconds, begin.get(), end.get());
  return milliseconds * 1e-3;
}

GpuMachine &gpuMachine() {
  static GpuMachine machine; // tried again if it throws
  return machine;
}

Machine &machine() { return gpuMachine(); }

} // namespace helix::cuda::test
