//===- Sampler.h - The next token from sharded logits ----------------------===//
#ifndef HELIX_RUNTIME_CORE_SAMPLER_H
#define HELIX_RUNTIME_CORE_SAMPLER_H

#include "runtime/Cpu/Sampling.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace helix {

/// How a token is chosen. Tokens are ordered by logit, equal ones by id. top-k keeps the first k; top-p then keeps, of
/// those, the shortest prefix with at least p of their probability; of what is left one is drawn in proportion to its
/// probability at `temperature`.
struct Sampling {
  double temperature = 0; ///< 0: the first token
  uint32_t topK = 0;      ///< 0: all
  double topP = 1;        ///< in (0, 1]; 1: all
  uint64_t seed = 0;
};

/// Throws ArgumentInvalid unless temperature is 0 or at least 1e-6, and top-p in (0, 1].
void checkSampling(const Sampling &sampling);

/// A rank's part of a row of logits: the ids firstId … firstId + count - 1.
struct LocalLogits {
  const float *logits = nullptr;
  size_t count = 0;
  int64_t firstId = 0;
};

/// What a rank whose logits lie elsewhere lists of them.
struct Shortlist {
  size_t count = 0; ///< tokens of the rank
  /// The first of these as cpu::comesBefore orders them: min(count, cpu::kListed), if they were asked for.
  std::span<const cpu::Candidate> firsts;
  /// As many, of the highest scores, in the order of the scores within cpu::listedError.
  std::span<const cpu::Candidate> likeliest;
  cpu::Share share;
};

/// Has the ranks that have tokens list what is asked, in ascending order of id; none if they cannot. What a call does
/// not ask for stays as an earlier one left it.
using Lister = std::function<std::span<const Shortlist>(const cpu::Draw &)>;

/// Chooses tokens from what ranks would gather: their best candidates and their shares of the normaliser. The choice is
/// exact and does not depend on how the logits are divided; the noise is keyed by (seed, sequence, position, token id).
/// Keeps its memory between calls.
class Sampler {
public:
  /// Ranks in ascending order of id. Throws LogitsNotFinite for a NaN or +inf, or if all are -inf.
  int64_t choose(std::span<const LocalLogits> ranks, const Sampling &sampling, uint64_t sequence, uint32_t position);

  /// The same at temperature 0, from the first candidate of each rank that has one; `ranks` is the number of all.
  int64_t chooseFirst(std::span<const cpu::Candidate> firsts, size_t ranks);

  /// The same token as `choose`, at a temperature above 0, from what each of `ranks` ranks lists; nothing where that
  /// does not tell, because a list is too short, or because the rounding of a sum or a score could change the token.
  std::optional<int64_t> chooseListed(const Lister &list, size_t ranks, const Sampling &sampling, uint64_t sequence,
                                      uint32_t position);

  /// The tokens among which `choose` draws, in order, if temperature > 0 and top-k or top-p limits them.
  std::span<const cpu::Candidate> kept(std::span<const LocalLogits> ranks, const Sampling &sampling);

  /// Bytes that the busiest rank sent to the others for what was chosen since the last call of this.
  uint64_t takeBytesSent();

private:
  /// A token with its noise.
  struct Scored {
    double score = 0;
    cpu::Candidate token;
  };
  /// A prefix of the candidates.
  struct Prefix {
    size_t count = 0;
    bool isWhole = false;  ///< it ends here, or at least here
    bool isCertain = true; ///< no sum was too near to its bound
  };
  size_t gather(std::span<const LocalLogits> ranks, size_t limit);
  size_t gatherFirsts(std::span<const Shortlist> ranks);
  size_t sortCandidates(const std::optional<cpu::Candidate> &bound);
  cpu::Normalizer gatherNormalizer(std::span<const LocalLogits> ranks, double scale);
  cpu::Normalizer normalizerOfFirst(size_t count, double scale) const;
  Prefix nucleus(size_t certain, const Sampling &sampling, const cpu::Normalizer &whole, double error) const;
  size_t rankByScore(std::span<const Shortlist> ranks, size_t limit, const Sampling &sampling, uint64_t sequence,
                     uint32_t position);

  std::vector<cpu::Candidate> candidates; ///< of all ranks, then in order
  std::vector<Scored> scored;             ///< the likeliest of all ranks, in the order of their scores
  uint64_t sent = 0;
};

} // namespace helix

#endif // HELIX_RUNTIME_CORE_SAMPLER_H
