//===- Writer.h - Artifacts to bytes and files -----------------------------===//
#ifndef HELIX_LIB_ARTIFACT_WRITER_H
#define HELIX_LIB_ARTIFACT_WRITER_H

#include "lib/Artifact/Artifact_generated.h"
#include "lib/Artifact/Error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace helix::artifact {

/// XXH3-64, the checksum of the payload and of kernel images.
uint64_t checksum(const void *bytes, size_t count);

/// Fills in the checksums of images and kernels, from the code and from what the kernels table says of it.
void sealKernels(ArtifactT &artifact);

/// Kernel.checksum: XXH3-64 of the image's checksum, groups, buffers and symbol. What the runtime hands to native code
/// rests on these, and nothing else in the file could tell that one of them was altered.
uint64_t kernelChecksum(uint64_t imageChecksum, std::string_view symbol, uint32_t groups, const uint64_t *buffers,
                        size_t bufferCount);

/// The file's bytes: header, then payload. Equal artifacts give equal bytes. The result is not validated: what a reader
/// would refuse can be encoded. False if it would exceed the 2 GB of a FlatBuffer.
bool encodeArtifact(const ArtifactT &artifact, std::vector<uint8_t> &bytes, Error &error);

/// The header and the payload that `payload` holds already.
std::vector<uint8_t> framePayload(const void *payload, size_t count);

/// Writes what readArtifact takes, else refuses with its error. The file is written beside itself first and renamed, so
/// that no reader ever sees half of it.
bool writeArtifact(const ArtifactT &artifact, const std::string &path, Error &error);

} // namespace helix::artifact

#endif // HELIX_LIB_ARTIFACT_WRITER_H
