//===- Device.cpp - What runs the ranks of an artifact ---------------------===//
#include "runtime/Core/Device.h"
#include "runtime/Core/CpuDevice.h"

namespace helix {

std::unique_ptr<Device> makeDevice(const artifact::Artifact &artifact, const SessionOptions &options) {
  return std::make_unique<CpuDevice>(artifact, options);
}

} // namespace helix
