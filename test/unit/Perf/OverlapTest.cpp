//===- OverlapTest.cpp - In how many chunks to hide a collective -----------===//
#include "lib/Perf/Overlap.h"
#include "Machine.h"
#include "lib/Perf/Paper.h"
#include "lib/Perf/Simulate.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

using namespace helix;
using namespace helix::perf;
using helix::test::unitMachine;

namespace {

Overlapped site(uint64_t items, double compute, double communication) {
  Overlapped result;
  result.work = test::work(compute);
  result.exchange = test::exchange(communication);
  result.items = items;
  result.ranks = 2;
  return result;
}

/// The pipeline's recurrence, worked out without the simulator: chunk i is computed after chunk i - 1, sent after both
/// its own compute and the chunk before it; an event costs its latency where it is waited for.
double recurrence(const std::vector<double> &compute, const std::vector<double> &communication, double event) {
  double computed = 0, sent = 0, link = 0;
  for (size_t i = 0; i < compute.size(); ++i) {
    computed += compute[i];
    link = std::max(sent, computed + event) + communication[i];
    sent = link;
  }
  return std::max(computed, link + event);
}

} // namespace

TEST(Overlap, ChunkSizes) {
  EXPECT_EQ(chunkSizes(8, 3), (std::vector<uint64_t>{3, 3, 2}));
  EXPECT_EQ(chunkSizes(2, 5), (std::vector<uint64_t>{1, 1}));
  EXPECT_EQ(chunkSizes(100, 3, 16), (std::vector<uint64_t>{48, 32, 20}));
  EXPECT_EQ(chunkSizes(5, 0), (std::vector<uint64_t>{5}));
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    uint64_t items = 1 + random() % 500, chunks = 1 + random() % 20, granule = 1 + random() % 33;
    std::vector<uint64_t> sizes = chunkSizes(items, chunks, granule);
    EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), uint64_t(0)), items);
    EXPECT_LE(sizes.size(), chunks);
    EXPECT_GT(*std::min_element(sizes.begin(), sizes.end()), 0U);
    for (size_t i = 0; i + 1 < sizes.size(); ++i)
      EXPECT_EQ(sizes[i] % granule, 0U);
  }
}

TEST(Overlap, SharesOfAnAllReduceAreRoundedUp) {
  // Seven numbers on four ranks, whose sums take no time but on the link: 1 ns a byte.
  Overlapped sums = site(7, 0, 0);
  sums.ranks = sums.exchange.ranks = sums.exchange.peers = 4;
  sums.exchange.kind = CollectiveKind::AllReduce;
  sums.elements = 7;
  auto sent = [&](const std::vector<uint64_t> &sizes) { return overlapSeconds(sums, sizes, unitMachine()) * 1e9; };
  // To three peers, twice, shares of 4 bytes a number.
  EXPECT_NEAR(sent({7}), 2 * 3 * 2 * 4, 1e-6);
  EXPECT_NEAR(sent({4, 3}), 2 * 3 * (1 + 1) * 4, 1e-6);
  EXPECT_NEAR(sent({5, 2}), 2 * 3 * (2 + 1) * 4, 1e-6);
}

TEST(Overlap, Figure3) {
  Overlapped requests = site(8, 16, 9.6);
  EXPECT_NEAR(overlapSeconds(requests, chunkSizes(8, 8), unitMachine()), paper::hopbSeconds(8, 2, 1.2), 1e-9);
  Overlap best = chooseOverlap(requests, 8, unitMachine());
  // What is left at the end is the last chunk's message: 2, 2, 2, 1, 1 hides as much as eight chunks of one.
  EXPECT_EQ(best.sizes, (std::vector<uint64_t>{2, 2, 2, 1, 1}));
  EXPECT_NEAR(best.whole, 25.6, 1e-9);
  EXPECT_NEAR(best.seconds, 17.2, 1e-9);
}

TEST(Overlap, BestOfAllCountsByTheRecurrence) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  bool split = false, whole = false;
  for (int round = 0; round < 300; ++round) {
    Hardware machine = unitMachine();
    machine.opLatency.fill(uniform(random) * 0.3);
    machine.inside.latency.fill(uniform(random) * 0.3);
    machine.eventLatency = uniform(random) * 0.1;
    machine.collectiveLatency = round % 2 ? LatencyModel::Divisible : LatencyModel::PerCommand;
    machine.opLatencyModel = round % 3 ? LatencyModel::Divisible : LatencyModel::PerCommand;
    uint64_t items = 1 + random() % 12;
    double c = uniform(random) * 4, m = uniform(random) * 4;
    double best = 0;
    for (uint64_t chunks = 1; chunks <= items; ++chunks) {
      std::vector<double> compute, communication;
      for (uint64_t i = 0; i < chunks; ++i) {
        double share = double(items / chunks + (i < items % chunks)) / double(items);
        compute.push_back(c * share + machine.opLatency[0] * (round % 3 ? share : 1));
        communication.push_back(m * share + machine.inside.latency[0] * (round % 2 ? share : 1));
      }
      double seconds =
          chunks == 1 ? compute[0] + communication[0] : recurrence(compute, communication, machine.eventLatency);
      best = chunks == 1 ? seconds : std::min(best, seconds);
    }
    Overlap choice = chooseOverlap(site(items, c, m), 64, machine);
    EXPECT_NEAR(choice.seconds, best, 1e-9 * best);
    EXPECT_NEAR(choice.seconds, overlapSeconds(site(items, c, m), choice.sizes, machine), 1e-12);
    EXPECT_LE(choice.seconds, choice.whole);
    (choice.sizes.size() > 1 ? split : whole) = true;
  }
  EXPECT_TRUE(split && whole);
}

TEST(Overlap, AProductReadsItsRowsOncePerChunkAndIsJoined) {
  // 100 columns: weights 4 s, input rows 0.5 s, output 0.1 s; the sum of a chunk takes its share of 3 s.
  Overlapped product = site(100, 0, 3);
  product.work = Work();
  product.work.kind = CommandClass::Linear;
  product.work.weightBytes = 4e9;
  product.work.activationBytes = 0.6e9;
  product.sharedBytes = 0.5e9;
  product.granule = 16;
  product.join = test::work(0.2);
  EXPECT_NEAR(overlapSeconds(product, {100}, unitMachine()), 4.6 + 3, 1e-9);
  // 64 and 36 columns: 0.5 + 2.624, 0.5 + 1.476 seconds; sums of 1.92 and 1.08.
  EXPECT_NEAR(overlapSeconds(product, {64, 36}, unitMachine()), 3.124 + 1.976 + 1.08 + 0.2, 1e-9);
  EXPECT_GT(chooseOverlap(product, 8, unitMachine()).sizes.size(), 1U);
  product.join = test::work(5);
  EXPECT_EQ(chooseOverlap(product, 8, unitMachine()).sizes.size(), 1U);
}

TEST(Overlap, OneSequenceIsNotSplit) {
  EXPECT_EQ(chooseOverlap(site(1, 2, 2), 16, unitMachine()).sizes, (std::vector<uint64_t>{1}));
}
