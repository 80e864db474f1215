//===- Scoring.cpp - Prompts through the entries of a model ------------------===//
#include "test/tools/helix-interpret/Scoring.h"

using namespace mlir;
using namespace helix;

/// Feeds each sequence, in the slot of its index, its next tokens below `limit(sequence)`, until none has any.
static LogicalResult feed(Interpreter &interpreter, StringRef entryName, MutableArrayRef<Sequence> slots,
                          const ScoringOptions &options, llvm::function_ref<int64_t(const Sequence &)> limit) {
  EntryAttr entry = interpreter.entry(entryName);
  int64_t batch = entry.getBatch(), tokens = entry.getTokens();
  while (true) {
    std::vector<int64_t> ids(batch * tokens), past(batch), qLen(batch);
    for (auto [b, sequence] : llvm::enumerate(slots)) {
      past[b] = sequence.fed;
      qLen[b] = std::clamp<int64_t>(limit(sequence) - sequence.fed, 0, tokens);
      std::copy_n(sequence.ids.begin() + sequence.fed, qLen[b], ids.begin() + b * tokens);
    }
    if (llvm::all_of(qLen, [](int64_t n) { return n == 0; }))
      return success();
    FailureOr<Tensor> logits = interpreter.runEntry(entryName, ids, past, qLen);
    if (failed(logits))
      return failure();
    for (auto [b, sequence] : llvm::enumerate(slots)) {
      if (qLen[b] == 0)
        continue;
      int64_t rows = entry.getLogits() == LogitRows::All ? qLen[b] : 1;
      const double *first = logits->at({static_cast<int64_t>(b)});
      if (options.keepLogits)
        sequence.logits.insert(sequence.logits.end(), first, first + rows * logits->width());
      sequence.fed += qLen[b];
      int64_t generated = sequence.ids.size() - sequence.prompt;
      if (sequence.fed == static_cast<int64_t>(sequence.ids.size()) && generated < options.generate) {
        const double *last = first + (rows - 1) * logits->width();
        sequence.ids.push_back(std::max_element(last, last + logits->width()) - last);
      }
    }
  }
}

LogicalResult score(Interpreter &interpreter, MutableArrayRef<Sequence> sequences, const ScoringOptions &options) {
  int64_t batch = interpreter.entry("decode").getBatch();
  while (!sequences.empty()) {
    MutableArrayRef<Sequence> slots = sequences.take_front(batch);
    sequences = sequences.drop_front(slots.size());
    interpreter.reset();
    auto prefilled = [&](const Sequence &sequence) { return std::max<int64_t>(sequence.prompt - options.decodeLast, 0); };
    // The last token generated is not fed: nobody asks for what comes after it.
    auto whole = [&](const Sequence &sequence) {
      return std::min<int64_t>(sequence.ids.size(), sequence.prompt + std::max<int64_t>(options.generate, 1) - 1);
    };
    if (llvm::any_of(slots, [&](const Sequence &it) { return prefilled(it) > 0; }) &&
        failed(feed(interpreter, "prefill", slots, options, prefilled)))
      return failure();
    if (failed(feed(interpreter, "decode", slots, options, whole)))
      return failure();
  }
  return success();
}
