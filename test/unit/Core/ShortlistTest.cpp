//===- ShortlistTest.cpp - The next token from lists of sharded logits -----===//
#include "runtime/Core/Sampler.h"
#include "runtime/Error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

using namespace helix;

namespace {

/// Ranks that list what they are asked, by sorting all; scores and sums as wrong as they may be.
struct Ranks {
  Ranks(const std::vector<float> &logits, size_t count, unsigned seed = 0) : engine(seed) {
    size_t share = (logits.size() + count - 1) / count;
    for (size_t first = 0; first < logits.size(); first += share)
      parts.push_back({logits.data() + first, std::min(share, logits.size() - first), int64_t(first)});
    firsts.resize(parts.size());
    likeliest.resize(parts.size());
    lists.resize(parts.size());
  }

  std::span<const Shortlist> list(const cpu::Draw &draw) {
    ++calls;
    for (size_t r = 0; r < parts.size(); ++r) {
      const LocalLogits &part = parts[r];
      lists[r].count = part.count;
      std::vector<std::pair<double, cpu::Candidate>> all;
      for (size_t i = 0; i < part.count; ++i)
        all.push_back({part.logits[i], {part.logits[i], part.firstId + int64_t(i)}});
      auto sorted = [&](std::vector<cpu::Candidate> &out) {
        std::sort(all.begin(), all.end(), [](const auto &a, const auto &b) {
          if (std::isnan(a.first) != std::isnan(b.first))
            return std::isnan(a.first);
          return a.first != b.first ? a.first > b.first : a.second.id < b.second.id;
        });
        out.clear();
        for (size_t i = 0; i < std::min<size_t>(part.count, cpu::kListed); ++i)
          out.push_back(all[i].second);
        return std::span<const cpu::Candidate>(out);
      };
      if (draw.firsts)
        lists[r].firsts = sorted(firsts[r]);
      if (draw.shares) {
        long double max = -INFINITY, sum = 0;
        uint64_t before = 0;
        for (auto &[logit, token] : all)
          max = std::max(max, (long double)logit);
        for (auto &[logit, token] : all)
          if (logit > draw.boundValue || (logit == draw.boundValue && token.id < draw.boundId)) {
            sum += max == -INFINITY ? 0 : std::exp(draw.scale * (logit - max));
            ++before;
          }
        lists[r].share = {{float(max), double(sum) * (1 + 1e-12 * wrong(engine))}, before};
      }
      if (draw.likeliest) {
        for (auto &[score, token] : all) {
          score = score * draw.scale + cpu::gumbelNoise(draw.seed, draw.sequence, draw.position, uint32_t(token.id)) +
                  2e-5 * wrong(engine);
          score = double(float(score));
        }
        lists[r].likeliest = sorted(likeliest[r]);
      }
    }
    return lists;
  }

  std::vector<LocalLogits> parts;
  std::vector<std::vector<cpu::Candidate>> firsts, likeliest;
  std::vector<Shortlist> lists;
  std::mt19937 engine;
  std::uniform_real_distribution<double> wrong{-1, 1};
  size_t calls = 0;
};

struct Outcome {
  size_t told = 0, untold = 0;
};

/// Draws from both, which must agree where the lists tell.
Outcome compare(const std::vector<float> &logits, size_t ranks, const Sampling &sampling, uint32_t draws) {
  Sampler sampler;
  Ranks all(logits, ranks, sampling.seed);
  Outcome outcome;
  for (uint32_t position = 0; position < draws; ++position) {
    std::optional<int64_t> token =
        sampler.chooseListed([&](const cpu::Draw &draw) { return all.list(draw); }, ranks, sampling, 3, position);
    if (token) {
      EXPECT_EQ(*token, sampler.choose(all.parts, sampling, 3, position)) << position;
      ++outcome.told;
    } else {
      ++outcome.untold;
    }
  }
  return outcome;
}

std::vector<float> randomLogits(size_t count, float deviation, unsigned seed, float grid) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float &value : logits)
    value = std::round(normal(random) * grid) / grid;
  return logits;
}

