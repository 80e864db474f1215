//===- SamplingTest.cpp - First tokens, and lists to draw the next one from ===//
#include "Machine.h"
#include "test/unit/Cpu/Reference.h"

#include <algorithm>
#include <numeric>

namespace helix::cuda::test {
namespace {

using namespace cpu::test;

TEST(CudaSampling, BestTokenIsTheFirstInOrder) {
  const size_t rows = 6, count = 3000, stride = 3008;
  std::vector<float> logits = randomFloats(rows * stride, 8);
  for (size_t row = 0; row < rows; ++row)
    std::fill_n(logits.begin() + row * stride + count, stride - count, 100.0f); // is no token
  logits[0 * stride + 2999] = 3;                                                // the last
  logits[1 * stride + 1500] = logits[1 * stride + 1024] = logits[1 * stride + 2047] = 2;
  logits[2 * stride + 700] = logits[2 * stride + 40] = kNaN;
  logits[2 * stride + 3] = kInfinity;
  std::fill_n(logits.begin() + 3 * stride, count, -kInfinity);
  logits[4 * stride] = 9;
  Buffer<float> deviceLogits(logits), value(rows);
  Buffer<int64_t> id(rows);
  machine().launch(BestTokenArgs{deviceLogits.data(), value.data(), id.data(), rows, count, stride, 100});
  std::vector<int64_t> ids = id.read();
  std::vector<float> values = value.read();
  int64_t largest = std::max_element(logits.begin() + 5 * stride, logits.begin() + 5 * stride + count) -
                    (logits.begin() + 5 * stride);
  EXPECT_EQ(ids, (std::vector<int64_t>{3099, 1124, 140, 100, 100, 100 + largest}));
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_EQ(values[3], -kInfinity);
  EXPECT_EQ(values[0], 3);
}

/// Rows of logits, and what was asked of them.
struct CudaDraws : testing::Test {
  size_t count = 0, stride = 0;
  int64_t firstId = 0;
  std::vector<float> logits;
  std::vector<cpu::Draw> draws;
  std::vector<cpu::Candidate> lists;
  std::vector<cpu::Share> shares;

  void resize(size_t rows, size_t tokens, int64_t first) {
    count = tokens, stride = tokens + 3, firstId = first;
    logits = randomFloats(rows * stride, tokens, 8);
    for (size_t row = 0; row < rows; ++row)
      std::fill_n(logits.begin() + row * stride + count, stride - count, 1e30f); // no tokens
    draws.assign(rows, {});
  }
  std::span<float> row(size_t r) { return std::span(logits).subspan(r * stride, count); }

  void run() {
    size_t rows = draws.size(), chunks = drawChunks(count);
    Buffer<float> device(logits), largest(rows);
    Buffer<int64_t> ids(rows);
    Buffer<cpu::Draw> asked(draws);
    Buffer<uint64_t> keys(rows * chunks * 2 * cpu::kListed);
    Buffer<DrawSum> sums(rows * chunks);
    Buffer<cpu::Candidate> list(std::vector<cpu::Candidate>(rows * 2 * cpu::kListed, {7, -7}));
    Buffer<cpu::Share> share(std::vector<cpu::Share>(rows, {{7, -7}, 7}));
    machine().launch(BestTokenArgs{device.data(), largest.data(), ids.data(), rows, count, stride, firstId});
    machine().launch(DrawArgs{device.data(), asked.data(), largest.data(), keys.data(), sums.data(), list.data(),
                              share.data(), rows, count, stride, firstId});
    lists = list.read();
    shares = share.read();
  }

  std::span<const cpu::Candidate> list(size_t r, bool likeliest) const {
    return std::span(lists).subspan((2 * r + likeliest) * cpu::kListed, cpu::kListed);
  }

