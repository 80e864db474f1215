//===- SessionTest.cpp - Artifacts to logits -------------------------------===//
#include "runtime/Core/Session.h"
#include "TinyModel.h"
#include "lib/Artifact/Writer.h"
#include "runtime/Core/CpuDevice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

using namespace helix;
using namespace helix::test;
using artifact::EntryKind;

namespace {

std::vector<int64_t> randomIds(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> ids(count);
  for (int64_t &id : ids)
    id = int64_t(random() % TinyModel::vocabulary);
  return ids;
}

std::vector<float> logitsOf(const Session &session, uint32_t slot) {
  std::vector<float> row(session.vocabulary());
  session.logits(slot, row);
  return row;
}

/// max |a - b| / max |b|
double distance(const std::vector<float> &a, const std::vector<double> &b) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    // A NaN must not pass for small.
    difference = std::isnan(a[i]) ? INFINITY : std::max(difference, std::abs(double(a[i]) - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / largest;
}

struct MeshShape {
  uint32_t tpa, kvp;
};
const MeshShape kMeshes[] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {1, 3}, {1, 4}, {2, 3}};

TinyOptions optionsFor(const MeshShape &mesh) {
  TinyOptions options;
  options.tpa = mesh.tpa;
  options.kvp = mesh.kvp;
  return options;
}

template <typename Body> ErrorCode codeOf(Body body) {
  try {
    body();
  } catch (const Error &error) {
    return error.code();
  }
  return ErrorCode(0);
}

/// Ragged prompts, of one token, within a chunk and over several, then decoded with an idle slot among them.
TEST(Session, LogitsAreTheReferences) {
  TinyModel model;
  std::vector<std::vector<int64_t>> ids = {randomIds(9, 1), randomIds(25, 2), randomIds(39, 3)};
  const size_t prompts[] = {1, 17, 31};
  for (const MeshShape &mesh : kMeshes) {
    TemporaryDirectory directory;
    Session session(writeTiny(directory, model, optionsFor(mesh)));
    session.load();
    std::vector<Feed> feeds;
    for (uint32_t s = 0; s < 3; ++s)
      feeds.push_back({session.admit(s), std::span(ids[s]).first(prompts[s])});
    session.prefill(feeds);
    std::vector<std::vector<std::vector<double>>> expected;
    for (const auto &sequence : ids)
      expected.push_back(model.logits(sequence));
    for (uint32_t s = 0; s < 3; ++s)
      EXPECT_LE(distance(logitsOf(session, s), expected[s][prompts[s] - 1]), 1e-5) << "slot " << s;
    for (size_t step = 0; step < 8; ++step) {
      feeds.clear();
      for (uint32_t s = 0; s < 3; ++s)
        if (s != step % 4)
          feeds.push_back({s, std::span(ids[s]).subspan(session.length(s), 1)});
      session.step(EntryKind::Decode, feeds);
      for (const Feed &feed : feeds)
        EXPECT_LE(distance(logitsOf(session, feed.slot), expected[feed.slot][session.length(feed.slot) - 1]), 1e-5)
            << "tpa " << mesh.tpa << " kvp " << mesh.kvp << " slot " << feed.slot << " step " << step;
    }
  }
}

TEST(Session, AllLogitsOfAChunk) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(13, 4);
  TinyOptions options = optionsFor({2, 2});
  options.prefillLogits = artifact::LogitRows::All;
  TemporaryDirectory directory;
  Session session(writeTiny(directory, model, options));
  session.load();
  uint32_t slot = session.admit(0);
  auto expected = model.logits(ids);
  std::vector<float> row(session.vocabulary());
  for (size_t from : {0, 8}) {
    Feed feed{slot, std::span(ids).subspan(from, std::min<size_t>(8, ids.size() - from))};
    session.step(EntryKind::Prefill, {&feed, 1});
    for (uint32_t t = 0; t < feed.ids.size(); ++t) {
      session.logitsOf(slot, t, row);
      EXPECT_LE(distance(row, expected[from + t]), 1e-5);
    }
    EXPECT_EQ(logitsOf(session, slot), row);
  }
}

