//===- Benchmark.cpp - Decode steps at a context ---------------------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <algorithm>
#include <cmath>

namespace helix {

void checkBenchmark(const Session &session, const RunOptions &options) {
  if (options.benchmarkBatch > session.slots())
    throw Error(ErrorCode::RunArgumentInvalid, "--benchmark-batch " + std::to_string(options.benchmarkBatch) +
                                                   " exceeds the artifact's " + counted(session.slots(), "slot"));
  if (*options.benchmarkContext >= session.capacity())
    throw Error(ErrorCode::ContextFull, "--benchmark-context " + std::to_string(*options.benchmarkContext) +
                                            " and one token more exceed a slot's " +
                                            std::to_string(session.capacity()) +
                                            "; compile the model with a larger --max-context");
}

uint64_t benchmark(Session &session, const RunOptions &options) {
  constexpr uint32_t warmups = 3;
  uint64_t length = *options.benchmarkContext;
  std::vector<Feed> feeds;
  std::vector<int64_t> ids(options.benchmarkBatch ? options.benchmarkBatch : session.slots());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = int64_t(i * 7 % session.vocabulary());
    feeds.push_back({session.admit(i), {&ids[i], 1}});
    session.pretendLength(feeds.back().slot, length);
  }
  Statistics statistics;
  Progress progress("timing");
  uint64_t first = session.steps() + warmups;
  for (uint32_t step = 0; step < warmups + options.benchmarkSteps; ++step) {
    for (const Feed &feed : feeds)
      session.truncate(feed.slot, length);
    session.step(artifact::EntryKind::Decode, feeds);
    if (step < warmups)
      continue;
    statistics.stepSeconds.push_back(session.stepSeconds());
    statistics.decodeTokens += feeds.size();
    statistics.decodeTraffic = session.takeTraffic();
    progress.show(step + 1 - warmups, options.benchmarkSteps);
  }
  statistics.decodeSeconds = statistics.stepSeconds;
  std::vector<float> row(session.vocabulary());
  for (const Feed &feed : feeds) {
    session.logits(feed.slot, row);
    if (!std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); }))
      throw Error(ErrorCode::LogitsNotFinite, "the logits of a benchmark step are not finite");
  }
  statistics.print(true);
  if (!options.reportFile.empty())
    writeReport(session, options, statistics);
  return first;
}

} // namespace helix
