//===- AttentionLaunch.cpp - From arguments to launches of attention -------===//
#include "runtime/Cuda/Kernels/AttentionShapes.h"
#include "runtime/Cuda/Kernels/Geometry.h"

#include <algorithm>

namespace helix::cuda {
namespace {

/// The place of a cache's type in lists of kernels, [f32, f16, bf16, int8, fp8].
size_t indexOf(DType dtype) {
  switch (dtype) {
  case DType::F32:
    return 0;
  case DType::F16:
    return 1;
  case DType::BF16:
    return 2;
  case DType::I8:
    return 3;
  case DType::F8E4M3:
    break;
  }
  return 4;
}

/// The tensor-core kernel for a cache, or null.
const char *tensorKernel(const KvCache &cache) {
  struct Variant {
    uint32_t dim;
    const char *kernels[5];
  };
#define HELIX_VARIANT(dim)                                                                                             \
  {                                                                                                                    \
    dim, {                                                                                                             \
      nullptr, "helix_attention_f16_" #dim, "helix_attention_bf16_" #dim, "helix_attention_int8_" #dim,                \
          "helix_attention_fp8_" #dim                                                                                  \
    }                                                                                                                  \
  }
  static constexpr Variant variants[] = {HELIX_VARIANT(64), HELIX_VARIANT(80), HELIX_VARIANT(96), HELIX_VARIANT(128),
                                         HELIX_VARIANT(256)};
  // Runs of tokens must not straddle pages.
  if (cache.keyDim != cache.valueDim || cache.block % kGroupTokens != 0)
    return nullptr;
  for (const Variant &variant : variants)
    if (variant.dim == cache.keyDim)
      return variant.kernels[indexOf(cache.dtype)];
  return nullptr;
}

/// The kernel of any shape.
const char *anyKernel(DType dtype) {
  static constexpr const char *kernels[] = {"helix_attention_f32_any", "helix_attention_f16_any",
                                            "helix_attention_bf16_any", "helix_attention_int8_any",
                                            "helix_attention_fp8_any"};
  return kernels[indexOf(dtype)];
}

struct Choice {
  ImageId image;
  const char *kernel;
  uint32_t tileRows, threads, sharedBytes;
  uint32_t mostBlocks; ///< of a multiprocessor
};

Choice choose(const cpu::AttentionArgs &args, const DeviceShape &device) {
  const KvCache &cache = args.cache;
  bool is16Bits = cache.dtype == DType::F16 || cache.dtype == DType::BF16;
  if (uint32_t shared = latentSharedBytes(args.batchCount);
      is16Bits && cache.keyDim == kLatentKeyDim && cache.valueDim == kLatentValueDim &&
      cache.block % kGroupTokens == 0 && shared <= device.sharedBytesPerBlock)
    return {ImageId::AttentionLatent,
            cache.dtype == DType::F16 ? "helix_attention_f16_latent" : "helix_attention_bf16_latent",
            kTensorRows,
            kLatentWarps * 32,
            shared,
            kLatentBlocks};
  if (const char *kernel = tensorKernel(cache))
    return {ImageId::AttentionTensor,
            kernel,
            kTensorRows,
            kTensorWarps * 32,
            tensorSharedBytes(cache.keyDim, uint32_t(cpu::elementBytes(cache.dtype)), args.batchCount),
            kTensorBlocks};
  return {ImageId::Attention,
          anyKernel(cache.dtype),
          kAnyRows,
          kAnyThreads,
          anySharedBytes(cache.keyDim, cache.valueDim, args.batchCount),
          kAnyBlocks};
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
  Choice choice = choose(args, device);
  AttentionArgument argument{args, partCapacity(args), tilesOf(args, choice.tileRows)};
  uint64_t items = uint64_t(args.batchCount) * argument.capacity * cache.heads * argument.tiles;
  if (items != 0) {
    // As many blocks as run at once; the driver keeps 1 KiB for each.
    uint64_t fit = std::max(1u, device.sharedBytesPerMultiprocessor / (choice.sharedBytes + 1024));
    uint64_t blocks = std::min(items, device.multiprocessors * std::min<uint64_t>(fit, choice.mostBlocks));
    result.push_back(launchOf(choice.image, choice.kernel, {uint32_t(blocks), 1, 1}, {choice.threads, 1, 1},
                              choice.sharedBytes, argument));
  }
  uint32_t shared = (2 * argument.capacity + kFinishShares * cache.valueDim) * uint32_t(sizeof(float));
  result.push_back(launchOf(ImageId::Attention, "helix_attention_finish", {uint32_t(rows), args.paddedHeads, 1},
                            {kFinishThreads, kFinishShares, 1}, shared, argument));
  return result;
}

} // namespace helix::cuda
