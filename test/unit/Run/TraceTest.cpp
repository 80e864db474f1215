//===- TraceTest.cpp - Traces, reports and benchmarks of helix-run ---------===//
#include "Program.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <map>

using namespace helix::test;
using nlohmann::json;

namespace {

struct Trace : ::testing::Test {
  TinyModel model;
  TemporaryDirectory directory;
  std::string traceFile = directory.file("t.json"), reportFile = directory.file("r.json");

  std::string artifact(uint32_t tpa, uint32_t kvp, uint32_t chunks) {
    TinyOptions options;
    options.tpa = tpa;
    options.kvp = kvp;
    options.chunks = chunks;
    return writeTiny(directory, model, options);
  }
  Result helixRun(const std::string &arguments) { return run(directory, HELIX_RUN, arguments); }
  static json parsed(const std::string &path) { return json::parse(contentsOf(path)); }
};

/// Commands and other events of a rank's step, by start; those that start together as they stand in the file.
std::vector<json> eventsOf(const json &trace, int rank, uint64_t step) {
  std::multimap<double, json> sorted;
  for (const json &it : trace["traceEvents"])
    if (it["ph"] == "X" && it["pid"] == rank && it["args"]["step"] == step)
      sorted.emplace(it["ts"].get<double>(), it);
  std::vector<json> events;
  for (auto &[start, event] : sorted)
    events.push_back(event);
  return events;
}

double endOf(const json &event) { return event["ts"].get<double>() + event["dur"].get<double>(); }

/// The parts of the steps' wall clock that their events span.
std::vector<double> spans(const json &trace) {
  std::vector<double> parts;
  for (const json &step : trace["helix"]["steps"]) {
    double first = INFINITY, last = 0;
    for (int rank = 0; rank < trace["helix"]["ranks"].get<int>(); ++rank)
      for (const json &event : eventsOf(trace, rank, step["step"])) {
        first = std::min(first, event["ts"].get<double>());
        last = std::max(last, endOf(event));
      }
    EXPECT_GE(first, step["start_us"].get<double>() - 1e-3);
    parts.push_back((last - first) / step["wall_us"].get<double>());
    EXPECT_LE(parts.back(), 1 + 1e-6);
  }
  std::sort(parts.begin(), parts.end());
  return parts;
}

/// Exchanges of a step of the tiny decoder on 4 ranks: the embedding's, and three per layer.
TEST_F(Trace, OfOneStreamHasEveryCommandOnceAndNoOverlap) {
  std::string path = artifact(2, 2, 0);
  TinyOptions mesh;
  mesh.tpa = mesh.kvp = 2;
  size_t commands = tinyArtifact(model, mesh).entries[0]->commands.size();
  Result result = helixRun(path + " --prompt-ids 1,2,3 --tokens 12 --threads 4 --link-latency 0.001 --trace " +
                           traceFile + " --report " + reportFile);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.err.find("artificial link: 0.001 s"), std::string::npos) << result.err;
  json trace = parsed(traceFile), report = parsed(reportFile);
  EXPECT_EQ(trace["helix"]["ranks"], 4);
  EXPECT_EQ(trace["helix"]["mesh"]["tpf"], 4);
  EXPECT_EQ(trace["helix"]["threads"]["compute"], 4);
  EXPECT_EQ(trace["helix"]["link"]["latency_s"], 0.001);
  EXPECT_EQ(trace["helix"]["link"]["bytes_per_s"], 0);
  ASSERT_EQ(trace["helix"]["steps"].size(), 8u) << "the last of 11";
  for (size_t i = 0; i < 8; ++i) {
    const json &step = trace["helix"]["steps"][i];
    EXPECT_EQ(step["entry"], "Decode");
    EXPECT_EQ(step["past"], json({int(6 + i), 0, 0}));
    EXPECT_EQ(step["q_len"], json({1, 0, 0}));
    EXPECT_GE(step["wall_us"], 7 * 1000.0) << "seven exchanges of 1 ms";
    for (int rank = 0; rank < 4; ++rank) {
      std::vector<json> events = eventsOf(trace, rank, step["step"]);
      int sent = 0;
      ASSERT_EQ(events.size(), commands + 1) << "and the logits";
      for (size_t c = 0; c < events.size(); ++c) {
        const json &event = events[c];
        EXPECT_EQ(event["tid"], 0);
        if (c + 1 < events.size()) {
          EXPECT_LE(endOf(event), events[c + 1]["ts"].get<double>() + 1e-3) << "overlap";
          EXPECT_EQ(event["args"]["command"], c);
          EXPECT_EQ(event["name"], "node" + std::to_string(c));
          EXPECT_EQ(event["cat"], event["args"]["kind"]);
        }
        sent += event["args"].value("sent_bytes", 0);
        if (event["cat"] == "AllToAll" || event["cat"] == "AllReduce")
          EXPECT_GE(event["dur"], event["args"]["peers"] == 1 ? 0.0 : 900.0);
      }
      EXPECT_EQ(events.back()["cat"], "runtime");
      // As helix-run counts them.
      const json &sums = report["sent_bytes_per_step"];
      EXPECT_EQ(sent, sums["all_to_all"].get<int>() + sums["all_reduce"].get<int>() + sums["embedding"].get<int>());
    }
  }
  EXPECT_GE(spans(trace)[4], 0.98);
  EXPECT_EQ(report["decode"]["steps"], 11);
  std::vector<double> seconds = report["decode"]["step_seconds"];
  ASSERT_EQ(seconds.size(), 11u);
  EXPECT_NEAR(seconds.back() * 1e6, trace["helix"]["steps"][7]["wall_us"].get<double>(), 1e-3);
  std::sort(seconds.begin(), seconds.end());
  EXPECT_EQ(report["decode"]["median_s"], seconds[5]);
  EXPECT_EQ(report["decode"]["max_s"], seconds[10]);
  EXPECT_EQ(report["prefill"]["tokens"], 3);
}

