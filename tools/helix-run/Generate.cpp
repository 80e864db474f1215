//===- Generate.cpp - Prompts to tokens ------------------------------------===//
#include "Npz.h"
#include "Run.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>

namespace helix {
namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A prompt that is being decoded.
struct Active {
  size_t prompt;
  uint32_t slot;
  int64_t next; ///< the last chosen token, not yet appended
};

/// What has been decoded, and its way to stdout: one prompt's tokens as they come, several prompts' lines in their
/// order as soon as they are whole.
class Lines {
public:
  explicit Lines(size_t count) : tokens(count), done(count) {}
  ~Lines() {
    // What failed says so on a line of its own.
    if (tokens.size() == 1 && !done[0] && !tokens[0].empty())
      std::printf("\n");
    std::fflush(stdout);
  }

  void add(size_t prompt, int64_t token) {
    tokens[prompt].push_back(token);
    if (tokens.size() == 1) {
      std::printf("%s%" PRId64, tokens[0].size() == 1 ? "" : " ", token);
      flushStdout();
    }
  }

  void finish(size_t prompt) {
    done[prompt] = true;
    for (; printed < done.size() && done[printed]; ++printed) {
      const char *separator = "";
      for (size_t i = 0; tokens.size() != 1 && i < tokens[printed].size(); ++i, separator = " ")
        std::printf("%s%" PRId64, separator, tokens[printed][i]);
      std::printf("\n");
      flushStdout();
    }
  }

  std::vector<std::vector<int64_t>> tokens;

private:
  std::vector<bool> done;
  size_t printed = 0;
};

} // namespace

void generate(Session &session, const Prompts &prompts, const RunOptions &options) {
  Statistics statistics;
  Lines lines(prompts.size());
  Progress progress("decoding");
  std::vector<Active> active;
  std::vector<Feed> feeds;
  size_t waiting = 0, finished = 0;

  // Chooses the next token of a sequence; false if that ends it.
  auto advance = [&](Active &sequence) {
    auto &tokens = lines.tokens[sequence.prompt];
    bool full = false;
    if (tokens.size() < options.tokens) {
      sequence.next = session.sample(sequence.slot, options.sampling);
      bool stop = std::find(options.stopIds.begin(), options.stopIds.end(), sequence.next) != options.stopIds.end();
      if (!stop)
        lines.add(sequence.prompt, sequence.next);
      if (!stop && tokens.size() < options.tokens) {
        if (session.length(sequence.slot) < session.capacity())
          return true;
        full = true;
      }
    }
    session.release(sequence.slot);
    lines.finish(sequence.prompt);
    if (full)
      std::fprintf(stderr, "%s ends after %s: its context of %" PRIu64 " tokens is full\n",
                   promptName(prompts, sequence.prompt).c_str(), counted(tokens.size(), "token").c_str(),
                   session.capacity());
    progress.show(++finished, prompts.size());
    return false;
  };
  auto advanceFrom = [&](size_t first) {
    active.erase(std::remove_if(active.begin() + ptrdiff_t(first), active.end(),
                                [&](Active &sequence) { return !advance(sequence); }),
                 active.end());
  };

  while (waiting < prompts.size() || !active.empty()) {
    size_t running = active.size();
    feeds.clear();
    for (; waiting < prompts.size() && session.hasFreeSlot(); ++waiting) {
      uint32_t slot = session.admit(waiting);
      active.push_back({waiting, slot, 0});
      feeds.push_back({slot, prompts[waiting].ids});
    }
    if (!feeds.empty()) {
      Clock::time_point start = Clock::now();
      session.prefill(feeds);
      statistics.prefillSeconds += secondsSince(start);
      for (const Feed &feed : feeds)
        statistics.prefillTokens += feed.ids.size();
      advanceFrom(running);
      session.takeTraffic();
      continue; // a sequence that ended at once leaves its slot to the next
    }
    feeds.clear();
    for (const Active &sequence : active)
      feeds.push_back({sequence.slot, {&sequence.next, 1}});
    Clock::time_point start = Clock::now();
    session.step(artifact::EntryKind::Decode, feeds);
    statistics.stepSeconds.push_back(session.stepSeconds());
    statistics.decodeTokens += feeds.size();
    advanceFrom(0);
    statistics.decodeSeconds.push_back(secondsSince(start));
    statistics.decodeTraffic = session.takeTraffic();
    statistics.samplingSent += statistics.decodeTraffic.sampling;
  }
  statistics.print(options.benchmark);
  if (!options.reportFile.empty())
    writeReport(session, options, statistics);

  if (options.outputsFile.empty())
    return;
  std::vector<NpzArray> arrays;
  for (size_t i = 0; i < prompts.size(); ++i)
    arrays.push_back({"tokens_" + std::to_string(i), {lines.tokens[i].size()}, {}, lines.tokens[i]});
  writeNpz(options.outputsFile, arrays);
}

} // namespace helix
