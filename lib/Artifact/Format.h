//===- Format.h - The header of a .hlx file --------------------------------===//
#ifndef HELIX_LIB_ARTIFACT_FORMAT_H
#define HELIX_LIB_ARTIFACT_FORMAT_H

#include <cstdint>

namespace helix::artifact {

/// The first bytes of a .hlx file, little-endian; the FlatBuffers payload of `payloadBytes` follows and ends the file.
///
/// Compatibility: a reader takes files of its own major version whose minor version is at most its own. A new field
/// that old readers may ignore keeps both numbers; one that they must not ignore raises minor; all else raises major.
struct Header {
  char magic[8];         ///< "HELIXHLX"
  uint32_t major;        ///< kFormatMajor
  uint32_t minor;        ///< kFormatMinor
  uint64_t payloadBytes; ///< size of the payload
  uint64_t checksum;     ///< XXH3-64 of the payload
};
static_assert(sizeof(Header) == 32);

inline constexpr char kMagic[8] = {'H', 'E', 'L', 'I', 'X', 'H', 'L', 'X'};
inline constexpr uint32_t kFormatMajor = 1;
inline constexpr uint32_t kFormatMinor = 3;

/// Elements of a block with activations I8: so many products of 127 and 255 are below 2^31.
inline constexpr uint32_t kLongestInt8Block = 1 << 16;

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_FORMAT_H
