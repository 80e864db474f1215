//===- LinearLaunch.cpp - From arguments to launches of products -----------===//
#include "runtime/Cuda/Kernels/Geometry.h"
#include "runtime/Cuda/Kernels/LinearShapes.h"

#include <algorithm>

namespace helix::cuda {
namespace {

size_t scratchBytes(uint32_t slices, size_t rows, size_t n) {
  return slices == 1 ? 0 : slices * rows * n * sizeof(float);
}

LinearShape shapeOf(const LinearQuantizedArgs &args) {
  return linearQuantizedShape(args.rows, args.n, quantRuns(args.format, args.share).count);
}

/// What the launches of a product have in common.
struct Plan {
  ImageId image;
  const char *kernel;
  LinearShape shape;
  uint32_t sharedBytes;
};

Plan planOf(const LinearArgs &args, bool isGrouped) {
  LinearShape shape = linearShape(args.rows, args.k, args.n, args.dtype);
  if (args.dtype == DType::F32)
    return {ImageId::Linear, isGrouped ? "helix_linear_grouped_f32" : "helix_linear_f32", shape, 0};
  static constexpr const char *kernels[2][2][2] = {
      {{"helix_linear_f16_1_1", "helix_linear_f16_1_2"}, {"helix_linear_f16_2_1", "helix_linear_f16_2_2"}},
      {{"helix_linear_bf16_1_1", "helix_linear_bf16_1_2"}, {"helix_linear_bf16_2_1", "helix_linear_bf16_2_2"}}};
  const bool isBFloat = args.dtype == DType::BF16;
  const char *kernel = kernels[isBFloat][shape.columns / 32][shape.rows / 16];
  if (isGrouped) {
    // An expert has few rows, and few columns.
    shape.rows = 8, shape.columns = 16;
    kernel = isBFloat ? "helix_linear_grouped_bf16" : "helix_linear_grouped_f16";
  }
  return {ImageId::Linear, kernel, shape, kLinearWarps * shape.columns * shape.rows * uint32_t(sizeof(float))};
}

Plan planOf(const LinearQuantizedArgs &args, bool isGrouped) {
  // By rows of a tile / 16, then of experts.
  static constexpr const char *kernels[5][3] = {
      {"helix_linear_q2_1", "helix_linear_q2_2", "helix_linear_grouped_q2"},
      {"helix_linear_q4_1", "helix_linear_q4_2", "helix_linear_grouped_q4"},
      {"helix_linear_q8_1", "helix_linear_q8_2", "helix_linear_grouped_q8"},
      {"helix_linear_fp4_1", "helix_linear_fp4_2", "helix_linear_grouped_fp4"},
      {"helix_linear_fp8_1", "helix_linear_fp8_2", "helix_linear_grouped_fp8"}};
  LinearShape shape = shapeOf(args);
  if (isGrouped)
    shape.rows = 8;
  const uint32_t which = args.format.bits / 4 + (args.format.isFloat ? 2 : 0);
  // Runs on their way, and then the warps' tiles.
  uint32_t shared = kLinearWarps * std::max(kQuantDepth * quantRunBytes(args.format.bits),
                                            shape.columns * shape.rows * uint32_t(sizeof(float)));
  return {ImageId::LinearQuantized, kernels[which][isGrouped ? 2 : shape.rows / 16], shape, shared};
}

/// The product of tiles and slices, and then the sum of the slices.
template <typename Argument, typename Args>
std::vector<Launch> product(const Args &args, const LinearGroups *groups, const DeviceShape &device) {
  if (args.rows == 0 || args.n == 0)
    return {};
  auto [image, kernel, shape, shared] = planOf(args, groups != nullptr);
  Argument argument{args, shape.slices == 1 ? args.y : static_cast<float *>(args.scratch), shape.slices,
                    groups ? *groups : LinearGroups()};
  // Tiles of rows next to each other, so that they meet in the second-level cache.
  std::array<uint32_t, 3> grid = {uint32_t(groups ? args.rows : divideUp(args.rows, size_t(shape.rows))),
                                  uint32_t(divideUp(args.n, size_t(shape.columns))), shape.slices};
  std::vector<Launch> result = {launchOf(image, kernel, grid, {kLinearWarps * 32, 1, 1}, shared, argument)};
  if (shape.slices == 1)
    return result;
  const float *slices[8];
  for (uint32_t i = 0; i < shape.slices; ++i)
    slices[i] = argument.out + i * args.rows * args.n;
  for (Launch &launch : launches(ReduceArgs{args.y, {slices, shape.slices}, args.rows * args.n}, device))
    result.push_back(std::move(launch));
  return result;
}

} // namespace

size_t linearScratchBytes(const LinearArgs &args) {
  return scratchBytes(linearShape(args.rows, args.k, args.n, args.dtype).slices, args.rows, args.n);
}

size_t linearScratchBytes(const LinearQuantizedArgs &args) {
  return scratchBytes(shapeOf(args).slices, args.rows, args.n);
}

std::vector<Launch> launches(const LinearArgs &args, const DeviceShape &device) {
  return product<LinearArgument>(args, nullptr, device);
}

std::vector<Launch> launches(const LinearQuantizedArgs &args, const DeviceShape &device) {
  return product<LinearQuantizedArgument>(args, nullptr, device);
}

std::vector<Launch> launches(const LinearGroupedArgs &args, const DeviceShape &device) {
  return product<LinearArgument>(static_cast<const LinearArgs &>(args), &args.groups, device);
}

std::vector<Launch> launches(const LinearQuantizedGroupedArgs &args, const DeviceShape &device) {
  return product<LinearQuantizedArgument>(static_cast<const LinearQuantizedArgs &>(args), &args.groups, device);
}

} // namespace helix::cuda