constexpr Sampling kKinds[] = {{.temperature = 1, .seed = 1},
                               {.temperature = 1e-6, .seed = 2},
                               {.temperature = 1e3, .seed = 3},
                               {.temperature = 0.7, .topK = 1, .seed = 4},
                               {.temperature = 0.8, .topK = 40, .topP = 0.95, .seed = 5},
                               {.temperature = 1, .topK = 64, .seed = 6},
                               {.temperature = 1, .topK = 300, .seed = 7},
                               {.temperature = 0.6, .topP = 0.9, .seed = 8},
                               {.temperature = 2, .topP = 0.97, .seed = 9},
                               {.temperature = 1.3, .topP = 0.2, .seed = 10}};

TEST(Shortlist, TellsTheTokenOfAllLogits) {
  for (size_t vocabulary : {1, 37, 63, 64, 65, 1000, 3001})
    for (float deviation : {0.05f, 2.0f, 8.0f}) // all kept, hundreds, a few
      for (size_t ranks : {1, 3, 8})
        for (const Sampling &sampling : kKinds) {
          SCOPED_TRACE(testing::Message() << "vocabulary " << vocabulary << " deviation " << deviation << " ranks "
                                          << ranks << " seed " << sampling.seed);
          // In steps of 1/64: some are equal.
          std::vector<float> logits = randomLogits(vocabulary, deviation, unsigned(vocabulary + ranks), 64);
          Outcome outcome = compare(logits, ranks, sampling, 10);
          EXPECT_LE(outcome.untold, 1u);
        }
}

TEST(Shortlist, MaskedAndHugeLogits) {
  for (const Sampling &sampling : kKinds)
    for (size_t ranks : {1, 4}) {
      SCOPED_TRACE(testing::Message() << "ranks " << ranks << " seed " << sampling.seed);
      std::vector<float> logits = randomLogits(500, 2, 5, 1024);
      for (size_t i = 0; i < logits.size(); ++i)
        if (i % 5 != 0 || i < 125) // of the first of four ranks, all
          logits[i] = -INFINITY;
      EXPECT_EQ(compare(logits, ranks, sampling, 20).untold, 0u);
      logits[333] = 1e30f;
      EXPECT_EQ(compare(logits, ranks, sampling, 5).untold, 0u);
      // Below -3e38 / 1e-6 scores are no numbers of f32, and of no consequence.
      std::fill(logits.begin(), logits.end(), -1e37f);
      logits[333] = 0;
      EXPECT_EQ(compare(logits, ranks, sampling, 5).untold, 0u);
    }
}

TEST(Shortlist, TopKBeyondTheListsEndsAtK) {
  std::vector<float> equal(80, 0.5f);
  EXPECT_EQ(compare(equal, 2, {.temperature = 1, .topK = 70, .seed = 12}, 400).untold, 0u);
}

TEST(Shortlist, WhatIsTooNearIsNotTold) {
  // 200 equal logits: half the weight is that of 100 tokens, but for the sums' last bits.
  std::vector<float> equal(200, 1.5f);
  Outcome outcome = compare(equal, 2, {.temperature = 1, .topP = 0.5, .seed = 1}, 300);
  EXPECT_GT(outcome.untold, 0u);
  EXPECT_GT(outcome.told, 250u);
  // The same of 20 among 40, which are all listed.
  equal.resize(40);
  EXPECT_EQ(compare(equal, 2, {.temperature = 1, .topP = 0.5, .seed = 1}, 20).told, 0u);
  // Scores of 1e9 differ by less than f32 tells.
  std::vector<float> near(500);
  for (size_t i = 0; i < near.size(); ++i)
    near[i] = 1000 + float(i % 7) * 0x1p-13f;
  outcome = compare(near, 1, {.temperature = 1e-6, .seed = 2}, 10);
  EXPECT_EQ(outcome.told, 0u);
  // Top-k and top-p together, beyond the lists.
  EXPECT_EQ(compare(near, 1, {.temperature = 1, .topK = 65, .topP = 0.9}, 3).told, 0u);
  // Scores that f32 does not hold.
  std::vector<float> huge(500, 3e38f);
  EXPECT_EQ(compare(huge, 1, {.temperature = 0.1, .seed = 3}, 3).told, 0u);
}