TEST_F(Trace, OfTwoStreamsShowsExchangesBesideAttention) {
  std::string path = artifact(1, 2, 3), options = " --tokens 9 --prompts " + directory.file("p.jsonl");
  std::string lines = "{\"ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"ids\": [3]}\n{\"ids\": [4, 5]}\n";
  writeFile(directory.file("p.jsonl"), lines.data(), lines.size());
  std::string expected = helixRun(artifact(1, 2, 0) + options).out;
  artifact(1, 2, 3);
  Result result =
      helixRun(path + options + " --link-latency 0.002 --link-bandwidth 1e6 --trace-steps 3 --trace " + traceFile);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, expected);
  json trace = parsed(traceFile);
  EXPECT_EQ(trace["helix"]["link"]["bytes_per_s"], 1e6);
  ASSERT_EQ(trace["helix"]["steps"].size(), 3u);
  std::map<std::pair<int, int>, std::string> tracks;
  for (const json &event : trace["traceEvents"])
    if (event["ph"] == "M" && event["name"] == "thread_name")
      tracks[{event["pid"], event["tid"]}] = event["args"]["name"];
  EXPECT_EQ((tracks[{1, 0}]), "compute");
  EXPECT_EQ((tracks[{1, 1}]), "comm");
  for (const json &step : trace["helix"]["steps"])
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<json> attention, exchanges;
      double waited = 0, last[2] = {0, 0};
      for (const json &event : eventsOf(trace, rank, step["step"])) {
        int stream = event["tid"];
        EXPECT_GE(event["ts"], last[stream] - 1e-3) << "a stream runs one command at a time";
        last[stream] = endOf(event);
        if (event["cat"] == "AllToAll" || event["cat"] == "AllReduce")
          EXPECT_EQ(stream, 1);
        if (event["cat"] == "AllToAll")
          exchanges.push_back(event);
        if (event["cat"] == "PartialAttention")
          attention.push_back(event);
        if (event["cat"] == "wait" && stream == 0)
          waited += event["dur"].get<double>();
        if (event["args"]["kind"] == "Wait") {
          EXPECT_EQ(event["cat"], "wait");
          EXPECT_TRUE(event["args"].contains("event") && event["args"].contains("command"));
        }
        // A chunk of one sequence in three: 7 sequences' tokens lie on rank 0 or 1 in blocks of 4.
        if (event["cat"] == "PartialAttention") {
          size_t b = (attention.size() - 1) % 3;
          double local = 0;
          for (int p = 0; p <= step["past"][b].get<int>(); ++p)
            local += p / 4 % 2 == rank;
          EXPECT_DOUBLE_EQ(event["args"]["bytes"].get<double>(), 1 * 4 * 4 * 4 + local * 2 * 8 * 4);
          EXPECT_DOUBLE_EQ(event["args"]["flops"].get<double>(), local * 2 * 4 * 8);
        }
      }
      ASSERT_EQ(attention.size(), 6u);
      ASSERT_EQ(exchanges.size(), 6u);
      for (size_t layer : {0, 3})
        for (size_t chunk = 1; chunk < 3; ++chunk)
          EXPECT_LT(endOf(attention[layer + chunk]), endOf(exchanges[layer + chunk - 1])) << "attention waited";
      EXPECT_GT(waited, 1000) << "nothing else is idle for the link";
    }
  EXPECT_GE(spans(trace)[1], 0.98);
}

