//===- Emulation.h - CUDA kernels on the host ------------------------------===//
//
// Gives the names of runtime/Cuda/Kernels/Device.h and CUDA's own a meaning on the host. Include it, then a kernel's
// source; `run` executes a launch. Blocks run one after another, a block's threads as fibres of one host thread, each
// up to the next barrier or operation of its warp. What the GPU would leave undefined fails or is made visible: shared
// memory starts as NaN, bytes of an asynchronous copy are NaN until its thread has waited for it, operations of a warp
// that not all its lanes join and misaligned addresses end the test. Threads run in ascending order in one block and in
// descending order in the next, so that a missing barrier shows in one of them.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_TEST_UNIT_CUDA_EMULATION_H
#define HELIX_TEST_UNIT_CUDA_EMULATION_H

#include "runtime/Cuda/Kernels.h"
#include "runtime/Cuda/Kernels/Elements.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#define HELIX_CUDA_EMULATION
#define HELIX_KERNEL extern "C" void
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace helix::cuda {

namespace emulation {

struct Index {
  uint32_t x = 0, y = 0, z = 0;
};

/// Executes a launch of a kernel that was registered.
void run(const Launch &launch);

struct Kernel {
  size_t argumentBytes;
  std::function<void(const std::byte *argument)> body;
};
std::map<std::string, Kernel> &kernels();

template <typename Argument> bool registerKernel(const char *name, void (*kernel)(Argument)) {
  kernels()[name] = {sizeof(Argument), [kernel](const std::byte *bytes) {
                       Argument argument;
                       std::memcpy(static_cast<void *>(&argument), bytes, sizeof(Argument));
                       kernel(argument);
                     }};
  return true;
}
#define HELIX_REGISTER(name) [[maybe_unused]] const bool registered_##name = emulation::registerKernel(#name, name);

/// Waits until all lanes of the warp are here, then one of them calls `operation` with what each gave.
void joinWarp(void *mine, void (*operation)(void *const *lanes));

template <typename T, void (*operation)(T *const *lanes)> void joinWarp(T &mine) {
  joinWarp(&mine, [](void *const *lanes) {
    T *typed[32];
    for (int lane = 0; lane < 32; ++lane)
      typed[lane] = static_cast<T *>(lanes[lane]);
    operation(typed);
  });
}

/// Nanoseconds: what globalTime() reads, and sleepBriefly() advances. Computing takes none.
extern uint64_t clock;

void copyAsync(void *to, const void *from, bool valid);
void commitCopies();
void waitCopies(size_t groups);
void checkAligned(const void *p, size_t alignment);
void loadMatrices(uint32_t (&out)[4], const void *row, bool transposed);
void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (*decode)(uint16_t));

} // namespace emulation

extern emulation::Index threadIdx, blockIdx, blockDim, gridDim;
void __syncthreads();
void __syncwarp();
std::byte *sharedMemory();

float bitsToFloat(uint32_t bits);
uint32_t floatToBits(float x);
float toFloat(Half x);
float toFloat(BFloat x);
inline float toFloat(float x) { return x; }
void fromFloat(float x, Half &out);
void fromFloat(float x, BFloat &out);
inline void fromFloat(float x, float &out) { out = x; }
inline uint32_t subtractPairs(uint32_t a, uint32_t b) {
  BFloat high, low;
  fromFloat(toFloat(BFloat{uint16_t(a >> 16)}) - toFloat(BFloat{uint16_t(b >> 16)}), high);
  fromFloat(toFloat(BFloat{uint16_t(a)}) - toFloat(BFloat{uint16_t(b)}), low);
  return uint32_t(high.bits) << 16 | low.bits;
}
inline uint32_t multiplyPairs(uint32_t a, uint32_t b) {
  BFloat high, low;
  fromFloat(toFloat(BFloat{uint16_t(a >> 16)}) * toFloat(BFloat{uint16_t(b >> 16)}), high);
  fromFloat(toFloat(BFloat{uint16_t(a)}) * toFloat(BFloat{uint16_t(b)}), low);
  return uint32_t(high.bits) << 16 | low.bits;
}
uint32_t subtractHalves(uint32_t a, uint32_t b);
inline float exp2Fast(float x) { return std::exp2(x); }

inline uint64_t globalTime() { return emulation::clock; }
inline void sleepBriefly() { emulation::clock += 100; }

float shuffleXor(float x, int mask);
uint64_t shuffleXor(uint64_t x, int mask);
uint32_t shuffle(uint32_t x, int lane);
inline float shuffle(float x, int lane) { return bitsToFloat(shuffle(floatToBits(x), lane)); }
bool anyLane(bool predicate);

inline Bits128 load128(const void *p) {
  emulation::checkAligned(p, 16);
  Bits128 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Bits128 loadStreaming(const void *p) { return load128(p); }

inline void copyAsync(void *to, const void *from, bool valid = true) { emulation::copyAsync(to, from, valid); }
inline void commitCopies() { emulation::commitCopies(); }
template <int N> void waitCopies() { emulation::waitCopies(N); }
inline void loadMatrices(uint32_t (&out)[4], const void *row) { emulation::loadMatrices(out, row, false); }
inline void loadMatricesTransposed(uint32_t (&out)[4], const void *row) { emulation::loadMatrices(out, row, true); }
inline void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Half) {
  emulation::multiplyAdd(c, a, b0, b1, [](uint16_t bits) { return toFloat(Half{bits}); });
}
inline void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, BFloat) {
  emulation::multiplyAdd(c, a, b0, b1, [](uint16_t bits) { return toFloat(BFloat{bits}); });
}

void multiplyAddTf32(float (&c)[4], const float (&a)[4], float b0, float b1);

} // namespace helix::cuda

#endif // HELIX_TEST_UNIT_CUDA_EMULATION_H
