//===- helix-run.cpp - Run an artifact -------------------------------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <CLI/CLI.hpp>

#include <cstdio>

using namespace helix;

namespace {

void addOptions(CLI::App &app, RunOptions &options, double &timeoutSeconds) {
  app.add_option("artifact", options.artifact,
                 "What helix-compile wrote (.hlx). It carries native code: run only what "
                 "you would run as a program")
      ->required();
  auto *ids = app.add_option("--prompt-ids", options.promptIds, "Token ids of one prompt: 1,2,3")->delimiter(',');
  auto *lines = app.add_option("--prompts", options.promptsFile, "Prompts as JSON lines: {\"ids\": [1, 2, 3]}");
  auto *arrays = app.add_option("--inputs", options.inputsFile, "Prompts as ids_0, ids_1, ... of an .npz file");
  ids->excludes(lines)->excludes(arrays);
  lines->excludes(arrays);
  app.add_option("--outputs", options.outputsFile,
                 "An .npz file to write: tokens_<i>, or with --score logits_<i> [tokens, vocabulary]");
  app.add_option("--tokens", options.tokens, "Tokens to decode per prompt, at most")->capture_default_str();
  app.add_option("--stop-ids", options.stopIds, "Ids that end a prompt's tokens; they are not printed")->delimiter(',');
  app.add_option("--temperature", options.sampling.temperature, "0: always the likeliest token")->capture_default_str();
  app.add_option("--top-k", options.sampling.topK, "Draw among the k likeliest; 0: all")->capture_default_str();
  app.add_option("--top-p", options.sampling.topP, "Draw among the likeliest that make up this probability")
      ->capture_default_str();
  app.add_option("--seed", options.sampling.seed, "The same seed and prompts give the same tokens on every mesh")
      ->capture_default_str();
  app.add_flag("--score", options.score,
               "Feed the prompts' own ids and print the mean negative log-likelihood, in nats per predicted token");
  app.add_option("--decode-from", options.decodeFrom,
                 "With --score: the first K ids of a prompt go through the prefill entry, the rest one by one. "
                 "Otherwise all do the former if the entry has all logits, else all the latter");
  app.add_option("--weights-root", options.session.weightsRoot,
                 "Directory that weight files are relative to (default: the artifact's)");
  app.add_option("--threads", options.session.threads,
                 "Threads of all ranks together, at least one each; 0: one per "
                 "core")
      ->capture_default_str();
  app.add_option("--comm-timeout", timeoutSeconds, "Seconds after which a rank gives up waiting for another")
      ->capture_default_str();
  app.add_flag("--benchmark", options.benchmark, "Print more about the time of decode steps");
  app.footer("stdout has one line of token ids per prompt, in their order: of a single prompt, token by token as they\n"
             "come; of several, each line when it is whole. Everything else is on stderr.");
}

void checkOptions(RunOptions &options, double timeoutSeconds) {
  auto fail = [](const char *text) { return Error(ErrorCode::RunArgumentInvalid, text); };
  if (options.promptIds.empty() && options.promptsFile.empty() && options.inputsFile.empty())
    throw fail("there is no prompt; give --prompt-ids, --prompts or --inputs");
  if (options.tokens == 0)
    throw fail("--tokens must be at least 1");
  if (options.session.threads > 65536)
    throw fail("--threads must be at most 65536");
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 1e6))
    throw fail("--comm-timeout must be above 0 and at most 1000000 seconds");
  if (options.decodeFrom && !options.score)
    throw fail("--decode-from goes with --score");
  checkSampling(options.sampling);
  options.session.commTimeout = std::chrono::milliseconds(std::max<int64_t>(1, int64_t(timeoutSeconds * 1000)));
}

int run(int argc, char **argv) {
  RunOptions options;
  double timeoutSeconds = 60;
  CLI::App app("Runs a Helix artifact: prompts of token ids in, token ids out.", "helix-run");
  addOptions(app, options, timeoutSeconds);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp &help) {
    return app.exit(help);
  } catch (const CLI::ParseError &error) {
    throw Error(ErrorCode::RunArgumentInvalid, std::string(error.what()) + "; see helix-run --help");
  }
  checkOptions(options, timeoutSeconds);
  Prompts prompts = readPrompts(options);
  Session session(options.artifact, options.session);
  loadWithReport(session);
  if (options.score)
    score(session, prompts, options);
  else
    generate(session, prompts, options);
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw Error(ErrorCode::SystemFailure, "cannot write to stdout");
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
  } catch (const std::bad_alloc &) {
    std::fprintf(stderr, "%s\n", Error(ErrorCode::MemoryExhausted, "out of memory").what());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", Error(ErrorCode::SystemFailure, error.what()).what());
  }
  return 1;
}
