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
  return sortCandidates(bound);
}

/// The same of what ranks list.
size_t Sampler::gatherFirsts(std::span<const Shortlist> ranks) {
  candidates.clear();
  std::optional<Candidate> bound;
  size_t most = 0;
  for (const Shortlist &rank : ranks) {
    candidates.insert(candidates.end(), rank.firsts.begin(), rank.firsts.end());
    most = std::max(most, rank.firsts.size());
    if (rank.firsts.size() < rank.count && (!bound || cpu::comesBefore(candidates.back(), *bound)))
      bound = candidates.back();
  }
  sent += (ranks.size() - 1) * most * sizeof(Candidate);
  return sortCandidates(bound);
}

/// Returns how many candidates do not come after the bound.
size_t Sampler::sortCandidates(const std::optional<Candidate> &bound) {
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

cpu::Normalizer Sampler::normalizerOfFirst(size_t count, double scale) const {
  cpu::Normalizer whole{candidates[0].value, 0};
  for (size_t i = 0; i < count; ++i)
    whole.sum += std::exp(scale * (double(candidates[i].value) - whole.max));
  return whole;
}

/// Of the first `certain` candidates, those that top-p keeps; `error` is that of the sums, relative to the whole.
Sampler::Prefix Sampler::nucleus(size_t certain, const Sampling &sampling, const cpu::Normalizer &whole,
                                 double error) const {
  if (sampling.topP >= 1)
    return {certain, false};
  double before = 0, limit = sampling.topP * whole.sum, scale = 1 / sampling.temperature;
  Prefix prefix;
  for (size_t &i = prefix.count; i < certain && (i == 0 || before < limit); ++i) {
    before += std::exp(scale * (double(candidates[i].value) - whole.max));
    prefix.isCertain &= !(std::abs(before - limit) < error * whole.sum);
  }
  prefix.isWhole = prefix.count < certain || before >= limit;
  return prefix;
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
    whole = normalizerOfFirst(certain, scale);
  } else {
    whole = gatherNormalizer(ranks, scale);
  }
  for (;;) {
    if (!std::isfinite(candidates[0].value) || !std::isfinite(whole.sum))
      failNotFinite();
    Prefix prefix = nucleus(certain, sampling, whole, 0);
    if (prefix.isWhole || sampling.topP >= 1 || sampling.topK != 0 || limit >= largest)
      return {candidates.data(), prefix.count};
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

/// Scores what the first `limit` of each rank's likeliest are, and returns how many scores are certain: no token that
/// was not scored exceeds one of those.
size_t Sampler::rankByScore(std::span<const Shortlist> ranks, size_t limit, const Sampling &sampling, uint64_t sequence,
                            uint32_t position) {
  // Beyond this, scores are infinite in f32.
  constexpr double largest = 3e38;
  scored.clear();
  double bound = -std::numeric_limits<double>::infinity(), scale = 1 / sampling.temperature;
  for (const Shortlist &rank : ranks) {
    auto listed = rank.likeliest.first(std::min(limit, rank.likeliest.size()));
    for (const Candidate &token : listed) {
      // NaN and +inf have the largest scores, so that one of the first shows them.
      if (!(token.value <= std::numeric_limits<float>::max()))
        failNotFinite();
      double noise = cpu::gumbelNoise(sampling.seed, sequence, position, uint32_t(token.id));
      scored.push_back({double(token.value) * scale + noise, token});
    }
    if (listed.size() < rank.count) {
      double last = std::max(scored.back().score, -largest);
      bound = last < largest ? std::max(bound, last + cpu::listedError(last)) : std::numeric_limits<double>::infinity();
    }
  }
  sent += (ranks.size() - 1) * limit * sizeof(Candidate);
  std::sort(scored.begin(), scored.end(), [](const Scored &a, const Scored &b) {
    return a.score != b.score ? a.score > b.score : a.token.id < b.token.id;
  });
  return size_t(std::find_if(scored.begin(), scored.end(), [&](const Scored &it) { return !(it.score > bound); }) -
                scored.begin());
}

std::optional<int64_t> Sampler::chooseListed(const Lister &list, size_t ranks, const Sampling &sampling,
                                             uint64_t sequence, uint32_t position) {
  double scale = 1 / sampling.temperature;
  bool byNumber = sampling.topK != 0, byWeight = sampling.topP < 1;
  // The weight of the first k takes all of them.
  if (sampling.topK > cpu::kListed && byWeight)
    return {};
  cpu::Draw draw{.scale = scale, .seed = sampling.seed, .sequence = sequence, .position = position};
  draw.firsts = byNumber ? sampling.topK <= cpu::kListed : byWeight;
  draw.shares = byWeight && !byNumber;
  draw.likeliest = !draw.firsts || draw.shares;
  std::span<const Shortlist> lists = list(draw);
  if (lists.empty())
    return {};
  auto merged = [&](std::span<const Shortlist> parts) {
    cpu::Share whole = parts[0].share;
    for (const Shortlist &part : parts.subspan(1)) {
      whole.weight = cpu::mergeNormalizers(whole.weight, part.share.weight, scale);
      whole.count += part.share.count;
    }
    sent += (ranks - 1) * sizeof(cpu::Share);
    return whole;
  };

  cpu::Normalizer whole;
  if (draw.firsts) {
    size_t certain = gatherFirsts(lists);
    finite(candidates[0]);
    if (byNumber) {
      certain = std::min<size_t>(certain, sampling.topK);
      whole = normalizerOfFirst(certain, scale);
    } else {
      whole = merged(lists).weight;
      if (!std::isfinite(whole.sum))
        failNotFinite();
    }
    // Sums over what is listed are those of `choose`.
    Prefix prefix = nucleus(certain, sampling, whole, byNumber ? 0 : cpu::kShareError);
    if (!prefix.isCertain)
      return {};
    if (byNumber || prefix.isWhole) {
      Best best;
      for (const Candidate &token : std::span(candidates).first(prefix.count))
        consider(best, token.value, token.id, scale, {sampling.seed, sequence, position});
      return best.id;
    }
  }

  // In the order of the scores, the first that is kept: what comes before it says whether it is.
  auto isKept = [&](const Candidate &token) -> std::optional<bool> {
    if (!byNumber && !byWeight)
      return true;
    cpu::Draw before{.scale = scale, .shares = true, .boundValue = token.value, .boundId = token.id};
    cpu::Share share = merged(list(before));
    if (byNumber)
      return share.count < sampling.topK;
    // The first token of all comes before every other: both sums are in units of its weight.
    double over = share.weight.sum - sampling.topP * whole.sum;
    if (std::abs(over) < cpu::kShareError * whole.sum)
      return {};
    return over < 0;
  };
  // More than a few are seldom needed.
  size_t next = 0;
  for (size_t limit : {size_t(4), size_t(cpu::kListed)}) {
    size_t certain = rankByScore(lists, limit, sampling, sequence, position);
    for (; next < certain; ++next) {
      std::optional<bool> keeps = isKept(scored[next].token);
      if (!keeps)
        return {};
      if (*keeps)
        return scored[next].token.id;
    }
  }
  return {};
}

int64_t Sampler::chooseFirst(std::span<const Candidate> firsts, size_t ranks) {
  sent += (ranks - 1) * sizeof(Candidate);
  return finite(*std::min_element(firsts.begin(), firsts.end(), cpu::comesBefore)).id;
}

uint64_t Sampler::takeBytesSent() { return std::exchange(sent, 0); }

} // namespace helix
