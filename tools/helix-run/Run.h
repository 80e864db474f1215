//===- Run.h - What helix-run is asked to do, and its parts ----------------===//
#ifndef HELIX_TOOLS_HELIX_RUN_RUN_H
#define HELIX_TOOLS_HELIX_RUN_RUN_H

#include "runtime/Core/Session.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace helix {

using Prompts = std::vector<std::vector<int64_t>>;

struct RunOptions {
  std::string artifact;
  SessionOptions session;
  std::vector<int64_t> promptIds;
  std::string promptsFile, inputsFile, outputsFile;
  uint32_t tokens = 64;
  Sampling sampling;
  std::vector<int64_t> stopIds;
  bool score = false, benchmark = false;
  std::optional<uint64_t> decodeFrom;
};

/// The prompts of the one source that was named. Throws PromptsInvalid or NpzInvalid.
Prompts readPrompts(const RunOptions &options);

/// Loads the session: prints to stderr what each rank will hold, then a progress bar if stderr is a terminal.
void loadWithReport(Session &session);

/// A progress bar on stderr, or nothing if that is not a terminal.
class Progress {
public:
  explicit Progress(std::string title);
  ~Progress();
  void show(uint64_t done, uint64_t total);

private:
  std::string title;
  bool terminal;
  int percent = -1;
};

/// Times and bytes of the steps of a run.
struct Statistics {
  std::vector<double> decodeSeconds; ///< of each decode step, sampling included
  double prefillSeconds = 0;
  uint64_t prefillTokens = 0, decodeTokens = 0;
  Traffic decodeTraffic;     ///< of one decode step; collectives are the same in each
  uint64_t samplingSent = 0; ///< in all decode steps
  void print(bool benchmark) const;
};

/// Decodes every prompt, as many at a time as there are slots; token ids go to stdout.
void generate(Session &session, const Prompts &prompts, const RunOptions &options);

/// Feeds every prompt's own ids and prints the mean negative log-likelihood.
void score(Session &session, const Prompts &prompts, const RunOptions &options);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_RUN_RUN_H
