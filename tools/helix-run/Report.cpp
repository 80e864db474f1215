//===- Report.cpp - What helix-run says on stderr --------------------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <thread>
#include <unistd.h>

namespace helix {

namespace {

constexpr uint32_t kSeparateRanks = 8; // with more, equal ones share a line

std::string rankLine(const Session &session, uint32_t rank) {
  MemoryNeeds needs = session.memory(rank);
  unsigned threads = session.device().threadsOf(rank);
  return formatBytes(needs.total()) + " = weights " + formatBytes(needs.weights) + " + KV cache " +
         formatBytes(needs.kv) + " + activations " + formatBytes(needs.arenas) + " + scratch " +
         (threads == 0 ? "" : "of " + counted(threads, "thread") + " ") + formatBytes(needs.scratch);
}

} // namespace

void flushStdout() {
  if (std::fflush(stdout) != 0)
    throw Error(ErrorCode::SystemFailure, std::string("cannot write to stdout: ") + std::strerror(errno));
  if (std::ferror(stdout))
    throw Error(ErrorCode::SystemFailure, "cannot write to stdout");
}

Progress::Progress(std::string title) : title(std::move(title)), terminal(::isatty(STDERR_FILENO)) {}

Progress::~Progress() {
  if (percent >= 0)
    std::fprintf(stderr, "\r\033[K");
}

void Progress::show(uint64_t done, uint64_t total) {
  int now = total == 0 ? 100 : int(double(done) * 100 / double(total));
  if (!terminal || now == percent)
    return;
  percent = now;
  constexpr int width = 30;
  std::string bar(size_t(now * width / 100), '#');
  std::fprintf(stderr, "\r%s [%-*s] %3d %%", title.c_str(), width, bar.c_str(), now);
}

void loadWithReport(Session &session) {
  const artifact::Mesh &mesh = *session.artifact().mesh();
  uint32_t ranks = session.ranks();
  std::fprintf(stderr, "%s: attention tpa %u x kvp %u, FFN ep %u x tpf %u; %s of %s\n", counted(ranks, "rank").c_str(),
               mesh.tpa(), mesh.kvp(), mesh.ep(), mesh.tpf(), counted(session.slots(), "slot").c_str(),
               counted(session.capacity(), "token").c_str());
  if (const auto &link = session.options().link)
    std::fprintf(stderr, "artificial link: %g s + bytes sent / %g per second for each exchange\n", link->latency,
                 link->bytesPerSecond);
  if (std::string note = session.device().note(); !note.empty())
    std::fprintf(stderr, "%s\n", note.c_str());
  uint64_t all = session.sharedMemory();
  for (uint32_t r = 0; r < ranks; ++r)
    all += session.memory(r).total();
  for (uint32_t first = 0, next; first < ranks; first = next) {
    std::string line = rankLine(session, first);
    for (next = first + 1; ranks > kSeparateRanks && next < ranks && rankLine(session, next) == line;)
      ++next;
    if (next == first + 1)
      std::fprintf(stderr, "rank %u: %s\n", first, line.c_str());
    else
      std::fprintf(stderr, "ranks %u-%u: each %s\n", first, next - 1, line.c_str());
  }
  std::fprintf(stderr, "memory: %s needed, %s available\n", formatBytes(all).c_str(),
               formatBytes(session.device().available()).c_str());
  Progress progress("loading weights");
  session.load([&](uint64_t done, uint64_t total) { progress.show(done, total); });
}

double quantile(const std::vector<double> &sorted, double part) {
  return sorted[size_t(part * double(sorted.size() - 1) + 0.5)];
}

void Statistics::print(bool benchmark) const {
  if (prefillTokens != 0)
    std::fprintf(stderr, "prompts: %" PRIu64 " tokens in %.3f s, %.1f tokens/s\n", prefillTokens, prefillSeconds,
                 double(prefillTokens) / std::max(prefillSeconds, 1e-9));
  if (decodeSeconds.empty())
    return;
  std::vector<double> sorted = decodeSeconds;
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (double seconds : sorted)
    sum += seconds;
  auto at = [&](double part) { return quantile(sorted, part) * 1e3; };
  std::fprintf(stderr, "decode: %zu steps, %.3f ms per token and sequence (median), %.1f tokens/s\n", sorted.size(),
               at(0.5), double(decodeTokens) / std::max(sum, 1e-9));
  if (benchmark)
    std::fprintf(stderr, "decode step, ms: min %.3f  p10 %.3f  median %.3f  p90 %.3f  p99 %.3f  max %.3f  mean %.3f\n",
                 at(0), at(0.1), at(0.5), at(0.9), at(0.99), at(1), sum / double(sorted.size()) * 1e3);
  std::fprintf(stderr,
               "bytes sent per rank and decode step: all-to-all %" PRIu64 ", all-reduce %" PRIu64 ", embedding %" PRIu64
               ", sampling %" PRIu64 "\n",
               decodeTraffic.allToAll, decodeTraffic.allReduce, decodeTraffic.embedding, samplingSent / sorted.size());
}

} // namespace helix
