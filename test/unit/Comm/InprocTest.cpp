//===- InprocTest.cpp - Collectives among threads --------------------------===//
#include "runtime/Comm/Inproc.h"
#include "runtime/Error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

using namespace helix;

namespace {

/// Segments of all ranks, and a thread for each.
struct Ranks {
  Ranks(const Mesh &mesh, size_t bytes, InprocOptions options = {}) : mesh(mesh) {
    for (uint32_t r = 0; r < mesh.ranks(); ++r)
      memory.emplace_back(bytes / sizeof(float));
    std::vector<std::byte *> segments;
    for (auto &it : memory)
      segments.push_back(reinterpret_cast<std::byte *>(it.data()));
    ends = inprocCommunicators(mesh, segments, options);
  }

  void run(const std::function<void(uint32_t, Communicator &)> &body) {
    std::vector<std::thread> threads;
    for (uint32_t r = 0; r < mesh.ranks(); ++r)
      threads.emplace_back([&, r] { body(r, *ends[r]); });
    for (std::thread &thread : threads)
      thread.join();
  }

  Mesh mesh;
  std::vector<std::vector<float>> memory;
  std::vector<std::unique_ptr<Communicator>> ends;
};

/// Ranks that differ from `rank` only along the axis, by the definition of the mesh: rank = tpa_i * kvp + kvp_i = ep_i
/// * tpf + tpf_i.
std::vector<uint32_t> groupOf(const Mesh &mesh, Axis axis, uint32_t rank) {
  std::vector<uint32_t> group;
  for (uint32_t other = 0; other < mesh.ranks(); ++other) {
    bool same = axis == Axis::N;
    same |= axis == Axis::Kvp && other / mesh.kvp == rank / mesh.kvp;
    same |= axis == Axis::Tpa && other % mesh.kvp == rank % mesh.kvp;
    same |= axis == Axis::Tpf && other / mesh.tpf == rank / mesh.tpf;
    same |= axis == Axis::Ep && other % mesh.tpf == rank % mesh.tpf;
    if (same)
      group.push_back(other);
  }
  return group;
}

const Mesh kMeshes[] = {{1, 1, 1, 1}, {2, 1, 1, 2}, {1, 3, 3, 1}, {2, 2, 1, 4}, {2, 3, 3, 2}, {4, 3, 6, 2}};
const Axis kAllAxes[] = {Axis::N, Axis::Tpa, Axis::Kvp, Axis::Ep, Axis::Tpf};

TEST(Inproc, AllToAllGivesEveryPeerItsChunk) {
  for (const Mesh &mesh : kMeshes)
    for (Axis axis : kAllAxes) {
      uint32_t peers = mesh.size(axis);
      constexpr size_t elements = 5;
      Ranks ranks(mesh, 2 * peers * elements * sizeof(float));
      for (uint32_t r = 0; r < mesh.ranks(); ++r)
        for (size_t i = 0; i < peers * elements; ++i)
          ranks.memory[r][i] = float(1000 * r + i);
      Collective collective{Collective::Kind::AllToAll, axis, 0, peers * elements * sizeof(float),
                            elements * sizeof(float)};
      ranks.run([&](uint32_t, Communicator &end) { end.wait(end.start(collective)); });
      for (uint32_t r = 0; r < mesh.ranks(); ++r) {
        std::vector<uint32_t> group = groupOf(mesh, axis, r);
        ASSERT_EQ(group.size(), peers);
        size_t self = size_t(std::find(group.begin(), group.end(), r) - group.begin());
        for (size_t p = 0; p < peers; ++p)
          for (size_t i = 0; i < elements; ++i)
            EXPECT_EQ(ranks.memory[r][peers * elements + p * elements + i],
                      float(1000 * group[p] + self * elements + i));
      }
    }
}

TEST(Inproc, AllReduceAddsInAscendingRank) {
  std::mt19937 random(7);
  // Values of very different sizes: any other order of the sum gives other bits.
  auto draw = [&] { return std::ldexp(float(random()) / 4e9f - 0.5f, int(random() % 40) - 20); };
  for (const Mesh &mesh : kMeshes)
    for (Axis axis : kAllAxes)
      for (size_t elements : {1, 2, 7, 64, 193})
        for (bool inPlace : {false, true}) {
          Ranks ranks(mesh, 2 * elements * sizeof(float));
          for (auto &memory : ranks.memory)
            std::generate(memory.begin(), memory.end(), draw);
          auto before = ranks.memory;
          Collective collective{Collective::Kind::AllReduce, axis, 0, inPlace ? 0 : elements * sizeof(float), elements};
          ranks.run([&](uint32_t, Communicator &end) { end.wait(end.start(collective)); });
          for (uint32_t r = 0; r < mesh.ranks(); ++r) {
            std::vector<uint32_t> group = groupOf(mesh, axis, r);
            for (size_t i = 0; i < elements; ++i) {
              float sum = before[group[0]][i];
              for (size_t p = 1; p < group.size(); ++p)
                sum += before[group[p]][i];
              EXPECT_EQ(ranks.memory[r][collective.receive / sizeof(float) + i], sum);
            }
          }
        }
}

TEST(Inproc, SentBytesFollowTheFormula) {
  EXPECT_EQ(bytesSent({Collective::Kind::AllToAll, Axis::Kvp, 0, 0, 272}, 4), 3u * 272);
  EXPECT_EQ(bytesSent({Collective::Kind::AllToAll, Axis::Kvp, 0, 0, 272}, 1), 0u);
  // 2 (N - 1) ceil(elements / N) * 4
  EXPECT_EQ(bytesSent({Collective::Kind::AllReduce, Axis::N, 0, 0, 193}, 6), 2u * 5 * 33 * 4);
  EXPECT_EQ(bytesSent({Collective::Kind::AllReduce, Axis::N, 0, 0, 192}, 6), 2u * 5 * 32 * 4);
  EXPECT_EQ(bytesSent({Collective::Kind::AllReduce, Axis::N, 0, 0, 64}, 1), 0u);
}

/// Memory is written again right after each wait: a rank that still read it would see the next round's values.
TEST(Inproc, RepeatedCollectivesOfOddSizes) {
  Mesh mesh{2, 3, 2, 3};
  constexpr size_t limit = 97;
  Ranks ranks(mesh, 4 * 6 * limit * sizeof(float));
  std::vector<int> wrong(mesh.ranks());
  ranks.run([&](uint32_t r, Communicator &end) {
    float *memory = ranks.memory[r].data();
    for (size_t round = 0; round < 1000; ++round) {
      Axis axis = kAllAxes[round % 5];
      size_t elements = 1 + round * 31 % limit, peers = mesh.size(axis);
      std::vector<uint32_t> group = groupOf(mesh, axis, r);
      if (round % 2 == 0) {
        for (size_t i = 0; i < elements; ++i)
          memory[i] = float(r + i + round);
        end.wait(end.start({Collective::Kind::AllReduce, axis, 0, limit * sizeof(float), elements}));
        for (size_t i = 0; i < elements; ++i) {
          float sum = 0;
          for (uint32_t peer : group)
            sum += float(peer + i + round);
          wrong[r] += memory[limit + i] != sum;
        }
      } else {
        for (size_t i = 0; i < peers * elements; ++i)
          memory[i] = float(r * 7919 + i + round);
        size_t receive = 2 * 6 * limit, self = mesh.coordinate(axis, r);
        end.wait(end.start({Collective::Kind::AllToAll, axis, 0, receive * sizeof(float), elements * sizeof(float)}));
        for (size_t p = 0; p < peers; ++p)
          for (size_t i = 0; i < elements; ++i)
            wrong[r] += memory[receive + p * elements + i] != float(group[p] * 7919 + self * elements + i + round);
      }
    }
  });
  EXPECT_EQ(wrong, std::vector<int>(mesh.ranks(), 0));
}

TEST(Inproc, SeveralInFlight) {
  Mesh mesh{1, 3, 1, 3};
  Ranks ranks(mesh, 64 * sizeof(float));
  for (uint32_t r = 0; r < 3; ++r)
    std::fill_n(ranks.memory[r].begin(), 8, float(r + 1));
  ranks.run([&](uint32_t, Communicator &end) {
    auto first = end.start({Collective::Kind::AllReduce, Axis::Kvp, 0, 64, 4});
    auto second = end.start({Collective::Kind::AllReduce, Axis::Kvp, 16, 128, 4});
    auto third = end.start({Collective::Kind::AllReduce, Axis::N, 0, 192, 8});
    end.wait(third);
    end.wait(first);
    end.wait(second);
  });
  for (const auto &memory : ranks.memory)
    for (size_t i : {16, 19, 32, 35, 48, 55})
      EXPECT_EQ(memory[i], 6.0f) << i;
}

double secondsOf(const std::function<void()> &body) {
  auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// No rank's end is earlier than latency + bytes sent / bandwidth after the last start, and hardly later: in the best
/// of a few rounds, as a busy machine may wake a thread late.
TEST(Inproc, ALinkTakesItsTime) {
  using Clock = std::chrono::steady_clock;
  Mesh mesh{1, 3, 1, 3};
  const Collective collectives[] = {{Collective::Kind::AllToAll, Axis::Kvp, 0, 12000, 4000},
                                    {Collective::Kind::AllReduce, Axis::N, 0, 12000, 3000}};
  const double bytes[] = {2 * 4000, 2 * 2 * 1000 * 4};
  for (int kind : {0, 1})
    for (Link link : {Link{0.004, 1e300}, Link{0, 1e6}, Link{0.003, 2e6}}) {
      Ranks ranks(mesh, 24000, {.link = link});
      std::chrono::duration<double> expected(link.latency + bytes[kind] / link.bytesPerSecond), best(INFINITY);
      for (int round = 0; round < 8; ++round) {
        std::vector<Clock::time_point> before(3), after(3), end(3);
        ranks.run([&](uint32_t r, Communicator &mine) {
          if (round % 2 == 1 && r == 1) // late
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
          before[r] = Clock::now();
          Communicator::Ticket pending = mine.start(collectives[kind]);
          after[r] = Clock::now();
          mine.wait(pending);
          end[r] = Clock::now();
        });
        for (Clock::time_point it : end)
          EXPECT_GE(it - *std::max_element(before.begin(), before.end()), expected);
        best = std::min<decltype(best)>(best, *std::max_element(end.begin(), end.end()) -
                                                  *std::max_element(after.begin(), after.end()));
      }
      EXPECT_LE(best.count(), expected.count() + 0.002) << kind << " " << link.latency << " " << link.bytesPerSecond;
    }
}

/// They are carried one after the other, while the rank that started them does something else.
TEST(Inproc, ALinkCarriesWhatIsUnderWayInTurn) {
  Ranks ranks({1, 2, 1, 2}, 64, {.link = Link{0.005, 1e300}});
  std::vector<std::vector<int64_t>> ends(2);
  double worked = 0;
  ranks.run([&](uint32_t r, Communicator &end) {
    Communicator::Ticket last = 0;
    for (int i = 0; i < 3; ++i)
      last = end.start({Collective::Kind::AllToAll, Axis::Kvp, 0, 16, 4});
    EXPECT_FALSE(end.test(last - 2)) << "at once";
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    double waited = secondsOf([&] { end.wait(last); });
    if (r == 0)
      worked = waited;
    for (Communicator::Ticket ticket = last - 2; ticket <= last; ++ticket) {
      EXPECT_TRUE(end.test(ticket));
      ends[r].push_back(end.doneAt(ticket));
    }
  });
  EXPECT_LT(worked, 0.005) << "15 ms had passed";
  EXPECT_GE(ends[0][1] - ends[0][0], 5'000'000);
  EXPECT_GE(ends[0][2] - ends[0][1], 5'000'000);
}

TEST(Inproc, OneMoreThanMayBeUnderWayWaits) {
  Ranks ranks({1, 2, 1, 2}, 64, {.link = Link{0.002, 1e300}});
  ranks.run([&](uint32_t, Communicator &end) {
    Communicator::Ticket last = 0;
    for (uint64_t i = 0; i < Communicator::kUnderWay + 1; ++i)
      last = end.start({Collective::Kind::AllReduce, Axis::N, 0, 16, 4});
    EXPECT_TRUE(end.test(1));
    EXPECT_FALSE(end.test(last));
    end.wait(last);
  });
}

TEST(Inproc, ALinkChangesNoBits) {
  Mesh mesh{1, 4, 1, 4};
  for (auto kind : {Collective::Kind::AllToAll, Collective::Kind::AllReduce}) {
    Ranks fast(mesh, 800), slow(mesh, 800, {.link = Link{1e-4, 1e7}});
    for (uint32_t r = 0; r < 4; ++r)
      for (size_t i = 0; i < 100; ++i)
        fast.memory[r][i] = slow.memory[r][i] = 1.0f / float(1 + i + 31 * r);
    Collective collective{kind, Axis::Kvp, 0, 400, kind == Collective::Kind::AllToAll ? 100u : 97u};
    for (Ranks *ranks : {&fast, &slow})
      ranks->run([&](uint32_t, Communicator &end) {
        for (int round = 0; round < 5; ++round)
          end.wait(end.start(collective));
      });
    EXPECT_EQ(fast.memory, slow.memory);
  }
}

TEST(Inproc, ARankAloneHasNoLink) {
  Ranks ranks({2, 1, 1, 2}, 64, {.link = Link{30, 1}});
  EXPECT_LT(secondsOf([&] {
              ranks.run([](uint32_t, Communicator &end) {
                end.wait(end.start({Collective::Kind::AllToAll, Axis::Kvp, 0, 16, 4}));
              });
            }),
            10);
}

ErrorCode codeOf(const std::function<void()> &body) {
  try {
    body();
  } catch (const Error &error) {
    return error.code();
  }
  return ErrorCode(0);
}

TEST(Inproc, AbsentPeerIsATimeout) {
  Ranks ranks({1, 3, 1, 3}, 64, {.timeout = std::chrono::milliseconds(50)});
  std::vector<ErrorCode> codes(3);
  std::string message;
  auto start = std::chrono::steady_clock::now();
  ranks.run([&](uint32_t r, Communicator &end) {
    if (r == 1)
      return;
    codes[r] = codeOf([&] { end.wait(end.start({Collective::Kind::AllReduce, Axis::N, 0, 0, 3})); });
  });
  EXPECT_EQ(codes[0], ErrorCode::CommTimeout);
  EXPECT_EQ(codes[2], ErrorCode::CommTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Inproc, AbortWakesWhoSleepsOnTheLink) {
  Ranks ranks({1, 3, 1, 3}, 64, {.link = Link{300, 1}});
  std::vector<ErrorCode> codes(3);
  EXPECT_LT(secondsOf([&] {
              ranks.run([&](uint32_t r, Communicator &end) {
                Communicator::Ticket pending = end.start({Collective::Kind::AllToAll, Axis::Kvp, 0, 16, 4});
                if (r == 1) {
                  std::this_thread::sleep_for(std::chrono::milliseconds(50));
                  end.abort("enough");
                  return;
                }
                codes[r] = codeOf([&] { end.wait(pending); });
              });
            }),
            60);
  EXPECT_EQ(codes[0], ErrorCode::CommAborted);
  EXPECT_EQ(codes[2], ErrorCode::CommAborted);
}

TEST(Inproc, AbortWakesTheOthersWithItsReason) {
  for (bool spin : {false, true}) {
    Ranks ranks({1, 3, 1, 3}, 64, {.timeout = std::chrono::minutes(10), .spin = spin});
    std::vector<std::string> messages(3);
    ranks.run([&](uint32_t r, Communicator &end) {
      if (r == 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        end.abort("rank 1 lost its weights");
        return;
      }
      try {
        end.wait(end.start({Collective::Kind::AllToAll, Axis::Kvp, 0, 16, 4}));
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), ErrorCode::CommAborted);
        messages[r] = error.what();
      }
    });
    EXPECT_NE(messages[0].find("rank 1 lost its weights"), std::string::npos);
    EXPECT_NE(messages[2].find("rank 1 lost its weights"), std::string::npos);
    // Later waits fail too.
    EXPECT_EQ(
        codeOf([&] { ranks.ends[0]->wait(ranks.ends[0]->start({Collective::Kind::AllReduce, Axis::Tpa, 0, 0, 1})); }),
        ErrorCode::CommAborted);
  }
}

} // namespace
