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
#include <limits>

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

//===-----------------------------------------------------------------------===//
// What a device lists of a row that stays there
//===-----------------------------------------------------------------------===//

/// Tokens of a rank that a list has at most.
inline constexpr uint32_t kListed = 64;

/// What is asked of a rank's row of logits.
struct Draw {
  double scale = 1; ///< 1 / temperature
  uint64_t seed = 0, sequence = 0;
  uint32_t position = 0;
  bool firsts = false;    ///< the first tokens
  bool likeliest = false; ///< the tokens of the largest scale * logit + gumbelNoise
  bool shares = false;    ///< what the tokens before `boundValue` and `boundId` weigh, and how many they are
  /// All, unless told otherwise.
  float boundValue = -std::numeric_limits<float>::infinity();
  int64_t boundId = std::numeric_limits<int64_t>::max();
  bool operator==(const Draw &) const = default;
};

/// A share of the tokens before a bound.
struct Share {
  Normalizer weight; ///< `max` is that of all tokens of the rank
  uint64_t count = 0;
};

/// A list of the likeliest is in the order of scores that may be rounded: what comes after one of score `score`, or is
/// not listed at all, exceeds it by less than this. That is twice what is lost where such a score is rounded to f32 and
/// its noise is wrong by 2e-5, and as much again.
constexpr double listedError(double score) { return 1e-4 + (score < 0 ? -score : score) * 0x1p-21; }

/// The relative error of a share's sum in f64, whatever its order, of up to 2^20 tokens, with room to spare.
inline constexpr double kShareError = 1e-9;

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_SAMPLING_H
