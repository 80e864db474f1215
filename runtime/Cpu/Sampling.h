//===- Sampling.h - Primitives of sampling over a row of local logits ------===//
//
// A rank holds logits of the ids firstId … firstId + count - 1; what the ranks gather is small: their best candidates
// and their share of the softmax normaliser.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_SAMPLING_H
#define HELIX_RUNTIME_CPU_SAMPLING_H

#include <cstddef>
#include <cstdint>

namespace helix::cpu {

struct Candidate {
  float value = 0;
  int64_t id = 0;
};

/// Whether `a` comes before `b`: larger value first, equal values by smaller id, NaN before every number so that it
/// shows.
bool comesBefore(const Candidate &a, const Candidate &b);

/// Writes the first min(limit, count) candidates, in order, to `out` and returns how many.
size_t topCandidates(const float *logits, size_t count, int64_t firstId, size_t limit, Candidate *out);

/// max_i and sum_i exp(scale * (x_i - max)): a share of the softmax normaliser. Of no logits: -inf and 0.
struct Normalizer {
  float max = 0;
  double sum = 0;
};

/// The share of `count` logits under `scale` (1 / temperature, > 0). The sum is NaN if there is a NaN or
/// +inf among them.
Normalizer normalizer(const float *logits, size_t count, double scale);

/// The normaliser of both shares. Merge in ascending rank so that every rank gets the same bits.
Normalizer mergeNormalizers(const Normalizer &a, const Normalizer &b, double scale);

/// log(sum_i exp(scale * x_i)).
double logSumExp(const Normalizer &normalizer, double scale);

/// Standard Gumbel noise of a token: -log(-log(u)), u in (0, 1) from 52 bits of Philox4x32-10 (Salmon et al., SC 2011)
/// with key `seed` and counter (token id, position, sequence). The same on every mesh, for every batch and thread.
double gumbelNoise(uint64_t seed, uint64_t sequence, uint32_t position, uint32_t tokenId);

/// Philox4x32-10.
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_SAMPLING_H
