//===- RunTest.cpp - helix-run and the C example, as programs --------------===//
#include "Program.h"
#include "lib/Artifact/Writer.h"
#include "tools/helix-run/Npz.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <sstream>

using namespace helix::test;

namespace {

std::string text(const std::vector<int64_t> &ids, const char *separator) {
  std::string result;
  for (int64_t id : ids)
    result += (result.empty() ? "" : separator) + std::to_string(id);
  return result;
}

/// The reference's likeliest tokens, one after the other.
std::vector<int64_t> greedy(const TinyModel &model, std::vector<int64_t> ids, size_t count) {
  std::vector<int64_t> tokens;
  while (tokens.size() < count) {
    std::vector<double> row = model.logits(ids).back();
    tokens.push_back(std::max_element(row.begin(), row.end()) - row.begin());
    ids.push_back(tokens.back());
  }
  return tokens;
}

struct Tiny : ::testing::Test {
  TinyModel model;
  TemporaryDirectory directory;

  std::string artifact(uint32_t tpa, uint32_t kvp, helix::artifact::LogitRows rows, uint32_t chunk = 8) {
    TinyOptions options;
    options.tpa = tpa;
    options.kvp = kvp;
    options.prefillLogits = rows;
    options.chunk = chunk;
    return writeTiny(directory, model, options);
  }
  std::string artifact(uint32_t tpa = 2, uint32_t kvp = 2) {
    return artifact(tpa, kvp, helix::artifact::LogitRows::Last);
  }
  Result helixRun(const std::string &arguments) { return run(directory, HELIX_RUN, arguments); }
};

TEST_F(Tiny, OnePromptAndTheCExample) {
  std::string path = artifact();
  std::vector<int64_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  std::string expected = text(greedy(model, prompt, 12), " ") + "\n";
  Result result = helixRun(path + " --prompt-ids " + text(prompt, ",") + " --tokens 12 --benchmark");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, expected);
  // Decode steps of batch 3 on 4 ranks: 2 layers (kvp - 1) 3 * 1 * 20, and 2 * 2 and one all-reduces of 2 * 3 * 12 * 4.
  EXPECT_NE(result.err.find("bytes sent per rank and decode step: all-to-all 120, all-reduce 1152, embedding 288,"),
            std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("rank 3: "), std::string::npos);
  EXPECT_NE(result.err.find("p90"), std::string::npos);
  Result example = run(directory, HELIX_EXAMPLE, path + " 12 " + text(prompt, " "));
  EXPECT_EQ(example.status, 0) << example.err;
  EXPECT_EQ(example.out, expected);
}

TEST_F(Tiny, MorePromptsThanSlotsComeInTheirOrder) {
  std::string path = artifact(1, 2), prompts, expected;
  for (int64_t i = 0; i < 8; ++i) {
    std::vector<int64_t> ids(size_t(1 + i * 5 % 23));
    std::iota(ids.begin(), ids.end(), i);
    prompts += "{\"ids\": [" + text(ids, ", ") + "]}\n\n";
    expected += text(greedy(model, ids, 9), " ") + "\n";
  }
  writeFile(directory.file("p.jsonl"), prompts.data(), prompts.size());
  Result result = helixRun(path + " --prompts " + directory.file("p.jsonl") + " --tokens 9 --threads 3");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, expected);
}

TEST_F(Tiny, WithoutPrefillEntry) {
  std::string path = artifact(2, 1, helix::artifact::LogitRows::Last, 0);
  Result result = helixRun(path + " --prompt-ids 7,8,9 --tokens 5");
  EXPECT_EQ(result.out, text(greedy(model, {7, 8, 9}, 5), " ") + "\n") << result.err;
}

