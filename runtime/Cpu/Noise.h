//===- Noise.h - Random bits of a token ------------------------------------===//
//
// For host and device.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_NOISE_H
#define HELIX_RUNTIME_CPU_NOISE_H

#include <cstdint>

namespace helix::cpu {

/// Philox4x32-10 (Salmon et al., SC 2011).
constexpr void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = uint64_t(0xD2511F53) * c0, p1 = uint64_t(0xCD9E8D57) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/// 52 bits of Philox4x32-10 with key `seed` and counter (token id, position, sequence).
constexpr uint64_t noiseBits(uint64_t seed, uint64_t sequence, uint32_t position, uint32_t tokenId) {
  const uint32_t counter[4] = {tokenId, position, uint32_t(sequence), uint32_t(sequence >> 32)};
  const uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  uint32_t bits[4] = {};
  philox4x32(counter, key, bits);
  return (uint64_t(bits[0]) << 32 | bits[1]) >> 12;
}

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_NOISE_H