  /// All of a row against numbers of 64 bits and more.
  void check(size_t r) {
    const cpu::Draw &draw = draws[r];
    const size_t listed = std::min<size_t>(count, cpu::kListed);
    std::vector<float> x(row(r).begin(), row(r).end());
    auto comesBefore = [&](float a, int64_t aId, float b, int64_t bId) {
      if (std::isnan(a) != std::isnan(b))
        return std::isnan(a);
      return std::isnan(a) || a == b ? aId < bId : a > b;
    };
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return comesBefore(x[a], a, x[b], b); });
    for (bool likeliest : {false, true}) {
      auto list = this->list(r, likeliest);
      bool isAsked = likeliest ? draw.likeliest : draw.firsts;
      for (size_t i = isAsked ? listed : 0; i < cpu::kListed; ++i)
        ASSERT_EQ(list[i].id, -7) << "what is not asked for is left alone";
    }
    for (size_t i = 0; draw.firsts && i < listed; ++i) {
      const cpu::Candidate &token = list(r, false)[i];
      ASSERT_EQ(token.id, firstId + order[i]) << i;
      float want = x[order[i]];
      ASSERT_TRUE(token.value == want || (std::isnan(token.value) && std::isnan(want)));
    }
    if (draw.likeliest) {
      std::vector<double> scores(count);
      for (size_t i = 0; i < count; ++i)
        scores[i] = x[i] * draw.scale +
                    cpu::gumbelNoise(draw.seed, draw.sequence, draw.position, uint32_t(firstId + int64_t(i)));
      std::vector<bool> isListed(count);
      auto list = this->list(r, true);
      double last = 0;
      for (size_t i = 0; i < listed; ++i) {
        size_t at = size_t(list[i].id - firstId);
        ASSERT_LT(at, count) << i;
        ASSERT_FALSE(isListed[at]) << i;
        isListed[at] = true;
        ASSERT_TRUE(list[i].value == x[at] || (std::isnan(x[at]) && i == 0));
        // A quarter of what the host reckons with is what may be.
        if (i != 0 && scores[at] > last && !std::isnan(last))
          ASSERT_LE(scores[at] - last, cpu::listedError(last) / 2) << i;
        last = scores[at];
      }
      for (size_t i = 0; i < count; ++i)
        if (!isListed[i] && scores[i] > last)
          ASSERT_LE(scores[i] - last, cpu::listedError(last) / 2) << i;
    }
    if (!draw.shares) {
      ASSERT_EQ(shares[r].count, 7u);
      return;
    }
    long double sum = 0;
    uint64_t before = 0;
    float largest = x[order[0]];
    for (size_t i = 0; i < count; ++i)
      if (comesBefore(x[i], firstId + int64_t(i), draw.boundValue, draw.boundId)) {
        sum += largest == -kInfinity ? 0 : std::exp((x[i] - (long double)largest) * draw.scale);
        ++before;
      }
    ASSERT_EQ(shares[r].count, before);
    ASSERT_TRUE(shares[r].weight.max == largest || std::isnan(largest));
    if (std::isnan(sum))
      ASSERT_TRUE(std::isnan(shares[r].weight.sum));
    else
      ASSERT_NEAR(shares[r].weight.sum, double(sum), 1e-12 * double(sum));
  }
};

TEST_F(CudaDraws, ListsAndSharesOfEverySize) {
  // Less than a list, parts of chunks, more chunks than a block has warps.
  for (size_t tokens : {1, 63, 64, 65, 257, 2048, 2049, 17000}) {
    SCOPED_TRACE(tokens);
    resize(3, tokens, 128256 - int64_t(tokens));
    for (float &x : row(0))
      x = std::round(x); // in runs of equal ones
    draws[0] = {.scale = 1.25, .seed = 5, .sequence = 6, .position = 7, .firsts = true, .likeliest = true};
    draws[0].shares = true;
    draws[1] = {.scale = 0.7, .seed = uint64_t(9) << 40, .sequence = uint64_t(3) << 50, .position = 1};
    draws[1].likeliest = true;
    // Of row 2 nothing is asked.
    run();
    for (size_t r = 0; r < 3; ++r)
      ASSERT_NO_FATAL_FAILURE(check(r)) << r;
  }
}

