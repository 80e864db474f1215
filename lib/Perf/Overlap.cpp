//===- Overlap.cpp - In how many chunks to hide a collective ---------------===//
#include "lib/Perf/Overlap.h"
#include "lib/Perf/Simulate.h"

#include <algorithm>
#include <limits>

namespace helix::perf {
namespace {

/// The share of the work that `size` items are.
Work chunkOf(const Overlapped &site, uint64_t size) {
  double share = double(size) / double(site.items);
  Work work = site.work;
  work.weightBytes *= share;
  work.kvBytes *= share;
  work.activationBytes = site.sharedBytes + (site.work.activationBytes - site.sharedBytes) * share;
  work.flops *= share;
  work.fraction *= share;
  return work;
}

} // namespace

std::vector<uint64_t> chunkSizes(uint64_t items, uint64_t chunks, uint64_t granule) {
  uint64_t granules = (items + granule - 1) / granule;
  chunks = std::clamp<uint64_t>(chunks, 1, std::max<uint64_t>(granules, 1));
  std::vector<uint64_t> sizes;
  uint64_t left = items;
  for (uint64_t i = 0; i < chunks; ++i) {
    uint64_t size = std::min(left, (granules / chunks + (i < granules % chunks ? 1 : 0)) * granule);
    sizes.push_back(size);
    left -= size;
  }
  return sizes;
}

double overlapSeconds(const Overlapped &site, const std::vector<uint64_t> &sizes, const Hardware &hardware) {
  Program program;
  program.ranks = site.ranks;
  auto add = [&](auto work, uint32_t stream) {
    Command command;
    command.work = work;
    command.stream = stream;
    program.commands.push_back(std::move(command));
  };
  bool split = sizes.size() > 1;
  program.streams = split ? 2 : 1;
  program.events = split ? uint32_t(2 * sizes.size()) : 0;
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    add(chunkOf(site, sizes[i]), 0);
    Exchange exchange = site.exchange;
    double share = double(sizes[i]) / double(site.items);
    if (exchange.kind == CollectiveKind::AllReduce)
      exchange.sentBytes = allReduceBytes(exchange.peers, site.elements * sizes[i] / site.items);
    else
      exchange.sentBytes *= share;
    exchange.fraction *= share;
    if (split) {
      add(Record{2 * i}, 0);
      add(Wait{2 * i}, 1);
    }
    add(exchange, split ? 1 : 0);
    if (split)
      add(Record{2 * i + 1}, 1);
  }
  for (uint32_t i = 0; split && i < sizes.size(); ++i)
    add(Wait{2 * i + 1}, 0);
  if (split && site.join)
    add(*site.join, 0);
  Simulation simulation;
  Error error;
  // A program that this file writes is one that can be simulated, but for a group that the caller made up.
  if (!simulate(program, hardware, simulation, error))
    return std::numeric_limits<double>::infinity();
  return simulation.seconds - hardware.stepLatency;
}

Overlap chooseOverlap(const Overlapped &site, uint64_t maxChunks, const Hardware &hardware) {
  Overlap best;
  best.sizes = {site.items};
  best.seconds = best.whole = overlapSeconds(site, best.sizes, hardware);
  size_t most = chunkSizes(site.items, maxChunks, site.granule).size();
  for (uint64_t chunks = 2; chunks <= most; ++chunks) {
    std::vector<uint64_t> sizes = chunkSizes(site.items, chunks, site.granule);
    if (double seconds = overlapSeconds(site, sizes, hardware); seconds < best.seconds) {
      best.seconds = seconds;
      best.sizes = std::move(sizes);
    }
  }
  return best;
}

} // namespace helix::perf
