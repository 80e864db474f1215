//===- DeviceTest.cpp - Ranks on an emulated GPU ---------------------------===//
#include "lib/Artifact/Validate.h"
#include "lib/Artifact/Writer.h"
#include "runtime/Core/Session.h"
#include "runtime/Cuda/Driver.h"
#include "runtime/Cuda/Exchange.h"
#include "runtime/Cuda/KernelLibrary.h"
#include "test/unit/Core/TinyModel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>

using namespace helix;
using namespace helix::test;
using artifact::EntryKind;

namespace {

struct MeshShape {
  uint32_t tpa, kvp;
};
/// A directory with the tiny model for an emulated GPU, whose generated kernels are those of the artifact for the CPU.
struct Emulated {
  TemporaryDirectory directory;
  std::string path, log;

  Emulated(const TinyModel &model, MeshShape mesh, TinyOptions options = {}) {
    options.tpa = mesh.tpa;
    options.kvp = mesh.kvp;
    options.capacity = 4 * mesh.kvp * (48 / (4 * mesh.kvp) + 1);
    std::string cpu = writeTiny(directory, model, options);
    artifact::ArtifactT gpu = tinyArtifact(model, options);
    for (auto &image : gpu.images) {
      image->triple = "nvptx64-nvidia-cuda";
      image->features = "ptx_80";
    }
    path = directory.file("gpu.hlx");
    log = directory.file("log");
    artifact::Error error;
    EXPECT_TRUE(artifact::writeArtifact(gpu, path, error)) << error.message;
    ::setenv("HELIX_EMULATED_KERNELS", cpu.c_str(), 1);
    ::setenv("HELIX_EMULATED_LOG", log.c_str(), 1);
  }

  std::vector<std::string> lines() const {
    std::ifstream file(log);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
      lines.push_back(line);
    return lines;
  }
};

class Environment : public testing::Environment {
  void SetUp() override {
    ::setenv("HELIX_LIBCUDA", HELIX_EMULATED_CUDA, 1);
    ::setenv("HELIX_LIBCUBLASLT", HELIX_EMULATED_CUBLASLT_LIBRARY, 1);
  }
};
[[maybe_unused]] testing::Environment *const environment = testing::AddGlobalTestEnvironment(new Environment);

std::vector<int64_t> randomIds(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<int64_t> ids(count);
  for (int64_t &id : ids)
    id = int64_t(engine() % TinyModel::vocabulary);
  return ids;
}

template <typename Row> double distance(const std::vector<float> &got, const Row &want) {
  double most = 0, scale = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    most = std::max(most, std::abs(double(got[i]) - double(want[i])));
    scale = std::max(scale, std::abs(double(want[i])));
  }
  return most / scale;
}

std::vector<float> logitsOf(const Session &session, uint32_t slot) {
  std::vector<float> row(session.vocabulary());
  session.logits(slot, row);
  return row;
}

/// Ragged prompts, then decoded with an idle slot among them; the logits of each slot after each of its steps.
std::vector<std::vector<float>> decode(Session &session, const std::vector<std::vector<int64_t>> &ids,
                                       const std::vector<std::vector<std::vector<double>>> &expected, double limit) {
  const size_t prompts[] = {1, 9, 2};
  std::vector<std::vector<float>> all;
  std::vector<Feed> feeds;
  for (uint32_t s = 0; s < 3; ++s)
    feeds.push_back({session.admit(s), std::span(ids[s]).first(prompts[s])});
  session.prefill(feeds);
  for (size_t step = 0; step < 3; ++step) {
    for (const Feed &feed : feeds) {
      all.push_back(logitsOf(session, feed.slot));
      EXPECT_LE(distance(all.back(), expected[feed.slot][session.length(feed.slot) - 1]), limit)
          << "slot " << feed.slot << ", step " << step;
    }
    feeds.clear();
    for (uint32_t s = 0; s < 3; ++s)
      if (s != step % 4)
        feeds.push_back({s, std::span(ids[s]).subspan(session.length(s), 1)});
    session.step(EntryKind::Decode, feeds);
  }
  return all;
}

class CudaDeviceMeshes : public testing::TestWithParam<MeshShape> {};

