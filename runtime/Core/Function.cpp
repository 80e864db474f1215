//===- Function.cpp - Calling a stateless artifact -------------------------===//
#include "runtime/Core/Function.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Comm/Inproc.h"
#include "runtime/Core/Affinity.h"
#include "runtime/Core/Layout.h"
#include "runtime/Cpu/Convert.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

namespace helix {
namespace {

artifact::LoadedArtifact readStateless(const std::string &path) {
  artifact::LoadedArtifact file = openArtifact(path);
  if (!artifact::isStateless(*file))
    throw Error(ErrorCode::EntryMissing, "the artifact is a decoder, not a stateless function");
  return file;
}

/// Calls `convert(element)` with a float element of the port's type; false if the port is not of floats.
template <typename Convert> bool withFloats(const artifact::Port &port, const Convert &convert) {
  if (port.dtype() > artifact::DType::BF16)
    return false;
  cpu::withElement(static_cast<cpu::DType>(port.dtype()), convert);
  return true;
}

} // namespace

bool isStatelessArtifact(const std::string &path) { return artifact::isStateless(*openArtifact(path)); }

Function::Function(const std::string &path, const FunctionOptions &options)
    : file(readStateless(path)), layout(layOut(*file)), images(*file) {
  std::filesystem::path root = options.weightsRoot.empty() ? std::filesystem::path(path).parent_path()
                                                           : std::filesystem::path(options.weightsRoot);
  unsigned threads = options.threads != 0 ? options.threads : cpusOfThread();
  inputs.emplace_back(signature());
  uint64_t needed = layout.needs(threads).total() + inputs.front().memory.size(), available = availableMemory();
  if (needed > available)
    throw Error(ErrorCode::MemoryExhausted,
                "the function needs " + formatBytes(needed) + ", " + formatBytes(available) + " are available");
  std::vector<Mapping> files;
  for (uint32_t i = 0; file->files() && i < file->files()->size(); ++i)
    files.push_back(
        Mapping::file((root / file->files()->Get(i)->path()->str()).string(), file->files()->Get(i)->bytes()));
  try {
    executor = std::make_unique<Executor>(*file, layout, 0, threads);
  } catch (const std::system_error &error) {
    throw Error(ErrorCode::SystemFailure, "cannot start " + std::to_string(threads) + " threads: " + error.what() +
                                              "; ask for fewer with --threads");
  }
  std::byte *segment = executor->segment();
  communicators = inprocCommunicators(meshOf(*file), std::span(&segment, 1), InprocOptions());
  std::atomic<uint64_t> done{0};
  executor->load(files, done);
  executor->bind(images, inputs, /*table=*/nullptr, *communicators.front());
}

void Function::setInput(uint32_t index, std::span<const std::byte> elements) {
  const artifact::Port &port = *signature().inputs()->Get(index);
  std::span<std::byte> to = inputs.front().parts[index];
  if (elements.size() != artifact::elementsOf(port) * artifact::elementBytes(port.dtype()))
    throw Error(ErrorCode::ArgumentInvalid, "an input does not have the bytes of its shape and type");
  bool done = withFloats(port, [&](auto element) {
    auto *floats = reinterpret_cast<float *>(to.data());
    for (size_t i = 0; i < artifact::elementsOf(port); ++i) {
      std::memcpy(&element, elements.data() + i * sizeof(element), sizeof(element));
      floats[i] = cpu::toFloat(element);
    }
  });
  if (!done)
    std::copy(elements.begin(), elements.end(), to.begin());
}

void Function::getOutput(uint32_t index, std::span<std::byte> elements) const {
  const artifact::Port &port = *signature().outputs()->Get(index);
  if (elements.size() != artifact::elementsOf(port) * artifact::elementBytes(port.dtype()))
    throw Error(ErrorCode::ArgumentInvalid, "an output does not have the bytes of its shape and type");
  const float *floats = executor->output(0, index);
  withFloats(port, [&](auto element) {
    for (size_t i = 0; i < artifact::elementsOf(port); ++i) {
      cpu::fromFloat(floats[i], element);
      std::memcpy(elements.data() + i * sizeof(element), &element, sizeof(element));
    }
  });
}

} // namespace helix
