//===- helix-bench-cpu.cpp - Kernels beside the bandwidth of memory --------===//
//
// For each case: the kernel and a loop that only reads, over the same memory, in turns. Prints a line of JSON per case:
// medians of the seconds of either, and of the quotient within a pair. With --steps it serves an artifact instead.
//
//===-----------------------------------------------------------------------===//
#include "bench/cpu/Bandwidth.h"
#include "bench/cpu/Cases.h"
#include "bench/cpu/Steps.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>

namespace helix::bench {
namespace {

double secondsOf(const std::function<void()> &body) {
  auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  auto middle = values.begin() + ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void measure(const Case &what, Workers &workers, unsigned pairs) {
  Prepared prepared = what.prepare(workers);
  volatile float sink = 0;
  auto read = [&] {
    workers.parallel(prepared.memory.size() / 64, [&](size_t begin, size_t end, unsigned) {
      sink = sink + readLines(prepared.memory.data() + begin * 64, end - begin);
    });
  };
  std::vector<double> kernels, reads, fractions;
  for (unsigned pair = 0; pair < pairs + 2; ++pair) {
    // Each goes first in every other pair.
    double first = secondsOf(pair % 2 == 0 ? std::function<void()>(read) : prepared.run);
    double second = secondsOf(pair % 2 == 0 ? prepared.run : std::function<void()>(read));
    if (pair < 2)
      continue;
    reads.push_back(pair % 2 == 0 ? first : second);
    kernels.push_back(pair % 2 == 0 ? second : first);
    fractions.push_back(reads.back() / kernels.back());
  }
  double bytes = double(prepared.memory.size());
  std::printf("{\"case\": \"%s\", \"fraction\": %.4f, \"read_bytes_per_second\": %.4g, \"kernel_bytes_per_second\": "
              "%.4g, \"flops_per_second\": %.4g}\n",
              what.name.c_str(), median(fractions), bytes / median(reads), bytes / median(kernels),
              prepared.flops / median(kernels));
  std::fflush(stdout);
}

int main(int argc, char **argv) {
  CLI::App app("Times kernels beside the bandwidth of memory.");
  unsigned threads = std::max(1u, std::thread::hardware_concurrency()), pairs = 20;
  std::vector<std::string> names;
  app.add_option("--threads", threads, "threads of either")->check(CLI::PositiveNumber);
  app.add_option("--pairs", pairs, "pairs of runs")->check(CLI::PositiveNumber);
  app.add_option("names", names, "cases whose names start so; without any, all");
  StepsOptions steps;
  app.add_option("--steps", steps.artifact, "serve the steps of this artifact on standard input and output");
  app.add_option("--context", steps.context, "with it: tokens in every slot");
  CLI11_PARSE(app, argc, argv);
  if (!steps.artifact.empty()) {
    steps.threads = threads;
    serveSteps(steps);
    return 0;
  }
  Workers workers(threads, true);
  for (const Case &it : allCases())
    if (names.empty() ||
        std::any_of(names.begin(), names.end(), [&](const std::string &name) { return it.name.starts_with(name); }))
      measure(it, workers, pairs);
  return 0;
}

} // namespace
} // namespace helix::bench

int main(int argc, char **argv) { return helix::bench::main(argc, argv); }
