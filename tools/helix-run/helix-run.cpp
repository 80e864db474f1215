//===- helix-run.cpp - Run an artifact -------------------------------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdio>
#include <iostream>
#include <string_view>

using namespace helix;

namespace {

/// Of a whole number from 0 on: what is wrong with it.
std::string checkWhole(const std::string &text) {
  uint64_t value;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool good = code == std::errc() && end == text.data() + text.size();
  return good ? "" : "'" + text + "' is not a whole number from 0 to 18446744073709551615";
}

void addOptions(CLI::App &app, RunOptions &options, std::string &stopIds, double &timeoutSeconds) {
  CLI::Validator whole(checkWhole, "");
  app.add_option("artifact", options.artifact,
                 "What helix-compile wrote (.hlx). It carries native code: run only what "
                 "you would run as a program")
      ->required();
  auto *ids = app.add_option("--prompt-ids", options.promptIds, "Token ids of one prompt: 1,2,3");
  auto *lines =
      app.add_option("--prompts", options.promptsFile, "Prompts as JSON lines: {\"ids\": [1, 2, 3]}; -: stdin");
  auto *arrays = app.add_option("--inputs", options.inputsFile, "Prompts as ids_0, ids_1, ... of an .npz file");
  ids->excludes(lines)->excludes(arrays);
  lines->excludes(arrays);
  app.add_option("--outputs", options.outputsFile,
                 "An .npz file to write: tokens_<i>, or with --score logits_<i> [tokens, vocabulary]");
  app.add_option("--tokens", options.tokens, "Tokens to decode per prompt, at most")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--stop-ids", stopIds, "Ids that end a prompt's tokens; they are not printed");
  app.add_option("--temperature", options.sampling.temperature, "0: always the likeliest token")->capture_default_str();
  app.add_option("--top-k", options.sampling.topK, "Draw among the k likeliest; 0: all")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--top-p", options.sampling.topP, "Draw among the likeliest that make up this probability")
      ->capture_default_str();
  app.add_option("--seed", options.sampling.seed, "The same seed and prompts give the same tokens on every mesh")
      ->check(whole)
      ->capture_default_str();
  app.add_flag("--score", options.score,
               "Feed the prompts' own ids and print the mean negative log-likelihood, in nats per predicted token");
  app.add_option("--decode-last", options.decodeLast,
                 "With --score: the last K ids of a prompt go one by one, those before through the prefill entry. "
                 "Otherwise all do the former if the entry has all logits, else all the latter")
      ->check(whole);
  app.add_option("--weights-root", options.session.weightsRoot,
                 "Directory that weight files are relative to (default: the artifact's)");
  app.add_option("--threads", options.session.threads,
                 "Threads of all ranks together, at least one each; 0: one per "
                 "core")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--comm-timeout", timeoutSeconds, "Seconds after which a rank gives up waiting for another")
      ->capture_default_str();
  app.add_flag("--benchmark", options.benchmark, "Print more about the time of decode steps");
  app.footer("stdout has one line of token ids per prompt, in their order: of a single prompt, token by token as they\n"
             "come; of several, each line when it is whole. Everything else is on stderr.");
}

Error fail(const std::string &text) { return {ErrorCode::RunArgumentInvalid, text}; }

/// Throws if an option has an empty value, or took the next option for its value.
void checkValues(const CLI::App &app) {
  for (const CLI::Option *option : app.get_options())
    for (const std::string &value : option->results())
      if (value.empty() || value.starts_with("--"))
        throw fail(option->get_name() + " has no value" + (value.empty() ? "" : " before '" + value + "'"));
}

void checkOptions(const CLI::App &app, RunOptions &options, double timeoutSeconds) {
  if (options.promptIds.empty() && options.promptsFile.empty() && options.inputsFile.empty())
    throw fail("there is no prompt; give --prompt-ids, --prompts or --inputs");
  if (options.tokens == 0)
    throw fail("--tokens must be at least 1");
  if (options.session.threads > 65536)
    throw fail("--threads must be at most 65536");
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 1e6))
    throw fail("--comm-timeout must be above 0 and at most 1000000 seconds");
  if (options.decodeLast && !options.score)
    throw fail("--decode-last goes with --score");
  checkSampling(options.sampling);
  // What would have no effect was meant to have one.
  if (options.score)
    for (const char *name : {"--tokens", "--stop-ids", "--temperature", "--top-k", "--top-p", "--seed"})
      if (app.count(name) != 0)
        throw fail(std::string(name) + " has no effect with --score, which decodes nothing; leave one of them out");
  if (options.sampling.temperature == 0)
    for (const char *name : {"--top-k", "--top-p"})
      if (app.count(name) != 0)
        throw fail(std::string(name) + " has no effect at temperature 0; give a --temperature above 0");
  options.session.commTimeout = std::chrono::milliseconds(std::max<int64_t>(1, int64_t(timeoutSeconds * 1000)));
}

int run(int argc, char **argv) {
  RunOptions options;
  std::string stopIds;
  double timeoutSeconds = 60;
  CLI::App app("Runs a Helix artifact: prompts of token ids in, token ids out.", "helix-run");
  addOptions(app, options, stopIds, timeoutSeconds);
  // CLI11 would take the next argument for the value.
  for (int i = 1; i < argc; ++i)
    if (std::string_view text = argv[i]; text.starts_with("--") && text.find('=') == text.size() - 1)
      throw fail("'" + std::string(text) + "' has no value");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp &help) {
    int status = app.exit(help);
    if (!std::cout.flush())
      throw Error(ErrorCode::SystemFailure, "cannot write to stdout");
    return status;
  } catch (const CLI::ParseError &error) {
    throw fail(std::string(error.what()) + "; see helix-run --help");
  }
  checkValues(app);
  checkOptions(app, options, timeoutSeconds);
  if (!stopIds.empty())
    options.stopIds = parseIds("--stop-ids", stopIds);
  checkOutputs(options);
  Prompts prompts = readPrompts(options);
  Session session(options.artifact, options.session);
  checkOutputsAgainstWeights(options, session.artifact());
  checkPrompts(session, prompts, options);
  if (options.score)
    checkScore(session, prompts, options);
  loadWithReport(session);
  if (options.score)
    score(session, prompts, options);
  else
    generate(session, prompts, options);
  flushStdout();
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
