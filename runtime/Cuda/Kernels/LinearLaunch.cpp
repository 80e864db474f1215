//===- LinearLaunch.cpp - From arguments to launches of products -----------===//
#include "runtime/Cuda/Kernels/Geometry.h"
#include "runtime/Cuda/Kernels/LinearShapes.h"

namespace helix::cuda {

size_t linearScratchBytes(const LinearArgs &args) {
  uint32_t slices = linearShape(args.rows, args.k, args.n, args.dtype).slices;
  return slices == 1 ? 0 : slices * args.rows * args.n * sizeof(float);
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
  auto *partial = static_cast<float *>(args.scratch);
  LinearArgument argument{args, shape.slices == 1 ? args.y : partial, shape.slices};
  // Tiles of rows next to each other, so that they meet in the second-level cache.
  std::array<uint32_t, 3> grid = {uint32_t(divideUp(args.rows, size_t(shape.rows))),
                                  uint32_t(divideUp(args.n, size_t(shape.columns))), shape.slices};
  std::vector<Launch> result = {launchOf(ImageId::Linear, kernel, grid, {kLinearWarps * 32, 1, 1}, shared, argument)};
  if (shape.slices == 1)
    return result;
  const float *slices[8];
  for (uint32_t i = 0; i < shape.slices; ++i)
    slices[i] = partial + i * args.rows * args.n;
  for (Launch &launch : launches(ReduceArgs{args.y, {slices, shape.slices}, args.rows * args.n}, device))
    result.push_back(std::move(launch));
  return result;
}

} // namespace helix::cuda
