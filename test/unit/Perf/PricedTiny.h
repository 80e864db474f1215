//===- PricedTiny.h - An artifact with costs, for the simulator ------------===//
#ifndef HELIX_TEST_UNIT_PERF_PRICEDTINY_H
#define HELIX_TEST_UNIT_PERF_PRICEDTINY_H

#include "lib/Artifact/Writer.h"
#include "lib/Perf/FromArtifact.h"
#include "test/unit/Core/TinyModel.h"

#include <gtest/gtest.h>

namespace helix::test {

/// Gives every command the cost that its operands have, attention what it reads of the cache.
inline void setCosts(artifact::ArtifactT &artifact) {
  for (auto &entry : artifact.entries)
    for (auto &command : entry->commands) {
      command->cost = std::make_unique<artifact::CostT>();
      for (auto *operands : {&command->inputs, &command->outputs})
        for (auto &operand : *operands)
          command->cost->bytes += double(operand->bytes);
      if (auto *embedding = command->work.AsEmbedding())
        command->cost->bytes = double(embedding->rows) * (8 + double(embedding->hidden) * 8);
      if (auto *append = command->work.AsKvAppend()) {
        command->cost->bytes = 0;
        command->cost->bytes_per_query = append->heads * 2.0 * append->key_dim / artifact.mesh->kvp * 8;
      }
      auto *attention = command->work.AsPartialAttention();
      if (!attention)
        continue;
      uint32_t count = attention->batch_count ? attention->batch_count : attention->batch;
      uint32_t tokens = attention->token_count ? attention->token_count : attention->tokens;
      double share = double(count) / attention->batch * tokens / attention->tokens;
      command->cost->bytes = 64;
      command->cost->bytes_per_query = 4.0 * attention->heads * attention->key_dim * share;
      command->cost->bytes_per_cached = double(count) * artifact.kv->layers[0]->heads * 2 * attention->key_dim * 4;
      command->cost->flops_per_query_cached = 4.0 * attention->heads * attention->key_dim * share;
    }
}

/// A tiny artifact on disk, read again.
struct Tiny {
  TemporaryDirectory directory;
  artifact::LoadedArtifact artifact;

  explicit Tiny(const TinyOptions &options, bool costs = true) {
    artifact::ArtifactT table = tinyArtifact(TinyModel(), options);
    if (costs)
      setCosts(table);
    for (auto &entry : table.entries)
      for (size_t i = 3; i < 9; ++i)
        if (i != 5)
          entry->commands[i]->source = i < 6 ? "/model/layers.0/x" : "/model/layers.11/x";
    perf::Error error;
    EXPECT_TRUE(artifact::writeArtifact(table, directory.file("t.hlx"), error)) << error.message;
    artifact = artifact::readArtifact(directory.file("t.hlx"), error);
    EXPECT_TRUE(artifact) << error.message;
  }

  perf::Program program(uint32_t entry, const perf::Lengths &lengths, const perf::Assumed &assumed = {},
                        uint32_t rank = 0) {
    perf::Program result;
    perf::Error error;
    EXPECT_TRUE(perf::programOf(*artifact, entry, lengths, assumed, rank, result, error)) << error.message;
    return result;
  }
};

} // namespace helix::test

#endif // HELIX_TEST_UNIT_PERF_PRICEDTINY_H
