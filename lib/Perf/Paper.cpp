//===- Paper.cpp - Closed forms of the Helix paper -------------------------===//
#include "lib/Perf/Paper.h"

#include <algorithm>
#include <cmath>

namespace helix::perf::paper {

double kvSeconds(const Layer &layer, double tpa, double kvp) {
  double bytes =
      layer.batch * 2 * std::ceil(layer.kvHeads / tpa) * layer.headSize * (layer.context / kvp) * layer.bytesPerElement;
  return bytes / layer.bytesPerSecond;
}

double weightSeconds(const Layer &layer, double tpa, double kvp, double tpf, OutputProjection output) {
  double outputSplit = output == OutputProjection::OverTpa ? tpa : tpa * kvp;
  double projections = layer.hidden() * layer.queryHeads * layer.headSize * (1 / tpa + 1 / outputSplit) +
                       2 * layer.hidden() * std::ceil(layer.kvHeads / tpa) * layer.headSize;
  double ffn = 3 * layer.hidden() * layer.ffnWidth / tpf;
  return (projections + ffn) * layer.bytesPerElement / layer.bytesPerSecond;
}

double hopbSeconds(double requests, double compute, double communication) {
  return compute + (requests - 1) * std::max(compute, communication) + communication;
}

double lockstepSeconds(double requests, double compute, double communication) {
  return requests * (compute + communication);
}

} // namespace helix::perf::paper