/// With and without streams side by side; graphs are replayed with other lengths, in orders that only their edges
/// restrict.
TEST_P(CudaDeviceMeshes, LogitsAreTheReferences) {
  TinyModel model;
  std::vector<std::vector<int64_t>> ids = {randomIds(5, 1), randomIds(13, 2), randomIds(10, 3)};
  std::vector<std::vector<std::vector<double>>> expected;
  for (const auto &sequence : ids)
    expected.push_back(model.logits(sequence));
  std::vector<std::vector<float>> whole;
  for (uint32_t chunks : {0, 2}) {
    SCOPED_TRACE("chunks " + std::to_string(chunks));
    TinyOptions options;
    options.chunks = chunks;
    Emulated emulated(model, GetParam(), options);
    Session session(emulated.path);
    session.load();
    auto logits = decode(session, ids, expected, 1e-5);
    if (chunks == 0)
      whole = logits;
    else
      EXPECT_EQ(logits, whole) << "chunks change bits";
  }
}

INSTANTIATE_TEST_SUITE_P(, CudaDeviceMeshes,
                         testing::Values(MeshShape{1, 1}, MeshShape{1, 2}, MeshShape{2, 1}, MeshShape{2, 2},
                                         MeshShape{1, 3}, MeshShape{2, 4}),
                         [](const auto &info) {
                           return "Tpa" + std::to_string(info.param.tpa) + "Kvp" + std::to_string(info.param.kvp);
                         });

TEST(CudaDevice, NarrowTypesStayNear) {
  TinyModel model;
  std::vector<std::vector<int64_t>> ids = {randomIds(5, 1), randomIds(13, 2), randomIds(10, 3)};
  std::vector<std::vector<std::vector<double>>> expected;
  for (const auto &sequence : ids)
    expected.push_back(model.logits(sequence));
  for (auto [dtype, tolerance] : {std::pair(artifact::DType::F16, 1e-2), std::pair(artifact::DType::BF16, 6e-2)}) {
    TinyOptions options;
    options.weights = options.cache = dtype;
    Emulated emulated(model, {2, 2}, options);
    Session session(emulated.path);
    session.load();
    decode(session, ids, expected, tolerance);
  }
}

TEST(CudaDevice, ActivationsAreRoundedIfAskedTo) {
  TinyModel model;
  TinyOptions options;
  options.weights = artifact::DType::BF16;
  options.slots = 8; // a chunk has 64 rows
  Emulated emulated(model, {1, 1}, options);
  std::vector<int64_t> ids = randomIds(8, 1);
  auto logits = [&](bool rounds) {
    Session session(emulated.path, {.roundActivations = rounds});
    session.load();
    EXPECT_EQ(session.device().note(), "products of many rows: cuBLASLt 130000");
    Feed feed{session.admit(0), ids};
    session.prefill({&feed, 1});
    return logitsOf(session, 0);
  };
  Session cpu(emulated.directory.file("model.hlx"));
  cpu.load();
  Feed feed{cpu.admit(0), ids};
  cpu.prefill({&feed, 1});
  std::vector<float> want = logitsOf(cpu, 0);
  EXPECT_LE(distance(logits(false), want), 1e-5);
  double rounded = distance(logits(true), want);
  EXPECT_GT(rounded, 1e-4) << "nothing was rounded";
  EXPECT_LE(rounded, 6e-2);
}

/// Products of many rows are nodes of the graph, and what they take is there before.
TEST(CudaDevice, PrefillIsCublasLts) {
  TinyModel model;
  Emulated emulated(model, {1, 1});
  Session session(emulated.path);
  session.load();
  std::vector<std::string> lines = emulated.lines();
  size_t heuristics = size_t(std::count(lines.begin(), lines.end(), "heuristic"));
  // Of both layers q, k and v, the output, and three of the FFN; the head has a row per sequence.
  EXPECT_GE(heuristics, 2u * 5u);
  std::vector<int64_t> ids = randomIds(20, 1);
  Feed feed{session.admit(0), ids};
  session.prefill({&feed, 1});
  lines = emulated.lines();
  EXPECT_EQ(size_t(std::count(lines.begin(), lines.end(), "heuristic")), heuristics) << "chosen once, at load";
  EXPECT_LE(distance(logitsOf(session, 0), model.logits(ids).back()), 1e-5);
}