TEST(Session, NarrowTypesStayNear) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(20, 5);
  auto expected = model.logits(ids);
  for (auto [dtype, tolerance] : {std::pair(artifact::DType::F16, 1e-2), std::pair(artifact::DType::BF16, 6e-2)}) {
    TinyOptions options = optionsFor({2, 2});
    options.weights = options.cache = dtype;
    TemporaryDirectory directory;
    Session session(writeTiny(directory, model, options));
    session.load();
    Feed feed{session.admit(0), ids};
    session.prefill({&feed, 1});
    double error = distance(logitsOf(session, 0), expected.back());
    EXPECT_LE(error, tolerance);
    EXPECT_GT(error, 1e-5) << "nothing was rounded";
  }
}

TEST(Session, CachesOfCodesStayNear) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(20, 5);
  auto expected = model.logits(ids);
  for (artifact::DType dtype : {artifact::DType::I8, artifact::DType::F8E4M3})
    for (artifact::KvScaling scaling : {artifact::KvScaling::TokenHead, artifact::KvScaling::Tensor}) {
      TinyOptions options = optionsFor({2, 2});
      options.cache = dtype;
      options.scaling = scaling;
      TemporaryDirectory directory;
      Session session(writeTiny(directory, model, options));
      session.load();
      Feed feed{session.admit(0), ids};
      session.prefill({&feed, 1});
      double error = distance(logitsOf(session, 0), expected.back());
      EXPECT_LE(error, dtype == artifact::DType::I8 ? 5e-2 : 2e-1);
      EXPECT_GT(error, 1e-5) << "nothing was rounded";
    }
}

/// The formula of the paper's notes: per layer (kvp - 1) B T h (4 Dv + 4) for the all-to-all, and 2 (N - 1) ceil(B T H
/// / N) 4 for each of two all-reduces; the embedding's apart.
TEST(Session, SentBytesFollowTheFormula) {
  TinyModel model;
  for (const MeshShape &mesh : kMeshes) {
    TemporaryDirectory directory;
    Session session(writeTiny(directory, model, optionsFor(mesh)));
    session.load();
    std::vector<int64_t> ids = {1, 2, 3};
    Feed feed{session.admit(0), ids};
    session.prefill({&feed, 1});
    for (uint64_t tokens : {8, 1}) {
      if (tokens == 1) {
        feed.ids = std::span(ids).first(1);
        session.step(EntryKind::Decode, {&feed, 1});
      }
      uint64_t n = mesh.tpa * mesh.kvp, rows = 3 * tokens;
      uint64_t h = (4 / mesh.tpa + mesh.kvp - 1) / mesh.kvp;
      Traffic traffic = session.takeTraffic();
      EXPECT_EQ(traffic.allToAll, 2 * (mesh.kvp - 1) * rows * h * (4 * 4 + 4));
      EXPECT_EQ(traffic.allReduce, 2 * 2 * 2 * (n - 1) * ((rows * 16 + n - 1) / n) * 4);
      EXPECT_EQ(traffic.embedding, 2 * (n - 1) * ((rows * 16 + n - 1) / n) * 4);
      EXPECT_EQ(traffic.sampling, 0u);
    }
  }
}

/// Decodes a sequence in some slot beside others, and returns its logits at each step.
std::vector<std::vector<float>> trace(Session &session, uint32_t slot, const std::vector<int64_t> &ids,
                                      std::span<const Feed> others) {
  std::vector<std::vector<float>> rows;
  std::vector<Feed> feeds(others.begin(), others.end());
  feeds.push_back({slot, std::span(ids).first(10)});
  session.prefill(feeds);
  rows.push_back(logitsOf(session, slot));
  for (size_t t = 10; t < ids.size(); ++t) {
    for (Feed &feed : feeds)
      feed.ids = std::span(ids).subspan(feed.slot == slot ? t : 0, 1);
    session.step(EntryKind::Decode, feeds);
    rows.push_back(logitsOf(session, slot));
  }
  return rows;
}

TEST(Session, ASequenceDoesNotDependOnItsSlotNeighboursOrThreads) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(20, 6), other = randomIds(21, 7);
  for (const MeshShape &mesh : {MeshShape{1, 1}, MeshShape{2, 2}, MeshShape{1, 3}}) {
    TemporaryDirectory directory;
    std::string path = writeTiny(directory, model, optionsFor(mesh));
    Session solo(path, {.threads = 1});
    solo.load();
    auto expected = trace(solo, solo.admit(0), ids, {});

    Session crowded(path, {.threads = 13});
    crowded.load();
    std::vector<Feed> others = {{crowded.admit(1), other}, {crowded.admit(2), std::span(other).first(3)}};
    EXPECT_EQ(trace(crowded, crowded.admit(3), ids, others), expected);

    // A slot that held a longer sequence.
    solo.release(0);
    EXPECT_EQ(trace(solo, solo.admit(4), ids, {}), expected);
    // One that is cut back, and goes on with what it had before.
    solo.truncate(0, 0);
    EXPECT_EQ(trace(solo, 0, ids, {}), expected);
    solo.truncate(0, 19);
    Feed last{0, std::span(ids).last(1)};
    solo.step(EntryKind::Decode, {&last, 1});
    EXPECT_EQ(logitsOf(solo, 0), expected.back());
  }
}