TEST_F(Tiny, StopIdsAndFullContextEndAPrompt) {
  std::string path = artifact();
  std::vector<int64_t> tokens = greedy(model, {1, 2, 3}, 20);
  size_t stop = size_t(std::find(tokens.begin(), tokens.end(), tokens[6]) - tokens.begin());
  int64_t unused = 0;
  while (std::find(tokens.begin(), tokens.end(), unused) != tokens.end())
    ++unused;
  std::vector<int64_t> before(tokens.begin(), tokens.begin() + ptrdiff_t(stop));
  Result result = helixRun(path + " --prompt-ids 1,2,3 --tokens 20 --stop-ids " + std::to_string(unused) + "," +
                           std::to_string(tokens[6]));
  EXPECT_EQ(result.out, text(before, " ") + "\n") << result.err;

  std::vector<int64_t> prompt(40, 5);
  result = helixRun(path + " --prompt-ids " + text(prompt, ",") + " --tokens 20");
  EXPECT_EQ(result.status, 0);
  // The last of 48 positions still gives a token.
  EXPECT_EQ(result.out, text(greedy(model, prompt, 9), " ") + "\n");
  EXPECT_NE(result.err.find("full"), std::string::npos);
}

TEST_F(Tiny, SampledTokensAreTheSameOnEveryMeshAndInEveryCompany) {
  std::string options = " --tokens 15 --temperature 1.3 --top-k 20 --top-p 0.9 --seed 5";
  std::string lines = "{\"ids\": [1, 2]}\n{\"ids\": [1, 2]}\n{\"ids\": [3]}\n{\"ids\": [1, 2]}\n";
  writeFile(directory.file("p.jsonl"), lines.data(), lines.size());
  std::string all = helixRun(artifact(1, 1) + " --prompts " + directory.file("p.jsonl") + options).out;
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 4);
  std::string first = all.substr(0, all.find('\n') + 1);
  EXPECT_NE(all.compare(first.size(), first.size(), first), 0) << "two sequences have the same noise";
  for (auto [tpa, kvp] : {std::pair(2, 1), std::pair(1, 3), std::pair(2, 2)}) {
    std::string path = artifact(uint32_t(tpa), uint32_t(kvp));
    EXPECT_EQ(helixRun(path + " --prompts " + directory.file("p.jsonl") + options).out, all);
    EXPECT_EQ(helixRun(path + " --prompt-ids 1,2" + options).out, first);
  }
  EXPECT_NE(helixRun(artifact(1, 1) + " --prompt-ids 1,2 --tokens 15 --temperature 1.3 --seed 6").out, first);
}

/// The f32 values of logits_0 in an .npz, read without a library: its only entry is stored, not compressed.
std::vector<float> storedFloats(const std::string &archive, size_t count) {
  size_t header = archive.find("\x93NUMPY");
  EXPECT_NE(header, std::string::npos);
  EXPECT_NE(archive.find("'shape': (11, 37)"), std::string::npos);
  size_t start = archive.find('\n', header) + 1;
  EXPECT_EQ((start - header) % 64, 0u);
  std::vector<float> values(count);
  std::memcpy(values.data(), archive.data() + start, count * sizeof(float));
  return values;
}

TEST_F(Tiny, ScoresAreTheReferences) {
  std::vector<int64_t> ids = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  auto rows = model.logits(ids);
  double loss = 0;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    double sum = 0;
    for (double value : rows[t])
      sum += std::exp(value);
    loss += std::log(sum) - rows[t][size_t(ids[t + 1])];
  }
  loss /= double(ids.size() - 1);
  std::string prompt = " --score --prompt-ids " + text(ids, ",") + " --outputs " + directory.file("o.npz");
  for (auto [kind, extra] :
       {std::pair(helix::artifact::LogitRows::All, ""), std::pair(helix::artifact::LogitRows::All, " --decode-last 6"),
        std::pair(helix::artifact::LogitRows::Last, ""),
        std::pair(helix::artifact::LogitRows::Last, " --decode-last 10")}) {
    Result result = helixRun(artifact(2, 2, kind) + prompt + extra);
    ASSERT_EQ(result.status, 0) << result.err;
    EXPECT_NEAR(std::stod(result.out), loss, 1e-5);
    std::vector<float> values = storedFloats(contentsOf(directory.file("o.npz")), ids.size() * model.vocabulary);
    for (size_t t = 0; t < ids.size(); ++t)
      for (size_t i = 0; i < model.vocabulary; ++i)
        EXPECT_NEAR(values[t * model.vocabulary + i], rows[t][i], 1e-4);
  }
  Result result = helixRun(artifact() + prompt + " --decode-last 4");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("HLX4011"), std::string::npos) << result.err;
}

