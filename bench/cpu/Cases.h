//===- Cases.h - Kernels to time, with the memory that they read -----------===//
#ifndef HELIX_BENCH_CPU_CASES_H
#define HELIX_BENCH_CPU_CASES_H

#include "runtime/Core/Memory.h"
#include "runtime/Core/Workers.h"

#include <functional>
#include <string>
#include <vector>

namespace helix::bench {

/// A kernel ready to run: one call reads `memory` once, with all threads.
struct Prepared {
  Mapping memory;
  double flops = 0; ///< of a call
  std::function<void()> run;
};

struct Case {
  std::string name; ///< "attention/bf16/g4-d64-64k": what/dtype/shape
  std::function<Prepared(Workers &)> prepare;
};

/// All of them. A call reads at least a gigabyte, far more than a processor's caches hold.
std::vector<Case> allCases();

} // namespace helix::bench

#endif // HELIX_BENCH_CPU_CASES_H