/// Chunks of the batch in decode steps, of the query tokens in prefill, uneven ones too, and exchanges on a stream of
/// their own: the same bits as one stream gives, for ragged sequences with an idle slot.
TEST(Session, OverlapDoesNotChangeBits) {
  TinyModel model;
  std::vector<std::vector<int64_t>> ids = {randomIds(9, 1), randomIds(25, 2), randomIds(39, 3)};
  const size_t prompts[] = {1, 17, 31};
  auto run = [&](const TinyOptions &options, unsigned threads) {
    TemporaryDirectory directory;
    Session session(writeTiny(directory, model, options), {.threads = threads});
    session.load();
    std::vector<std::vector<float>> rows;
    std::vector<Feed> feeds;
    for (uint32_t s = 0; s < 3; ++s)
      feeds.push_back({session.admit(s), std::span(ids[s]).first(prompts[s])});
    session.prefill(feeds);
    for (size_t step = 0; step < 9; ++step) {
      for (uint32_t s = 0; s < 3; ++s)
        rows.push_back(logitsOf(session, s));
      feeds.clear();
      for (uint32_t s = 0; s < 3; ++s)
        if (s != step % 4 && session.length(s) < ids[s].size())
          feeds.push_back({s, std::span(ids[s]).subspan(session.length(s), 1)});
      session.step(EntryKind::Decode, feeds);
    }
    return rows;
  };
  for (const MeshShape &mesh : kMeshes) {
    TinyOptions options = optionsFor(mesh);
    auto expected = run(options, 1);
    for (uint32_t chunks : {1, 2, 3, 5})
      for (unsigned threads : {1, 7}) {
        options.chunks = chunks;
        ASSERT_EQ(run(options, threads), expected) << mesh.tpa << "x" << mesh.kvp << " chunks " << chunks;
      }
  }
}

TEST(Session, WhatTheCacheHoldsBeyondASequenceDoesNotMatter) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(20, 8);
  TemporaryDirectory directory;
  std::string path = writeTiny(directory, model, optionsFor({2, 2}));
  Session clean(path), poisoned(path);
  clean.load();
  poisoned.load();
  for (uint32_t r = 0; r < 4; ++r)
    for (uint32_t layer = 0; layer < 2; ++layer) {
      const cpu::KvCache &cache = dynamic_cast<CpuDevice &>(poisoned.device()).rank(r).cache(layer);
      size_t elements = 3 * cache.pagesPerSlot * cache.block * cache.heads * cache.keyDim;
      std::fill_n(static_cast<float *>(cache.key), elements, NAN);
      std::fill_n(static_cast<float *>(cache.value), elements, NAN);
    }
  EXPECT_EQ(trace(poisoned, poisoned.admit(0), ids, {}), trace(clean, clean.admit(0), ids, {}));
}

TEST(Session, AFullContextIsRefusedAndHarmsNothing) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(48, 9);
  TemporaryDirectory directory;
  Session session(writeTiny(directory, model, optionsFor({1, 3})));
  session.load();
  uint32_t slot = session.admit(0);
  std::vector<int64_t> tooLong = randomIds(49, 9);
  Feed feed{slot, tooLong};
  EXPECT_EQ(codeOf([&] { session.prefill({&feed, 1}); }), ErrorCode::ContextFull);
  EXPECT_EQ(session.length(slot), 0u);
  feed.ids = ids;
  session.prefill({&feed, 1});
  EXPECT_LE(distance(logitsOf(session, slot), model.logits(ids).back()), 1e-5);
  feed.ids = std::span(ids).first(1);
  EXPECT_EQ(codeOf([&] { session.step(EntryKind::Decode, {&feed, 1}); }), ErrorCode::ContextFull);
}

