//===- Run.h - What helix-run is asked to do, and its parts ----------------===//
#ifndef HELIX_TOOLS_HELIX_RUN_RUN_H
#define HELIX_TOOLS_HELIX_RUN_RUN_H

#include "runtime/Core/Session.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace helix {

struct Prompt {
  std::vector<int64_t> ids;
  std::string source; ///< where it stands, as in "'p.jsonl', line 3"
};
using Prompts = std::vector<Prompt>;

struct RunOptions {
  std::string artifact;
  SessionOptions session;
  std::string promptIds, promptsFile, inputsFile, outputsFile;
  uint32_t tokens = 64;
  Sampling sampling;
  std::vector<int64_t> stopIds;
  bool score = false, benchmark = false;
  std::string traceFile, reportFile;
  std::optional<uint64_t> benchmarkContext;
  uint32_t benchmarkSteps = 32;
  uint32_t benchmarkBatch = 0; ///< 0: every slot
  std::optional<uint64_t> decodeLast;
};

/// "1,2,3" of an option. Throws RunArgumentInvalid, quoting what is not an id.
std::vector<int64_t> parseIds(const std::string &option, const std::string &text);

/// The prompts of the one source that was named, none of them empty. Throws PromptsInvalid, NpzInvalid or, for those of
/// the command line, RunArgumentInvalid.
Prompts readPrompts(const RunOptions &options);

/// "prompt 2 ('p.jsonl', line 3)"
std::string promptName(const Prompts &prompts, size_t index);

/// Throws unless every prompt is of the vocabulary and fits a slot, and so are the ids that stop one.
void checkPrompts(const Session &session, const Prompts &prompts, const RunOptions &options);

/// Throws unless what the run writes can be written without harm to a file that it reads; `checkOutputsAgainstWeights`
/// is for those that only the artifact names.
void checkOutputs(const RunOptions &options);
void checkOutputsAgainstWeights(const RunOptions &options, const artifact::Artifact &artifact);

/// Loads the session: prints to stderr what each rank will hold, then a progress bar if stderr is a terminal.
void loadWithReport(Session &session);

/// Sends on what was printed. Throws SystemFailure if stdout takes no more.
void flushStdout();

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
  std::vector<double> stepSeconds;   ///< the same of the ranks' work alone
  double prefillSeconds = 0;
  uint64_t prefillTokens = 0, decodeTokens = 0;
  Traffic decodeTraffic;     ///< of one decode step; collectives are the same in each
  uint64_t samplingSent = 0; ///< in all decode steps
  void print(bool benchmark) const;
};

/// The value below which this part of sorted values lies.
double quantile(const std::vector<double> &sorted, double part);

/// Writes --trace: the remembered steps from the session's step `firstStep` on. Throws ReportUnwritable.
void writeTrace(const Session &session, const RunOptions &options, uint64_t firstStep);

/// Writes --report. Throws ReportUnwritable.
void writeReport(const Session &session, const RunOptions &options, const Statistics &statistics);

/// Throws unless the artifact's slots have room for --benchmark-context.
void checkBenchmark(const Session &session, const RunOptions &options);

/// Times decode steps at a length over made-up caches; returns the first step that counts.
uint64_t benchmark(Session &session, const RunOptions &options);

/// Decodes every prompt, as many at a time as there are slots; token ids go to stdout.
void generate(Session &session, const Prompts &prompts, const RunOptions &options);

/// Calls a stateless artifact with the arrays of --inputs and writes what it gives to --outputs. Throws InputMismatch
/// unless they are just those that it takes.
void call(const RunOptions &options);

/// Throws unless the artifact's entries give the logits that `score` needs.
void checkScore(const Session &session, const Prompts &prompts, const RunOptions &options);

/// Feeds every prompt's own ids and prints the mean negative log-likelihood.
void score(Session &session, const Prompts &prompts, const RunOptions &options);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_RUN_RUN_H
