//===- Machine.h - What the kernel tests run on ----------------------------===//
//
// The same tests run on the emulation and, in test/gpu, on a GPU.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_TEST_UNIT_CUDA_MACHINE_H
#define HELIX_TEST_UNIT_CUDA_MACHINE_H

#include "runtime/Cuda/Kernels.h"

#include <vector>

namespace helix::cuda::test {

class Machine {
public:
  virtual ~Machine() = default;
  virtual DeviceShape shape() const = 0;
  /// What sums of tensor cores may be off by, relative to the largest.
  virtual double sumError() const = 0;
  virtual void *allocate(size_t bytes) = 0; ///< aligned to 256; filled with 0xff, which is NaN in every type
  virtual void free(void *memory) = 0;
  virtual void upload(void *to, const void *from, size_t bytes) = 0;
  virtual void download(void *to, const void *from, size_t bytes) = 0;
  virtual void run(const std::vector<Launch> &launches) = 0;

  template <typename Args> void launch(const Args &args) { run(launches(args, shape())); }
};

/// The one that the test program was built for.
Machine &machine();

/// Memory of the machine.
template <typename T> class Buffer {
public:
  explicit Buffer(size_t count) : count(count), memory(static_cast<T *>(machine().allocate(count * sizeof(T)))) {}
  explicit Buffer(const std::vector<T> &values) : Buffer(values.size()) {
    machine().upload(memory, values.data(), count * sizeof(T));
  }
  Buffer(Buffer &&other) noexcept : count(other.count), memory(other.memory) { other.memory = nullptr; }
  Buffer &operator=(Buffer &&) = delete;
  ~Buffer() {
    if (memory)
      machine().free(memory);
  }

  T *data() const { return memory; }
  size_t size() const { return count; }
  void write(const std::vector<T> &values) { machine().upload(memory, values.data(), values.size() * sizeof(T)); }
  std::vector<T> read() const {
    std::vector<T> values(count);
    machine().download(values.data(), memory, count * sizeof(T));
    return values;
  }

private:
  size_t count;
  T *memory;
};

} // namespace helix::cuda::test

#endif // HELIX_TEST_UNIT_CUDA_MACHINE_H