TEST(Session, MisuseIsAnError) {
  TinyModel model;
  TemporaryDirectory directory;
  Session session(writeTiny(directory, model, {}));
  std::vector<int64_t> ids = {1, 2}, negative = {-1}, large = {int64_t(TinyModel::vocabulary)};
  uint32_t slot = session.admit(0);
  Feed feed{slot, ids};
  auto decode = [&] { session.step(EntryKind::Decode, {&feed, 1}); };
  EXPECT_EQ(codeOf(decode), ErrorCode::ArgumentInvalid) << "not loaded";
  session.load();
  EXPECT_EQ(codeOf(decode), ErrorCode::ArgumentInvalid) << "two tokens";
  feed.ids = negative;
  EXPECT_EQ(codeOf(decode), ErrorCode::TokenInvalid);
  feed.ids = large;
  EXPECT_EQ(codeOf(decode), ErrorCode::TokenInvalid);
  EXPECT_EQ(codeOf([&] { session.sample(slot, {}); }), ErrorCode::SlotInvalid) << "no logits yet";
  feed = {2, std::span(ids).first(1)};
  EXPECT_EQ(codeOf(decode), ErrorCode::SlotInvalid) << "not admitted";
  feed.slot = 99;
  EXPECT_EQ(codeOf(decode), ErrorCode::SlotInvalid);
  Feed twice[] = {{slot, std::span(ids).first(1)}, {slot, std::span(ids).first(1)}};
  EXPECT_EQ(codeOf([&] { session.step(EntryKind::Decode, twice); }), ErrorCode::SlotInvalid);
  EXPECT_EQ(codeOf([&] { session.truncate(slot, 1); }), ErrorCode::SlotInvalid);
  session.admit(1);
  session.admit(2);
  EXPECT_FALSE(session.hasFreeSlot());
  EXPECT_EQ(codeOf([&] { session.admit(3); }), ErrorCode::SlotInvalid);
  EXPECT_EQ(codeOf([&] { session.load(); }), ErrorCode::ArgumentInvalid);
  // None of this ended the session.
  feed = {slot, std::span(ids).first(1)};
  EXPECT_EQ(codeOf(decode), ErrorCode(0));
}

TEST(Session, MissingEntriesAreNamedByTheFlagThatCompilesThem) {
  TinyModel model;
  TemporaryDirectory directory;
  auto messageOf = [](auto body) -> std::string {
    try {
      body();
    } catch (const Error &error) {
      return error.what();
    }
    return "";
  };
  std::vector<int64_t> ids = {1, 2, 3};
  std::vector<float> row(model.vocabulary);
  {
    TinyOptions options;
    options.slots = 1;
    Session session(writeTiny(directory, model, options));
    session.load();
    Feed feed{session.admit(0), ids};
    session.step(EntryKind::Prefill, {&feed, 1});
    std::string message = messageOf([&] { session.logitsOf(0, 0, row); });
    EXPECT_TRUE(message.starts_with("HLX4011") && message.ends_with("--all-logits")) << message;
    message = messageOf([&] { session.release(1); });
    EXPECT_NE(message.find("has 1 slot,"), std::string::npos) << message;
  }
  TinyOptions options;
  options.chunk = 0;
  Session session(writeTiny(directory, model, options));
  session.load();
  Feed feed{session.admit(0), ids};
  std::string message = messageOf([&] { session.step(EntryKind::Prefill, {&feed, 1}); });
  EXPECT_TRUE(message.starts_with("HLX4011") && message.ends_with("--prefill-chunk")) << message;
}

TEST(Session, WeightFilesAreChecked) {
  TinyModel model;
  TemporaryDirectory directory, elsewhere;
  std::string path = writeTiny(directory, model, {});
  std::filesystem::rename(directory.file("model.bin"), elsewhere.file("model.bin"));
  EXPECT_EQ(codeOf([&] { Session(path).load(); }), ErrorCode::WeightFileInvalid);
  EXPECT_EQ(codeOf([&] { Session(path, {.weightsRoot = elsewhere.path.string()}).load(); }), ErrorCode(0));
  std::filesystem::create_directory(directory.file("model.bin"));
  EXPECT_EQ(codeOf([&] { Session(path).load(); }), ErrorCode::WeightFileInvalid);
  std::filesystem::remove(directory.file("model.bin"));
  std::vector<float> contents = model.fileContents();
  writeFile(directory.file("model.bin"), contents.data(), contents.size() * 4 - 1);
  EXPECT_EQ(codeOf([&] { Session(path).load(); }), ErrorCode::WeightFileInvalid);
}

