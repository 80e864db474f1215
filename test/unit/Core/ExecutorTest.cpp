//===- ExecutorTest.cpp - Streams, their events and their failures ----------===//
#include "runtime/Core/Executor.h"
#include "TinyModel.h"
#include "lib/Artifact/Reader.h"
#include "runtime/Comm/Inproc.h"
#include "runtime/Error.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

using namespace helix;
using namespace helix::test;

namespace {

/// Exchanges nothing. An exchange is done when it has been asked for a few times, but none before those before it.
struct Slow : Communicator {
  Ticket start(const Collective &collective) override {
    log.push_back('a' + char(started.size()));
    started.push_back(collective);
    return started.size();
  }
  bool test(Ticket ticket) override {
    if (done >= ticket)
      return true;
    if (++asked < patience)
      return false;
    asked = 0;
    log.push_back('A' + char(done++));
    return done >= ticket;
  }
  void wait(Ticket ticket) override {
    while (!test(ticket)) {
    }
  }
  int64_t doneAt(Ticket) const override { return 0; }
  void abort(const char *) noexcept override {}

  std::vector<Collective> started;
  int patience = 1, asked = 0;
  uint64_t done = 0;
  std::string log; ///< starts in small letters, ends in large ones
};

/// One rank of the tiny decoder, two layers of two or three chunks of attention and two of the output projection.
struct OneRank {
  explicit OneRank(const artifact::ArtifactT &tiny) {
    builder.Finish(artifact::Artifact::Pack(builder, &tiny));
    file = artifact::GetArtifact(builder.GetBufferPointer());
    layout = layOut(*file);
    images.emplace(*file);
    for (const artifact::Entry *entry : *file->entries())
      inputs.emplace_back(*entry);
    std::fill(inputs[0].qLen.begin(), inputs[0].qLen.end(), 1);
    table.resize(file->kv()->slots() * file->kv()->capacity() / file->kv()->block());
    std::iota(table.begin(), table.end(), 0);
    executor.emplace(*file, layout, 0, 1);
  }

  std::string logOf(int patience) {
    Slow communicator;
    communicator.patience = patience;
    executor->bind(*images, inputs, table.data(), communicator);
    executor->run(0);
    return communicator.log;
  }

  flatbuffers::FlatBufferBuilder builder;
  const artifact::Artifact *file;
  RankLayout layout;
  std::optional<Images> images;
  std::vector<StepInputs> inputs;
  std::vector<int32_t> table;
  std::optional<Executor> executor;
};

artifact::ArtifactT inChunks(uint32_t chunks) {
  TinyModel model;
  TinyOptions options;
  options.kvp = 2;
  options.chunk = 0;
  options.chunks = chunks;
  return tinyArtifact(model, options);
}

TEST(Executor, StartsAnExchangeAsSoonAsItsInputIsThere) {
  // The embedding's; in each layer three chunks of attention, two of the output projection, the FFN's.
  EXPECT_EQ(OneRank(inChunks(3)).logOf(1), "aAbBcCdDeEfFgGhHiIjJkKlLmM");
  EXPECT_EQ(OneRank(inChunks(3)).logOf(1000), "aAbcdBCDefEFgGhijHIJklKLmM");
}

TEST(Executor, StartsAnExchangeOfWhatAnotherBringsAfterThat) {
  artifact::ArtifactT tiny = inChunks(3);
  artifact::CommandT *before = nullptr;
  for (auto &command : tiny.entries[0]->commands) {
    if (command->work.type != artifact::Work::AllToAll)
      continue;
    if (before) {
      command->inputs[0] = std::make_unique<artifact::OperandT>(*before->outputs[0]);
      break;
    }
    before = command.get();
  }
  EXPECT_EQ(OneRank(tiny).logOf(1000), "aAbBcdCDefEFgGhijHIJklKLmM");
}

/// The second rank never comes: the exchange on the second stream, for whose event the first waits, times out.
TEST(Executor, AFailedExchangeEndsTheStep) {
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
  Images images(*file);
  std::vector<StepInputs> inputs;
  for (const artifact::Entry *entry : *file->entries())
    inputs.emplace_back(*entry);
  std::vector<int32_t> table(3 * 6);
  std::iota(table.begin(), table.end(), 0);
  Executor first(*file, layout, 0, 1), second(*file, layout, 1, 1);
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
