//===- helix-run.cpp - Run an artifact -------------------------------------===//
#include "Run.h"
#include "runtime/Core/Function.h"
#include "runtime/Error.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cinttypes>
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

/// What options say before they are checked.
struct Arguments {
  std::string stopIds;
  double timeoutSeconds = 60;
  std::optional<double> linkLatency, linkBandwidth;
  uint32_t traceSteps = 8;
  std::string process, rendezvous;
  std::string pinning = "auto";
};

void addOptions(CLI::App &app, RunOptions &options, Arguments &arguments) {
  CLI::Validator whole(checkWhole, "");
  app.add_option("artifact", options.artifact,
                 "What helix-compile wrote (.hlx). It carries native code: run only what "
                 "you would run as a program")
      ->required();
  auto *ids = app.add_option("--prompt-ids", options.promptIds, "Token ids of one prompt: 1,2,3");
  auto *lines =
      app.add_option("--prompts", options.promptsFile, "Prompts as JSON lines: {\"ids\": [1, 2, 3]}; -: stdin");
  auto *arrays = app.add_option("--inputs", options.inputsFile,
                                "Prompts as ids_0, ids_1, ... of an .npz file; of a stateless artifact, its inputs");
  ids->excludes(lines)->excludes(arrays);
  lines->excludes(arrays);
  app.add_option("--outputs", options.outputsFile,
                 "An .npz file to write: tokens_<i>, or with --score logits_<i> [tokens, vocabulary]; of a stateless "
                 "artifact, its outputs");
  app.add_option("--tokens", options.tokens, "Tokens to decode per prompt, at most")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--stop-ids", arguments.stopIds, "Ids that end a prompt's tokens; they are not printed");
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
  app.add_option(
         "--threads", options.session.threads,
         "Threads that compute, of all ranks together, at least one each; 0: one per CPU that this process may use")
      ->check(whole)
      ->capture_default_str();
  app.add_option(
         "--pin", arguments.pinning,
         "Whether each thread stays on a CPU of its own, those of a rank on one NUMA node, where its memory then "
         "is; auto: on machines with several nodes, if there are as many threads as CPUs")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->type_name("auto|on|off")
      ->capture_default_str();
  app.add_option("--comm-timeout", arguments.timeoutSeconds, "Seconds after which a rank gives up waiting for another")
      ->capture_default_str();
  app.add_option("--gpu", options.session.gpu, "The GPU that an artifact for one runs on, all its ranks")
      ->capture_default_str();
  app.add_flag("--round-activations", options.session.roundActivations,
               "On a GPU: in products of many rows with f16 or bf16 weights, round activations to the weights' type, "
               "which takes one product and not two or three; for prefill");
  app.add_option("--process", arguments.process,
                 "I/N: run rank I alone; its peers are N - 1 other processes with the same arguments, over NCCL. Each "
                 "prints the same");
  app.add_option("--rendezvous", arguments.rendezvous,
                 "Where the processes meet: file:PATH, which must not exist, or tcp:HOST:PORT");
  app.add_option("--link-latency", arguments.linkLatency,
                 "Let every exchange among ranks take at least these seconds, and");
  app.add_option("--link-bandwidth", arguments.linkBandwidth,
                 "the bytes that a rank sends in it over this many per second: an artificial link, for experiments");
  app.add_flag("--benchmark", options.benchmark, "Print more about the time of decode steps");
  app.add_option("--benchmark-context", options.benchmarkContext,
                 "Take no prompt: time decode steps over made-up caches of S tokens per slot")
      ->check(whole);
  app.add_option("--benchmark-steps", options.benchmarkSteps, "With it: how many steps, after three that do not count")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--benchmark-batch", options.benchmarkBatch, "With it: how many slots are in use; 0: all")
      ->check(whole)
      ->capture_default_str();
  app.add_option("--report", options.reportFile, "Write times and bytes of decode steps to a JSON file");
  app.add_option("--trace", options.traceFile,
                 "Write when each command of the last decode steps ran to a Chrome trace (JSON), which Perfetto opens; "
                 "of the last prefill steps if nothing is decoded");
  app.add_option("--trace-steps", arguments.traceSteps, "With it: how many steps")->check(whole)->capture_default_str();
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

/// Throws if one of the options was given, which has no effect because of another.
void refuse(const CLI::App &app, std::initializer_list<const char *> names, const std::string &because) {
  for (const char *name : names)
    if (app.count(name) != 0)
      throw fail(std::string(name) + " has no effect " + because);
}

void checkLinkAndTrace(const CLI::App &app, RunOptions &options, const Arguments &arguments) {
  if (arguments.linkLatency || arguments.linkBandwidth) {
    Link &link = options.session.link.emplace();
    link.latency = arguments.linkLatency.value_or(link.latency);
    link.bytesPerSecond = arguments.linkBandwidth.value_or(link.bytesPerSecond);
    if (!(link.latency >= 0 && link.latency <= 100))
      throw fail("--link-latency must be 0 to 100 seconds");
    if (!(link.bytesPerSecond >= 1))
      throw fail("--link-bandwidth must be at least 1 byte per second");
  }
  if (options.traceFile.empty())
    refuse(app, {"--trace-steps"}, "without --trace; leave one of them out");
  else if (arguments.traceSteps < 1 || arguments.traceSteps > 10000)
    throw fail("--trace-steps must be 1 to 10000");
  else
    options.session.traceSteps = arguments.traceSteps;
}

void checkProcesses(const CLI::App &app, RunOptions &options, const Arguments &arguments) {
  if (options.session.gpu < 0)
    throw fail("--gpu must be 0 or more");
  if (arguments.process.empty())
    return refuse(app, {"--rendezvous"}, "without --process; leave it out");
  Processes &processes = options.session.processes.emplace();
  processes.rendezvous = arguments.rendezvous;
  char rest;
  if (std::sscanf(arguments.process.c_str(), "%" SCNu32 "/%" SCNu32 "%c", &processes.index, &processes.count, &rest) !=
          2 ||
      processes.count < 2 || processes.index >= processes.count)
    throw fail("--process '" + arguments.process + "' must be I/N, with N of at least 2 and I from 0 to N - 1");
  if (processes.rendezvous.empty())
    throw fail("--process needs --rendezvous: file:PATH or tcp:HOST:PORT, the same for all processes");
}

void checkBenchmarkOptions(const CLI::App &app, const RunOptions &options) {
  if (!options.benchmarkContext)
    return refuse(app, {"--benchmark-steps", "--benchmark-batch"}, "without --benchmark-context; leave it out");
  refuse(app,
         {"--prompt-ids", "--prompts", "--inputs", "--outputs", "--tokens", "--stop-ids", "--temperature", "--top-k",
          "--top-p", "--seed", "--score", "--decode-last"},
         "with --benchmark-context, which decodes made-up tokens; leave one of them out");
  if (options.benchmarkSteps < 1 || options.benchmarkSteps > 1000000)
    throw fail("--benchmark-steps must be 1 to 1000000");
}

void checkOptions(const CLI::App &app, RunOptions &options, const Arguments &arguments) {
  checkBenchmarkOptions(app, options);
  checkLinkAndTrace(app, options, arguments);
  checkProcesses(app, options, arguments);
  if (!options.benchmarkContext && options.promptIds.empty() && options.promptsFile.empty() &&
      options.inputsFile.empty())
    throw fail("there is no prompt; give --prompt-ids, --prompts or --inputs");
  if (options.tokens == 0)
    throw fail("--tokens must be at least 1");
  if (options.session.threads > 65536)
    throw fail("--threads must be at most 65536");
  double timeoutSeconds = arguments.timeoutSeconds;
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 1e6))
    throw fail("--comm-timeout must be above 0 and at most 1000000 seconds");
  if (options.decodeLast && !options.score)
    throw fail("--decode-last goes with --score");
  checkSampling(options.sampling);
  // What would have no effect was meant to have one.
  if (options.score)
    refuse(app, {"--tokens", "--stop-ids", "--temperature", "--top-k", "--top-p", "--seed", "--report"},
           "with --score, which decodes nothing; leave one of them out");
  if (options.sampling.temperature == 0)
    refuse(app, {"--top-k", "--top-p"}, "at temperature 0; give a --temperature above 0");
  options.session.pinning = arguments.pinning == "on"    ? Pinning::On
                            : arguments.pinning == "off" ? Pinning::Off
                                                         : Pinning::Auto;
  options.session.commTimeout = std::chrono::milliseconds(std::max<int64_t>(1, int64_t(timeoutSeconds * 1000)));
}

