//===- Memory.h - Mapped memory, and how much there is ---------------------===//
#ifndef HELIX_RUNTIME_CORE_MEMORY_H
#define HELIX_RUNTIME_CORE_MEMORY_H

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace helix {

/// Pages of memory or of a file, unmapped at the end.
class Mapping {
public:
  Mapping() = default;
  Mapping(Mapping &&other) noexcept
      : base(std::exchange(other.base, nullptr)), length(std::exchange(other.length, 0)),
        mapped(std::exchange(other.mapped, 0)) {}
  Mapping &operator=(Mapping &&other) noexcept {
    std::swap(base, other.base);
    std::swap(length, other.length);
    std::swap(mapped, other.mapped);
    return *this;
  }
  ~Mapping();

  /// Zeros, of which only what is touched takes memory; a page that cannot be touched follows. Throws MemoryExhausted.
  static Mapping zeros(uint64_t bytes);

  /// A whole file, read-only. Throws WeightFileInvalid if it is not a regular file of `bytes` bytes.
  static Mapping file(const std::string &path, uint64_t bytes);

  /// Says that these bytes of a file are not needed soon: what they take of this process's memory is given back.
  void release(uint64_t offset, uint64_t bytes) const;

  std::byte *data() const { return base; }
  uint64_t size() const { return length; }
  std::span<const std::byte> bytes() const { return {base, length}; }

private:
  std::byte *base = nullptr;
  uint64_t length = 0;
  uint64_t mapped = 0; ///< with what rounds it up to pages and the page behind
};

/// Bytes that can be allocated without swapping: the least of what the system has available and what the control groups
/// of this process leave.
uint64_t availableMemory();

/// "1.5 GiB", "640 B".
std::string formatBytes(uint64_t bytes);

/// "1 rank", "2 ranks".
std::string counted(uint64_t count, const char *noun);

} // namespace helix

#endif // HELIX_RUNTIME_CORE_MEMORY_H
