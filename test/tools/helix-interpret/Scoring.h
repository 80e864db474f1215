//===- Scoring.h - Prompts through the entries of a model --------------------===//
#ifndef HELIX_TEST_TOOLS_INTERPRET_SCORING_H
#define HELIX_TEST_TOOLS_INTERPRET_SCORING_H

#include "lib/Interpreter/Interpreter.h"

/// A prompt and what came of it.
struct Sequence {
  /// The prompt, then the tokens generated.
  std::vector<int64_t> ids;
  /// [tokens fed, vocabulary] if they are kept.
  std::vector<double> logits;
  /// Tokens fed so far, and tokens of the prompt.
  int64_t fed = 0, prompt = 0;
};

struct ScoringOptions {
  /// Tokens at the end of a prompt that are decoded one by one; those before go through @prefill.
  int64_t decodeLast = 0;
  /// Tokens to generate, each the likeliest.
  int64_t generate = 0;
  bool keepLogits = false;
};

/// Feeds `sequences`, as many at once as the entries have slots. The diagnostic is emitted where it fails.
mlir::LogicalResult score(helix::Interpreter &interpreter, llvm::MutableArrayRef<Sequence> sequences,
                          const ScoringOptions &options);

#endif // HELIX_TEST_TOOLS_INTERPRET_SCORING_H
