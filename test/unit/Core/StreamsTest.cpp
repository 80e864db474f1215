//===- StreamsTest.cpp - Streams, their events and their failures ----------===//
#include "runtime/Core/Streams.h"
#include "TinyModel.h"
#include "lib/Artifact/Reader.h"
#include "runtime/Comm/Inproc.h"
#include "runtime/Core/Executor.h"

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <numeric>

using namespace helix;
using namespace helix::test;

namespace {

/// Keeps what it is told first.
struct Recorder : Communicator {
  Pending start(const Collective &collective) override { return {collective, 0}; }
  void wait(const Pending &) override {}
  void abort(const char *why) noexcept override {
    std::lock_guard lock(mutex);
    if (aborts++ == 0)
      reason = why;
  }
  std::mutex mutex; // streams fail at the same time
  int aborts = 0;
  std::string reason;
};

/// Three streams hand a number round, each adding to what the one before it left: in every run, none before its turn.
TEST(Streams, EventsOrderWhatTheyConnect) {
  for (bool spin : {false, true}) {
    Streams streams(0, 3, 6, spin);
    Recorder communicator;
    uint64_t value = 0; // not atomic: a missing order is a race, too
    for (uint64_t round = 0; round < 3000; ++round) {
      value = round;
      streams.run(3, communicator, [&](uint32_t stream) {
        for (uint32_t turn = 0; turn < 2; ++turn) {
          uint32_t event = turn * 3 + stream;
          if (event != 0)
            ASSERT_TRUE(streams.wait(event - 1));
          ASSERT_EQ(value, round + event);
          ++value;
          streams.record(event);
        }
      });
      ASSERT_EQ(value, round + 6);
    }
    EXPECT_EQ(communicator.aborts, 0);
  }
}

TEST(Streams, RunSideBySideAndNoMoreThanAsked) {
  Streams streams(0, 3, 1, false);
  Recorder communicator;
  std::atomic<uint32_t> seen{0};
  auto start = std::chrono::steady_clock::now();
  for (uint32_t count : {2, 3, 1, 2}) {
    seen = 0;
    streams.run(count, communicator, [&](uint32_t stream) {
      seen |= 1u << stream;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    });
    EXPECT_EQ(seen, (1u << count) - 1);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(750)) << "800 one after the other";
}

TEST(Streams, AFailureWakesTheOthersAndIsThrown) {
  for (uint32_t bad : {0u, 1u, 2u}) {
    Streams streams(7, 3, 2, bad == 1);
    Recorder communicator;
    std::atomic<int> woken{0};
    try {
      streams.run(3, communicator, [&](uint32_t stream) {
        if (stream == bad) {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          throw Error(ErrorCode::CommTimeout, "nobody came");
        }
        // An event that nobody will record.
        woken += !streams.wait(stream % 2);
        throw Error(ErrorCode::CommAborted, "told to stop");
      });
      FAIL() << "nothing was thrown";
    } catch (const Error &error) {
      EXPECT_EQ(error.code(), ErrorCode::CommTimeout) << "what followed from the failure: " << error.what();
    }
    EXPECT_EQ(woken, 2);
    EXPECT_GE(communicator.aborts, 1);
    EXPECT_NE(communicator.reason.find("nobody came"), std::string::npos) << communicator.reason;
  }
}

TEST(Streams, OtherExceptionsBecomeErrorsOfTheRank) {
  Streams streams(7, 2, 1, false);
  Recorder communicator;
  try {
    streams.run(2, communicator, [](uint32_t stream) {
      if (stream == 1)
        throw std::runtime_error("odd");
    });
    FAIL() << "nothing was thrown";
  } catch (const Error &error) {
    EXPECT_EQ(std::string(error.what()), "HLX4014: rank 7: odd");
  }
}

/// The second rank never comes: the exchange times out on the second stream, while the first waits for its event.
TEST(Executor, AFailedExchangeEndsAllStreams) {
  TinyModel model;
  TinyOptions options;
  options.kvp = 2;
  options.chunks = 2;
  TemporaryDirectory directory;
  std::string path = writeTiny(directory, model, options);
  artifact::Error error;
  artifact::LoadedArtifact file = artifact::readArtifact(path, error);
  ASSERT_TRUE(file) << error.message;
  RankLayout layout = layOut(*file);
  EXPECT_EQ(layout.streams, 2u);
  Images images(*file);
  std::vector<StepInputs> inputs;
  for (const artifact::Entry *entry : *file->entries())
    inputs.emplace_back(*entry);
  std::vector<int32_t> table(3 * 6);
  std::iota(table.begin(), table.end(), 0);
  Executor first(*file, layout, 0, 1, false), second(*file, layout, 1, 1, false);
  std::byte *segments[] = {first.segment(), second.segment()};
  auto ends = inprocCommunicators(meshOf(*file), segments, {.timeout = std::chrono::milliseconds(50)});
  first.bind(images, inputs, table.data(), *ends[0]);
  auto start = std::chrono::steady_clock::now();
  try {
    first.run(0);
    FAIL() << "nothing was thrown";
  } catch (const Error &thrown) {
    EXPECT_EQ(thrown.code(), ErrorCode::CommTimeout) << thrown.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

} // namespace