/// Two tokens a hair apart, in either order on the list.
TEST(Shortlist, TheOrderOfTheListDoesNotCount) {
  std::vector<float> logits(100, -20);
  const Sampling sampling{.temperature = 1, .seed = 11};
  auto noise = [&](uint32_t id, uint32_t position) { return cpu::gumbelNoise(sampling.seed, 3, position, id); };
  size_t told = 0;
  for (uint32_t position = 0; position < 50; ++position) {
    logits[17] = 30;
    // As near as f32 allows.
    logits[80] = float(30 + noise(17, position) - noise(80, position));
    Sampler sampler;
    Ranks all(logits, 1, position);
    auto list = [&](const cpu::Draw &draw) { return all.list(draw); };
    if (auto token = sampler.chooseListed(list, 1, sampling, 3, position)) {
      EXPECT_EQ(*token, sampler.choose(all.parts, sampling, 3, position));
      ++told;
    }
  }
  EXPECT_EQ(told, 50u);
}

TEST(Shortlist, AFewListsAreAskedFor) {
  std::vector<float> flat = randomLogits(3000, 0.5f, 1, 1024), steep = randomLogits(3000, 10, 1, 1024);
  auto calls = [](const std::vector<float> &logits, const Sampling &sampling) {
    Sampler sampler;
    Ranks all(logits, 2);
    for (uint32_t position = 0; position < 100; ++position)
      sampler.chooseListed([&](const cpu::Draw &draw) { return all.list(draw); }, 2, sampling, 3, position);
    return all.calls;
  };
  EXPECT_EQ(calls(flat, {.temperature = 1}), 100u);
  EXPECT_EQ(calls(flat, {.temperature = 1, .topK = 50, .topP = 0.9}), 100u);
  EXPECT_EQ(calls(steep, {.temperature = 1, .topP = 0.9}), 100u);
  // The likeliest is kept nine times in ten.
  EXPECT_NEAR(double(calls(flat, {.temperature = 1, .topP = 0.9})), 100 + 100 / 0.9, 15);
}

TEST(Shortlist, NotFiniteIsAnError) {
  for (const Sampling &sampling : kKinds)
    for (size_t ranks : {1, 3}) {
      // As Session does.
      auto throws = [&](std::vector<float> logits) {
        Sampler sampler;
        Ranks all(logits, ranks);
        try {
          if (!sampler.chooseListed([&](const cpu::Draw &draw) { return all.list(draw); }, ranks, sampling, 0, 0))
            sampler.choose(all.parts, sampling, 0, 0);
        } catch (const Error &error) {
          return error.code() == ErrorCode::LogitsNotFinite;
        }
        return false;
      };
      std::vector<float> logits = randomLogits(300, 1, 9, 64);
      logits[130] = NAN;
      EXPECT_TRUE(throws(logits));
      logits[130] = INFINITY;
      EXPECT_TRUE(throws(logits));
      EXPECT_TRUE(throws(std::vector<float>(300, -INFINITY)));
      logits[130] = -INFINITY;
      EXPECT_FALSE(throws(logits));
    }
}

TEST(Shortlist, WithoutListsNothingIsTold) {
  Sampler sampler;
  EXPECT_FALSE(sampler.chooseListed([](const cpu::Draw &) { return std::span<const Shortlist>(); }, 1,
                                    {.temperature = 1}, 0, 0));
}

} // namespace
