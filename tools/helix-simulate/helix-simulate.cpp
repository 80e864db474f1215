//===- helix-simulate.cpp - An artifact on a hardware description ----------===//
#include "Simulate.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <iostream>

using namespace helix;

namespace {

void addOptions(CLI::App &app, SimulateOptions &options) {
  app.add_option("input", options.inputs,
                 "What helix-compile wrote (.hlx); its weights need not be there. With --calibrate: traces");
  app.add_option("--hardware", options.hardware,
                 "A system (h100-hgx, h200-hgx, b200-hgx, gb200-nvl72, gb300-nvl72, cpu) or a JSON file");
  app.add_option("--entry", options.entry, "decode or prefill: the step to simulate")->capture_default_str();
  app.add_option("--context", options.context,
                 "Tokens that each cache holds when the step is over. K is times 1024, M is times 1000000: 128K, 1M "
                 "(default: the compiled context)");
  app.add_option("--batch", options.batch, "Active sequences, at most the compiled batch (default: as compiled)")
      ->check(CLI::Range(uint64_t(1), uint64_t(UINT32_MAX)));
  app.add_option("--assume-weights", options.assumeWeights,
                 "Price weights as f32, bf16, f16, fp8, int8 or fp4, whatever the artifact has");
  app.add_option("--assume-kv", options.assumeKv, "Price the KV cache likewise");
  app.add_option("--latency-model", options.latencyModel,
                 "What a chunk of a split exchange pays of a collective's latency: its share (divisible) or all of it "
                 "(per-collective) (default: the hardware's)");
  app.add_option("--op-latency-model", options.opLatencyModel,
                 "The same for chunks of other commands: divisible or per-command (default: the hardware's)");
  app.add_option("--link-latency", options.linkLatency, "Seconds: the artificial link of helix-run, with its overhead");
  app.add_option("--link-bandwidth", options.linkBandwidth, "Bytes per second of the same");
  app.add_flag("--all-ranks", options.allRanks, "Simulate every rank, not just the one with the most to do");
  app.add_flag("--json", options.json, "Print JSON, not tables");
  app.add_flag("--commands", options.commands, "With --json: every command with its bytes, FLOPs, start and end");
  app.add_option("--trace", options.traceFile, "Write a Chrome trace (chrome://tracing, Perfetto)");
  app.add_option("--svg", options.svgFile, "Write a picture of the timeline");
  app.add_option("--layers", options.layers, "With --svg: the layers to show, as 3 or 3..5");
  app.add_flag("--calibrate", options.calibrate,
               "Fit a hardware description to traces of helix-run, given in place of an artifact; --hardware (default: "
               "cpu) says what they cannot");
  app.add_option("-o,--output", options.output, "With --calibrate: the JSON file to write");
  app.add_option("--print-hardware", options.printHardware, "Print this hardware as JSON, and do nothing else");
}

bool checkOptions(const CLI::App &app, const SimulateOptions &options, Error &error) {
  auto fail = [&](const std::string &text) { return error.set(ErrorCode::SimulateArgumentInvalid, text); };
  for (const CLI::Option *option : app.get_options())
    for (const std::string &value : option->results())
      if (value.empty() || value.starts_with("--"))
        return fail(option->get_name() + " has no value" + (value.empty() ? "" : " before '" + value + "'"));
  if (options.calibrate) {
    if (options.inputs.empty())
      return fail("--calibrate needs traces that helix-run --trace wrote");
    if (options.output.empty())
      return fail("--calibrate needs -o FILE for the description");
    for (const CLI::Option *option : app.get_options())
      if (option->count() != 0 && option->get_name() != "input" && option->get_name() != "--calibrate" &&
          option->get_name() != "--output" && option->get_name() != "--hardware")
        return fail(option->get_name() + " has no effect with --calibrate");
    return true;
  }
  if (!options.output.empty())
    return fail("-o has no effect without --calibrate");
  if (options.inputs.size() != 1)
    return fail("name one artifact");
  if (options.hardware.empty())
    return fail("name a --hardware: a system of helix-simulate --help, or a JSON file");
  if (options.commands && !options.json)
    return fail("--commands has no effect without --json");
  std::error_code ignored;
  if (!options.svgFile.empty() && (options.svgFile == options.traceFile ||
                                   std::filesystem::equivalent(options.svgFile, options.traceFile, ignored)))
    return fail("--svg and --trace are both '" + options.svgFile + "'; name another file");
  if (!options.layers.empty() && options.svgFile.empty())
    return fail("--layers has no effect without --svg");
  return true;
}

bool printed(const std::string &text, Error &error) {
  std::cout << text;
  return std::cout.flush() || error.set(ErrorCode::SimulationUnwritable, "cannot write to stdout: it takes no more");
}

bool run(int argc, char **argv, Error &error) {
  SimulateOptions options;
  CLI::App app("Simulates a step of a Helix artifact on a hardware description.", "helix-simulate");
  addOptions(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp &help) {
    app.exit(help);
    return printed("", error);
  } catch (const CLI::ParseError &problem) {
    return error.set(ErrorCode::SimulateArgumentInvalid, std::string(problem.what()) + "; see helix-simulate --help");
  }
  if (!options.printHardware.empty()) {
    perf::Hardware hardware;
    return perf::loadHardware(options.printHardware, hardware, error) && printed(perf::printHardware(hardware), error);
  }
  if (!checkOptions(app, options, error))
    return false;
  if (options.calibrate) {
    perf::Calibration calibration;
    std::vector<std::string> inputs = options.inputs;
    inputs.push_back(options.hardware);
    return calibrateFromTraces(options, calibration, inputs, error) &&
           writeOutput(options.output, perf::printHardware(calibration.hardware), inputs, error) &&
           printed(printCalibration(calibration), error);
  }
  Step step;
  std::optional<Range> layers;
  if ((!options.layers.empty() && !parseLayers(options.layers, layers.emplace(), error)) ||
      !simulateStep(options, step, error))
    return false;
  std::vector<std::string> inputs = {options.inputs.front(), options.hardware};
  if (!options.svgFile.empty()) {
    std::string svg;
    if (!printTimeline(step, layers, svg, error) || !writeOutput(options.svgFile, svg, inputs, error))
      return false;
  }
  if (!options.traceFile.empty() && !writeOutput(options.traceFile, printTrace(step), inputs, error))
    return false;
  return printed(options.json ? printJson(step, options.commands) : printTable(step), error);
}

} // namespace

int main(int argc, char **argv) {
  Error error;
  try {
    if (run(argc, argv, error))
      return 0;
  } catch (const std::bad_alloc &) {
    error.set(ErrorCode::MemoryExhausted, "out of memory");
  } catch (const std::exception &problem) {
    error.set(ErrorCode::SystemFailure, problem.what());
  }
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return 1;
}
