//===- Device.cpp - What runs the ranks of an artifact ---------------------===//
#include "runtime/Core/Device.h"
#include "runtime/Core/CpuDevice.h"
#include "runtime/Cuda/CudaDevice.h"

namespace helix {

std::unique_ptr<Device> makeDevice(const artifact::Artifact &artifact, const SessionOptions &options) {
  if (cuda::isForCuda(artifact))
    return std::make_unique<cuda::CudaDevice>(artifact, options);
  if (options.processes)
    throw Error(ErrorCode::ArgumentInvalid, "the artifact is for the CPU, where all ranks are threads of one process; "
                                            "leave --process out, or compile with --target cuda");
  if (options.roundActivations)
    throw Error(ErrorCode::ArgumentInvalid, "the artifact is for the CPU, where products take activations as they are; "
                                            "leave --round-activations out, or compile with --target cuda");
  return std::make_unique<CpuDevice>(artifact, options);
}

} // namespace helix
