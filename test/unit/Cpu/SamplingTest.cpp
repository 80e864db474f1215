//===- SamplingTest.cpp - Candidates, normalisers, noise -------------------===//
#include "runtime/Cpu/Sampling.h"
#include "Reference.h"
#include "runtime/Cpu/Noise.h"

#include <algorithm>
#include <set>

namespace helix::cpu::test {
namespace {

TEST(TopCandidates, MatchSorting) {
  forEachTarget([] {
    for (size_t count : {1, 2, 15, 16, 17, 1000, 4096}) {
      std::vector<float> logits = randomFloats(count, count);
      for (float &logit : logits)
        logit = std::round(logit * 50); // many ties
      std::vector<Candidate> sorted;
      for (size_t i = 0; i < count; ++i)
        sorted.push_back({logits[i], int64_t(100 + i)});
      std::sort(sorted.begin(), sorted.end(), [](const Candidate &a, const Candidate &b) {
        return std::pair(-a.value, a.id) < std::pair(-b.value, b.id);
      });
      for (size_t limit : {size_t(0), size_t(1), size_t(7), size_t(64), count, count + 9}) {
        std::vector<Candidate> out(limit + 1, {-7, -7});
        size_t found = topCandidates(logits.data(), count, 100, limit, out.data());
        ASSERT_EQ(found, std::min(limit, count));
        for (size_t i = 0; i < found; ++i)
          ASSERT_TRUE(out[i].value == sorted[i].value && out[i].id == sorted[i].id)
              << count << " " << limit << " " << i;
        ASSERT_EQ(out[found].id, -7);
      }
    }
  });
}

TEST(TopCandidates, ShowNaNAndTakeInfinities) {
  forEachTarget([] {
    std::vector<float> logits(100, -kInfinity);
    logits[40] = kInfinity;
    logits[70] = kNaN;
    Candidate out[4];
    ASSERT_EQ(topCandidates(logits.data(), 100, 0, 4, out), 4u);
    EXPECT_TRUE(std::isnan(out[0].value) && out[0].id == 70);
    EXPECT_EQ(out[1].id, 40);
    EXPECT_EQ(out[2].id, 0);
    EXPECT_EQ(out[3].id, 1);
  });
}

TEST(Normalizer, MergesToTheWhole) {
  forEachTarget([] {
    std::vector<float> logits = randomFloats(1003, 3, 30);
    logits[5] = -kInfinity;
    for (double scale : {1.0, 0.3, 2.5}) {
      double sum = 0;
      for (float logit : logits)
        sum += std::exp(scale * (double(logit) - 30));
      double expected = scale * 30 + std::log(sum);
      Normalizer whole = normalizer(logits.data(), logits.size(), scale);
      EXPECT_EQ(whole.max, *std::max_element(logits.begin(), logits.end()));
      EXPECT_NEAR(logSumExp(whole, scale), expected, 1e-12);
      Normalizer merged = normalizer(nullptr, 0, scale);
      for (size_t start = 0; start < logits.size(); start += 250) {
        size_t count = std::min<size_t>(250, logits.size() - start);
        merged = mergeNormalizers(merged, normalizer(logits.data() + start, count, scale), scale);
      }
      EXPECT_EQ(merged.max, whole.max);
      EXPECT_NEAR(logSumExp(merged, scale), expected, 1e-12);
    }
  });
}

TEST(Normalizer, KnowsTheExtremes) {
  forEachTarget([] {
    std::vector<float> logits(40, -kInfinity);
    Normalizer none = normalizer(logits.data(), 40, 1);
    EXPECT_EQ(none.max, -kInfinity);
    EXPECT_EQ(none.sum, 0);
    Normalizer both = mergeNormalizers(none, none, 1);
    EXPECT_EQ(both.sum, 0);
    logits[3] = 2;
    logits[37] = kNaN;
    Normalizer bad = normalizer(logits.data(), 40, 1);
    EXPECT_TRUE(std::isnan(bad.sum));
    EXPECT_TRUE(std::isnan(mergeNormalizers(none, bad, 1).sum));
    EXPECT_TRUE(std::isnan(mergeNormalizers(bad, none, 1).sum));
    logits[37] = kInfinity;
    EXPECT_TRUE(std::isnan(normalizer(logits.data(), 40, 1).sum));
  });
}

TEST(Philox, MatchesTheKnownAnswers) {
  // From the Random123 distribution's kat_vectors, philox4x32 10.
  struct {
    uint32_t counter[4], key[2], expected[4];
  } cases[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto &known : cases) {
    uint32_t out[4];
    philox4x32(known.counter, known.key, out);
    for (int i = 0; i < 4; ++i)
      EXPECT_EQ(out[i], known.expected[i]);
  }
}

TEST(GumbelNoise, HasTheDistribution) {
  // Mean: Euler's constant, variance pi^2 / 6; 200,000 draws.
  double sum = 0, squares = 0;
  size_t count = 200000, below = 0;
  for (uint32_t id = 0; id < count; ++id) {
    double noise = gumbelNoise(7, 1, 5, id);
    ASSERT_TRUE(std::isfinite(noise));
    sum += noise;
    squares += noise * noise;
    below += noise < 0;
  }
  double mean = sum / count;
  EXPECT_NEAR(mean, 0.5772156649, 0.01);
  EXPECT_NEAR(squares / count - mean * mean, M_PI * M_PI / 6, 0.03);
  EXPECT_NEAR(double(below) / count, std::exp(-1.0), 0.005);
}

TEST(GumbelNoise, DependsOnEachKey) {
  std::set<double> seen;
  for (uint64_t key : {uint64_t(0), uint64_t(1), uint64_t(2), uint64_t(1) << 32})
    for (uint32_t other : {0u, 1u, 2u})
      for (uint32_t id : {0u, 1u, 2u}) {
        EXPECT_TRUE(seen.insert(gumbelNoise(key, 3, other, id)).second);
        if (key != 3)
          EXPECT_TRUE(seen.insert(gumbelNoise(99, key, other, id)).second);
      }
}

TEST(GumbelNoise, SamplesTheSoftmax) {
  float logits[] = {0, 1, 2, -1};
  double total = 0;
  for (float logit : logits)
    total += std::exp(logit);
  size_t counts[4] = {}, draws = 100000;
  for (uint32_t position = 0; position < draws; ++position) {
    float noisy[4];
    for (uint32_t id = 0; id < 4; ++id)
      noisy[id] = float(logits[id] + gumbelNoise(42, 0, position, id));
    Candidate best;
    topCandidates(noisy, 4, 0, 1, &best);
    ++counts[best.id];
  }
  for (int id = 0; id < 4; ++id)
    EXPECT_NEAR(double(counts[id]) / draws, std::exp(logits[id]) / total, 0.006);
}

} // namespace
} // namespace helix::cpu::test
