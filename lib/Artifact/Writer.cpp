//===- Writer.cpp - Artifacts to bytes and files ---------------------------===//
#include "lib/Artifact/Writer.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/WholeFile.h"

#include <cstring>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace helix::artifact {
namespace {

/// An upper bound of the payload's large parts; what remains is far below the limit.
uint64_t codeBytes(const ArtifactT &artifact) {
  uint64_t bytes = 0;
  for (const auto &image : artifact.images)
    bytes += image->code.size();
  return bytes;
}

} // namespace

uint64_t checksum(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }

uint64_t kernelChecksum(uint64_t imageChecksum, std::string_view symbol, uint32_t groups, const uint64_t *buffers,
                        size_t bufferCount) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, &imageChecksum, sizeof(imageChecksum));
  XXH3_64bits_update(&state, &groups, sizeof(groups));
  for (size_t i = 0; i < bufferCount; ++i)
    XXH3_64bits_update(&state, buffers + i, sizeof(*buffers));
  XXH3_64bits_update(&state, symbol.data(), symbol.size());
  return XXH3_64bits_digest(&state);
}

void sealKernels(ArtifactT &artifact) {
  for (auto &image : artifact.images)
    image->checksum = checksum(image->code.data(), image->code.size());
  for (auto &kernel : artifact.kernels)
    if (kernel->image < artifact.images.size())
      kernel->checksum = kernelChecksum(artifact.images[kernel->image]->checksum, kernel->symbol, kernel->groups,
                                        kernel->buffers.data(), kernel->buffers.size());
}

std::vector<uint8_t> framePayload(const void *payload, size_t count) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.major = kFormatMajor;
  header.minor = kFormatMinor;
  header.payloadBytes = count;
  header.checksum = checksum(payload, count);
  std::vector<uint8_t> bytes(sizeof(header) + count);
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (count != 0)
    std::memcpy(bytes.data() + sizeof(header), payload, count);
  return bytes;
}

bool encodeArtifact(const ArtifactT &artifact, std::vector<uint8_t> &bytes, Error &error) {
  constexpr uint64_t limit = uint64_t(1) << 30;
  if (uint64_t code = codeBytes(artifact); code > limit)
    return error.set(ErrorCode::ArtifactUnwritable, "the kernel images have " + std::to_string(code) +
                                                        " bytes, an artifact holds at most " + std::to_string(limit));
  flatbuffers::FlatBufferBuilder builder(1 << 16);
  builder.Finish(Artifact::Pack(builder, &artifact));
  bytes = framePayload(builder.GetBufferPointer(), builder.GetSize());
  return true;
}

bool writeArtifact(const ArtifactT &artifact, const std::string &path, Error &error) {
  std::vector<uint8_t> bytes;
  if (!encodeArtifact(artifact, bytes, error) || !verifyArtifact(bytes, error))
    return false;
  // Renaming onto a device or a pipe would put a file in its place.
  struct stat existing;
  if (::stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode))
    return error.set(ErrorCode::ArtifactUnwritable, "cannot write '" + path + "': it is not a regular file");
  std::string reason;
  return writeWholeFile(path, bytes.data(), bytes.size(), reason) ||
         error.set(ErrorCode::ArtifactUnwritable, "cannot write '" + path + "': " + reason);
}

} // namespace helix::artifact
