/*===- helix-c/kernel.h - The one prototype of generated kernels -----------===*/
#ifndef HELIX_C_KERNEL_H
#define HELIX_C_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A kernel in an artifact's image is a function of this type, without undefined symbols.
 *
 * buffers: the operands of its command, inputs then outputs, in the order in which the command lists them; row-major
 * and contiguous, f32, but i32 for lengths and i64 for token ids. Aligned to 64 bytes. Groups write disjoint parts of
 *          the outputs. An input is an output's memory only where the compiler placed it there.
 * scalars: dynamic sizes; none in format 1, the pointer is null.
 * group:   which part of the work, 0 <= group < the kernel's groups. Groups run in any order and in parallel, each
 * once.
 *
 * A kernel neither fails nor allocates nor keeps anything between calls.
 */
typedef void (*HelixKernel)(void *const *buffers, const int64_t *scalars, int64_t group);

/*
 * Of an image for nvptx64-nvidia-cuda a kernel is
 *
 *   __global__ void kernel(void *buffer0, void *buffer1, ...)
 *
 * with one parameter for each of the buffers above. It is launched with one block of HELIX_CUDA_THREADS threads for each
 * of its groups, along x, and no dynamic shared memory; it takes at most 48 KiB of shared memory of its own. Group g is
 * the block with blockIdx.x = g. Everything else is as above.
 */
#define HELIX_CUDA_THREADS 256

#ifdef __cplusplus
}
#endif

#endif /* HELIX_C_KERNEL_H */
