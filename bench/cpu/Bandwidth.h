//===- Bandwidth.h - How fast memory can be read ---------------------------===//
#ifndef HELIX_BENCH_CPU_BANDWIDTH_H
#define HELIX_BENCH_CPU_BANDWIDTH_H

#include <cstddef>

namespace helix::bench {

/// Reads `lines` cache lines of 64 bytes from `from` on and returns something that depends on all of them. The loop
/// does as little else as a processor allows, so that nothing reads faster.
float readLines(const std::byte *from, size_t lines);

} // namespace helix::bench

#endif // HELIX_BENCH_CPU_BANDWIDTH_H