TEST(CudaDevice, CachesOfCodesAreTheCpus) {
  TinyModel model;
  std::vector<int64_t> ids = randomIds(20, 5);
  auto expected = model.logits(ids);
  for (artifact::DType dtype : {artifact::DType::I8, artifact::DType::F8E4M3})
    for (artifact::KvScaling scaling : {artifact::KvScaling::TokenHead, artifact::KvScaling::Tensor}) {
      TinyOptions options;
      options.cache = dtype;
      options.scaling = scaling;
      Emulated emulated(model, {2, 2}, options);
      auto logits = [&](const std::string &path) {
        Session session(path);
        session.load();
        Feed feed{session.admit(0), ids};
        session.prefill({&feed, 1});
        return logitsOf(session, 0);
      };
      std::vector<float> ours = logits(emulated.path);
      EXPECT_LE(distance(ours, logits(emulated.directory.file("model.hlx"))), 1e-5);
      EXPECT_GT(distance(ours, expected.back()), 1e-4) << "nothing was rounded";
    }
}

/// Three ranks: the last has padding among its logits. Two sequences, one of them idle in every other step.
TEST(CudaDevice, TokensAreTheCpus) {
  TinyModel model;
  Emulated emulated(model, {1, 3});
  auto tokens = [](const std::string &path, const Sampling &sampling) {
    Session session(path);
    session.load();
    std::vector<int64_t> ids = {3, 1, 4};
    std::vector<std::vector<int64_t>> out(2);
    std::vector<Feed> feeds = {{session.admit(5), ids}, {session.admit(6), std::span(ids).first(2)}};
    session.prefill(feeds);
    for (int i = 0; i < 4; ++i) {
      feeds.clear();
      for (uint32_t slot : {0, 1}) {
        out[slot].push_back(session.sample(slot, sampling));
        if (slot == 0 || i % 2 == 0)
          feeds.push_back({slot, std::span(&out[slot].back(), 1)});
      }
      session.step(EntryKind::Decode, feeds);
    }
    return out;
  };
  auto copies = [&](const Sampling &sampling) {
    auto count = [&] {
      std::vector<std::string> lines = emulated.lines();
      return std::count(lines.begin(), lines.end(), "do copy to the host");
    };
    auto before = emulated.lines().empty() ? 0 : count();
    EXPECT_EQ(tokens(emulated.path, sampling), tokens(emulated.directory.file("model.hlx"), sampling));
    return count() - before;
  };
  for (const Sampling &sampling :
       {Sampling{}, Sampling{.temperature = 0.8, .topK = 10, .topP = 0.9, .seed = 1},
        Sampling{.temperature = 1.2, .seed = 2}, Sampling{.temperature = 1, .topP = 0.7, .seed = 3}})
    EXPECT_EQ(copies(sampling), 2) << "first tokens, in the one run of each entry before it is captured, no logits";
  EXPECT_EQ(copies({.temperature = 2, .topK = 100, .topP = 0.9}), 2 + 2 * 4 * 3 - 3)
      << "a row of each rank for each token, but where a slot was idle";
}

/// What is drawn is listed in the step's graph, as it was drawn last.
TEST(CudaDevice, StepsListWhatIsDrawn) {
  TinyModel model;
  Emulated emulated(model, {1, 2});
  Session session(emulated.path);
  session.load();
  std::vector<int64_t> ids = randomIds(12, 1);
  std::vector<Feed> feeds = {{session.admit(0), ids}, {session.admit(1), ids}};
  session.prefill(feeds);
  size_t seen = 0;
  auto news = [&] {
    std::vector<std::string> lines = emulated.lines();
    std::vector<std::string> fresh(lines.begin() + long(seen), lines.end());
    seen = lines.size();
    return fresh;
  };
  Sampling sampling{.temperature = 1, .seed = 1};
  for (const Feed &feed : feeds)
    session.sample(feed.slot, sampling);
  const std::vector<std::string> step = {"launch graph", "synchronize"};
  auto advance = [&](size_t at) {
    news();
    for (Feed &feed : feeds)
      feed.ids = std::span(ids).subspan(at, 1);
    session.step(EntryKind::Decode, feeds);
    for (const Feed &feed : feeds)
      session.sample(feed.slot, sampling);
    return news();
  };
  EXPECT_EQ(advance(0), step);
  EXPECT_EQ(advance(1), step);
  sampling.temperature = 0.5;
  std::vector<std::string> asks = advance(2);
  EXPECT_EQ(std::count(asks.begin(), asks.end(), "synchronize"), 1 + 2) << "once for each slot";
  EXPECT_EQ(std::count(asks.begin(), asks.end(), "do copy to the GPU"), 2);
  EXPECT_EQ(advance(3), step);
  sampling.topK = 20; // other lists, of the same scores
  EXPECT_NE(advance(4), step);
  sampling.topK = 10;
  EXPECT_EQ(advance(5), step);
  sampling = {};
  EXPECT_EQ(advance(6), step);
}

