//===- Cost.cpp - Seconds of one command -----------------------------------===//
#include "lib/Perf/Cost.h"

#include <algorithm>

namespace helix::perf {

double allToAllBytes(uint32_t peers, double chunkBytes) { return (peers - 1) * chunkBytes; }

double allReduceBytes(uint32_t peers, uint64_t elements) {
  uint64_t share = (elements + peers - 1) / peers;
  return 2.0 * (peers - 1) * double(share) * 4;
}

Price &Price::operator+=(const Price &other) {
  weights += other.weights;
  kv += other.kv;
  activations += other.activations;
  compute += other.compute;
  transfer += other.transfer;
  opLatency += other.opLatency;
  collectiveLatency += other.collectiveLatency;
  return *this;
}

Price price(const Work &work, const Hardware &hardware, uint32_t ranks) {
  auto kind = unsigned(work.kind);
  Price result;
  result.opLatency =
      hardware.opLatency[kind] * (hardware.opLatencyModel == LatencyModel::Divisible ? work.fraction : 1);
  double bandwidth = hardware.memoryEfficiency[kind] * memoryBandwidth(hardware, ranks);
  double peak = hardware.computeEfficiency[kind] * peakFlops(hardware, work.dtype);
  double memory = work.bytes() / bandwidth, compute = peak > 0 ? work.flops / peak : 0;
  if (compute > memory) {
    result.compute = compute;
  } else {
    result.weights = work.weightBytes / bandwidth;
    result.kv = work.kvBytes / bandwidth;
    result.activations = work.activationBytes / bandwidth;
  }
  return result;
}

double shareOutside(const Exchange &exchange, uint32_t domain) {
  uint64_t span = uint64_t(exchange.peers - 1) * exchange.stride;
  if (exchange.peers < 2 || domain >= exchange.ranks)
    return 0;
  uint32_t fewest = exchange.peers;
  for (uint32_t rank = 0; rank < exchange.ranks; ++rank) {
    uint64_t first = rank - uint64_t(rank / exchange.stride % exchange.peers) * exchange.stride, last = first + span;
    // Members of the group within [begin, end), the rank's domain.
    uint64_t begin = std::max<uint64_t>(rank / domain * domain, first);
    uint64_t end = std::min<uint64_t>((rank / domain + 1ULL) * domain, last + 1);
    uint64_t before = (begin - first + exchange.stride - 1) / exchange.stride;
    uint64_t until = (end - first + exchange.stride - 1) / exchange.stride;
    fewest = std::min(fewest, uint32_t(until - before));
  }
  return double(exchange.peers - fewest) / (exchange.peers - 1);
}

Price price(const Exchange &exchange, const Hardware &hardware) {
  Price result;
  if (exchange.peers < 2)
    return result;
  double fraction = hardware.collectiveLatency == LatencyModel::Divisible ? exchange.fraction : 1;
  auto kind = unsigned(exchange.kind);
  auto use = [&](double latency, double transfer) {
    if (latency + transfer > result.total()) {
      result.collectiveLatency = latency;
      result.transfer = transfer;
    }
  };
  double crossing = shareOutside(exchange, hardware.domain);
  if (crossing < 1)
    use(hardware.inside.latency[kind] * fraction, exchange.sentBytes * (1 - crossing) / hardware.inside.bytesPerSecond);
  if (crossing > 0)
    use(hardware.outside.latency[kind] * fraction, exchange.sentBytes * crossing / hardware.outside.bytesPerSecond);
  if (hardware.delay)
    use(hardware.delay->latency + hardware.delayOverhead,
        hardware.delay->bytesPerSecond > 0 ? exchange.sentBytes / hardware.delay->bytesPerSecond : 0);
  return result;
}

} // namespace helix::perf
