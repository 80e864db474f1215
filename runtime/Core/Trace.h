//===- Trace.h - When the commands of the last steps ran -------------------===//
#ifndef HELIX_RUNTIME_CORE_TRACE_H
#define HELIX_RUNTIME_CORE_TRACE_H

#include <chrono>
#include <cstdint>
#include <vector>

namespace helix {

/// Nanoseconds of a clock that never goes back.
inline int64_t traceNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// A step on one rank.
struct RankTimes {
  int64_t begin = 0;  ///< the rank's thread is awake
  int64_t joined = 0; ///< all streams are done
  int64_t end = 0;    ///< the last logits are kept
  /// Per stream: the step's begin, then the end of each of its commands, in order.
  std::vector<std::vector<int64_t>> streams;
};

/// A step that is remembered. Its entry is that of the list in which it is.
struct StepTrace {
  uint64_t number = 0;        ///< among the session's steps
  std::vector<int32_t> past;  ///< tokens that each slot held before
  std::vector<int32_t> qLen;  ///< and new ones
  int64_t begin = 0, end = 0; ///< around the work of all ranks
  std::vector<RankTimes> ranks;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_TRACE_H