TEST_F(Trace, OfPrefillStepsIfNothingIsDecoded) {
  Result result = helixRun(artifact(2, 2, 2) + " --prompt-ids 1,2,3,4,5,6,7,8,9,10 --tokens 1 --trace " + traceFile);
  ASSERT_EQ(result.status, 0) << result.err;
  json trace = parsed(traceFile);
  ASSERT_EQ(trace["helix"]["steps"].size(), 2u);
  EXPECT_EQ(trace["helix"]["steps"][1]["entry"], "Prefill");
  EXPECT_EQ(trace["helix"]["steps"][1]["past"], json({8, 0, 0}));
  EXPECT_EQ(trace["helix"]["steps"][1]["q_len"], json({2, 0, 0}));
}

TEST_F(Trace, BenchmarkAtAContext) {
  std::string path = artifact(1, 2, 2);
  Result result = helixRun(path + " --benchmark-context 40 --benchmark-steps 5 --benchmark-batch 2 --report " +
                           reportFile + " --trace " + traceFile);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("decode: 5 steps"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("p99"), std::string::npos) << result.err;
  json report = parsed(reportFile), trace = parsed(traceFile);
  EXPECT_EQ(report["decode"]["steps"], 5);
  for (const json &seconds : report["decode"]["step_seconds"])
    EXPECT_GT(seconds, 0.0);
  ASSERT_EQ(trace["helix"]["steps"].size(), 5u) << "without the first three";
  for (const json &step : trace["helix"]["steps"]) {
    EXPECT_EQ(step["past"], json({40, 40, 0}));
    EXPECT_EQ(step["q_len"], json({1, 1, 0}));
  }
}

TEST_F(Trace, BadArgumentsAreNumberedErrors) {
  std::string path = artifact(1, 2, 2), prompt = path + " --prompt-ids 1 --tokens 2";
  std::filesystem::create_directory(directory.file("folder"));
  const std::array<std::string, 3> cases[] = {
      {path + " --benchmark-context 48", "HLX4009", "--max-context"},
      {path + " --benchmark-context 8 --benchmark-batch 4", "HLX5020", "3 slots"},
      {path + " --benchmark-context 8 --benchmark-steps 0", "HLX5020", "--benchmark-steps"},
      {path + " --benchmark-context 8 --tokens 3", "HLX5020", "--tokens has no effect"},
      {path + " --benchmark-context -1", "HLX5020", "'-1'"},
      {prompt + " --benchmark-steps 3", "HLX5020", "--benchmark-steps has no effect"},
      {prompt + " --trace-steps 3", "HLX5020", "--trace-steps has no effect"},
      {prompt + " --trace-steps 0 --trace " + traceFile, "HLX5020", "--trace-steps must be"},
      {prompt + " --link-latency -1", "HLX5020", "--link-latency"},
      {prompt + " --link-latency nan", "HLX5020", "--link-latency"},
      {prompt + " --link-bandwidth 0", "HLX5020", "--link-bandwidth"},
      {prompt + " --trace " + directory.file("none/t.json"), "HLX5023", "is not a directory"},
      {prompt + " --report " + directory.file("folder"), "HLX5023", "it is a directory"},
      {prompt + " --report /dev/null", "HLX5023", "not a regular file"},
      {prompt + " --report " + path, "HLX5020", "--report '" + path + "' would overwrite the artifact"},
      {prompt + " --trace " + directory.file("model.bin"), "HLX5020", "weights of the artifact"},
      {prompt + " --trace " + traceFile + " --report " + traceFile, "HLX5020", "--trace and --report are both"},
      {path + " --prompt-ids 1,2 --score --report " + reportFile, "HLX5020", "--report has no effect"},
  };
  for (const auto &[arguments, number, part] : cases) {
    Result result = helixRun(arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_NE(result.err.find(number), std::string::npos) << arguments << "\n" << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << arguments << "\n" << result.err;
    EXPECT_EQ(result.err.find("memory:"), std::string::npos) << "loaded first: " << arguments;
  }
  EXPECT_FALSE(std::filesystem::exists(traceFile));
}

} // namespace
