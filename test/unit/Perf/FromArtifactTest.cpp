//===- FromArtifactTest.cpp - An entry of an artifact as a program ---------===//
#include "PricedTiny.h"
#include "lib/Artifact/Costs.h"
#include "lib/Perf/Simulate.h"

#include <algorithm>

using namespace helix;
using namespace helix::perf;
using namespace helix::test;

namespace {

/// By the definition: owner(p) = floor(p / block) mod kvp.
uint64_t owned(uint64_t length, uint32_t block, uint32_t kvp, uint32_t rank) {
  uint64_t count = 0;
  for (uint64_t p = 0; p < length; ++p)
    count += p / block % kvp == rank;
  return count;
}

std::vector<Work> worksOf(const Program &program, const char *what) {
  std::vector<Work> works;
  for (const Command &command : program.commands)
    if (command.what == what)
      works.push_back(std::get<Work>(command.work));
  return works;
}

std::vector<Exchange> exchangesOf(const Program &program, const char *what) {
  std::vector<Exchange> exchanges;
  for (const Command &command : program.commands)
    if (command.what == what)
      exchanges.push_back(std::get<Exchange>(command.work));
  return exchanges;
}

} // namespace

TEST(FromArtifact, LocalLength) {
  for (uint32_t kvp = 1; kvp < 6; ++kvp)
    for (uint32_t block = 1; block < 5; ++block)
      for (uint64_t length = 0; length < 60; ++length)
        for (uint32_t rank = 0; rank < kvp; ++rank)
          EXPECT_EQ(artifact::localLength(length, block, kvp, rank), owned(length, block, kvp, rank));
}

TEST(FromArtifact, RaggedAttentionOfEachRank) {
  Tiny tiny({.kvp = 3, .slots = 4});
  Lengths lengths{{20, 7, 0, 33}, {1, 1, 0, 1}};
  for (uint32_t rank = 0; rank < 3; ++rank) {
    Program program = tiny.program(0, lengths, {}, rank);
    double tokens = 0;
    for (int b : {0, 1, 3})
      tokens += double(owned(lengths.past[b] + 1, 4, 3, rank));
    std::vector<Work> attention = worksOf(program, "PartialAttention");
    ASSERT_EQ(attention.size(), 2U);
    EXPECT_DOUBLE_EQ(attention[0].kvBytes, tokens * 2 * 2 * 4 * 4); // heads, K and V, dim, f32
    EXPECT_DOUBLE_EQ(attention[0].activationBytes, 64 + 3 * 4 * 4 * 4);
    EXPECT_DOUBLE_EQ(attention[0].flops, tokens * 4 * 4 * 4);
    EXPECT_EQ(program.sequences, 3U);
    EXPECT_DOUBLE_EQ(program.kvBytes, tokens * 2 * 2 * 4 * 4 * 2); // two layers
  }
}

/// Cached tokens behind the window are neither read nor computed with; what is read is priced as the cache's type.
TEST(FromArtifact, AWindowHidesWhatIsBehindIt) {
  TinyOptions options{.kvp = 3, .slots = 2};
  artifact::ArtifactT table = tinyArtifact(TinyModel(), options);
  setCosts(table);
  for (auto &entry : table.entries)
    for (auto &command : entry->commands)
      if (auto *attention = command->work.AsPartialAttention())
        attention->window = 10;
  TemporaryDirectory directory;
  Error error;
  ASSERT_TRUE(artifact::writeArtifact(table, directory.file("t.hlx"), error)) << error.message;
  artifact::LoadedArtifact artifact = artifact::readArtifact(directory.file("t.hlx"), error);
  ASSERT_TRUE(artifact) << error.message;
  // One token of each sequence, then a chunk of five tokens of one and none of the other.
  for (const auto &[entry, lengths] : {std::pair(0U, Lengths{{33, 4}, {1, 1}}), {1U, Lengths{{20, 9}, {5, 0}}}})
    for (uint32_t rank = 0; rank < 3; ++rank) {
      double read = 0, scores = 0; // by the definition: position p sees those in (p - 10, p]
      for (size_t b = 0; b < 2; ++b)
        for (uint64_t key = 0; key < lengths.past[b] + lengths.newTokens[b]; ++key) {
          bool isOwn = key / 4 % 3 == rank, isRead = false;
          for (uint64_t p = lengths.past[b]; isOwn && p < lengths.past[b] + lengths.newTokens[b]; ++p)
            if (key <= p && key + 10 > p) {
              isRead = true;
              ++scores;
            }
          read += isRead;
        }
      Program program, narrow;
      ASSERT_TRUE(programOf(*artifact, entry, lengths, {}, rank, program, error)) << error.message;
      ASSERT_TRUE(programOf(*artifact, entry, lengths, {.weights = {}, .kv = DType::Fp8}, rank, narrow, error))
          << error.message;
      Work work = worksOf(program, "PartialAttention")[0];
      EXPECT_DOUBLE_EQ(work.kvBytes, read * 2 * 2 * 4 * 4);
      EXPECT_DOUBLE_EQ(work.flops, scores * 4 * 4 * 4);
      EXPECT_DOUBLE_EQ(worksOf(narrow, "PartialAttention")[0].kvBytes, work.kvBytes / 4);
    }
}

