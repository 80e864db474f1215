//===- SplitTest.cpp - How attention divides its work, by brute force ------===//
#include "runtime/Cuda/Kernels/Split.h"
#include "runtime/Cuda/Kernels/AttentionShapes.h"

#include "gtest/gtest.h"

#include <cstring>
#include <set>

namespace helix::cuda {
namespace {

cpu::AttentionArgs argsOf(uint32_t kvp, uint32_t rank, uint32_t tokens, uint64_t window, uint64_t pages = 65536) {
  cpu::AttentionArgs args;
  args.cache.block = 16, args.cache.kvp = kvp, args.cache.rank = rank, args.cache.heads = 2;
  args.cache.pagesPerSlot = pages, args.cache.keyDim = args.cache.valueDim = 64;
  args.tokens = args.tokenCount = tokens, args.batchCount = 1;
  args.heads = 6, args.paddedHeads = (6 + kvp - 1) / kvp * kvp;
  args.window = window;
  return args;
}

TEST(CudaSplit, CoversWhatTheSequenceSees) {
  for (uint32_t kvp : {1u, 3u})
    for (uint64_t window : {0ull, 1ull, 100ull, 5000ull})
      for (uint32_t tokens : {1u, 5u, 40u, 2000u})
        for (int32_t past : {0, 1, 15, 16, 255, 256, 257, 4095, 4096, 70000, 999999})
          for (uint32_t rank = 0; rank < kvp; ++rank) {
            auto qLen = int32_t(tokens);
            cpu::AttentionArgs args = argsOf(kvp, rank, tokens, window);
            Split split = splitOf(args, past, qLen);
            // Local tokens that the first query token sees from, and the last one to.
            int64_t from = window == 0 ? 0 : std::max<int64_t>(0, past + 1 - int64_t(window)), before = 0, held = 0;
            for (int64_t p = 0; p < past + qLen; ++p)
              if (p / 16 % kvp == rank) {
                before += p < from;
                ++held;
              }
            if (held == before) {
              ASSERT_LE(int64_t(split.begin) + int64_t(split.parts) * 0, held);
            } else {
              ASSERT_LE(split.begin, before);
              ASSERT_LT(before - split.begin, kPartUnit);
              ASSERT_EQ(split.end, held);
              ASSERT_GE(split.begin + split.parts * split.partTokens, split.end);
              ASSERT_LT(split.begin + (split.parts - 1) * split.partTokens, split.end);
            }
            ASSERT_EQ(split.begin % kPartUnit, 0u);
            ASSERT_EQ(split.partTokens % kPartUnit, 0u);
            ASSERT_GE(split.partTokens, kPartTokens);
            ASSERT_LE(split.parts, mostParts(tokens));
            ASSERT_LE(split.parts, partCapacity(args));
          }
}

TEST(CudaSplit, DependsOnTheSequenceOnly) {
  cpu::AttentionArgs args = argsOf(2, 1, 8, 0), chunk = args;
  chunk.batchBegin = 3, chunk.batchCount = 9, chunk.tokenBegin = 2, chunk.tokenCount = 3;
  Split a = splitOf(args, 50000, 8), b = splitOf(chunk, 50000, 8);
  EXPECT_EQ(a.parts, b.parts);
  EXPECT_EQ(a.partTokens, b.partTokens);
  EXPECT_EQ(splitOf(args, 50000, 0).parts, 0u);
}

TEST(CudaSplit, FillsAGpuWithOneSequence) {
  // Llama-3.1-8B's eight KV heads at 4K and 32K: 16 and 128 parts of each.
  cpu::AttentionArgs args = argsOf(1, 0, 1, 0);
  EXPECT_EQ(splitOf(args, 4095, 1).parts, 16u);
  EXPECT_EQ(splitOf(args, 32767, 1).parts, 128u);
  EXPECT_EQ(splitOf(args, 999999, 1).parts, 128u);
  EXPECT_EQ(splitOf(args, 255, 1).parts, 1u);
  EXPECT_EQ(splitOf(args, 256, 1).parts, 2u);
  EXPECT_EQ(mostParts(2048), 1u);
}

TEST(CudaSplit, SendIndexIsThePackedLayout) {
  cpu::AttentionArgs args = argsOf(4, 0, 5, 0);
  args.heads = 6, args.paddedHeads = 8;
  args.batchBegin = 2, args.batchCount = 3, args.tokenBegin = 1, args.tokenCount = 4;
  // [peer, b, t, h, valueDim + 1] in order, head = peer * 2 + h.
  size_t index = 0;
  for (uint32_t peer = 0; peer < 4; ++peer)
    for (uint32_t b = 2; b < 5; ++b)
      for (uint32_t t = 1; t < 5; ++t)
        for (uint32_t h = 0; h < 2; ++h, index += 65)
          ASSERT_EQ(sendIndex(args, b, t, peer * 2 + h), index);
}

TEST(CudaSplit, ScratchRowsAreDistinct) {
  cpu::AttentionArgs args = argsOf(2, 0, 3, 0, 100);
  args.batchBegin = 1, args.batchCount = 2, args.tokenBegin = 1, args.tokenCount = 2;
  AttentionArgument argument{{args}, partCapacity(args), 1};
  EXPECT_EQ(argument.capacity, 7u); // 1600 tokens
  std::set<size_t> rows;
  for (uint32_t b = 1; b < 3; ++b)
    for (uint32_t t = 1; t < 3; ++t)
      for (uint32_t head = 0; head < args.heads; ++head)
        for (uint32_t part = 0; part < argument.capacity; ++part)
          rows.insert(argument.scratchRow(b, t, head, part));
  EXPECT_EQ(rows.size(), argument.scratchRows());
  EXPECT_EQ(*rows.rbegin(), argument.scratchRows() - 1);
  EXPECT_EQ(attentionScratchBytes(args), argument.scratchRows() * 65 * sizeof(float));
  EXPECT_EQ(attentionScratchBytes(argsOf(2, 0, 3, 0, 16)), 0u); // 256 tokens: never more than one part
}

TEST(CudaSplit, LaunchesFitTheDevice) {
  DeviceShape device;
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::I8, DType::F8E4M3})
    for (uint32_t dim : {64u, 80u, 96u, 128u, 256u, 72u, 576u})
      for (uint32_t batch : {1u, 64u, 1024u}) {
        AttentionArgs args{argsOf(1, 0, 1, 0)};
        args.cache.dtype = dtype, args.cache.keyDim = args.cache.valueDim = dim;
        args.batchCount = batch;
        std::vector<Launch> all = launches(args, device);
        ASSERT_EQ(all.size(), 2u);
        bool tensor = dtype != DType::F32 && dim != 72 && dim != 576;
        EXPECT_EQ(all[0].image, tensor ? ImageId::AttentionTensor : ImageId::Attention);
        EXPECT_EQ(std::strstr(all[0].kernel, std::to_string(dim).c_str()) != nullptr, tensor) << all[0].kernel;
        for (const Launch &launch : all) {
          EXPECT_LE(launch.sharedBytes, device.sharedBytesPerBlock);
          EXPECT_LE(launch.block[0] * launch.block[1], 1024u);
          EXPECT_GE(launch.grid[0], 1u);
        }
        EXPECT_LE(all[0].grid[0], device.multiprocessors * 8);
        if (tensor && dim <= 128 && batch == 64)
          EXPECT_EQ(all[0].grid[0], device.multiprocessors * 2); // two blocks fit
      }
  // Latents; a block of an A100 has 163 KiB.
  for (auto [most, kernel] :
       {std::pair(166912u, "helix_attention_bf16_latent"), std::pair(101376u, "helix_attention_bf16_any")}) {
    AttentionArgs args{argsOf(1, 0, 1, 0)};
    args.cache.dtype = DType::BF16, args.cache.keyDim = 576, args.cache.valueDim = 512, args.cache.heads = 1;
    args.heads = args.paddedHeads = 128;
    Launch launch = launches(args, {108, most, 167936})[0];
    EXPECT_STREQ(launch.kernel, kernel);
    EXPECT_LE(launch.sharedBytes, most);
  }
  // Pages that do not hold whole runs of 16 tokens go another way.
  AttentionArgs args{argsOf(1, 0, 1, 0)};
  args.cache.dtype = DType::BF16, args.cache.block = 8;
  EXPECT_STREQ(launches(args, device)[0].kernel, "helix_attention_bf16_any");
}

} // namespace
} // namespace helix::cuda
