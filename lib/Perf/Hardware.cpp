//===- Hardware.cpp - What a plan is priced on -----------------------------===//
#include "lib/Perf/Hardware.h"

#include <algorithm>

namespace helix::perf {

double bytesPerElement(DType dtype) {
  constexpr std::array<double, kDTypes> bytes = {4, 2, 1, 0.5};
  return bytes[unsigned(dtype)];
}

std::optional<DType> parseDType(std::string_view text) {
  if (text == "f32")
    return DType::F32;
  if (text == "bf16" || text == "f16")
    return DType::Half;
  if (text == "fp8" || text == "int8")
    return DType::Fp8;
  if (text == "fp4")
    return DType::Fp4;
  return std::nullopt;
}

std::string_view dtypeName(DType dtype) {
  constexpr std::array<std::string_view, kDTypes> names = {"f32", "bf16", "fp8", "fp4"};
  return names[unsigned(dtype)];
}

std::string_view className(CommandClass kind) {
  constexpr std::array<std::string_view, kClasses> names = {"attention", "linear", "elementwise", "copy"};
  return names[unsigned(kind)];
}

std::string_view collectiveName(CollectiveKind kind) {
  return kind == CollectiveKind::AllToAll ? "all_to_all" : "all_reduce";
}

double peakFlops(const Hardware &hardware, DType dtype) {
  for (unsigned i = unsigned(dtype) + 1; i-- > 0;)
    if (hardware.peakFlops[i] > 0)
      return hardware.peakFlops[i];
  for (double peak : hardware.peakFlops)
    if (peak > 0)
      return peak;
  return 0;
}

double memoryBandwidth(const Hardware &hardware, uint32_t ranks) {
  double own = hardware.memoryBytesPerSecond;
  if (hardware.sharedMemoryBytesPerSecond == 0)
    return own;
  return std::min(own, hardware.sharedMemoryBytesPerSecond / std::max(1U, std::min(ranks, hardware.domain)));
}

} // namespace helix::perf
