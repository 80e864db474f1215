//===- Score.cpp - How likely the prompts are ------------------------------===//
#include "Npz.h"
#include "Run.h"
#include "runtime/Error.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace helix {
namespace {

/// A prompt that is being fed.
struct Active {
  size_t prompt;
  uint32_t slot;
  size_t fed;   ///< tokens
  size_t whole; ///< how many go through the prefill entry
};

/// -log softmax(row)[target], in nats.
double negativeLogLikelihood(std::span<const float> row, int64_t target) {
  double sum = cpu::logSumExp(cpu::normalizer(row.data(), row.size(), 1), 1);
  double result = sum - double(row[size_t(target)]);
  if (!std::isfinite(result))
    throw Error(ErrorCode::LogitsNotFinite, "the likelihood of a token is not finite");
  return result;
}

} // namespace

void score(Session &session, const Prompts &prompts, const RunOptions &options) {
  using artifact::EntryKind;
  const artifact::Entry *prefill = session.entry(EntryKind::Prefill);
  bool allLogits = prefill && prefill->logits() == artifact::LogitRows::All;
  if (options.decodeFrom && *options.decodeFrom != 0 && !prefill)
    throw Error(ErrorCode::EntryMissing, "the artifact has no prefill entry for --decode-from; compile one, or leave "
                                         "the option out");
  uint64_t prefilled = options.decodeFrom.value_or(allLogits ? UINT64_MAX : 0);
  bool keep = !options.outputsFile.empty();

  std::vector<NpzArray> arrays(prompts.size());
  std::vector<float> row(session.vocabulary());
  std::vector<Active> active;
  std::vector<Feed> feeds;
  size_t waiting = 0, predicted = 0, scored = 0, total = 0;
  double loss = 0;
  for (const auto &prompt : prompts)
    total += prompt.size();
  Progress progress("scoring");

  while (waiting < prompts.size() || !active.empty()) {
    for (; waiting < prompts.size() && session.hasFreeSlot(); ++waiting) {
      size_t size = prompts[waiting].size();
      active.push_back({waiting, session.admit(waiting), 0, size_t(std::min<uint64_t>(prefilled, size))});
      if (keep)
        arrays[waiting] = {"logits_" + std::to_string(waiting), {size, session.vocabulary()}, {}, {}};
    }
    // Chunks first: a step is of one entry.
    bool chunks = std::any_of(active.begin(), active.end(), [](const Active &it) { return it.fed < it.whole; });
    feeds.clear();
    std::vector<Active *> inStep;
    for (Active &it : active) {
      if (chunks && it.fed == it.whole)
        continue;
      size_t count = chunks ? std::min<size_t>(prefill->tokens(), it.whole - it.fed) : 1;
      feeds.push_back({it.slot, std::span(prompts[it.prompt]).subspan(it.fed, count)});
      inStep.push_back(&it);
    }
    session.step(chunks ? EntryKind::Prefill : EntryKind::Decode, feeds);
    for (size_t i = 0; i < feeds.size(); ++i) {
      Active &it = *inStep[i];
      for (uint32_t t = 0; t < feeds[i].ids.size(); ++t, ++it.fed) {
        session.logitsOf(it.slot, t, row);
        if (it.fed + 1 < prompts[it.prompt].size()) {
          loss += negativeLogLikelihood(row, prompts[it.prompt][it.fed + 1]);
          ++predicted;
        }
        if (keep)
          arrays[it.prompt].floats.insert(arrays[it.prompt].floats.end(), row.begin(), row.end());
      }
      scored += feeds[i].ids.size();
    }
    progress.show(scored, total);
    std::erase_if(active, [&](const Active &it) {
      bool done = it.fed == prompts[it.prompt].size();
      if (done)
        session.release(it.slot);
      return done;
    });
  }
  if (keep)
    writeNpz(options.outputsFile, arrays);
  if (predicted == 0)
    throw Error(ErrorCode::PromptsInvalid, "every prompt has one token, so that nothing is predicted");
  std::printf("%.9f\n", loss / double(predicted));
}

} // namespace helix
