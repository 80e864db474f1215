//===- Steps.h - Steps of an artifact, timed on demand ---------------------===//
#ifndef HELIX_BENCH_CPU_STEPS_H
#define HELIX_BENCH_CPU_STEPS_H

#include <cstdint>
#include <string>

namespace helix::bench {

struct StepsOptions {
  std::string artifact;
  uint64_t context = 8192; ///< tokens that every slot holds before a step
  unsigned threads = 2;
};

/// Loads the artifact, prints what that took as a line of JSON, and then obeys lines of standard input, each answered
/// by its seconds: "step" decodes a token of every slot, "prefill N" appends N tokens to an empty slot, "read" reads a
/// gigabyte with all threads and answers bytes per second, "rss" answers the bytes of this process's own memory.
void serveSteps(const StepsOptions &options);

} // namespace helix::bench

#endif // HELIX_BENCH_CPU_STEPS_H
