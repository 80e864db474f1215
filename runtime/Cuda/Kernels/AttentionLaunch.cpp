//===- AttentionLaunch.cpp - From arguments to launches of attention -------===//
#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/Geometry.h"

#include <algorithm>

namespace helix::cuda {
namespace {

/// The tensor-core kernel for a cache, or null.
const char *tensorKernel(const KvCache &cache) {
  struct Variant {
    uint32_t dim;
    const char *f16, *bf16;
  };
  static constexpr Variant variants[] = {{64, "helix_attention_f16_64", "helix_attention_bf16_64"},
                                         {80, "helix_attention_f16_80", "helix_attention_bf16_80"},
                                         {96, "helix_attention_f16_96", "helix_attention_bf16_96"},
                                         {128, "helix_attention_f16_128", "helix_attention_bf16_128"},
                                         {256, "helix_attention_f16_256", "helix_attention_bf16_256"}};
  // Runs of tokens must not straddle pages.
  if (cache.dtype == DType::F32 || cache.keyDim != cache.valueDim || cache.block % kGroupTokens != 0)
    return nullptr;
  for (const Variant &variant : variants)
    if (variant.dim == cache.keyDim)
      return cache.dtype == DType::F16 ? variant.f16 : variant.bf16;
  return nullptr;
}

/// The kernel of any shape.
const char *anyKernel(DType dtype) {
  if (dtype == DType::F32)
    return "helix_attention_f32_any";
  return dtype == DType::F16 ? "helix_attention_f16_any" : "helix_attention_bf16_any";
}

} // namespace

size_t attentionScratchBytes(const cpu::AttentionArgs &args) {
  AttentionArgument argument{{args}, partCapacity(args), 0};
  return argument.capacity == 1 ? 0 : argument.scratchRows() * (size_t(args.cache.valueDim) + 1) * sizeof(float);
}

std::vector<Launch> launches(const AttentionArgs &args, const DeviceShape &device) {
  const KvCache &cache = args.cache;
  uint64_t rows = uint64_t(args.batchCount) * args.tokenCount;
  if (rows == 0 || args.paddedHeads == 0)
    return {};
  std::vector<Launch> result;
  const char *tensor = tensorKernel(cache);
  AttentionArgument argument{args, partCapacity(args), tilesOf(args, tensor ? kTensorRows : kAnyRows)};
  uint64_t items = uint64_t(args.batchCount) * argument.capacity * cache.heads * argument.tiles;
  if (items != 0) {
    uint32_t shared = tensor ? tensorSharedBytes(cache.keyDim, args.batchCount)
                             : anySharedBytes(cache.keyDim, cache.valueDim, args.batchCount);
    // As many blocks as run at once; the driver keeps 1 KiB for each. Registers allow no fewer than two.
    uint64_t perMultiprocessor = std::max(1u, device.sharedBytesPerMultiprocessor / (shared + 1024));
    uint64_t blocks = std::min(items, device.multiprocessors * std::min<uint64_t>(perMultiprocessor, tensor ? 2 : 8));
    result.push_back(launchOf(tensor ? ImageId::AttentionTensor : ImageId::Attention,
                              tensor ? tensor : anyKernel(cache.dtype), {uint32_t(blocks), 1, 1},
                              {tensor ? kTensorWarps * 32 : kAnyThreads, 1, 1}, shared, argument));
  }
  uint32_t shared = (2 * argument.capacity + kFinishShares * cache.valueDim) * uint32_t(sizeof(float));
  result.push_back(launchOf(ImageId::Attention, "helix_attention_finish", {uint32_t(rows), args.paddedHeads, 1},
                            {kFinishThreads, kFinishShares, 1}, shared, argument));
  return result;
}

} // namespace helix::cuda
