//===- Resources.cpp - What is held of the driver, and given back ----------===//
#include "runtime/Cuda/Resources.h"
#include "runtime/Error.h"

namespace helix::cuda {

HeldMemory allocate(uint64_t bytes) {
  HeldMemory memory;
  if (bytes != 0)
    HELIX_CU(cuMemAlloc_v2, memory.out(), bytes);
  return memory;
}

HeldPinned allocatePinned(uint64_t bytes) {
  HeldPinned memory;
  if (bytes != 0)
    HELIX_CU(cuMemHostAlloc, memory.out(), bytes, 0);
  return memory;
}

HeldStream makeStream(bool urgent) {
  int least = 0, greatest = 0;
  HELIX_CU(cuCtxGetStreamPriorityRange, &least, &greatest);
  HeldStream stream;
  HELIX_CU(cuStreamCreateWithPriority, stream.out(), kNonBlocking, urgent ? greatest : least);
  return stream;
}

HeldEvent makeEvent(bool timed) {
  HeldEvent event;
  HELIX_CU(cuEventCreate, event.out(), timed ? 0 : kNoTiming);
  return event;
}

Gpu::Gpu(int ordinal) {
  int count = 0;
  if (int result = driver().cuInit(0); result != kSuccess) {
    const char *name = nullptr;
    driver().cuGetErrorName(result, &name);
    throw Error(ErrorCode::CudaUnavailable, std::string("the artifact runs on NVIDIA GPUs, and the CUDA driver finds "
                                                        "none here: cuInit returned ") +
                                                (name ? name : std::to_string(result)));
  }
  HELIX_CU(cuDeviceGetCount, &count);
  if (ordinal < 0 || ordinal >= count)
    throw Error(ErrorCode::CudaUnavailable, "there is no GPU " + std::to_string(ordinal) + " here, but " +
                                                std::to_string(count) + "; they are numbered from 0");
  HELIX_CU(cuDeviceGet, &device, ordinal);
  char text[256] = "";
  HELIX_CU(cuDeviceGetName, text, int(sizeof(text)), device);
  model = text;
  int major = attribute(kComputeMajor), minor = attribute(kComputeMinor);
  if (major < 8)
    throw Error(ErrorCode::CudaUnavailable, "GPU " + std::to_string(ordinal) + " (" + model +
                                                ") has compute capability " + std::to_string(major) + "." +
                                                std::to_string(minor) + ", 8.0 or more is needed");
  HELIX_CU(cuDevicePrimaryCtxRetain, &context, device);
  use();
}

Gpu::~Gpu() {
  if (context)
    driver().cuDevicePrimaryCtxRelease_v2(device);
}

int Gpu::attribute(int which) const {
  int value = 0;
  HELIX_CU(cuDeviceGetAttribute, &value, which, device);
  return value;
}

uint64_t Gpu::freeBytes() const {
  size_t free = 0, total = 0;
  HELIX_CU(cuMemGetInfo_v2, &free, &total);
  return free;
}

} // namespace helix::cuda
