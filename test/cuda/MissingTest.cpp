//===- MissingTest.cpp - What a build has no kernels for --------------------===//
#include "lib/Artifact/Writer.h"
#include "runtime/Core/Session.h"
#include "runtime/Cuda/Kernels.h"
#include "test/unit/Core/TinyModel.h"

#include <gtest/gtest.h>

#include <cstdlib>

using namespace helix;
using namespace helix::test;

namespace {

TEST(CudaDevice, NeedsTheKernelsOfTheToolkit) {
  TinyModel model;
  TemporaryDirectory directory;
  std::string cpu = writeTiny(directory, model, {});
  artifact::ArtifactT gpu = tinyArtifact(model, {});
  for (auto &image : gpu.images) {
    image->triple = "nvptx64-nvidia-cuda";
    image->features = "ptx_80";
  }
  artifact::Error error;
  ASSERT_TRUE(artifact::writeArtifact(gpu, directory.file("gpu.hlx"), error)) << error.message;
  ::setenv("HELIX_LIBCUDA", HELIX_EMULATED_CUDA, 1);
  ::setenv("HELIX_EMULATED_KERNELS", cpu.c_str(), 1);
  ErrorCode code = ErrorCode(0);
  try {
    Session session(directory.file("gpu.hlx"));
  } catch (const Error &refused) {
    code = refused.code();
  }
  EXPECT_EQ(code, cuda::kernelImages().empty() ? ErrorCode::KernelsMissing : ErrorCode(0));
}

} // namespace