TEST(Session, LogitsThatAreNotFiniteAreAnError) {
  for (float bad : {NAN, INFINITY}) {
    TinyModel model;
    model.tensors["head"].values[5] = bad;
    TemporaryDirectory directory;
    Session session(writeTiny(directory, model, optionsFor({1, 2})));
    session.load();
    std::vector<int64_t> ids = {1, 2, 3};
    Feed feed{session.admit(0), ids};
    session.prefill({&feed, 1});
    EXPECT_EQ(codeOf([&] { session.sample(0, {}); }), ErrorCode::LogitsNotFinite);
    EXPECT_EQ(codeOf([&] { session.sample(0, {.temperature = 1}); }), ErrorCode::LogitsNotFinite);
    EXPECT_EQ(codeOf([&] { session.sample(0, {.temperature = 1, .topP = 0.5}); }), ErrorCode::LogitsNotFinite);
  }
}

TEST(Session, AProcessorThatIsNotThisOneIsRefused) {
  TinyModel model;
  TemporaryDirectory directory;
  writeTiny(directory, model, {});
  for (auto [triple, features] :
       {std::pair("aarch64-unknown-linux-gnu", "x86-64-v3"), std::pair("x86_64-unknown-linux-gnu", "x86-64-v9")}) {
    artifact::ArtifactT changed = tinyArtifact(model, {});
    changed.images[0]->triple = triple;
    changed.images[0]->features = features;
    artifact::Error error;
    ASSERT_TRUE(artifact::writeArtifact(changed, directory.file("model.hlx"), error)) << error.message;
    EXPECT_EQ(codeOf([&] { Session session(directory.file("model.hlx")); }), ErrorCode::ProcessorUnsupported);
  }
}

TEST(Session, AnImageThatIsNoSharedObjectIsRefused) {
  TinyModel model;
  TemporaryDirectory directory;
  writeTiny(directory, model, {});
  artifact::ArtifactT changed = tinyArtifact(model, {});
  changed.images[0]->code.assign(100, 0);
  sealKernels(changed);
  artifact::Error error;
  ASSERT_TRUE(artifact::writeArtifact(changed, directory.file("model.hlx"), error)) << error.message;
  EXPECT_EQ(codeOf([&] { Session session(directory.file("model.hlx")); }), ErrorCode::ImageUnloadable);
  changed = tinyArtifact(model, {});
  changed.kernels[0]->symbol = "absent";
  sealKernels(changed);
  ASSERT_TRUE(artifact::writeArtifact(changed, directory.file("model.hlx"), error)) << error.message;
  EXPECT_EQ(codeOf([&] { Session session(directory.file("model.hlx")); }), ErrorCode::ImageUnloadable);
}

/// With no time to wait at all, whichever rank comes first to a collective gives up.
TEST(Session, AfterAFailedStepNothingMoreIsComputed) {
  TinyModel model;
  TemporaryDirectory directory;
  Session session(writeTiny(directory, model, optionsFor({1, 2})), {.commTimeout = std::chrono::milliseconds(0)});
  session.load();
  std::vector<int64_t> ids = randomIds(40, 7);
  Feed feed{session.admit(0), std::span(ids).first(1)};
  ErrorCode first = ErrorCode(0);
  for (size_t t = 0; t < ids.size() && first == ErrorCode(0); ++t) {
    feed.ids = std::span(ids).subspan(t, 1);
    first = codeOf([&] { session.step(EntryKind::Decode, {&feed, 1}); });
  }
  EXPECT_EQ(first, ErrorCode::CommTimeout);
  EXPECT_EQ(codeOf([&] { session.step(EntryKind::Decode, {&feed, 1}); }), ErrorCode::SessionFailed);
}

TEST(Session, MemoryIsCheckedBeforeItIsTaken) {
  TinyModel model;
  TemporaryDirectory directory;
  TinyOptions options;
  options.capacity = 1u << 30;
  options.slots = 1;
  Session session(writeTiny(directory, model, options));
  // 2 layers, 2 heads, 4 + 4 elements of 4 bytes per token.
  EXPECT_GE(session.memory(0).kv, (uint64_t(1) << 30) * 2 * 2 * 8 * 4);
  EXPECT_EQ(codeOf([&] { session.load(); }), ErrorCode::MemoryExhausted);
}

} // namespace