TEST_F(CudaDraws, SharesEndAtTheirBound) {
  resize(5, 5000, 100);
  for (float &x : logits)
    x = x < 1e29f ? std::round(x * 4) / 4 : x;
  for (size_t r = 0; r < 5; ++r) {
    draws[r] = {.scale = 2, .shares = true};
    draws[r].boundValue = row(r)[1000 * r];
    draws[r].boundId = 100 + 1000 * int64_t(r);
  }
  draws[4].boundValue = 100; // before all
  run();
  for (size_t r = 0; r < 5; ++r)
    ASSERT_NO_FATAL_FAILURE(check(r)) << r;
  EXPECT_EQ(shares[4].count, 0u);
  EXPECT_EQ(shares[4].weight.sum, 0);
}

TEST_F(CudaDraws, TemperaturesTinyAndLarge) {
  resize(6, 2100, 0);
  const double scales[] = {1e6, 1e3, 20, 1e-3, 1e-6, 1e-30};
  for (size_t r = 0; r < 6; ++r)
    draws[r] = {.scale = scales[r], .seed = r, .firsts = true, .likeliest = true, .shares = true};
  row(0)[2000] = row(0)[100] + 1e-7f;
  run();
  for (size_t r = 0; r < 6; ++r)
    ASSERT_NO_FATAL_FAILURE(check(r)) << scales[r];
}

TEST_F(CudaDraws, InfinitiesHugeLogitsAndZeros) {
  resize(6, 2300, 10);
  for (size_t r = 0; r < 6; ++r)
    draws[r] = {.scale = 1.5, .seed = r, .firsts = true, .likeliest = true, .shares = true};
  for (size_t i = 0; i < count; ++i) {
    if (i % 100 != 7) // fewer left than a list has
      row(0)[i] = -kInfinity;
    row(1)[i] = -kInfinity;
    row(5)[i] = i % 2 == 0 ? 0.0f : -0.0f; // all equal
  }
  row(2)[2222] = 1e30f;
  row(3)[11] = kInfinity;
  row(4)[2111] = -kNaN;
  row(4)[13] = kInfinity;
  run();
  for (size_t r : {0, 1, 2, 5})
    ASSERT_NO_FATAL_FAILURE(check(r)) << r;
  // What the host must see.
  for (bool likeliest : {false, true}) {
    EXPECT_EQ(list(3, likeliest)[0].value, kInfinity);
    EXPECT_EQ(list(4, likeliest)[0].id, 2121);
    EXPECT_TRUE(std::isnan(list(4, likeliest)[0].value));
    EXPECT_EQ(list(4, likeliest)[1].value, kInfinity);
  }
  EXPECT_TRUE(std::isnan(shares[3].weight.sum));
  EXPECT_TRUE(std::isnan(shares[4].weight.sum));
  EXPECT_EQ(shares[1].weight.sum, 0);
}

/// Logits that leave scores 1e-4 apart, of tokens with the largest noise, the smallest, and about the mean: their order
/// shows errors of it.
TEST_F(CudaDraws, NoiseIsTheCpus) {
  resize(1, 12000, 0);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    draws[0] = {.scale = 0.5, .seed = seed, .sequence = 1, .position = 2, .likeliest = true};
    std::vector<std::pair<double, size_t>> noise;
    for (size_t i = 0; i < count; ++i)
      noise.push_back({cpu::gumbelNoise(seed, 1, 2, uint32_t(i)), i});
    std::sort(noise.begin(), noise.end());
    std::fill(row(0).begin(), row(0).end(), -100);
    for (size_t i = 0; i < 20; ++i)
      for (size_t j = 0; size_t at : {i, count / 2 + i, count - 1 - i})
        row(0)[noise[at].second] = float((1e-4 * double(3 * i + j++) - noise[at].first) / draws[0].scale);
    run();
    ASSERT_NO_FATAL_FAILURE(check(0));
  }
}

} // namespace
} // namespace helix::cuda::test
