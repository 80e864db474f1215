//===- Stateless.cpp - Rotating, scattering, transposing -------------------===//
#include "runtime/Cpu/Stateless.h"

#include <algorithm>

namespace helix::cpu {

void rotate(const RotateArgs &args, size_t begin, size_t end) {
  for (size_t item = begin; item < end; ++item) {
    size_t t = item % args.tokens, b = item / args.tokens / args.heads;
    size_t token = b * args.tokens + t, row = args.positions ? size_t(args.positions[token]) : token;
    const float *x = args.x + item * args.dim, *cos = args.cos + row * args.half, *sin = args.sin + row * args.half;
    float *y = args.y + item * args.dim;
    std::copy_n(x, args.dim, y);
    for (size_t i = 0; i < args.half; ++i) {
      size_t first = args.interleaved ? 2 * i : i, second = args.interleaved ? 2 * i + 1 : i + args.half;
      y[first] = x[first] * cos[i] - x[second] * sin[i];
      y[second] = x[second] * cos[i] + x[first] * sin[i];
    }
  }
}

void scatter(const ScatterArgs &args, size_t begin, size_t end) {
  for (size_t item = begin; item < end; ++item) {
    size_t whole = args.capacity * args.inner;
    float *y = args.y + item * whole;
    std::copy_n(args.cache + item * whole, whole, y);
    // Taken modulo the capacity first, so that no sum overflows.
    uint64_t place = args.indices ? uint64_t(args.indices[item / args.outer]) % args.capacity : 0;
    for (uint64_t t = 0; t < args.tokens; ++t, place = place + 1 == args.capacity ? 0 : place + 1)
      std::copy_n(args.update + (item * args.tokens + t) * args.inner, args.inner, y + place * args.inner);
  }
}

void transpose(const TransposeArgs &args, size_t begin, size_t end) {
  unsigned last = args.rank - 1;
  uint64_t width = args.sizes[last], step = args.strides[last];
  for (size_t row = begin; row < end; ++row) {
    const float *x = args.x;
    size_t rest = row;
    for (unsigned d = last; d-- > 0; rest /= args.sizes[d])
      x += rest % args.sizes[d] * args.strides[d];
    for (uint64_t i = 0; i < width; ++i)
      args.y[row * width + i] = x[i * step];
  }
}

bool areWithin(std::span<const int64_t> numbers, int64_t least, int64_t most) {
  return std::all_of(numbers.begin(), numbers.end(), [&](int64_t n) { return n >= least && n <= most; });
}

} // namespace helix::cpu
