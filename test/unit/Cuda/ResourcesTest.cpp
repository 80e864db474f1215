//===- ResourcesTest.cpp - What ptxas said of the kernels ------------------===//
#include "runtime/Cuda/Kernels.h"

#include "gtest/gtest.h"

#include <fstream>
#include <map>
#include <regex>
#include <string>

namespace helix::cuda {
namespace {

#ifdef HELIX_CUDA_LOGS

struct Resources {
  int stackBytes = -1, spilledBytes = -1, registers = -1;
};

/// By kernel and architecture: "helix_concat sm_80".
std::map<std::string, Resources> resourcesOf(const std::string &image) {
  std::ifstream log(HELIX_CUDA_LOGS + image + ".log");
  std::map<std::string, Resources> all;
  const std::regex kernel("Compiling entry function '(\\w+)' for '(\\w+)'");
  const std::regex memory("(\\d+) bytes stack frame, (\\d+) bytes spill stores, (\\d+) bytes spill loads");
  const std::regex registers("Used (\\d+) registers");
  std::string line;
  Resources *current = nullptr;
  for (std::smatch match; std::getline(log, line);) {
    if (std::regex_search(line, match, kernel))
      current = &all[match[1].str() + " " + match[2].str()];
    else if (current && std::regex_search(line, match, memory)) {
      current->stackBytes = std::stoi(match[1]);
      current->spilledBytes = std::stoi(match[2]) + std::stoi(match[3]);
    } else if (current && std::regex_search(line, match, registers))
      current->registers = std::stoi(match[1]);
  }
  return all;
}

TEST(CudaResources, KernelsSpillNothing) {
  for (const KernelImage &image : kernelImages()) {
    std::map<std::string, Resources> all = resourcesOf(image.name);
    EXPECT_FALSE(all.empty()) << image.name;
    for (const auto &[kernel, resources] : all)
      EXPECT_EQ(resources.spilledBytes, 0) << kernel;
  }
}

TEST(CudaResources, AttentionStaysInRegistersOnEveryArchitecture) {
  std::map<std::string, Resources> all = resourcesOf("AttentionTensor");
  for (const char *dtype : {"f16", "bf16", "int8", "fp8"})
    for (const char *dim : {"64", "80", "96", "128", "256"})
      for (const char *architecture : {"sm_80", "sm_90a", "sm_100"}) {
        std::string kernel = std::string("helix_attention_") + dtype + "_" + dim + " " + architecture;
        ASSERT_TRUE(all.contains(kernel)) << kernel;
        EXPECT_EQ(all[kernel].stackBytes, 0) << kernel;
        // Two blocks of 128 threads on a multiprocessor, as their launches count on.
        EXPECT_LE(all[kernel].registers, 256) << kernel;
        EXPECT_GT(all[kernel].registers, 0) << kernel;
      }
}

TEST(CudaResources, LatentAttentionStaysInRegistersOnEveryArchitecture) {
  std::map<std::string, Resources> all = resourcesOf("AttentionLatent");
  for (const char *dtype : {"f16", "bf16"})
    for (const char *architecture : {"sm_80", "sm_90a", "sm_100"}) {
      std::string kernel = std::string("helix_attention_") + dtype + "_latent " + architecture;
      ASSERT_TRUE(all.contains(kernel)) << kernel;
      EXPECT_EQ(all[kernel].stackBytes, 0) << kernel;
      EXPECT_LE(all[kernel].registers, 128) << kernel; // two blocks of 256 threads
    }
}

TEST(CudaResources, ImagesAreFatBinaries) {
  ASSERT_FALSE(kernelImages().empty());
  for (const KernelImage &image : kernelImages()) {
    // FATBIN_MAGIC of CUDA's fatbinary_section.h.
    const auto *bytes = reinterpret_cast<const uint8_t *>(image.code.data());
    EXPECT_EQ(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t(bytes[3]) << 24, 0xba55ed50u) << image.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes) % 8, 0u);
  }
}

#else

TEST(CudaResources, ThereAreNoImagesWithoutTheToolkit) { EXPECT_TRUE(kernelImages().empty()); }

#endif

} // namespace
} // namespace helix::cuda