TEST(CudaDevice, AStepIsOneGraphAndNothingElse) {
  TinyModel model;
  Emulated emulated(model, {2, 2});
  Session session(emulated.path);
  session.load();
  std::vector<int64_t> ids = randomIds(12, 1);
  Feed feed{session.admit(0), std::span(ids).first(9)};
  session.prefill({&feed, 1});
  std::vector<std::string> before = emulated.lines();
  size_t captures = size_t(std::count(before.begin(), before.end(), "begin capture"));
  EXPECT_EQ(captures, 2u) << "one for each entry";
  for (size_t t = 9; t < 12; ++t) {
    feed.ids = std::span(ids).subspan(t, 1);
    session.step(EntryKind::Decode, {&feed, 1});
  }
  std::vector<std::string> after = emulated.lines();
  std::vector<std::string> steps(after.begin() + long(before.size()), after.end());
  EXPECT_EQ(steps, (std::vector<std::string>{"launch graph", "synchronize", "launch graph", "synchronize",
                                             "launch graph", "synchronize"}));
}

TEST(CudaDevice, AllMemoryIsGivenBack) {
  TinyModel model;
  Emulated emulated(model, {1, 3});
  {
    Session session(emulated.path);
    session.load();
  }
  EXPECT_EQ(emulated.lines().back(), "release, memory left: 0");
}

TEST(CudaDevice, TimesOfAStepAreInOrder) {
  TinyModel model;
  TinyOptions options;
  options.chunks = 2;
  Emulated emulated(model, {1, 2}, options);
  Session session(emulated.path, {.traceSteps = 4});
  session.load();
  std::vector<int64_t> ids = {1};
  Feed feed{session.admit(0), ids};
  session.step(EntryKind::Decode, {&feed, 1});
  uint32_t decode = session.entry(EntryKind::Decode) == session.artifact().entries()->Get(0) ? 0 : 1;
  ASSERT_EQ(session.trace(decode).size(), 1u);
  for (const RankTimes &rank : session.trace(decode)[0]->ranks) {
    EXPECT_EQ(rank.streams.size(), 2u);
    for (const std::vector<int64_t> &stream : rank.streams)
      for (size_t i = 1; i < stream.size(); ++i)
        EXPECT_LE(stream[i - 1], stream[i]);
    EXPECT_LE(rank.begin, rank.joined);
    EXPECT_LE(rank.joined, rank.end);
  }
}

