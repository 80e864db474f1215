//===- CorruptionTest.cpp - Altered artifacts under good checksums ---------===//
#include "TinyModel.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/Writer.h"
#include "runtime/Core/Session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

using namespace helix;
using namespace helix::test;
using artifact::EntryKind;

namespace {

/// Opens the artifact and, if it is taken, does everything with it. True if it ran to the end.
bool survives(const std::string &path) {
  std::vector<int64_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  try {
    Session session(path, {.threads = 1, .commTimeout = std::chrono::seconds(20)});
    session.load();
    std::vector<Feed> feeds;
    for (uint32_t s = 0; s < std::min(session.slots(), 2u); ++s)
      feeds.push_back({session.admit(s), std::span(ids).first(10 - 7 * s)});
    session.prefill(feeds);
    for (int step = 0; step < 3; ++step) {
      for (Feed &feed : feeds)
        feed.ids = std::span(ids).first(1);
      session.step(EntryKind::Decode, feeds);
      session.sample(0, {.temperature = 1, .topK = 3, .topP = 0.9});
    }
  } catch (const Error &error) {
    // What cannot happen with one thread per rank of one program.
    EXPECT_NE(error.code(), ErrorCode::CommTimeout);
    return false;
  }
  return true;
}

std::vector<uint8_t> encoded(const TinyModel &model, const TinyOptions &options) {
  std::vector<uint8_t> bytes;
  artifact::Error error;
  EXPECT_TRUE(artifact::encodeArtifact(tinyArtifact(model, options), bytes, error)) << error.message;
  return bytes;
}

/// The sanitizers see what a flipped bit makes the runtime touch.
class FlippedBits : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Corruption, FlippedBits, ::testing::Values(0, 2)); // chunks

TEST_P(FlippedBits, AreRefusedOrHarmless) {
  TinyModel model;
  TinyOptions options;
  options.tpa = options.kvp = 2;
  options.prefillLogits = artifact::LogitRows::All;
  options.chunks = GetParam();
  TemporaryDirectory directory;
  std::string path = writeTiny(directory, model, options);
  ASSERT_TRUE(survives(path));
  const std::vector<uint8_t> original = encoded(model, options);
  const std::vector<uint8_t> code = tinyArtifact(model, options).images[0]->code;
  auto image = std::search(original.begin(), original.end(), code.begin(), code.end());
  ASSERT_NE(image, original.end());
  size_t codeBegin = size_t(image - original.begin()), codeEnd = codeBegin + code.size();

  std::mt19937 random(11);
  size_t refused = 0, ran = 0, tried = 0;
  while (tried < (GetParam() == 0 ? 4000 : 2000)) {
    std::vector<uint8_t> bytes(original.begin() + sizeof(artifact::Header), original.end());
    size_t at = random() % bytes.size(), inFile = at + sizeof(artifact::Header);
    // The code has a checksum of its own: a few flips of it are enough.
    if (inFile >= codeBegin && inFile < codeEnd && random() % 100 != 0)
      continue;
    ++tried;
    if (random() % 4 == 0)
      bytes[at] = uint8_t(random());
    else
      bytes[at] ^= uint8_t(1u << random() % 8);
    std::vector<uint8_t> file = artifact::framePayload(bytes.data(), bytes.size());
    artifact::Error error;
    if (!artifact::verifyArtifact(file, error)) {
      EXPECT_TRUE(error.code == ErrorCode::ArtifactMalformed || error.code == ErrorCode::ArtifactInconsistent)
          << error.message;
      ++refused;
      continue;
    }
    writeFile(path, file.data(), file.size());
    ran += survives(path);
    ASSERT_FALSE(::testing::Test::HasFailure()) << "byte " << at;
  }
  // Both kinds occur: names and costs may change, sizes may not.
  EXPECT_GT(refused, 100u);
  EXPECT_GT(ran, 100u);
}

TEST(Corruption, EveryTruncationIsRefused) {
  std::vector<uint8_t> original = encoded(TinyModel(), {});
  artifact::Error error;
  ASSERT_NE(artifact::verifyArtifact(original, error), nullptr) << error.message;
  for (size_t size = 0; size < original.size(); ++size) {
    // At a size of its own, so that reading past the end is seen.
    std::vector<uint8_t> cut(original.begin(), original.begin() + ptrdiff_t(size));
    ASSERT_EQ(artifact::verifyArtifact(cut, error), nullptr) << size;
    ASSERT_EQ(error.code, size < 32 ? ErrorCode::ArtifactForeign : ErrorCode::ArtifactTruncated);
    if (size < 32 || size % 16 != 0)
      continue;
    std::vector<uint8_t> good = artifact::framePayload(original.data() + 32, size - 32);
    ASSERT_EQ(artifact::verifyArtifact(good, error), nullptr) << size;
  }
}

} // namespace
