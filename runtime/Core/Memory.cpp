//===- Memory.cpp - Mapped memory, and how much there is -------------------===//
#include "runtime/Core/Memory.h"
#include "runtime/Error.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <limits>
#include <optional>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if !defined(__has_feature)
#define __has_feature(feature) 0
#endif
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif

namespace helix {
namespace {

/// Tells AddressSanitizer, in a build with it, what must not be touched.
void setPoisoned([[maybe_unused]] std::byte *from, [[maybe_unused]] uint64_t bytes, [[maybe_unused]] bool poisoned) {
#if __has_feature(address_sanitizer)
  if (poisoned)
    __asan_poison_memory_region(from, bytes);
  else
    __asan_unpoison_memory_region(from, bytes);
#endif
}

} // namespace

Mapping::~Mapping() {
  if (!base)
    return;
  setPoisoned(base, mapped, false);
  ::munmap(base, mapped);
}

Mapping Mapping::zeros(uint64_t bytes) {
  Mapping result;
  if (bytes == 0)
    return result;
  uint64_t page = uint64_t(::sysconf(_SC_PAGESIZE)), usable = (bytes + page - 1) / page * page;
  void *base =
      ::mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED)
    throw Error(ErrorCode::MemoryExhausted, "cannot map " + formatBytes(bytes) + ": " + std::strerror(errno));
  result.base = static_cast<std::byte *>(base);
  result.length = bytes;
  result.mapped = usable + page;
  // Streams of weights and tokens would else stop at every small page; a kernel without huge pages does without.
  ::madvise(base, usable, MADV_HUGEPAGE);
  ::mprotect(result.base + usable, page, PROT_NONE);
  setPoisoned(result.base + bytes, result.mapped - bytes, true);
  return result;
}

Mapping Mapping::file(const std::string &path, uint64_t bytes) {
  auto fail = [&](const std::string &reason) -> Error {
    return {ErrorCode::WeightFileInvalid, "weight file '" + path + "' " + reason +
                                              "; give the directory that holds the model with --weights-root, or "
                                              "compile it again"};
  };
  // Opening a pipe would wait for a writer.
  int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status;
  if (number < 0 || ::fstat(number, &status) != 0) {
    std::string reason = std::strerror(errno);
    if (number >= 0)
      ::close(number);
    throw fail("cannot be read: " + reason);
  }
  Mapping result;
  std::optional<Error> error;
  if (!S_ISREG(status.st_mode)) {
    error = fail("is not a regular file");
  } else if (uint64_t(status.st_size) != bytes) {
    error = fail("has " + std::to_string(status.st_size) + " bytes, it had " + std::to_string(bytes) +
                 " when the artifact was compiled");
  } else if (bytes != 0) {
    void *base = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, number, 0);
    if (base == MAP_FAILED) {
      error = fail("cannot be mapped: " + std::string(std::strerror(errno)));
    } else {
      result.base = static_cast<std::byte *>(base);
      result.length = result.mapped = bytes;
    }
  }
  ::close(number);
  if (error)
    throw *error;
  return result;
}

void Mapping::release(uint64_t offset, uint64_t bytes) const {
  uint64_t page = uint64_t(::sysconf(_SC_PAGESIZE)), begin = (offset + page - 1) / page * page;
  uint64_t end = (offset + bytes) / page * page;
  if (begin < end)
    ::madvise(base + begin, end - begin, MADV_DONTNEED);
}

namespace {

std::optional<uint64_t> readNumber(const std::string &path) {
  std::ifstream file(path);
  uint64_t value;
  // "max" is no number.
  return file >> value ? std::optional(value) : std::nullopt;
}

uint64_t systemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (uint64_t kib; file >> name >> kib; std::getline(file, unit))
    if (name == "MemAvailable:")
      return kib * 1024;
  return std::numeric_limits<uint64_t>::max();
}

/// What a control group leaves, given the files that state its limit and its use.
uint64_t remaining(const std::string &limit, const std::string &used) {
  std::optional<uint64_t> most = readNumber(limit), now = readNumber(used);
  if (!most || !now)
    return std::numeric_limits<uint64_t>::max();
  return *most > *now ? *most - *now : 0;
}

uint64_t groupsAvailable() {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos)
      continue;
    std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    bool unified = controllers.empty();
    if (!unified && controllers != "memory")
      continue;
    // In a container the path may be the host's; the groups that can be seen count.
    for (;; path.resize(path.rfind('/'))) {
      if (path == "/")
        path.clear();
      std::string base = (unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory") + path;
      least = std::min(least, unified ? remaining(base + "/memory.max", base + "/memory.current")
                                      : remaining(base + "/memory.limit_in_bytes", base + "/memory.usage_in_bytes"));
      if (path.rfind('/') == std::string::npos)
        break;
    }
  }
  return least;
}

} // namespace

uint64_t availableMemory() { return std::min(systemAvailable(), groupsAvailable()); }

std::string formatBytes(uint64_t bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  unsigned unit = 0;
  double value = double(bytes);
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit)
    value /= 1024;
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

std::string counted(uint64_t count, const char *noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

} // namespace helix