TEST_F(Tiny, NpzInAndOut) {
  std::string path = artifact(), npz = directory.file("t.npz");
  helix::writeNpz(npz, {{"ids_0", {3}, {}, {4, 5, 6}}, {"ids_1", {2}, {}, {7, 8}}, {"other", {1}, {1}, {}}});
  std::string arguments = path + " --inputs " + npz + " --tokens 6 --outputs " + directory.file("o.npz");
  Result result = helixRun(arguments);
  std::vector<int64_t> first = greedy(model, {4, 5, 6}, 6), second = greedy(model, {7, 8}, 6);
  EXPECT_EQ(result.out, text(first, " ") + "\n" + text(second, " ") + "\n") << result.err;
  std::vector<std::vector<int64_t>> tokens = {first, second};
  EXPECT_EQ(helix::readNpzIntegers(directory.file("o.npz"), "tokens_"), tokens);
  std::string bytes = contentsOf(directory.file("o.npz"));
  helixRun(arguments);
  EXPECT_EQ(contentsOf(directory.file("o.npz")), bytes) << "the same arrays give the same bytes";
  helix::writeNpz(npz, {{"ids_0", {3}, {1, 2, 3}, {}}});
  EXPECT_NE(helixRun(arguments).err.find("HLX5022"), std::string::npos) << "floats";
  helix::writeNpz(npz, {{"ids_0", {4}, {}, {1, 2, 3}}});
  EXPECT_NE(helixRun(arguments).err.find("HLX5022"), std::string::npos) << "another shape";
  for (size_t size : {1, 40, 100, 200}) {
    writeFile(npz, bytes.data(), size);
    EXPECT_NE(helixRun(arguments).err.find("HLX5022"), std::string::npos) << size;
  }
}

