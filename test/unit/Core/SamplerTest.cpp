//===- SamplerTest.cpp - The next token from sharded logits ----------------===//
#include "runtime/Core/Sampler.h"
#include "runtime/Error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

using namespace helix;

namespace {

/// Shares of ceil(size / ranks), the last ones shorter or empty.
std::vector<LocalLogits> split(const std::vector<float> &logits, size_t ranks) {
  size_t share = (logits.size() + ranks - 1) / ranks;
  std::vector<LocalLogits> result;
  for (size_t r = 0; r < ranks; ++r) {
    size_t first = std::min(r * share, logits.size());
    result.push_back({logits.data() + first, std::min(share, logits.size() - first), int64_t(first)});
  }
  return result;
}

std::vector<float> randomLogits(size_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float &value : logits)
    value = std::round(normal(random) * 64) / 64; // so that some are equal
  return logits;
}

/// Ids by falling logit, equal ones by rising id; then the first k, then the shortest prefix with at least p of what
/// the k weigh.
std::vector<int64_t> bruteForceSet(const std::vector<float> &logits, const Sampling &sampling) {
  std::vector<int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::sort(ids.begin(), ids.end(),
            [&](int64_t a, int64_t b) { return std::pair(-logits[size_t(a)], a) < std::pair(-logits[size_t(b)], b); });
  if (sampling.topK != 0 && sampling.topK < ids.size())
    ids.resize(sampling.topK);
  long double total = 0, sum = 0;
  auto weight = [&](int64_t id) { return std::exp((long double)logits[size_t(id)] / sampling.temperature); };
  for (int64_t id : ids)
    total += weight(id);
  size_t count = 0;
  while (count < ids.size() && (count == 0 || sum < sampling.topP * total))
    sum += weight(ids[count++]);
  if (sampling.topP < 1)
    ids.resize(count);
  return ids;
}

std::vector<int64_t> idsOf(std::span<const cpu::Candidate> candidates) {
  std::vector<int64_t> ids;
  for (const cpu::Candidate &candidate : candidates)
    ids.push_back(candidate.id);
  return ids;
}

TEST(Sampler, SetsAreExact) {
  Sampler sampler;
  for (size_t vocabulary : {1, 7, 1000, 5000})
    for (float deviation : {0.01f, 1.0f, 6.0f}) {
      std::vector<float> logits = randomLogits(vocabulary, deviation, unsigned(vocabulary));
      for (uint32_t k : {0u, 1u, 5u, 200u, 100000u})
        for (double p : {1e-9, 0.3, 0.9, 0.9999, 1.0})
          for (size_t ranks : {1, 2, 3, 5, 9}) {
            if (k == 0 && p == 1)
              continue;
            Sampling sampling{.temperature = 0.7, .topK = k, .topP = p};
            ASSERT_EQ(idsOf(sampler.kept(split(logits, ranks), sampling)), bruteForceSet(logits, sampling))
                << "vocabulary " << vocabulary << " deviation " << deviation << " k " << k << " p " << p;
          }
    }
}

TEST(Sampler, TheChoiceDoesNotDependOnTheRanks) {
  const Sampling kinds[] = {{},
                            {.temperature = 1},
                            {.temperature = 0.3, .topK = 5},
                            {.temperature = 1.5, .topP = 0.8},
                            {.temperature = 1, .topK = 50, .topP = 0.95}};
  Sampler sampler;
  size_t different = 0;
  for (unsigned trial = 0; trial < 200; ++trial) {
    std::vector<float> logits = randomLogits(trial < 100 ? 11 : 333, 2, trial);
    for (Sampling sampling : kinds) {
      sampling.seed = trial;
      int64_t expected = sampler.choose(split(logits, 1), sampling, 3, trial);
      for (size_t ranks : {2, 3, 5, 16})
        EXPECT_EQ(sampler.choose(split(logits, ranks), sampling, 3, trial), expected);
      different += sampler.choose(split(logits, 1), sampling, 4, trial) != expected;
    }
  }
  EXPECT_GT(different, 100u) << "the sequence does not key the noise";
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler sampler;
  std::vector<float> logits = {1, 3, -2, 3, 0, 3};
  for (size_t ranks : {1, 2, 3, 6})
    EXPECT_EQ(sampler.choose(split(logits, ranks), {}, 0, 0), 1);
}

/// Pearson's statistic of many draws, against the softmax over what is kept.
TEST(Sampler, DrawsFollowTheSoftmax) {
  const Sampling kinds[] = {{.temperature = 1, .seed = 1},
                            {.temperature = 0.5, .seed = 2},
                            {.temperature = 1, .topK = 6, .seed = 3},
                            {.temperature = 2, .topP = 0.7, .seed = 4}};
  std::vector<float> logits = randomLogits(23, 1.5, 5);
  Sampler sampler;
  constexpr uint32_t draws = 40000;
  for (const Sampling &sampling : kinds) {
    std::vector<int64_t> kept = bruteForceSet(logits, sampling);
    std::vector<uint32_t> counts(logits.size());
    auto ranks = split(logits, 3);
    for (uint32_t i = 0; i < draws; ++i)
      ++counts[size_t(sampler.choose(ranks, sampling, i / 200, i % 200))];
    double total = 0, statistic = 0;
    uint32_t inside = 0;
    for (int64_t id : kept)
      total += std::exp(logits[size_t(id)] / sampling.temperature);
    for (int64_t id : kept) {
      double expected = draws * std::exp(logits[size_t(id)] / sampling.temperature) / total;
      statistic += (counts[size_t(id)] - expected) * (counts[size_t(id)] - expected) / expected;
      inside += counts[size_t(id)];
    }
    double freedom = double(kept.size()) - 1;
    EXPECT_LT(statistic, freedom + 4 * std::sqrt(2 * freedom));
    EXPECT_EQ(inside, draws) << "a token outside the set was drawn";
  }
}

TEST(Sampler, NotFiniteIsAnError) {
  const Sampling kinds[] = {{}, {.temperature = 1}, {.temperature = 1, .topK = 2}, {.temperature = 1, .topP = 0.5}};
  Sampler sampler;
  for (const Sampling &sampling : kinds)
    for (size_t ranks : {1, 3}) {
      auto throws = [&](std::vector<float> logits) {
        try {
          sampler.choose(split(logits, ranks), sampling, 0, 0);
        } catch (const Error &error) {
          return error.code() == ErrorCode::LogitsNotFinite;
        }
        return false;
      };
      EXPECT_TRUE(throws({1, 2, NAN, 3}));
      EXPECT_TRUE(throws({1, INFINITY, 0, 3}));
      EXPECT_TRUE(throws({-INFINITY, -INFINITY, -INFINITY}));
      // A token that is masked out is not an error, nor ever drawn.
      EXPECT_FALSE(throws({-INFINITY, 2, -INFINITY}));
      std::vector<float> masked = {-INFINITY, 2, -INFINITY};
      EXPECT_EQ(sampler.choose(split(masked, ranks), sampling, 0, 0), 1);
    }
}

TEST(Sampler, ParametersAreChecked) {
  for (const Sampling &bad :
       {Sampling{.temperature = -1}, Sampling{.temperature = NAN}, Sampling{.temperature = INFINITY},
        Sampling{.temperature = 1e-9}, Sampling{.topP = 0}, Sampling{.topP = 1.1}, Sampling{.topP = NAN}})
    EXPECT_THROW(checkSampling(bad), Error);
  EXPECT_NO_THROW(checkSampling({}));
}

} // namespace
