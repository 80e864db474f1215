//===- Sampler.cpp - The next token from sharded logits --------------------===//
#include "runtime/Core/Sampler.h"
#include "runtime/Error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace helix {

using cpu::Candidate;

namespace {

/// No draw of gumbelNoise exceeds -log(-log(1 - 2^-53)) = 36.74.
constexpr double kLargestNoise = 36.8;

/// Candidates that a rank gives when it is not known how many are needed.
constexpr size_t kFirstGuess = 64;

struct Key {
  uint64_t seed, sequence;
  uint32_t position;
};

struct Best {
  double value = -std::numeric_limits<double>::infinity();
  int64_t id = -1;
};

/// Keeps the better of `best` and this token with its noise; of equal ones the smaller id.
void consider(Best &best, float logit, int64_t id, double scale, const Key &key) {
  double score = double(logit) * scale;
  if (!(score + kLargestNoise >= best.value))
    return;
  score += cpu::gumbelNoise(key.seed, key.sequence, key.position, uint32_t(id));
  if (best.id < 0 || score > best.value || (score == best.value && id < best.id))
    best = {score, id};
}

[[noreturn]] void failNotFinite() {
  throw Error(ErrorCode::LogitsNotFinite, "a logit is NaN or infinite, or all are -infinity; the weights, or a cache "
                                          "type that is too narrow, are the likely reason");
}

/// The first token of all, unless it shows that something is wrong.
const Candidate &finite(const Candidate &first) {
  if (!std::isfinite(first.value))
    failNotFinite();
  return first;
}

} // namespace

void checkSampling(const Sampling &sampling) {
  // Below, scaled logits could overflow.
  bool greedy = sampling.temperature == 0;
  if (!greedy && !(sampling.temperature >= 1e-6 && std::isfinite(sampling.temperature)))
    throw Error(ErrorCode::ArgumentInvalid, "the temperature must be 0, or finite and at least 1e-6");
  if (!(sampling.topP > 0 && sampling.topP <= 1))
    throw Error(ErrorCode::ArgumentInvalid, "top-p must be above 0 and at most 1");
}

/// Collects up to `limit` candidates of each rank, in order, and returns how many of them are certain: no token that
/// was not collected comes before one of those.
size_t Sampler::gather(std::span<const LocalLogits> ranks, size_t limit) {
  size_t total = 0, most = 0;
  for (const LocalLogits &rank : ranks)
    total += std::min(limit, rank.count);
  candidates.resize(total);
  std::optional<Candidate> bound; // the earliest last candidate of a rank that has more
  size_t filled = 0;
  for (const LocalLogits &rank : ranks) {
    size_t count = cpu::topCandidates(rank.logits, rank.count, rank.firstId, limit, candidates.data() + filled);
    filled += count;
    most = std::max(most, count);
    if (count < rank.count && count != 0 && (!bound || cpu::comesBefore(candidates[filled - 1], *bound)))
      bound = candidates[filled - 1];
  }
  sent += (ranks.size() - 1) * most * sizeof(Candidate);
  std::sort(candidates.begin(), candidates.end(), cpu::comesBefore);
  if (!bound)
    return candidates.size();
  return size_t(std::upper_bound(candidates.begin(), candidates.end(), *bound, cpu::comesBefore) - candidates.begin());
}

cpu::Normalizer Sampler::gatherNormalizer(std::span<const LocalLogits> ranks, double scale) {
  cpu::Normalizer whole = cpu::normalizer(ranks[0].logits, ranks[0].count, scale);
  for (const LocalLogits &rank : ranks.subspan(1))
    whole = cpu::mergeNormalizers(whole, cpu::normalizer(rank.logits, rank.count, scale), scale);
  sent += (ranks.size() - 1) * sizeof(cpu::Normalizer);
  return whole;
}

std::span<const Candidate> Sampler::kept(std::span<const LocalLogits> ranks, const Sampling &sampling) {
  double scale = 1 / sampling.temperature;
  size_t limit = sampling.topK != 0 ? sampling.topK : kFirstGuess, largest = 0;
  for (const LocalLogits &rank : ranks)
    largest = std::max(largest, rank.count);
  size_t certain = gather(ranks, limit);
  // Under top-k the probabilities are those among the k.
  cpu::Normalizer whole;
  if (sampling.topK != 0) {
    certain = std::min<size_t>(certain, sampling.topK);
    whole.max = candidates[0].value;
    for (size_t i = 0; i < certain; ++i)
      whole.sum += std::exp(scale * (double(candidates[i].value) - whole.max));
  } else {
    whole = gatherNormalizer(ranks, scale);
  }
  for (;;) {
    if (!std::isfinite(candidates[0].value) || !std::isfinite(whole.sum))
      failNotFinite();
    if (sampling.topP >= 1)
      return {candidates.data(), certain};
    double before = 0;
    size_t i = 0;
    for (; i < certain && (i == 0 || before < sampling.topP * whole.sum); ++i)
      before += std::exp(scale * (double(candidates[i].value) - whole.max));
    if (i < certain || before >= sampling.topP * whole.sum || sampling.topK != 0 || limit >= largest)
      return {candidates.data(), i};
    // The nucleus reaches past what is certain.
    limit = std::min(limit * 8, largest);
    certain = gather(ranks, limit);
  }
}

int64_t Sampler::choose(std::span<const LocalLogits> ranks, const Sampling &sampling, uint64_t sequence,
                        uint32_t position) {
  if (sampling.temperature == 0) {
    gather(ranks, 1);
    return finite(candidates[0]).id;
  }
  double scale = 1 / sampling.temperature;
  Key key{sampling.seed, sequence, position};
  Best best;
  if (sampling.topK != 0 || sampling.topP < 1) {
    for (const Candidate &candidate : kept(ranks, sampling))
      consider(best, candidate.value, candidate.id, scale, key);
    return best.id;
  }
  // The best of each rank with its noise, and whether all are finite.
  gather(ranks, 1);
  finite(candidates[0]);
  // The first token sets a bound that spares most others their noise.
  consider(best, candidates[0].value, candidates[0].id, scale, key);
  for (const LocalLogits &rank : ranks)
    for (size_t i = 0; i < rank.count; ++i)
      consider(best, rank.logits[i], rank.firstId + int64_t(i), scale, key);
  return best.id;
}

int64_t Sampler::chooseFirst(std::span<const Candidate> firsts, size_t ranks) {
  sent += (ranks - 1) * sizeof(Candidate);
  return finite(*std::min_element(firsts.begin(), firsts.end(), cpu::comesBefore)).id;
}

uint64_t Sampler::takeBytesSent() { return std::exchange(sent, 0); }

} // namespace helix
