//===- Rope.cpp - Rotary tables out of a configuration ---------------------===//
#include "lib/Import/HuggingFace/Rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace helix::checkpoint {
namespace {

using std::numbers::pi;

/// theta^(2 i / width), in f32.
float baseOf(const Rope &rope, int64_t i) {
  float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.width);
  return static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
}

float llama3(const Rope &rope, float frequency) {
  auto trained = static_cast<double>(rope.trained);
  auto wavelength = static_cast<float>(2 * pi / static_cast<double>(frequency));
  if (wavelength > static_cast<float>(trained / rope.lowFrequency))
    return frequency / static_cast<float>(rope.factor);
  if (wavelength < static_cast<float>(trained / rope.highFrequency))
    return frequency;
  float smooth = (static_cast<float>(trained) / wavelength - static_cast<float>(rope.lowFrequency)) /
                 static_cast<float>(rope.highFrequency - rope.lowFrequency);
  return (1 - smooth) * frequency / static_cast<float>(rope.factor) + smooth * frequency;
}

/// The frequency, as a fraction of an index, that turns `rotations` times within the trained context.
double yarnIndex(const Rope &rope, double rotations) {
  return static_cast<double>(rope.width) * std::log(static_cast<double>(rope.trained) / (rotations * 2 * pi)) /
         (2 * std::log(rope.theta));
}

float yarn(const Rope &rope, int64_t i) {
  double low = yarnIndex(rope, rope.fast), high = yarnIndex(rope, rope.slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.);
  high = std::min(high, static_cast<double>(rope.width - 1));
  if (low == high)
    high += 0.001; // as the reference code does, so that the ramp is a step
  auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0., 1.));
  float kept = 1 / baseOf(rope, i), stretched = 1 / (static_cast<float>(rope.factor) * baseOf(rope, i));
  return stretched * ramp + kept * (1 - ramp);
}

float frequencyOf(const Rope &rope, int64_t i) {
  switch (rope.kind) {
  case Rope::Kind::Default:
    break;
  case Rope::Kind::Linear:
    return 1 / baseOf(rope, i) / static_cast<float>(rope.factor);
  case Rope::Kind::Llama3:
    return llama3(rope, 1 / baseOf(rope, i));
  case Rope::Kind::Yarn:
    return yarn(rope, i);
  case Rope::Kind::LongRope:
    return 1 / (static_cast<float>(rope.shortFactors[i]) * baseOf(rope, i));
  }
  return 1 / baseOf(rope, i);
}

} // namespace

RopeTables ropeTables(const Rope &rope, int64_t positions) {
  std::vector<float> frequencies(rope.width / 2);
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = frequencyOf(rope, static_cast<int64_t>(i));
  RopeTables tables;
  auto magnitude = static_cast<float>(rope.magnitude);
  for (int64_t position = 0; position < positions; ++position)
    for (float frequency : frequencies) {
      float angle = static_cast<float>(position) * frequency;
      tables.cos.push_back(static_cast<float>(std::cos(static_cast<double>(angle))) * magnitude);
      tables.sin.push_back(static_cast<float>(std::sin(static_cast<double>(angle))) * magnitude);
    }
  return tables;
}

} // namespace helix::checkpoint