/// Those of a decoder have no effect on a stateless artifact.
void checkCallOptions(const CLI::App &app, const RunOptions &options) {
  refuse(app,
         {"--tokens", "--stop-ids", "--temperature", "--top-k", "--top-p", "--seed", "--score", "--decode-last",
          "--benchmark", "--report", "--trace", "--comm-timeout", "--link-latency", "--link-bandwidth", "--pin",
          "--round-activations"},
         "on a stateless artifact, which decodes nothing; leave it out");
  if (options.outputsFile.empty())
    throw fail("the artifact is a stateless function; give --outputs for what it gives");
}

int run(int argc, char **argv) {
  RunOptions options;
  Arguments arguments;
  CLI::App app("Runs a Helix artifact: prompts of token ids in, token ids out.", "helix-run");
  addOptions(app, options, arguments);
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
  checkOptions(app, options, arguments);
  if (!arguments.stopIds.empty())
    options.stopIds = parseIds("--stop-ids", arguments.stopIds);
  checkOutputs(options);
  if (!options.inputsFile.empty() && isStatelessArtifact(options.artifact)) {
    checkCallOptions(app, options);
    call(options);
    return 0;
  }
  Prompts prompts;
  if (!options.benchmarkContext)
    prompts = readPrompts(options);
  Session session(options.artifact, options.session);
  checkOutputsAgainstWeights(options, session.artifact());
  checkPrompts(session, prompts, options);
  if (options.score)
    checkScore(session, prompts, options);
  if (options.benchmarkContext)
    checkBenchmark(session, options);
  loadWithReport(session);
  uint64_t firstStep = 0;
  if (options.benchmarkContext)
    firstStep = benchmark(session, options);
  else if (options.score)
    score(session, prompts, options);
  else
    generate(session, prompts, options);
  if (!options.traceFile.empty())
    writeTrace(session, options, firstStep);
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