/// The emulated GPU takes a microsecond for anything but a link's time: a step takes that of its exchanges, one after
/// another on each rank's link, and changes no bits.
TEST(CudaDevice, ALinkTakesTimeOfTheGpu) {
  TinyModel model;
  TinyOptions options;
  options.chunks = 2;
  Emulated emulated(model, {2, 2}, options);
  std::vector<int64_t> ids = randomIds(12, 1);
  auto run = [&](Session &session) {
    session.load();
    std::vector<std::vector<float>> logits;
    Feed feed{session.admit(0), std::span(ids).first(9)};
    session.prefill({&feed, 1});
    for (size_t t = 9; t < ids.size(); ++t) {
      feed.ids = std::span(ids).subspan(t, 1);
      session.step(EntryKind::Decode, {&feed, 1});
      logits.push_back(logitsOf(session, 0));
    }
    return logits;
  };
  Session without(emulated.path);
  const Link link{2e-3, 1e6};
  Session with(emulated.path, {.link = link, .traceSteps = 4});
  EXPECT_EQ(run(with), run(without));

  uint32_t decode = with.entry(EntryKind::Decode) == with.artifact().entries()->Get(0) ? 0 : 1;
  const artifact::Entry &entry = *with.artifact().entries()->Get(decode);
  ASSERT_EQ(with.trace(decode).size(), 3u);
  for (const StepTrace *step : with.trace(decode))
    for (const RankTimes &rank : step->ranks) {
      // Ends of exchanges in the plan's order.
      std::vector<size_t> next(rank.streams.size(), 1);
      double free = double(rank.begin), total = 0;
      for (const artifact::Command *command : *entry.commands()) {
        double end = double(rank.streams[command->stream()][next[command->stream()]++]);
        if (!artifact::isCollective(command->work_type()))
          continue;
        Collective collective = collectiveOf(*command);
        uint32_t peers = meshOf(with.artifact()).size(collective.axis);
        double takes = peers > 1 ? (2e-3 + double(bytesSent(collective, peers)) / 1e6) * 1e9 : 0;
        total += takes;
        if (peers > 1) {
          EXPECT_GE(end, free + takes);
          free = end;
        }
      }
      EXPECT_GT(total, 8e6);
      EXPECT_LT(double(rank.joined - rank.begin), total + 1e3 * 5 * double(entry.commands()->size()));
    }
}

/// Exchanges of one rank that are on two streams at once share its link, in the order of the plan; those of others have
/// theirs.
TEST(CudaDevice, ALinkCarriesOneExchangeAtATime) {
  ::setenv("HELIX_EMULATED_KERNELS", "/nowhere", 1);
  using namespace cuda;
  Gpu gpu(0);
  KernelLibrary kernels(nullptr, gpu);
  constexpr uint32_t kRanks = 4, kStreams = 2;
  std::vector<HeldMemory> segments;
  std::vector<HeldStream> streams[kRanks];
  std::vector<HeldEvent> ready[kRanks];
  std::vector<Port> ports;
  for (uint32_t r = 0; r < kRanks; ++r) {
    segments.push_back(allocate(4096));
    for (uint32_t s = 0; s < kStreams; ++s)
      streams[r].push_back(makeStream()), ready[r].push_back(makeEvent(false));
    ports.push_back({r, segments[r].get(), 0, streams[r], ready[r]});
  }
  const Mesh mesh{.tpa = 2, .kvp = 2, .ep = 1, .tpf = 4};
  // Groups of 2, whose ranks send 64 bytes: 1 ms, of which 64 us are the bytes'.
  const Link link{936e-6, 1e6};
  std::unique_ptr<Exchange> exchange = localExchange(mesh, std::move(ports), kernels, link);
  // Until all is done, and until rank 0's stream 0 is.
  auto milliseconds = [&](const std::vector<uint32_t> &onStreams) {
    HeldStream main = makeStream();
    HeldEvent forked = makeEvent(false), begun = makeEvent(true), ended = makeEvent(true), passed = makeEvent(true);
    std::vector<HeldEvent> joined;
    HeldGraph graph;
    HeldGraphExec executable;
    HELIX_CU(cuStreamBeginCapture_v2, main.get(), kCaptureThreadLocal);
    HELIX_CU(cuEventRecordWithFlags, begun.get(), main.get(), kRecordExternal);
    HELIX_CU(cuEventRecord, forked.get(), main.get());
    for (auto &rank : streams)
      for (HeldStream &stream : rank)
        HELIX_CU(cuStreamWaitEvent, stream.get(), forked.get(), 0);
    exchange->begin();
    uint64_t at = 0;
    for (uint32_t stream : onStreams) {
      exchange->enqueue({Collective::Kind::AllToAll, Axis::Kvp, at, at + 128, 64}, stream);
      at += 256;
    }
    HELIX_CU(cuEventRecordWithFlags, passed.get(), streams[0][0].get(), kRecordExternal);
    for (auto &rank : streams)
      for (HeldStream &stream : rank) {
        joined.push_back(makeEvent(false));
        HELIX_CU(cuEventRecord, joined.back().get(), stream.get());
        HELIX_CU(cuStreamWaitEvent, main.get(), joined.back().get(), 0);
      }
    HELIX_CU(cuEventRecordWithFlags, ended.get(), main.get(), kRecordExternal);
    HELIX_CU(cuStreamEndCapture, main.get(), graph.out());
    HELIX_CU(cuGraphInstantiateWithFlags, executable.out(), graph.get(), 0);
    std::pair<float, float> took;
    HELIX_CU(cuGraphLaunch, executable.get(), main.get());
    HELIX_CU(cuEventElapsedTime_v2, &took.first, begun.get(), ended.get());
    HELIX_CU(cuEventElapsedTime_v2, &took.second, begun.get(), passed.get());
    return took;
  };
  EXPECT_NEAR(milliseconds({0}).first, 1, 0.03);
  EXPECT_NEAR(milliseconds({0, 0}).first, 2, 0.06);
  for (int i = 0; i < 8; ++i) { // in other orders of what no edge orders
    EXPECT_NEAR(milliseconds({0, 1, 1, 0}).first, 4, 0.12);
    auto [all, first] = milliseconds({0, 1});
    EXPECT_NEAR(all, 2, 0.06);
    EXPECT_NEAR(first, 1, 0.03);
  }
}

