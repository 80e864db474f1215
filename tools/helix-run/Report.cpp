//===- Report.cpp - What helix-run says on stderr --------------------------===//
#include "Run.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <unistd.h>

namespace helix {

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
  std::fprintf(stderr, "%u ranks: attention tpa %u x kvp %u, FFN ep %u x tpf %u; %u slots of %" PRIu64 " tokens\n",
               session.ranks(), mesh.tpa(), mesh.kvp(), mesh.ep(), mesh.tpf(), session.slots(), session.capacity());
  uint64_t all = session.sharedMemory();
  for (uint32_t r = 0; r < session.ranks(); ++r) {
    MemoryNeeds needs = session.memory(r);
    all += needs.total();
    std::fprintf(stderr, "rank %u: %s = weights %s + KV cache %s + activations %s + scratch of %u threads %s\n", r,
                 formatBytes(needs.total()).c_str(), formatBytes(needs.weights).c_str(), formatBytes(needs.kv).c_str(),
                 formatBytes(needs.arenas).c_str(), session.threadsOf(r), formatBytes(needs.scratch).c_str());
  }
  std::fprintf(stderr, "memory: %s needed, %s available\n", formatBytes(all).c_str(),
               formatBytes(availableMemory()).c_str());
  Progress progress("loading weights");
  session.load([&](uint64_t done, uint64_t total) { progress.show(done, total); });
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
  auto at = [&](double quantile) { return sorted[size_t(quantile * double(sorted.size() - 1) + 0.5)] * 1e3; };
  std::fprintf(stderr, "decode: %zu steps, %.3f ms per token and sequence (median), %.1f tokens/s\n", sorted.size(),
               at(0.5), double(decodeTokens) / std::max(sum, 1e-9));
  if (benchmark)
    std::fprintf(stderr, "decode step, ms: min %.3f  p10 %.3f  median %.3f  p90 %.3f  max %.3f  mean %.3f\n", at(0),
                 at(0.1), at(0.5), at(0.9), at(1), sum / double(sorted.size()) * 1e3);
  std::fprintf(stderr,
               "bytes sent per rank and decode step: all-to-all %" PRIu64 ", all-reduce %" PRIu64 ", embedding %" PRIu64
               ", sampling %" PRIu64 "\n",
               decodeTraffic.allToAll, decodeTraffic.allReduce, decodeTraffic.embedding, samplingSent / sorted.size());
}

} // namespace helix
