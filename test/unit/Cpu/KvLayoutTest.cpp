//===- KvLayoutTest.cpp - Owners, local indices and lengths ----------------===//
#include "Reference.h"

#include <set>

namespace helix::cpu::test {
namespace {

TEST(KvLayout, DealsBlocksRoundRobin) {
  for (uint64_t kvp : {1, 2, 3, 5, 8, 256})
    for (uint64_t block : {1, 4, 16}) {
      std::vector<uint64_t> held(kvp, 0);
      uint64_t turn = 0, inBlock = 0;
      for (uint64_t position = 0; position < 2 * kvp * block + 3; ++position) {
        for (uint64_t rank = 0; rank < kvp; ++rank)
          ASSERT_EQ(kvLocalLength(position, rank, block, kvp), held[rank]) << position << " " << rank;
        ASSERT_EQ(kvOwner(position, block, kvp), turn);
        ASSERT_EQ(kvLocal(position, block, kvp), held[turn]);
        ++held[turn];
        if (++inBlock == block)
          inBlock = 0, turn = (turn + 1) % kvp;
      }
    }
}

TEST(KvLayout, CountsBeyond32Bits) {
  // 3 million positions past 2^32, against the sum of all shards and a neighbouring length.
  uint64_t length = (uint64_t(1) << 32) + 3000001;
  uint64_t total = 0;
  for (uint64_t rank = 0; rank < 7; ++rank)
    total += kvLocalLength(length, rank, 16, 7);
  EXPECT_EQ(total, length);
  EXPECT_EQ(kvLocal(length, 16, 7) + 1, kvLocalLength(length + 1, kvOwner(length, 16, 7), 16, 7));

  KvCache cache;
  cache.block = 16;
  cache.heads = 8;
  cache.pages = 1000001;
  cache.keyDim = cache.valueDim = 128;
  // The eighth head's last page: 16 tokens x 128 = 2048 elements a page.
  EXPECT_EQ(kvKeyIndex(cache, 1000000, 7, 15), uint64_t(2048) * (7 * 1000001 + 1000000) + 15);
  EXPECT_EQ(kvValueIndex(cache, 1000000, 7, 15), uint64_t(2048) * (7 * 1000001 + 1000000) + 15 * 128);
  EXPECT_EQ(kvScaleIndex(cache, 1000000, 7), uint64_t(16) * (7 * 1000001 + 1000000));
  EXPECT_EQ(kvKeyBytes(1000001, 8, 16, 128, DType::F32), uint64_t(16384) * 1000001 * 4 + kKvSlackBytes);
  EXPECT_EQ(kvValueBytes(1000001, 8, 16, 128, DType::BF16), uint64_t(16384) * 1000001 * 2 + kKvSlackBytes);
}

TEST(KvLayout, FindsPagesThroughTheTable) {
  std::vector<int32_t> table = {5, 3, 1, 4, 2, 0};
  KvCache cache;
  cache.table = table.data();
  cache.pagesPerSlot = 3;
  cache.block = 4;
  EXPECT_EQ(kvPage(cache, 0, 3), 5u);
  EXPECT_EQ(kvPage(cache, 0, 4), 3u);
  EXPECT_EQ(kvPage(cache, 1, 11), 0u);
}

} // namespace
} // namespace helix::cpu::test
