//===- EmulatedMachine.cpp - The kernel tests on the host ------------------===//
#include "Emulation.h"
#include "Machine.h"

#include "runtime/Cuda/Kernels/Rows.cu"

#include <cstdlib>

namespace helix::cuda {

HELIX_REGISTER(helix_embedding)
HELIX_REGISTER(helix_embedding_quantized)
HELIX_REGISTER(helix_last_token)
HELIX_REGISTER(helix_keep_logits)
HELIX_REGISTER(helix_concat)
HELIX_REGISTER(helix_kv_append)
HELIX_REGISTER(helix_kv_fill)
HELIX_REGISTER(helix_merge_attention)
HELIX_REGISTER(helix_reduce_ordered)
HELIX_REGISTER(helix_split_rows)
HELIX_REGISTER(helix_scale_rows)
HELIX_REGISTER(helix_pack_weight)

namespace test {
namespace {

class EmulatedMachine : public Machine {
public:
  /// Few multiprocessors, so that blocks which share out work have several rounds of it.
  DeviceShape shape() const override { return {3, 232448, 233472}; }
  double sumError() const override { return 1e-6; }
  void *allocate(size_t bytes) override {
    void *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xff, bytes);
    return memory;
  }
  void free(void *memory) override { std::free(memory); }
  void upload(void *to, const void *from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void *to, const void *from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void run(const std::vector<Launch> &launches) override {
    for (const Launch &launch : launches)
      emulation::run(launch);
  }
};

} // namespace

Machine &machine() {
  static EmulatedMachine machine;
  return machine;
}

} // namespace test
} // namespace helix::cuda
