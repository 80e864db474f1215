//===- Reader.cpp - Verified view of an artifact ---------------------------===//
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/Validate.h"
#include "lib/Artifact/Writer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace helix::artifact {
namespace {

/// Closes a file when it goes out of scope.
struct File {
  int number;
  ~File() {
    if (number >= 0)
      ::close(number);
  }
};

bool checkHeader(std::span<const uint8_t> bytes, Header &header, Error &error) {
  if (bytes.size() < sizeof(Header) || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0)
    return error.set(ErrorCode::ArtifactForeign, "the file does not start as a Helix artifact does; compile one with "
                                                 "helix-compile");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.major != kFormatMajor || header.minor > kFormatMinor)
    return error.set(ErrorCode::ArtifactVersion, "the artifact has format " + std::to_string(header.major) + "." +
                                                     std::to_string(header.minor) + ", this reader takes " +
                                                     std::to_string(kFormatMajor) + ".0 to " +
                                                     std::to_string(kFormatMajor) + "." + std::to_string(kFormatMinor) +
                                                     "; compile the model again");
  uint64_t payload = bytes.size() - sizeof(Header);
  if (header.payloadBytes != payload)
    return error.set(ErrorCode::ArtifactTruncated, "the header announces " + std::to_string(header.payloadBytes) +
                                                       " bytes of payload, the file has " + std::to_string(payload));
  if (payload >= FLATBUFFERS_MAX_BUFFER_SIZE)
    return error.set(ErrorCode::ArtifactMalformed, "the payload has 2 GB or more");
  return true;
}

} // namespace

const Artifact *verifyArtifact(std::span<const uint8_t> bytes, Error &error) {
  Header header;
  if (!checkHeader(bytes, header, error))
    return nullptr;
  std::span<const uint8_t> payload = bytes.subspan(sizeof(Header));
  if (checksum(payload.data(), payload.size()) != header.checksum) {
    error.set(ErrorCode::ArtifactAltered, "the payload's checksum is not the one in the header; the file was altered "
                                          "or damaged");
    return nullptr;
  }
  flatbuffers::Verifier verifier(payload.data(), payload.size(), /*max_depth=*/64);
  if (!VerifyArtifactBuffer(verifier)) {
    error.set(ErrorCode::ArtifactMalformed, "the payload is not a valid FlatBuffer of the artifact's schema");
    return nullptr;
  }
  const Artifact *artifact = GetArtifact(payload.data());
  return validate(*artifact, error) ? artifact : nullptr;
}

uint64_t LoadedArtifact::checksum() const {
  Header header{};
  if (root)
    std::memcpy(&header, bytes.data(), sizeof(header));
  return header.checksum;
}

LoadedArtifact readArtifact(const std::string &path, Error &error) {
  LoadedArtifact result;
  auto fail = [&](const char *reason) {
    error.set(ErrorCode::ArtifactUnreadable, "cannot read '" + path + "': " + reason);
    return LoadedArtifact();
  };
  // Opening a pipe would wait for a writer.
  File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status;
  if (file.number < 0 || ::fstat(file.number, &status) != 0)
    return fail(std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    return fail("it is not a regular file");
  if (uint64_t(status.st_size) >= FLATBUFFERS_MAX_BUFFER_SIZE)
    return fail("it has 2 GB or more, which no artifact has");
  // The header first: a large file that is something else is not worth reading.
  result.bytes.resize(std::min<size_t>(size_t(status.st_size), sizeof(Header)));
  for (size_t done = 0; done < size_t(status.st_size);) {
    if (done == sizeof(Header)) {
      if (std::memcmp(result.bytes.data(), kMagic, sizeof(kMagic)) != 0)
        break;
      result.bytes.resize(size_t(status.st_size));
    }
    ssize_t count = ::read(file.number, result.bytes.data() + done, result.bytes.size() - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail(std::strerror(errno));
    if (count == 0)
      return fail("it became shorter while it was read");
    done += size_t(count);
  }
  result.root = verifyArtifact(result.bytes, error);
  if (!result.root) {
    error.message += " ('" + path + "')";
    return LoadedArtifact();
  }
  return result;
}

} // namespace helix::artifact
