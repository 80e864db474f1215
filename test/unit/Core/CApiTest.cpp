//===- CApiTest.cpp - libhelix.so through its C API ------------------------===//
#include "TinyModel.h"
#include "helix-c/runtime.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

using namespace helix::test;

namespace {

struct Handle {
  helix_session *session = nullptr;
  ~Handle() { helix_close(session); }
};

TEST(CApi, LifeOfASession) {
  TinyModel model;
  TinyOptions options;
  options.tpa = options.kvp = 2;
  TemporaryDirectory directory;
  std::string path = writeTiny(directory, model, options);
  Handle handle;
  ASSERT_EQ(helix_open(path.c_str(), nullptr, &handle.session), 0) << helix_last_error();
  helix_session *session = handle.session;

  helix_info info = {};
  info.size = sizeof(info);
  ASSERT_EQ(helix_get_info(session, &info), 0);
  EXPECT_EQ(info.ranks, 4u);
  EXPECT_EQ(info.slots, 3u);
  EXPECT_EQ(info.prefill_tokens, 8u);
  EXPECT_EQ(info.capacity, 48u);
  EXPECT_EQ(info.vocabulary, 37u);
  helix_memory memory = {};
  memory.size = sizeof(memory);
  ASSERT_EQ(helix_get_memory(session, 3, &memory), 0);
  // 2 layers of keys and values: 3 slots, 24 local tokens, 1 head of 4, f32, and 64 bytes behind each area.
  EXPECT_EQ(memory.kv_cache, 2u * 2 * (3 * 24 * 4 * 4 + 64));
  EXPECT_EQ(helix_get_memory(session, 4, &memory), 4012);

  struct Seen {
    uint64_t done = 0, total = 1;
  } seen;
  auto progress = [](uint64_t done, uint64_t total, void *user) { *static_cast<Seen *>(user) = {done, total}; };
  ASSERT_EQ(helix_load(session, progress, &seen), 0) << helix_last_error();
  EXPECT_EQ(seen.done, seen.total);
  EXPECT_EQ(seen.total, 4 * memory.weights);

  uint32_t slot = 99;
  ASSERT_EQ(helix_admit(session, 7, &slot), 0);
  std::vector<int64_t> ids = {5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 11};
  helix_feed feed = {slot, 0, ids.data(), 10};
  ASSERT_EQ(helix_prefill(session, &feed, 1), 0);
  feed = {slot, 0, &ids[10], 1};
  ASSERT_EQ(helix_decode(session, &feed, 1), 0);
  uint64_t length = 0;
  ASSERT_EQ(helix_get_length(session, slot, &length), 0);
  EXPECT_EQ(length, 11u);
  std::vector<float> row(37);
  ASSERT_EQ(helix_get_logits(session, slot, row.data(), row.size()), 0);
  std::vector<double> expected = model.logits(ids).back();
  for (size_t i = 0; i < row.size(); ++i)
    EXPECT_NEAR(row[i], expected[i], 1e-4);
  int64_t id = -1;
  ASSERT_EQ(helix_sample(session, slot, nullptr, &id), 0);
  EXPECT_EQ(id, std::max_element(row.begin(), row.end()) - row.begin());
  helix_sampling sampling = {};
  sampling.size = sizeof(sampling);
  sampling.temperature = 1;
  sampling.top_p = 1;
  EXPECT_EQ(helix_sample(session, slot, &sampling, &id), 0);
  sampling.top_p = 2;
  EXPECT_EQ(helix_sample(session, slot, &sampling, &id), 4012);
  helix_traffic traffic = {};
  traffic.size = sizeof(traffic);
  ASSERT_EQ(helix_take_traffic(session, &traffic), 0);
  EXPECT_EQ(traffic.all_to_all, 2u * 1 * 3 * 1 * 20);
  EXPECT_GT(traffic.sampling, 0u);

  EXPECT_EQ(helix_truncate(session, slot, 12), 4008);
  ASSERT_EQ(helix_truncate(session, slot, 10), 0);
  EXPECT_EQ(helix_get_logits(session, slot, row.data(), row.size()), 4008);
  std::vector<float> again(37);
  ASSERT_EQ(helix_decode(session, &feed, 1), 0);
  ASSERT_EQ(helix_get_logits(session, slot, again.data(), again.size()), 0);
  EXPECT_EQ(again, row);
  EXPECT_EQ(helix_get_logits(session, slot, again.data(), 36), 4012);
  ASSERT_EQ(helix_release(session, slot), 0);
  EXPECT_EQ(helix_release(session, slot), 4008);
  EXPECT_NE(std::strstr(helix_last_error(), "HLX4008: slot 0"), nullptr) << helix_last_error();
}

TEST(CApi, NullsAndSizesAreChecked) {
  helix_session *session = nullptr;
  EXPECT_EQ(helix_open(nullptr, nullptr, &session), 4012);
  EXPECT_EQ(helix_open("/nowhere.hlx", nullptr, nullptr), 4012);
  EXPECT_EQ(helix_open("/nowhere.hlx", nullptr, &session), 3001);
  EXPECT_EQ(session, nullptr);
  helix_options options = {};
  EXPECT_EQ(helix_open("/nowhere.hlx", &options, &session), 4012) << "size is 0";
  options.size = sizeof(options);
  options.comm_timeout_seconds = NAN;
  EXPECT_EQ(helix_open("/nowhere.hlx", &options, &session), 4012);
  uint32_t slot;
  EXPECT_EQ(helix_admit(nullptr, 0, &slot), 4012);
  EXPECT_EQ(helix_load(nullptr, nullptr, nullptr), 4012);
  helix_close(nullptr);
}

} // namespace
