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

using artifact::EntryKind;

/// How many tokens come before the last `decoded` ones.
size_t prefilled(const Prompt &prompt, uint64_t decoded) {
  return prompt.ids.size() - size_t(std::min<uint64_t>(decoded, prompt.ids.size()));
}

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

void checkScore(const Session &session, const Prompts &prompts, const RunOptions &options) {
  if (std::all_of(prompts.begin(), prompts.end(), [](const Prompt &it) { return it.ids.size() == 1; }))
    throw Error(ErrorCode::PromptsInvalid, "every prompt has one token, so that nothing is predicted; give --score at "
                                           "least two");
  if (!options.decodeLast)
    return;
  const artifact::Entry *prefill = session.entry(EntryKind::Prefill);
  if (!prefill)
    throw Error(ErrorCode::EntryMissing, "the artifact has no prefill entry for --decode-last; compile the model with "
                                         "--prefill-chunk and --all-logits, or leave the option out");
  bool chunks = prefill->tokens() > 1 && std::any_of(prompts.begin(), prompts.end(), [&](const Prompt &it) {
                  return prefilled(it, *options.decodeLast) > 1;
                });
  if (chunks && prefill->logits() != artifact::LogitRows::All)
    throw Error(ErrorCode::EntryMissing, "the prefill entry gives the logits of a chunk's last token only, --score "
                                         "needs all; compile the model with --all-logits, or leave --decode-last out");
}

void score(Session &session, const Prompts &prompts, const RunOptions &options) {
  const artifact::Entry *prefill = session.entry(EntryKind::Prefill);
  bool allLogits = prefill && prefill->logits() == artifact::LogitRows::All;
  uint64_t decoded = options.decodeLast.value_or(allLogits ? 0 : UINT64_MAX);
  bool keep = !options.outputsFile.empty();

  std::vector<NpzArray> arrays(prompts.size());
  std::vector<float> row(session.vocabulary());
  std::vector<Active> active;
  std::vector<Feed> feeds;
  size_t waiting = 0, predicted = 0, scored = 0, total = 0;
  double loss = 0;
  for (const Prompt &prompt : prompts)
    total += prompt.ids.size();
  Progress progress("scoring");

  while (waiting < prompts.size() || !active.empty()) {
    for (; waiting < prompts.size() && session.hasFreeSlot(); ++waiting) {
      active.push_back({waiting, session.admit(waiting), 0, prefilled(prompts[waiting], decoded)});
      if (keep)
        arrays[waiting] = {
            "logits_" + std::to_string(waiting), {prompts[waiting].ids.size(), session.vocabulary()}, {}, {}};
    }
    // Chunks first: a step is of one entry.
    bool chunks = std::any_of(active.begin(), active.end(), [](const Active &it) { return it.fed < it.whole; });
    feeds.clear();
    std::vector<Active *> inStep;
    for (Active &it : active) {
      if (chunks && it.fed == it.whole)
        continue;
      size_t count = chunks ? std::min<size_t>(prefill->tokens(), it.whole - it.fed) : 1;
      feeds.push_back({it.slot, std::span(prompts[it.prompt].ids).subspan(it.fed, count)});
      inStep.push_back(&it);
    }
    session.step(chunks ? EntryKind::Prefill : EntryKind::Decode, feeds);
    for (size_t i = 0; i < feeds.size(); ++i) {
      Active &it = *inStep[i];
      for (uint32_t t = 0; t < feeds[i].ids.size(); ++t, ++it.fed) {
        session.logitsOf(it.slot, t, row);
        if (it.fed + 1 < prompts[it.prompt].ids.size()) {
          loss += negativeLogLikelihood(row, prompts[it.prompt].ids[it.fed + 1]);
          ++predicted;
        }
        if (keep)
          arrays[it.prompt].floats.insert(arrays[it.prompt].floats.end(), row.begin(), row.end());
      }
      scored += feeds[i].ids.size();
    }
    progress.show(scored, total);
    std::erase_if(active, [&](const Active &it) {
      bool done = it.fed == prompts[it.prompt].ids.size();
      if (done)
        session.release(it.slot);
      return done;
    });
  }
  if (keep)
    writeNpz(options.outputsFile, arrays);
  std::printf("%.9f\n", loss / double(predicted));
}

} // namespace helix
