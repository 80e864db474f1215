//===- Device.h - What the kernels ask of the GPU --------------------------===//
//
// The kernels use CUDA's built-in indices and barriers, and these functions; test/unit/Cuda/Emulation.h gives the same
// names a meaning on the host, so that the kernels' own source is tested there.
//
// Functions that say "warp" are called by all 32 lanes. Fragments are those of PTX's mma.m16n8k16: with g = lane / 4
// and t = lane % 4, a[0..3] hold rows g, g + 8, g, g + 8 of A at columns 2t, 2t, 2t + 8, 2t + 8; b[0..1] hold column g
// of B at rows 2t, 2t + 8; c[0..3] hold rows g, g, g + 8, g + 8 of C at columns 2t, 2t + 1, 2t, 2t + 1. A register of a
// or b holds the element named and the next one along k.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_DEVICE_H
#define HELIX_RUNTIME_CUDA_KERNELS_DEVICE_H

#include "runtime/Cuda/Kernels/Elements.h"

#define HELIX_KERNEL extern "C" __global__ void

namespace helix::cuda {

/// The block's dynamic shared memory, aligned to 128 bytes.
__device__ __forceinline__ std::byte *sharedMemory() {
  extern __shared__ __align__(128) std::byte helixSharedMemory[];
  return helixSharedMemory;
}

__device__ __forceinline__ float bitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t floatToBits(float x) { return __float_as_uint(x); }

__device__ __forceinline__ float toFloat(float x) { return x; }
__device__ __forceinline__ float toFloat(BFloat x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ float toFloat(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

__device__ __forceinline__ void fromFloat(float x, float &out) { out = x; }
__device__ __forceinline__ void fromFloat(float x, Half &out) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
}
__device__ __forceinline__ void fromFloat(float x, BFloat &out) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
}

/// a - b of two bf16 each, rounded to nearest even.
__device__ __forceinline__ uint32_t subtractPairs(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(0x3f803f80), "r"(b ^ 0x80008000));
  return y;
}

/// a · b of two bf16 each, rounded to nearest even; subnormal numbers count.
__device__ __forceinline__ uint32_t multiplyPairs(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(0x80008000));
  return y;
}

/// a - b of two f16 in each.
__device__ __forceinline__ uint32_t subtractHalves(uint32_t a, uint32_t b) {
  uint32_t difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}

/// 2^x to 2^-22, subnormal results are 0; NaN stays NaN.
__device__ __forceinline__ float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Nanoseconds of a clock that all blocks share. It advances in steps, of up to a microsecond.
__device__ __forceinline__ uint64_t globalTime() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}
/// Leaves the multiprocessor to others for a fraction of a microsecond.
__device__ __forceinline__ void sleepBriefly() { __nanosleep(100); }

/// Warp: the value of another lane.
__device__ __forceinline__ float shuffleXor(float x, int mask) { return __shfl_xor_sync(0xffffffff, x, mask); }
__device__ __forceinline__ uint64_t shuffleXor(uint64_t x, int mask) { return __shfl_xor_sync(0xffffffff, x, mask); }
__device__ __forceinline__ uint32_t shuffle(uint32_t x, int lane) { return __shfl_sync(0xffffffff, x, lane); }
__device__ __forceinline__ float shuffle(float x, int lane) { return __shfl_sync(0xffffffff, x, lane); }

/// Warp: whether the predicate holds in any lane.
__device__ __forceinline__ bool anyLane(bool predicate) { return __any_sync(0xffffffff, predicate); }

/// Sixteen bytes that are read once.
__device__ __forceinline__ Bits128 loadStreaming(const void *p) {
  Bits128 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
      : "l"(p));
  return v;
}
__device__ __forceinline__ Bits128 load128(const void *p) {
  uint4 v = *static_cast<const uint4 *>(p);
  return {v.x, v.y, v.z, v.w};
}

/// Starts to copy 16 bytes to shared memory; with `valid` false, zeros, and the source is not read.
__device__ __forceinline__ void copyAsync(void *to, const void *from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(uint32_t(__cvta_generic_to_shared(to))), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
/// Ends a group of copies.
__device__ __forceinline__ void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most N of the thread's groups are under way; others see the data after a barrier.
template <int N> __device__ __forceinline__ void waitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Warp: four 8 x 8 matrices of 16-bit elements from shared memory; lane 8i + r gives the address of row r of matrix i,
/// 16-byte aligned. Lane l gets of matrix i the elements 2 (l % 4) and the next of row l / 4.
__device__ __forceinline__ void loadMatrices(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}
/// The same of the matrices' transposes: lane l gets rows 2 (l % 4) and the next of column l / 4.
__device__ __forceinline__ void loadMatricesTransposed(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

/// Warp: c += a · b, [16, 16] by [16, 8].
__device__ __forceinline__ void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, BFloat) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Warp: c += a · b, [16, 8] by [8, 8] in tf32, which is f32 without its last 13 bits; these must be 0. a[0..3] hold
/// rows g, g + 8, g, g + 8 at columns t, t, t + 4, t + 4; b0 and b1 column g at rows t and t + 4; c as above.
__device__ __forceinline__ void multiplyAddTf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(floatToBits(a[0])), "r"(floatToBits(a[1])), "r"(floatToBits(a[2])), "r"(floatToBits(a[3])),
        "r"(floatToBits(b0)), "r"(floatToBits(b1)));
}

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_DEVICE_H
