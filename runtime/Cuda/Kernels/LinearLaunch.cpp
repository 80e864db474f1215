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

/// The product of tiles and slices, and then the sum of the slices.
template <typename Argument>
std::vector<Launch> tiles(ImageId image, const char *kernel, const LinearShape &shape, uint32_t shared,
                          const Argument &argument, const DeviceShape &device) {
  const auto &args = argument.args;
  // Tiles of rows next to each other, so that they meet in the second-level cache.
  std::array<uint32_t, 3> grid = {uint32_t(divideUp(args.rows, size_t(shape.rows))),
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
  if (args.rows == 0 || args.n == 0)
    return {};
  LinearShape shape = linearShape(args.rows, args.k, args.n, args.dtype);
  const char *kernel = "helix_linear_f32";
  uint32_t shared = 0;
  if (args.dtype != DType::F32) {
    static constexpr const char *kernels[2][2][2] = {
        {{"helix_linear_f16_1_1", "helix_linear_f16_1_2"}, {"helix_linear_f16_2_1", "helix_linear_f16_2_2"}},
        {{"helix_linear_bf16_1_1", "helix_linear_bf16_1_2"}, {"helix_linear_bf16_2_1", "helix_linear_bf16_2_2"}}};
    kernel = kernels[args.dtype == DType::BF16][shape.columns / 32][shape.rows / 16];
    shared = kLinearWarps * shape.columns * shape.rows * uint32_t(sizeof(float));
  }
  LinearArgument argument{args, shape.slices == 1 ? args.y : static_cast<float *>(args.scratch), shape.slices};
  return tiles(ImageId::Linear, kernel, shape, shared, argument, device);
}

std::vector<Launch> launches(const LinearQuantizedArgs &args, const DeviceShape &device) {
  if (args.rows == 0 || args.n == 0)
    return {};
  static constexpr const char *kernels[3][2] = {{"helix_linear_q2_1", "helix_linear_q2_2"},
                                                {"helix_linear_q4_1", "helix_linear_q4_2"},
                                                {"helix_linear_q8_1", "helix_linear_q8_2"}};
  LinearShape shape = shapeOf(args);
  const char *kernel = kernels[args.format.bits / 4][shape.rows / 16];
  // Runs on their way, and then the warps' tiles.
  uint32_t shared = kLinearWarps * std::max(kQuantDepth * quantRunBytes(args.format.bits),
                                            shape.columns * shape.rows * uint32_t(sizeof(float)));
  LinearQuantizedArgument argument{args, shape.slices == 1 ? args.y : static_cast<float *>(args.scratch), shape.slices};
  return tiles(ImageId::LinearQuantized, kernel, shape, shared, argument, device);
}

} // namespace helix::cuda
