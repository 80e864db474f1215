//===- Range.h - A half-open range of indices ------------------------------===//
#ifndef HELIX_RUNTIME_CPU_RANGE_H
#define HELIX_RUNTIME_CPU_RANGE_H

#include <cstdint>

namespace helix::cpu {

/// begin … end - 1.
struct Range {
  uint64_t begin = 0, end = 0;
  constexpr uint64_t size() const { return end - begin; }
};

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_RANGE_H
