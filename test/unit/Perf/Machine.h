//===- Machine.h - A hardware with round numbers ---------------------------===//
#ifndef HELIX_TEST_UNIT_PERF_MACHINE_H
#define HELIX_TEST_UNIT_PERF_MACHINE_H

#include "lib/Perf/Program.h"

namespace helix::test {

/// 1 GB/s, 1 GFLOP/s, links of 1 GB/s without latency, everything at full efficiency: bytes and FLOPs are nanoseconds.
inline perf::Hardware unitMachine() {
  perf::Hardware machine;
  machine.name = "unit";
  machine.memoryBytesPerSecond = 1e9;
  machine.capacityBytes = 1e9;
  machine.peakFlops = {1e9, 1e9, 1e9, 1e9};
  machine.domain = 1024;
  machine.inside.bytesPerSecond = machine.outside.bytesPerSecond = 1e9;
  return machine;
}

inline perf::Command command(std::variant<perf::Work, perf::Exchange, perf::Record, perf::Wait> work,
                             uint32_t stream = 0) {
  perf::Command result;
  result.work = work;
  result.stream = stream;
  return result;
}

/// A command that takes `seconds` on the unit machine.
inline perf::Work work(double seconds) {
  perf::Work result;
  result.kind = perf::CommandClass::Attention;
  result.kvBytes = seconds * 1e9;
  return result;
}

/// A collective that takes `seconds` there.
inline perf::Exchange exchange(double seconds, uint32_t peers = 2, uint32_t ranks = 2) {
  perf::Exchange result;
  result.peers = peers;
  result.ranks = ranks;
  result.sentBytes = seconds * 1e9;
  return result;
}

} // namespace helix::test

#endif // HELIX_TEST_UNIT_PERF_MACHINE_H
