//===- Driver.h - The CUDA driver, loaded when it is asked for -------------===//
//
// What is used of cuda.h, declared again so that nothing here needs the toolkit; where it is installed, DriverCheck.cpp
// compares every function with it. Enumerations are passed as int. Types have cuda.h's tags, so both can be included.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_DRIVER_H
#define HELIX_RUNTIME_CUDA_DRIVER_H

#include <cstddef>
#include <cstdint>

struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUevent_st;
struct CUstream_st;
struct CUgraph_st;
struct CUgraphExec_st;

namespace helix::cuda {

using Address = unsigned long long; ///< CUdeviceptr
using Context = CUctx_st *;
using Module = CUmod_st *;
using Function = CUfunc_st *;
using Event = CUevent_st *;
using Stream = CUstream_st *;
using Graph = CUgraph_st *;
using GraphExec = CUgraphExec_st *;

/// CUresult
inline constexpr int kSuccess = 0, kNotReady = 600;
/// CUdevice_attribute
inline constexpr int kMultiprocessors = 16, kComputeMajor = 75, kComputeMinor = 76, kSharedPerMultiprocessor = 81,
                     kSharedPerBlockOptin = 97;
/// CUfunction_attribute: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
inline constexpr int kMaxDynamicShared = 8;
/// CU_STREAM_NON_BLOCKING, CU_EVENT_DISABLE_TIMING, CU_EVENT_RECORD_EXTERNAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
inline constexpr unsigned kNonBlocking = 1, kNoTiming = 2, kRecordExternal = 1;
inline constexpr int kCaptureThreadLocal = 1;

// F(name, parameters)
#define HELIX_CUDA_DRIVER_FUNCTIONS(F)                                                                                 \
  F(cuInit, (unsigned))                                                                                                \
  F(cuDriverGetVersion, (int *))                                                                                       \
  F(cuGetErrorName, (int, const char **))                                                                              \
  F(cuGetErrorString, (int, const char **))                                                                            \
  F(cuDeviceGetCount, (int *))                                                                                         \
  F(cuDeviceGet, (int *, int))                                                                                         \
  F(cuDeviceGetName, (char *, int, int))                                                                               \
  F(cuDeviceGetAttribute, (int *, int, int))                                                                           \
  F(cuDevicePrimaryCtxRetain, (Context *, int))                                                                        \
  F(cuDevicePrimaryCtxRelease_v2, (int))                                                                               \
  F(cuCtxSetCurrent, (Context))                                                                                        \
  F(cuMemGetInfo_v2, (size_t *, size_t *))                                                                             \
  F(cuMemAlloc_v2, (Address *, size_t))                                                                                \
  F(cuMemFree_v2, (Address))                                                                                           \
  F(cuMemHostAlloc, (void **, size_t, unsigned))                                                                       \
  F(cuMemFreeHost, (void *))                                                                                           \
  F(cuMemcpyHtoDAsync_v2, (Address, const void *, size_t, Stream))                                                     \
  F(cuMemcpyDtoHAsync_v2, (void *, Address, size_t, Stream))                                                           \
  F(cuMemcpyDtoDAsync_v2, (Address, Address, size_t, Stream))                                                          \
  F(cuMemsetD8Async, (Address, unsigned char, size_t, Stream))                                                         \
  F(cuCtxGetStreamPriorityRange, (int *, int *))                                                                       \
  F(cuStreamCreateWithPriority, (Stream *, unsigned, int))                                                             \
  F(cuStreamDestroy_v2, (Stream))                                                                                      \
  F(cuStreamSynchronize, (Stream))                                                                                     \
  F(cuStreamQuery, (Stream))                                                                                           \
  F(cuStreamWaitEvent, (Stream, Event, unsigned))                                                                      \
  F(cuStreamBeginCapture_v2, (Stream, int))                                                                            \
  F(cuStreamEndCapture, (Stream, Graph *))                                                                             \
  F(cuEventCreate, (Event *, unsigned))                                                                                \
  F(cuEventDestroy_v2, (Event))                                                                                        \
  F(cuEventRecord, (Event, Stream))                                                                                    \
  F(cuEventRecordWithFlags, (Event, Stream, unsigned))                                                                 \
  F(cuEventElapsedTime_v2, (float *, Event, Event))                                                                    \
  F(cuGraphInstantiateWithFlags, (GraphExec *, Graph, unsigned long long))                                             \
  F(cuGraphLaunch, (GraphExec, Stream))                                                                                \
  F(cuGraphDestroy, (Graph))                                                                                           \
  F(cuGraphExecDestroy, (GraphExec))                                                                                   \
  F(cuModuleLoadData, (Module *, const void *))                                                                        \
  F(cuModuleUnload, (Module))                                                                                          \
  F(cuModuleGetFunction, (Function *, Module, const char *))                                                           \
  F(cuFuncSetAttribute, (Function, int, int))                                                                          \
  F(cuLaunchKernel,                                                                                                    \
    (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void **, void **))

struct Driver {
#define HELIX_DECLARE(name, parameters) int(*name) parameters = nullptr;
  HELIX_CUDA_DRIVER_FUNCTIONS(HELIX_DECLARE)
#undef HELIX_DECLARE
};

/// The driver of this machine: libcuda.so.1, or the library that the environment variable HELIX_LIBCUDA names. Throws
/// CudaUnavailable if there is none.
const Driver &driver();

/// Throws CudaFailed unless `result` is success, with what the driver calls it. `what`: the call, as in cuda.h.
void check(int result, const char *what);

#define HELIX_CU(function, ...) ::helix::cuda::check(::helix::cuda::driver().function(__VA_ARGS__), #function)

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_DRIVER_H