TEST(CudaDevice, MadeUpCachesDoNotChangeTheLayout) {
  TinyModel model;
  Emulated emulated(model, {1, 2});
  Session session(emulated.path);
  session.load();
  uint32_t slot = session.admit(0);
  session.pretendLength(slot, 30);
  std::vector<int64_t> ids = {1};
  Feed feed{slot, ids};
  session.step(EntryKind::Decode, {&feed, 1});
  for (float logit : logitsOf(session, slot))
    EXPECT_TRUE(std::isfinite(logit));
}

ErrorCode codeOf(const auto &body) {
  try {
    body();
  } catch (const Error &error) {
    return error.code();
  }
  return ErrorCode(0);
}

TEST(CudaDevice, WhatCannotBeIsRefused) {
  TinyModel model;
  Emulated emulated(model, {2, 2});
  EXPECT_EQ(codeOf([&] { Session(emulated.path, {.gpu = 1}); }), ErrorCode::CudaUnavailable);
  EXPECT_EQ(codeOf([&] { Session(emulated.path, {.processes = Processes{0, 2, "file:x"}}); }),
            ErrorCode::ProcessesInvalid);
  EXPECT_EQ(codeOf([&] { Session(emulated.path, {.link = Link{}, .processes = Processes{0, 4, "file:x"}}); }),
            ErrorCode::ArgumentInvalid);
  EXPECT_EQ(codeOf([&] { Session(emulated.directory.file("model.hlx"), {.processes = Processes{0, 4, "file:x"}}); }),
            ErrorCode::ArgumentInvalid);
  cuda::Gpu gpu(0);
  cuda::KernelLibrary library(nullptr, gpu);
  cuda::Launch large{.image = cuda::ImageId::Attention, .kernel = "helix_attention_f32_any", .sharedBytes = 1 << 20};
  EXPECT_EQ(codeOf([&] { library.prepare(std::vector{large}); }), ErrorCode::CudaShapeUnsupported);
  EXPECT_EQ(codeOf([] { cuda::check(2, "cuMemAlloc"); }), ErrorCode::CudaFailed);
  ::setenv("HELIX_EMULATED_KERNELS", "/nowhere", 1);
  EXPECT_EQ(codeOf([&] { Session session(emulated.path); }), ErrorCode::ImageUnloadable);
}

TEST(CudaDevice, SlicesOfASumCoverIt) {
  for (uint64_t elements : {0, 1, 7, 8, 9, 1000})
    for (uint64_t peers : {1, 2, 3, 8}) {
      uint64_t next = 0;
      for (uint64_t p = 0; p < peers; ++p) {
        auto [begin, end] = cuda::reduceSlice(elements, peers, p);
        EXPECT_EQ(begin, next);
        EXPECT_LE(end - begin, (elements + peers - 1) / peers);
        next = end;
      }
      EXPECT_EQ(next, elements);
    }
}

} // namespace