TEST(FromArtifact, ChunksAddUpToTheWhole) {
  Tiny whole({.kvp = 2, .slots = 5}), chunked({.kvp = 2, .slots = 5, .chunks = 3});
  Lengths decode{{20, 7, 0, 33, 12}, {1, 1, 0, 1, 1}}, prefill{{8, 0, 5, 30, 0}, {8, 5, 8, 3, 0}};
  for (uint32_t entry : {0U, 1U}) {
    const Lengths &lengths = entry == 0 ? decode : prefill;
    Work one = worksOf(whole.program(entry, lengths), "PartialAttention")[0];
    Program program = chunked.program(entry, lengths);
    std::vector<Work> works = worksOf(program, "PartialAttention");
    ASSERT_EQ(works.size(), 6U);
    double flops = 0, kv = 0, fraction = 0;
    for (size_t i = 0; i < 3; ++i) {
      flops += works[i].flops;
      kv += works[i].kvBytes;
      fraction += works[i].fraction;
    }
    EXPECT_NEAR(flops, one.flops, 1e-9 * flops);
    EXPECT_NEAR(fraction, 1, 1e-12);
    // Chunks of query tokens each read the cache up to their last token.
    if (entry == 0)
      EXPECT_NEAR(kv, one.kvBytes, 1e-9 * kv);
    else
      EXPECT_GT(kv, one.kvBytes);
    std::vector<Exchange> exchanges = exchangesOf(program, "AllToAll");
    double sent = 0, shares = 0;
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(exchanges[i].fraction, works[i].fraction, 1e-12);
      sent += exchanges[i].sentBytes;
      shares += exchanges[i].fraction;
    }
    EXPECT_NEAR(sent, exchangesOf(whole.program(entry, lengths), "AllToAll")[0].sentBytes, 1e-9);
    EXPECT_NEAR(shares, 1, 1e-12);
    // The output projection goes in two chunks of eight columns.
    std::vector<Exchange> sums = exchangesOf(program, "AllReduce");
    EXPECT_DOUBLE_EQ(sums[0].fraction, 1); // embedding
    EXPECT_DOUBLE_EQ(sums[1].fraction, 0.5);
    EXPECT_DOUBLE_EQ(sums[2].fraction, 0.5);
    std::vector<Work> products = worksOf(program, "Linear");
    EXPECT_EQ(std::count_if(products.begin(), products.end(), [](const Work &work) { return work.fraction == 0.5; }),
              4);
    Simulation simulation;
    Error error;
    Hardware hardware;
    ASSERT_TRUE(loadHardware("cpu", hardware, error));
    EXPECT_TRUE(simulate(program, hardware, simulation, error)) << error.message;
    EXPECT_GT(simulation.seconds, 0);
  }
}

TEST(FromArtifact, CausalPrefillCountsWhatEachTokenSees) {
  Tiny tiny({.kvp = 2, .slots = 1});
  Lengths lengths{{10}, {8}};
  for (uint32_t rank : {0U, 1U}) {
    Work work = worksOf(tiny.program(1, lengths, {}, rank), "PartialAttention")[0];
    double seen = 0;
    for (uint64_t t = 0; t < 8; ++t)
      seen += double(owned(10 + t + 1, 4, 2, rank));
    EXPECT_DOUBLE_EQ(work.flops, seen * 4 * 4 * 4);
    EXPECT_DOUBLE_EQ(work.kvBytes, double(owned(18, 4, 2, rank)) * 2 * 2 * 4 * 4);
  }
}

