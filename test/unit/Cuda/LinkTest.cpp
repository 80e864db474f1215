//===- LinkTest.cpp - An artificial link between ranks that share a GPU ----===//
#include "Machine.h"

#include <gtest/gtest.h>

namespace helix::cuda::test {
namespace {

/// Exchanges of ranks 1 and 3 of four, on a link that takes a millisecond.
struct CudaLink : testing::Test {
  static constexpr uint64_t kTakes = 1000000;
  Buffer<uint64_t> free{std::vector<uint64_t>(4, 0)}, end{std::vector<uint64_t>(4, 0)};
  LinkArgs args{free.data(), end.data(), 1, 2, 2, kTakes, false};

  void begin(uint64_t nanoseconds) {
    args.nanoseconds = nanoseconds, args.waits = false;
    machine().launch(args);
  }
  void wait() {
    args.waits = true;
    machine().launch(args);
  }
  /// What the clock was a moment ago.
  uint64_t now() {
    Buffer<uint64_t> none(std::vector<uint64_t>(4, 0)), time(std::vector<uint64_t>(4, 0));
    machine().launch(LinkArgs{none.data(), time.data(), 1, 2, 2, 0, false});
    return time.read()[1];
  }
};

TEST_F(CudaLink, AnExchangeTakesItsTime) {
  uint64_t before = now();
  begin(kTakes);
  uint64_t ends = end.read()[1];
  EXPECT_GE(ends, before + kTakes);
  EXPECT_EQ(end.read(), (std::vector<uint64_t>{0, ends, 0, ends})) << "other ranks' links are theirs";
  wait();
  EXPECT_GE(now(), ends);
}

TEST_F(CudaLink, ExchangesFollowEachOther) {
  // So long that the second begins before the first ends.
  constexpr uint64_t kLong = 200 * kTakes;
  begin(kLong);
  uint64_t first = end.read()[1];
  begin(kTakes);
  EXPECT_EQ(end.read()[3], first + kTakes);
  EXPECT_EQ(free.read(), end.read());
  wait();
  EXPECT_GE(now(), first + kTakes);
  begin(kTakes);
  EXPECT_GE(end.read()[1], first + 2 * kTakes) << "a link that is free does not let an exchange begin in the past";
}

} // namespace
} // namespace helix::cuda::test
