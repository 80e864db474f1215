//===- WholeFile.cpp - Files that are written whole or not at all ----------===//
#include "lib/Artifact/WholeFile.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace helix::artifact {
namespace {

bool writeAll(int file, const char *bytes, size_t count) {
  while (count != 0) {
    ssize_t written = ::write(file, bytes, count);
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return false;
    bytes += written;
    count -= size_t(written);
  }
  return true;
}

} // namespace

bool writeWholeFile(const std::string &path, const void *bytes, size_t count, std::string &reason) {
  std::string temporary = path + "." + std::to_string(::getpid()) + ".tmp";
  int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) {
    reason = std::strerror(errno);
    return false;
  }
  bool written = writeAll(file, static_cast<const char *>(bytes), count);
  int problem = errno;
  // Closing can report a write that failed late.
  bool closed = ::close(file) == 0;
  problem = written && !closed ? errno : problem;
  if (written && closed && std::rename(temporary.c_str(), path.c_str()) == 0)
    return true;
  reason = std::strerror(written && closed ? errno : problem);
  ::unlink(temporary.c_str());
  return false;
}

} // namespace helix::artifact