TEST_F(Tiny, OutputsNeverOverwriteWhatIsRead) {
  std::string path = artifact(), prompts = directory.file("p.jsonl"), npz = directory.file("t.npz");
  std::string line = "{\"ids\": [1, 2]}\n";
  writeFile(prompts, line.data(), line.size());
  helix::writeNpz(npz, {{"ids_0", {2}, {}, {1, 2}}});
  std::filesystem::create_hard_link(directory.file("model.bin"), directory.file("link.npz"));
  std::filesystem::create_directory(directory.file("folder"));
  std::filesystem::create_symlink(path, directory.file("symbolic"));
  std::string moved = directory.file("elsewhere");
  std::filesystem::create_directory(moved);
  std::filesystem::copy(directory.file("model.bin"), moved + "/model.bin");
  const std::pair<std::string, std::string> cases[] = {
      {" --prompt-ids 1 --outputs " + path, path},
      {" --prompt-ids 1 --outputs " + directory.file("symbolic"), path},
      {" --prompt-ids 1 --outputs " + directory.file("folder/../model.bin"), directory.file("model.bin")},
      {" --prompt-ids 1 --outputs " + directory.file("link.npz"), directory.file("model.bin")},
      {" --prompt-ids 1 --weights-root " + moved + " --outputs " + moved + "/model.bin", moved + "/model.bin"},
      {" --prompts " + prompts + " --outputs " + prompts, prompts},
      {" --inputs " + npz + " --score --outputs " + npz, npz},
  };
  for (const auto &[arguments, file] : cases) {
    std::string before = contentsOf(file);
    Result result = helixRun(path + arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_NE(result.err.find("HLX5020"), std::string::npos) << arguments << "\n" << result.err;
    EXPECT_EQ(result.err.find("memory:"), std::string::npos) << "loaded first: " << arguments;
    EXPECT_EQ(contentsOf(file), before) << arguments;
    writeFile(file, before.data(), before.size());
  }
  const std::pair<std::string, const char *> places[] = {{directory.file("folder"), "is a directory"},
                                                         {"/dev/null", "not a regular file"},
                                                         {directory.file("none/o.npz"), "is not a directory"}};
  for (const auto &[place, reason] : places) {
    Result result = helixRun("missing.hlx --prompt-ids 1 --outputs " + place);
    EXPECT_EQ(result.status, 1);
    EXPECT_NE(result.err.find("HLX5022"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(reason), std::string::npos) << result.err;
  }
  EXPECT_EQ(helixRun(path + " --prompt-ids 1 --outputs " + directory.file("folder/o.npz")).status, 0);
}

TEST_F(Tiny, PromptsAreCheckedBeforeWeightsAreLoaded) {
  std::string path = artifact(), long49, file = directory.file("p.jsonl");
  long49 = text(std::vector<int64_t>(49, 5), ",");
  const std::array<std::string, 3> cases[] = {
      {"[1, 37]", "HLX4010", "37 is not in the vocabulary of 37"},
      {"[-1]", "HLX4010", "-1"},
      {"[]", "HLX5021", "no token"},
      {"[1, 99999999999999999999]", "HLX5021", "1e+20"},
      {"[9223372036854775808]", "HLX5021", "9223372036854775808"},
      {"[" + long49 + "]", "HLX4009", "49 tokens, the context of a slot is 48"}};
  for (const auto &[ids, number, reason] : cases) {
    std::string lines = "{\"ids\": [1]}\n\n{\"ids\": [2]}\n{\"ids\": [2]}\n{\"ids\": " + ids + "}\n";
    writeFile(file, lines.data(), lines.size());
    for (const char *score : {"", " --score"}) {
      Result result = helixRun(path + " --prompts " + file + score);
      EXPECT_EQ(result.status, 1) << ids;
      EXPECT_EQ(result.out, "");
      for (const std::string &part : {number, reason, std::string("line 5")})
        EXPECT_NE(result.err.find(part), std::string::npos) << part << "\n" << result.err;
      EXPECT_EQ(result.err.find("memory:"), std::string::npos) << result.err;
    }
  }
  // A prompt that fits ends where its context does, the others go on.
  std::string lines = "{\"ids\": [1]}\n{\"ids\": [" + text(std::vector<int64_t>(48, 5), ",") + "]}\n";
  writeFile(file, lines.data(), lines.size());
  Result result = helixRun(path + " --tokens 3 --prompts " + file);
  EXPECT_EQ(result.out,
            text(greedy(model, {1}, 3), " ") + "\n" + text(greedy(model, std::vector<int64_t>(48, 5), 1), " ") + "\n")
      << result.err;
  EXPECT_NE(result.err.find("prompt 1 ('" + file + "', line 2) ends after 1 token:"), std::string::npos) << result.err;
}

TEST_F(Tiny, PromptsFromStdin) {
  std::string path = artifact(), file = directory.file("p.jsonl"), line = "{\"ids\": [1, 2]}\n";
  writeFile(file, line.data(), line.size());
  // `run` gives an empty stdin.
  std::string script = directory.file("s.sh"), text = "exec " HELIX_RUN " " + path + " --prompts - --tokens 3 <" + file;
  writeFile(script, text.data(), text.size());
  EXPECT_EQ(run(directory, "sh", script).out, ::text(greedy(model, {1, 2}, 3), " ") + "\n");
  Result empty = helixRun(path + " --prompts -");
  EXPECT_NE(empty.err.find("HLX5021: there is no prompt in stdin"), std::string::npos) << empty.err;
}

TEST_F(Tiny, WhatWasTypedIsQuoted) {
  std::string path = artifact();
  const std::array<std::string, 3> cases[] = {
      {"--prompt-ids ''", "HLX5020", "--prompt-ids has no value"},
      {"--prompt-ids=", "HLX5020", "'--prompt-ids='"},
      {"--prompt-ids= --tokens 5", "HLX5020", "'--prompt-ids='"},
      {"--prompt-ids --benchmark", "HLX5020", "--prompt-ids"},
      {"--prompt-ids 1 --outputs --benchmark", "HLX5020", "--outputs"},
      {"--prompt-ids 1 --outputs ''", "HLX5020", "--outputs has no value"},
      {"--prompt-ids 1,,2", "HLX5020", "'1,,2': place 1 is empty"},
      {"--prompt-ids 1,2,", "HLX5020", "'1,2,': place 2 is empty"},
      {"--prompt-ids ,", "HLX5020", "','"},
      {"--prompt-ids 1,2x", "HLX5020", "'2x'"},
      {"--prompt-ids 1,99999999999999999999", "HLX5020", "'99999999999999999999' does not fit"},
      {"--prompt-ids 1 --seed -1", "HLX5020", "'-1'"},
      {"--prompt-ids 1 --seed 99999999999999999999", "HLX5020", "'99999999999999999999'"},
      {"--prompt-ids 1 --top-k -1", "HLX5020", "'-1'"},
      {"--prompt-ids 1 --tokens -1", "HLX5020", "'-1'"},
      {"--prompt-ids 1 --stop-ids 37", "HLX4010", "--stop-ids: token id 37"},
      {"--prompt-ids 1 --stop-ids -1", "HLX4010", "--stop-ids: token id -1"},
      {"--prompt-ids 1 --stop-ids 1,", "HLX5020", "--stop-ids '1,'"},
      {"--prompt-ids 1 --top-k 3", "HLX5020", "--top-k has no effect"},
      {"--prompt-ids 1 --top-p 0.5", "HLX5020", "--top-p has no effect"},
      {"--prompt-ids 1,2 --score --tokens 3", "HLX5020", "--tokens has no effect"},
      {"--prompt-ids 1,2 --score --temperature 1", "HLX5020", "--temperature has no effect"},
      {"--prompt-ids 1,2,3 --score --decode-last 1", "HLX4011", "--all-logits"},
  };
  for (const auto &[arguments, number, part] : cases) {
    Result result = helixRun(path + " " + arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_NE(result.err.find(number), std::string::npos) << arguments << "\n" << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << arguments << "\n" << result.err;
    EXPECT_EQ(result.err.find("memory:"), std::string::npos) << "loaded first: " << arguments;
  }
  Result none =
      helixRun(artifact(1, 1, helix::artifact::LogitRows::Last, 0) + " --prompt-ids 1,2,3 --score --decode-last 1");
  EXPECT_NE(none.err.find("--prefill-chunk"), std::string::npos) << none.err;
}

TEST_F(Tiny, InputsHaveNoGapAndOneDimension) {
  std::string path = artifact(), npz = directory.file("t.npz");
  auto inputs = [&] { return helixRun(path + " --tokens 1 --inputs " + npz); };
  helix::writeNpz(npz, {{"ids_0", {1}, {}, {1}}, {"ids_2", {1}, {}, {1}}});
  EXPECT_NE(inputs().err.find("an array 'ids_2' but none 'ids_1'"), std::string::npos) << inputs().err;
  helix::writeNpz(npz, {{"ids_1", {1}, {}, {1}}});
  EXPECT_NE(inputs().err.find("HLX5022"), std::string::npos);
  for (std::vector<uint64_t> shape : {std::vector<uint64_t>{1, 2}, {2, 1}}) {
    helix::writeNpz(npz, {{"ids_0", {1}, {}, {1}}, {"ids_1", shape, {}, {1, 2}}});
    EXPECT_NE(inputs().err.find("'ids_1' is not of one dimension"), std::string::npos) << inputs().err;
  }
}

TEST_F(Tiny, EqualRanksShareALine) {
  Result result = helixRun(artifact(2, 6) + " --prompt-ids 1,2 --tokens 2 --threads 13");
  EXPECT_EQ(result.out, text(greedy(model, {1, 2}, 2), " ") + "\n") << result.err;
  EXPECT_NE(result.err.find("\nrank 0: "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("scratch of 2 threads "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("\nranks 1-11: each "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("scratch of 1 thread "), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("\nrank 1:"), std::string::npos) << result.err;
  EXPECT_TRUE(helixRun(artifact(1, 1) + " --prompt-ids 1").err.starts_with("1 rank: "));
}

TEST_F(Tiny, FullStdoutIsAnError) {
  std::string path = artifact();
  for (const std::string &arguments : {std::string("--help"), path + " --prompt-ids 1 --tokens 4"}) {
    std::string script = directory.file("s.sh"), text = "exec " HELIX_RUN " " + arguments + " >/dev/full";
    writeFile(script, text.data(), text.size());
    Result result = run(directory, "sh", script);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_NE(result.err.find("HLX4014: cannot write to stdout"), std::string::npos) << result.err;
  }
}

TEST_F(Tiny, BadArgumentsAreNumberedErrors) {
  std::string path = artifact();
  std::string bad = "{\"ids\": [1, \"2\"]}\n", huge = "{\"ids\": [18446744073709551615]}\n";
  writeFile(directory.file("bad.jsonl"), bad.data(), bad.size());
  writeFile(directory.file("huge.jsonl"), huge.data(), huge.size());
  writeFile(directory.file("empty"), "", 0);
  const std::pair<std::string, const char *> cases[] = {
      {"", "HLX5020"},
      {path, "HLX5020"},
      {path + " --prompt-ids 1 --tokens 0", "HLX5020"},
      {path + " --prompt-ids 1,x", "HLX5020"},
      {path + " --prompt-ids 1 --prompts p", "HLX5020"},
      {path + " --prompt-ids 1 --temperature -1", "HLX4012"},
      {path + " --prompt-ids 1 --comm-timeout 0", "HLX5020"},
      {path + " --prompt-ids 1 --decode-last 1", "HLX5020"},
      {path + " --prompt-ids 1 --unknown", "HLX5020"},
      {path + " --prompt-ids 37", "HLX4010"},
      {path + " --prompt-ids=-1", "HLX4010"},
      {path + " --prompts " + directory.file("bad.jsonl"), "HLX5021"},
      {path + " --prompts " + directory.file("huge.jsonl"), "HLX5021"},
      {path + " --prompts " + directory.file("empty"), "HLX5021"},
      {path + " --prompts " + directory.file("missing"), "HLX5021"},
      {path + " --inputs " + directory.file("empty"), "HLX5022"},
      {path + " --inputs " + directory.file("missing"), "HLX5022"},
      {path + " --prompt-ids 1 --outputs " + directory.file("none/o.npz"), "HLX5022"},
      {path + " --prompt-ids 1 --score", "HLX5021"},
      {path + " --prompt-ids 1 --weights-root /nowhere", "HLX4003"},
      {path + " --prompt-ids 1 --round-activations", "HLX4012"},
      {directory.file("missing") + " --prompt-ids 1", "HLX3001"},
      {directory.file("empty") + " --prompt-ids 1", "HLX3002"},
      {directory.file("model.bin") + " --prompt-ids 1", "HLX3002"},
  };
  for (const auto &[arguments, error] : cases) {
    Result result = helixRun(arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_NE(result.err.find(error), std::string::npos) << arguments << "\n" << result.err;
  }
  EXPECT_EQ(helixRun("--help").status, 0);
  EXPECT_EQ(run(directory, HELIX_EXAMPLE, path + " -1 1").status, 2);
  Result late = run(directory, HELIX_EXAMPLE, path + " 60 " + text(std::vector<int64_t>(46, 5), " "));
  EXPECT_EQ(late.status, 1);
  EXPECT_NE(late.err.find("HLX4009"), std::string::npos) << late.err;
  EXPECT_TRUE(late.out.ends_with("\n")) << late.out;
  EXPECT_EQ(run(directory, HELIX_EXAMPLE, "x").status, 2);
  EXPECT_NE(run(directory, HELIX_EXAMPLE, path + " 1 99").err.find("HLX4010"), std::string::npos);
}

} // namespace
