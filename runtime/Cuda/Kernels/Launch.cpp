//===- Launch.cpp - From arguments to launches of token rows ---------------===//
#include "runtime/Cuda/Kernels/Geometry.h"

#include <algorithm>

namespace helix::cuda {
namespace {

constexpr uint32_t kThreads = 256;

Launch rows(const char *kernel, uint64_t x, uint64_t y, uint32_t threads, const auto &argument) {
  return launchOf(ImageId::Rows, kernel, {uint32_t(x), uint32_t(y), 1}, {threads, 1, 1}, 0, argument);
}

/// One thread per element of [outer, inner], or no launch if there is none.
std::vector<Launch> perElement(const char *kernel, uint64_t outer, uint64_t inner, const auto &argument) {
  if (outer == 0 || inner == 0)
    return {};
  return {rows(kernel, outer, divideUp(inner, kThreads), kThreads, argument)};
}

} // namespace

std::vector<Launch> launches(const EmbeddingArgs &args, const DeviceShape &) {
  return perElement("helix_embedding", args.rows, args.hidden, args);
}

std::vector<Launch> launches(const cpu::EmbeddingQuantizedArgs &args, const DeviceShape &) {
  return perElement("helix_embedding_quantized", args.rows, args.hidden, args);
}

std::vector<Launch> launches(const cpu::LastTokenArgs &args, const DeviceShape &) {
  return perElement("helix_last_token", args.batch, args.hidden, args);
}

std::vector<Launch> launches(const KeepLogitsArgs &args, const DeviceShape &) {
  return perElement("helix_keep_logits", args.batch, args.vocabulary, args);
}

std::vector<Launch> launches(const cpu::ConcatArgs &args, const DeviceShape &) {
  ConcatArgument argument = {};
  argument.y = args.y;
  for (const cpu::ConcatPart &part : args.parts)
    argument.width += part.width;
  std::vector<Launch> result;
  size_t column = 0;
  for (size_t first = 0; first < args.parts.size() && args.rows != 0; first += kConcatParts) {
    size_t count = std::min<size_t>(kConcatParts, args.parts.size() - first);
    for (size_t i = 0; i < count; ++i) {
      const cpu::ConcatPart &part = args.parts[first + i];
      argument.parts[i] = {part.x, part.width, column};
      column += part.width;
    }
    result.push_back(rows("helix_concat", args.rows, count, kThreads, argument));
  }
  return result;
}

std::vector<Launch> launches(const cpu::KvAppendArgs &args, const DeviceShape &) {
  if (cpu::kvAppendItems(args) == 0 || args.cache.heads == 0)
    return {};
  return {rows("helix_kv_append", cpu::kvAppendItems(args), args.cache.heads, 128, args)};
}

std::vector<Launch> launches(const KvFillArgs &args, const DeviceShape &) {
  const KvCache &cache = args.cache;
  uint64_t held = cpu::kvLocalLength(args.tokens, cache.rank, cache.block, cache.kvp);
  if (held == 0 || cache.heads == 0)
    return {};
  return {rows("helix_kv_fill", divideUp(held, cache.block), cache.heads, kThreads, args)};
}

std::vector<Launch> launches(const cpu::MergeArgs &args, const DeviceShape &) {
  if (cpu::mergeItems(args) == 0 || args.valueDim == 0)
    return {};
  MergeArgument argument = {};
  argument.alongTokens = args.alongTokens;
  argument.y = args.y;
  argument.sinks = args.sinks;
  argument.peers = args.peers;
  argument.batch = args.batch;
  argument.tokens = args.tokens;
  argument.heads = args.heads;
  argument.valueDim = args.valueDim;
  std::vector<Launch> result;
  uint32_t begin = 0;
  for (size_t first = 0; first < args.chunks.size(); first += kMergeChunks) {
    argument.chunkCount = uint32_t(std::min<size_t>(kMergeChunks, args.chunks.size() - first));
    uint32_t covered = 0;
    for (uint32_t i = 0; i < argument.chunkCount; ++i) {
      const cpu::MergeChunk &chunk = args.chunks[first + i];
      argument.chunks[i] = {chunk.stacked, begin, chunk.count};
      begin += chunk.count;
      covered += chunk.count;
    }
    uint64_t perUnit = args.alongTokens ? args.batch : args.tokens;
    if (covered != 0)
      result.push_back(rows("helix_merge_attention", covered * perUnit * args.heads, 1,
                            std::clamp(roundUp(args.valueDim, 32u), 32u, kThreads), argument));
  }
  return result;
}

std::vector<Launch> launches(const ReduceArgs &args, const DeviceShape &) {
  std::vector<Launch> result;
  // A later launch goes on with what the one before left in `out`.
  for (size_t first = 0; first < args.buffers.size() && args.elements != 0;) {
    ReduceArgument argument = {};
    if (first != 0)
      argument.buffers[argument.count++] = args.out;
    while (argument.count < kReduceBuffers && first < args.buffers.size())
      argument.buffers[argument.count++] = args.buffers[first++];
    argument.out = args.out;
    argument.elements = args.elements;
    result.push_back(rows("helix_reduce_ordered", divideUp(args.elements, kThreads), 1, kThreads, argument));
  }
  return result;
}

std::vector<Launch> launches(const SplitRowsArgs &args, const DeviceShape &) {
  if (args.rows == 0 || args.k == 0)
    return {};
  return {launchOf(ImageId::Rows, "helix_split_rows", {uint32_t(args.rows), 1, 1}, {kThreads, 1, 1},
                   kThreads * uint32_t(sizeof(float)), args)};
}

std::vector<Launch> launches(const ScaleRowsArgs &args, const DeviceShape &) {
  return perElement("helix_scale_rows", args.rows, args.n, args);
}

std::vector<Launch> launches(const PackArgs &args, const DeviceShape &) {
  if (args.n == 0 || args.k == 0)
    return {};
  // The grid's y is limited; blocks go on with later rows.
  auto x = uint32_t(divideUp(linearStride(args.k, args.dtype), 32));
  auto y = uint32_t(std::min<size_t>(divideUp(args.n, 32), 65535));
  return {launchOf(ImageId::Rows, "helix_pack_weight", {x, y, 1}, {32, 8, 1},
                   32 * 33 * uint32_t(cpu::elementBytes(args.dtype)), args)};
}

std::vector<Launch> launches(const LinkArgs &args, const DeviceShape &) {
  if (args.peers == 0)
    return {};
  return {launchOf(ImageId::Link, args.waits ? "helix_link_end" : "helix_link_begin", {1, 1, 1}, {32, 1, 1}, 0, args)};
}

std::vector<Launch> launches(const BestTokenArgs &args, const DeviceShape &) {
  if (args.rows == 0)
    return {};
  constexpr uint32_t threads = 1024;
  return {launchOf(ImageId::Sampling, "helix_best_token", {uint32_t(args.rows), 1, 1}, {threads, 1, 1},
                   threads * uint32_t(sizeof(int64_t) + sizeof(float)), args)};
}

std::vector<Launch> launches(const DrawArgs &args, const DeviceShape &) {
  if (args.rows == 0 || args.count == 0)
    return {};
  constexpr uint32_t shared = kDrawThreads * uint32_t(sizeof(DrawSum));
  static_assert(kDrawThreads / 64 * cpu::kListed * sizeof(uint64_t) <= shared);
  auto rows = uint32_t(args.rows), chunks = uint32_t(drawChunks(args.count));
  return {launchOf(ImageId::Sampling, "helix_draw_chunk", {chunks, rows, 1}, {kDrawThreads, 1, 1}, shared, args),
          launchOf(ImageId::Sampling, "helix_draw_row", {rows, 1, 1}, {kDrawThreads, 1, 1}, shared, args)};
}

} // namespace helix::cuda
