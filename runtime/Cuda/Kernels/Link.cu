//===- Link.cu - An artificial link between ranks that share a GPU ---------===//
//
// The exchange's own copies lie between the two kernels: they are part of its time, as they are on the CPU
// (runtime/Comm/Inproc.h).
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Kernels/Arguments.h"
#ifndef HELIX_CUDA_EMULATION
#include "runtime/Cuda/Kernels/Device.h"
#endif

namespace helix::cuda {

/// One warp, a lane per rank.
HELIX_KERNEL helix_link_begin(LinkArgs args) {
  uint64_t now = globalTime();
  for (uint32_t i = threadIdx.x; i < args.peers; i += blockDim.x) {
    uint32_t rank = args.first + i * args.stride;
    uint64_t begin = args.free[rank] > now ? args.free[rank] : now;
    args.free[rank] = args.end[rank] = begin + args.nanoseconds;
  }
}

/// One warp, a lane per rank.
HELIX_KERNEL helix_link_end(LinkArgs args) {
  for (uint32_t i = threadIdx.x; i < args.peers; i += blockDim.x)
    while (globalTime() < args.end[args.first + i * args.stride])
      sleepBriefly();
}

} // namespace helix::cuda
