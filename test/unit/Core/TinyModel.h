//===- TinyModel.h - A decoder small enough to work out by hand ------------===//
#ifndef HELIX_TEST_UNIT_CORE_TINYMODEL_H
#define HELIX_TEST_UNIT_CORE_TINYMODEL_H

#include "lib/Artifact/Artifact_generated.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace helix::test {

/// Random weights of a two-layer decoder: RMS norm, RoPE, GQA, gated FFN. Its sharpest attention is not uniform: scores
/// spread over several units.
struct TinyModel {
  static constexpr uint64_t hidden = 16, heads = 4, kvHeads = 2, dim = 4, ffn = 12, vocabulary = 37, layers = 2;
  static constexpr uint64_t positions = 64, block = 4;

  struct Tensor {
    std::vector<uint64_t> shape;
    std::vector<float> values;
    uint64_t offset = 0; ///< bytes in the weight file
  };
  std::map<std::string, Tensor> tensors;

  explicit TinyModel(unsigned seed = 1);

  /// All tensors, one after the other.
  std::vector<float> fileContents() const;

  /// Logits after each of the ids, in f64: the whole sequence at once, without a cache.
  std::vector<std::vector<double>> logits(const std::vector<int64_t> &ids) const;
};

struct TinyOptions {
  uint32_t tpa = 1, kvp = 1;
  uint32_t slots = 3;
  uint32_t capacity = 48; ///< of a slot; a multiple of 4 * kvp
  uint32_t chunk = 8;     ///< of prefill; 0: no prefill entry; else 8
  artifact::LogitRows prefillLogits = artifact::LogitRows::Last;
  artifact::DType weights = artifact::DType::F32, cache = artifact::DType::F32;
  artifact::KvScaling scaling = artifact::KvScaling::None; ///< of a cache of codes; the scale of Tensor is 1/16
  /// 0: one stream. Else exchanges are on a second one: attention goes in so many chunks, of sequences when it decodes
  /// and of query tokens when it prefills, or fewer where there are not as many; and the output projection in two.
  uint32_t chunks = 0;
};

/// The artifact that a compiler would write of the model; the weights' file is model.bin.
artifact::ArtifactT tinyArtifact(const TinyModel &model, const TinyOptions &options);

/// A directory that is removed at the end.
struct TemporaryDirectory {
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string file(const std::string &name) const { return (path / name).string(); }
  std::filesystem::path path;
};

void writeFile(const std::string &path, const void *bytes, size_t count);

/// Writes model.hlx and model.bin to the directory and returns the former's path.
std::string writeTiny(const TemporaryDirectory &directory, const TinyModel &model, const TinyOptions &options);

} // namespace helix::test

#endif // HELIX_TEST_UNIT_CORE_TINYMODEL_H