TEST(FromArtifact, BytesOfWeightsAndInOtherTypes) {
  Tiny tiny({.tpa = 2, .kvp = 2, .slots = 3});
  Lengths lengths{{20, 7, 9}, {1, 1, 1}};
  Program f32 = tiny.program(0, lengths), fp4 = tiny.program(0, lengths, {DType::Fp4, DType::Fp8});
  ASSERT_EQ(f32.commands.size(), fp4.commands.size());
  Work embedding = worksOf(f32, "Embedding")[0], q = worksOf(f32, "Linear")[0];
  EXPECT_DOUBLE_EQ(embedding.weightBytes, 3 * 16 * 4);
  EXPECT_DOUBLE_EQ(embedding.activationBytes, 3 * (8 + 16 * 4));
  EXPECT_EQ(embedding.kind, CommandClass::Copy);
  EXPECT_DOUBLE_EQ(q.weightBytes, 16 * 8 * 4); // two heads of four
  EXPECT_DOUBLE_EQ(q.activationBytes, 3 * (16 + 8) * 4);
  EXPECT_EQ(worksOf(fp4, "Linear")[0].dtype, DType::Fp4);
  EXPECT_EQ(worksOf(fp4, "PartialAttention")[0].dtype, DType::Half);
  for (size_t i = 0; i < f32.commands.size(); ++i) {
    const auto *wide = std::get_if<Work>(&f32.commands[i].work), *narrow = std::get_if<Work>(&fp4.commands[i].work);
    if (!wide)
      continue;
    EXPECT_DOUBLE_EQ(narrow->weightBytes, wide->weightBytes / 8);
    EXPECT_DOUBLE_EQ(narrow->kvBytes, wide->kvBytes / 4);
    EXPECT_DOUBLE_EQ(narrow->activationBytes, wide->activationBytes);
    EXPECT_DOUBLE_EQ(narrow->flops, wide->flops);
  }
  EXPECT_DOUBLE_EQ(fp4.kvBytes, f32.kvBytes / 4);
  EXPECT_LT(fp4.weightBytes, f32.weightBytes / 2);
}

TEST(FromArtifact, BytesOnTheWireAreThoseOfTheFormulas) {
  Tiny tiny({.tpa = 2, .kvp = 2, .slots = 3});
  Program program = tiny.program(0, {{20, 7, 9}, {1, 1, 1}});
  // (kvp - 1) B T h (4 Dv + 4), h = heads / tpa / kvp; 2 (N - 1) ceil(B T H / N) 4.
  EXPECT_DOUBLE_EQ(exchangesOf(program, "AllToAll")[0].sentBytes, 1 * 3 * 1 * (4 * 4 + 4));
  Exchange sum = exchangesOf(program, "AllReduce")[1];
  EXPECT_DOUBLE_EQ(sum.sentBytes, 2 * 3 * 12 * 4);
  EXPECT_EQ(sum.peers, 4U);
  EXPECT_EQ(sum.stride, 1U);
}

TEST(FromArtifact, LayersFromTheNamesOfNodes) {
  Tiny tiny({});
  Program program = tiny.program(0, {{20, 7, 9}, {1, 1, 1}});
  EXPECT_EQ(program.commands[2].layer, -1);
  EXPECT_EQ(program.commands[3].layer, 0);
  EXPECT_EQ(program.commands[5].layer, 0); // its own name says nothing
  EXPECT_EQ(program.commands[8].layer, 11);
  EXPECT_EQ(program.commands.back().layer, -1);
}

TEST(FromArtifact, RefusesWhatDoesNotFit) {
  Tiny tiny({.chunk = 0}), without({}, false);
  auto refusal = [&](uint64_t sequences, uint64_t context) {
    Lengths lengths;
    Error error;
    EXPECT_FALSE(uniformLengths(*tiny.artifact, 0, sequences, context, lengths, error));
    EXPECT_EQ(error.code, ErrorCode::SimulationImpossible);
    return error.message;
  };
  EXPECT_NE(refusal(4, 10).find("--batch 4"), std::string::npos);
  EXPECT_NE(refusal(0, 10).find("a batch of 0"), std::string::npos);
  EXPECT_NE(refusal(3, 49).find("--max-context 49"), std::string::npos);
  EXPECT_NE(refusal(3, 0).find("less than the 1"), std::string::npos);
  Lengths lengths;
  Error error;
  ASSERT_TRUE(uniformLengths(*tiny.artifact, 0, 2, 48, lengths, error)) << error.message;
  EXPECT_EQ(lengths.past, (std::vector<uint64_t>{47, 47, 0}));
  EXPECT_EQ(lengths.newTokens, (std::vector<uint64_t>{1, 1, 0}));
  uint32_t entry = 0;
  EXPECT_FALSE(findEntry(*tiny.artifact, artifact::EntryKind::Prefill, entry, error));
  EXPECT_NE(error.message.find("--prefill-chunk"), std::string::npos);
  Program program;
  EXPECT_FALSE(programOf(*without.artifact, 0, lengths, {}, 0, program, error));
  EXPECT_NE(error.message.find("has no cost"), std::string::npos);
}
