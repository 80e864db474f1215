//===- CostTest.cpp - Seconds of one command -------------------------------===//
#include "lib/Perf/Cost.h"
#include "Machine.h"

#include <gtest/gtest.h>
#include <random>
#include <set>

using namespace helix;
using namespace helix::perf;
using helix::test::unitMachine;

TEST(Cost, MemoryOrComputeAndLatency) {
  Hardware machine = unitMachine();
  machine.memoryEfficiency[unsigned(CommandClass::Linear)] = 0.5;
  machine.computeEfficiency[unsigned(CommandClass::Linear)] = 0.25;
  machine.opLatency[unsigned(CommandClass::Linear)] = 7e-9;
  machine.peakFlops[unsigned(DType::Fp4)] = 4e9;
  Work work{CommandClass::Linear, 100, 0, 20, 59, DType::Half, 1};
  Price memory = price(work, machine, 1);
  EXPECT_DOUBLE_EQ(memory.weights, 200e-9);
  EXPECT_DOUBLE_EQ(memory.activations, 40e-9);
  EXPECT_DOUBLE_EQ(memory.compute, 0);
  EXPECT_DOUBLE_EQ(memory.total(), 247e-9);
  work.flops = 61; // 244 ns
  EXPECT_DOUBLE_EQ(price(work, machine, 1).total(), 251e-9);
  EXPECT_DOUBLE_EQ(price(work, machine, 1).weights, 0);
  work.dtype = DType::Fp4; // 61 ns, under the memory's time
  EXPECT_DOUBLE_EQ(price(work, machine, 1).total(), 247e-9);
  machine.sharedMemoryBytesPerSecond = 1e9;
  EXPECT_DOUBLE_EQ(price(work, machine, 2).total(), 487e-9);
}

TEST(Cost, LatencyOfAChunk) {
  Hardware machine = unitMachine();
  machine.opLatency.fill(8e-9);
  machine.inside.latency = {16e-9, 32e-9};
  Work work{CommandClass::Attention, 0, 100, 0, 0, DType::F32, 0.25};
  Exchange exchange{CollectiveKind::AllToAll, 2, 1, 2, 50, 0.25};
  EXPECT_DOUBLE_EQ(price(work, machine, 1).total(), 108e-9);
  EXPECT_DOUBLE_EQ(price(exchange, machine).total(), 66e-9);
  machine.opLatencyModel = machine.collectiveLatency = LatencyModel::Divisible;
  EXPECT_DOUBLE_EQ(price(work, machine, 1).total(), 102e-9);
  EXPECT_DOUBLE_EQ(price(exchange, machine).total(), 54e-9);
  exchange.kind = CollectiveKind::AllReduce;
  EXPECT_DOUBLE_EQ(price(exchange, machine).total(), 58e-9);
  exchange.peers = 1;
  EXPECT_DOUBLE_EQ(price(exchange, machine).total(), 0);
}

TEST(Cost, BytesOnTheWire) {
  EXPECT_DOUBLE_EQ(allToAllBytes(4, 100), 300);
  // 2 (N - 1) ceil(10 / 4) 4
  EXPECT_DOUBLE_EQ(allReduceBytes(4, 10), 72);
  EXPECT_DOUBLE_EQ(allReduceBytes(1, 10), 0);
}

TEST(Cost, ShareBeyondADomainIsThatOfTheWorstRank) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Exchange exchange;
    exchange.peers = 1 + random() % 9;
    exchange.stride = 1 + random() % 5;
    exchange.ranks = exchange.peers * exchange.stride * (1 + random() % 3);
    uint32_t domain = 1 + random() % 12;
    double worst = 0;
    for (uint32_t rank = 0; rank < exchange.ranks; ++rank) {
      uint32_t block = rank / (exchange.peers * exchange.stride), column = rank % exchange.stride, outside = 0;
      for (uint32_t i = 0; i < exchange.peers; ++i)
        outside += (block * exchange.peers * exchange.stride + column + i * exchange.stride) / domain != rank / domain;
      worst = std::max(worst, exchange.peers > 1 ? double(outside) / (exchange.peers - 1) : 0);
    }
    EXPECT_DOUBLE_EQ(shareOutside(exchange, domain), worst) << exchange.peers << " peers, stride " << exchange.stride
                                                            << ", ranks " << exchange.ranks << ", domain " << domain;
  }
}

TEST(Cost, TheSlowerOfTwoLinksCounts) {
  Hardware machine = unitMachine();
  machine.domain = 4;
  machine.inside.latency = {5e-9, 5e-9};
  machine.outside.latency = {50e-9, 50e-9};
  machine.outside.bytesPerSecond = 1e8;
  // Of 7 peers 3 are near: 300 bytes at 1 GB/s, 400 bytes at 0.1 GB/s.
  Exchange exchange{CollectiveKind::AllToAll, 8, 1, 8, 700, 1};
  EXPECT_DOUBLE_EQ(price(exchange, machine).total(), 4050e-9);
  machine.outside.bytesPerSecond = 1e12;
  EXPECT_NEAR(price(exchange, machine).total(), 305e-9, 1e-18);
  machine.domain = 8;
  EXPECT_NEAR(price(exchange, machine).total(), 705e-9, 1e-18);
}

TEST(Cost, AnArtificialLinkIsAFloor) {
  Hardware machine = unitMachine();
  machine.delayOverhead = 3e-9;
  Exchange exchange{CollectiveKind::AllToAll, 2, 1, 2, 100, 1};
  machine.delay = Delay{40e-9, 0};
  EXPECT_NEAR(price(exchange, machine).total(), 100e-9, 1e-18);
  machine.delay = Delay{40e-9, 1e9};
  EXPECT_NEAR(price(exchange, machine).total(), 143e-9, 1e-18);
}

TEST(Cost, ElementSizes) {
  EXPECT_DOUBLE_EQ(bytesPerElement(*parseDType("fp4")), 0.5);
  EXPECT_DOUBLE_EQ(bytesPerElement(*parseDType("int8")), 1);
  EXPECT_DOUBLE_EQ(bytesPerElement(*parseDType("f16")), 2);
  EXPECT_DOUBLE_EQ(bytesPerElement(*parseDType("f32")), 4);
  EXPECT_FALSE(parseDType("f64"));
}
