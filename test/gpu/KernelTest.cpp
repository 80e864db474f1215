//===- KernelTest.cpp - The kernel tests' program for a GPU ----------------===//
//
// Ends with 77, which ctest and scripts/gpu-check.sh count as skipped, where there is no GPU.
//
//===-----------------------------------------------------------------------===//
#include "GpuMachine.h"
#include "runtime/Error.h"

#include "gtest/gtest.h"

#include <cstdio>

int main(int argc, char **argv) {
  ::testing::InitGoogleTest(&argc, argv);
  try {
    std::printf("on %s\n", helix::cuda::test::gpuMachine().name().c_str());
  } catch (const helix::Error &error) {
    bool none = error.code() == helix::ErrorCode::CudaUnavailable;
    std::fprintf(stderr, "%s%s\n", none ? "skipped, there is no GPU: " : "", error.what());
    return none ? 77 : 1;
  }
  return RUN_ALL_TESTS();
}
