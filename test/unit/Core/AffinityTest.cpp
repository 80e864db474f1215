//===- AffinityTest.cpp - Which CPU a thread runs on -----------------------===//
#include "runtime/Core/Affinity.h"
#include "runtime/Core/Workers.h"

#include "test/unit/Core/TinyModel.h"

#include "gtest/gtest.h"

#include <filesystem>
#include <fstream>

namespace helix::test {
namespace {

/// The CPUs that the calling thread may run on.
Cpus allowed() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  Cpus cpus;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set))
      cpus.push_back(cpu);
  return cpus;
}

/// A directory with the nodes' lists, like the system's.
class Nodes {
public:
  explicit Nodes(const std::vector<std::pair<std::string, std::string>> &lists) {
    for (const auto &[node, list] : lists) {
      std::filesystem::create_directory(directory.file(node));
      std::ofstream(directory.file(node) + "/cpulist") << list << "\n";
    }
  }
  std::vector<Cpus> read() const { return nodesOfThread(directory.path); }

private:
  TemporaryDirectory directory;
};

TEST(Affinity, ReadsTheNodesOfTheCpusThatThisThreadMayUse) {
  Cpus cpus = allowed();
  std::string first = std::to_string(cpus.front());
  // Of a range that nobody has in whole, those that are there.
  EXPECT_EQ(Nodes({{"node0", "0-" + std::to_string(CPU_SETSIZE - 1)}}).read(), std::vector<Cpus>{cpus});
  EXPECT_EQ(Nodes({{"node1", first}, {"node0", "1020-1023"}, {"possible", first}}).read().front().front(),
            cpus.front());
  if (cpus.size() > 1) {
    Cpus others(cpus.begin() + 1, cpus.end());
    EXPECT_EQ(Nodes({{"node10", first}, {"node9", ""}}).read(), (std::vector<Cpus>{{cpus.front()}, others}));
    std::string list;
    for (unsigned cpu : others)
      list += (list.empty() ? "" : ",") + std::to_string(cpu);
    EXPECT_EQ(Nodes({{"node10", first}, {"node9", list}}).read(), (std::vector<Cpus>{others, {cpus.front()}}));
  }
  for (const char *list : {"", "x", "5-", "99999", "1;2"})
    EXPECT_EQ(Nodes({{"node0", list}}).read(), std::vector<Cpus>{cpus}) << list;
  EXPECT_EQ(nodesOfThread("/nowhere"), std::vector<Cpus>{cpus});
}

TEST(Affinity, PutsTheThreadsOfARankOnOneNode) {
  std::vector<Cpus> nodes = {{0, 1, 2}, {10, 11, 12, 13}};
  auto place = [&](std::vector<unsigned> threads) { return placeThreads(nodes, threads); };
  EXPECT_EQ(place({3, 4}), (std::vector<Cpus>{{0, 1, 2}, {10, 11, 12, 13}}));
  EXPECT_EQ(place({2, 2, 2}), (std::vector<Cpus>{{0, 1}, {10, 11}, {12, 13}}));
  EXPECT_EQ(place({4, 3}), (std::vector<Cpus>{{10, 11, 12, 13}, {0, 1, 2}}));
  // More than a node has, or than any has left.
  EXPECT_EQ(place({6}), (std::vector<Cpus>{{0, 1, 2, 10, 11, 12}}));
  EXPECT_EQ(place({2, 3, 2}), (std::vector<Cpus>{{0, 1}, {10, 11, 12}, {2, 13}}));
  EXPECT_EQ(place({8}), std::nullopt);
  EXPECT_EQ(place({3, 4, 1}), std::nullopt);
}

TEST(Affinity, HelpersStayOnTheirCpusAndCallersComeBack) {
  Cpus before = allowed(), wanted(3, before.back());
  Workers workers(3, false, wanted);
  std::vector<Cpus> seen(3);
  workers.parallel(3, [&](size_t begin, size_t, unsigned) { seen[begin] = allowed(); });
  EXPECT_EQ(seen, (std::vector<Cpus>{before, {before.back()}, {before.back()}}));
  {
    OnCpu stay(before.front());
    EXPECT_EQ(allowed(), Cpus{before.front()});
  }
  EXPECT_EQ(allowed(), before);
  {
    OnCpu refused(CPU_SETSIZE - 1); // no machine of the tests has it
    EXPECT_EQ(allowed(), before);
  }
  {
    OnCpu nowhere(std::nullopt);
    EXPECT_EQ(allowed(), before);
  }
}

} // namespace
} // namespace helix::test
