//===- Function.h - Calling a stateless artifact ---------------------------===//
#ifndef HELIX_RUNTIME_CORE_FUNCTION_H
#define HELIX_RUNTIME_CORE_FUNCTION_H

#include "runtime/Core/Executor.h"
#include "runtime/Error.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace helix {

struct FunctionOptions {
  std::string weightsRoot = {}; ///< empty: the artifact's directory
  unsigned threads = 0;         ///< 0: as many as there are cores
};

/// A stateless artifact, loaded: give inputs, run, take outputs. Functions throw Error. Not for several threads at
/// once.
class Function {
public:
  /// Reads, verifies and loads. Throws EntryMissing if the artifact is a decoder.
  explicit Function(const std::string &path, const FunctionOptions &options = {});

  const artifact::Entry &signature() const { return *file->entries()->Get(0); }
  const artifact::Artifact &artifact() const { return *file; }

  /// Elements of input or output `index` at the type that its port says, row-major.
  void setInput(uint32_t index, std::span<const std::byte> elements);
  void getOutput(uint32_t index, std::span<std::byte> elements) const;

  /// Throws InputOutOfRange if an index among the inputs is.
  void run() { executor->run(0); }

private:
  artifact::LoadedArtifact file;
  RankLayout layout;
  Images images;
  std::vector<StepInputs> inputs;
  std::unique_ptr<Executor> executor;
  std::vector<std::unique_ptr<Communicator>> communicators;
};

/// Whether the file at `path` is a stateless artifact. Throws if it is none at all.
bool isStatelessArtifact(const std::string &path);

} // namespace helix

#endif // HELIX_RUNTIME_CORE_FUNCTION_H
