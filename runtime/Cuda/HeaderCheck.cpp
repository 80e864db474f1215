//===- HeaderCheck.cpp - Our declarations against NVIDIA's headers ---------===//
//
// Compiled where the headers are installed; has no code.
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/BlasLt.h"
#include "runtime/Cuda/Nccl.h"

#include <cuda.h>
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif
#if __has_include(<nccl.h>)
#include <nccl.h>
#endif

#include <type_traits>

namespace helix::cuda {
namespace {

template <typename Ours, typename Theirs> constexpr bool samePointee() {
  using A = std::remove_cv_t<Ours>;
  using B = std::remove_cv_t<Theirs>;
  if constexpr (std::is_const_v<Ours> != std::is_const_v<Theirs>)
    return false;
  else if constexpr (std::is_same_v<A, B> || std::is_class_v<B>)
    return true;
  else if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>)
    return samePointee<std::remove_pointer_t<A>, std::remove_pointer_t<B>>();
  else
    return std::is_enum_v<B> && std::is_same_v<A, int>;
}

/// The same type, or int for an enumeration of its size, or a class of the same size.
template <typename Ours, typename Theirs> constexpr bool same() {
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>)
    return samePointee<std::remove_pointer_t<Ours>, std::remove_pointer_t<Theirs>>();
  else if constexpr (std::is_enum_v<Theirs>)
    return std::is_same_v<Ours, int> && sizeof(Theirs) == sizeof(int);
  else if constexpr (std::is_class_v<Theirs>)
    return std::is_class_v<Ours> && sizeof(Ours) == sizeof(Theirs);
  else
    return std::is_same_v<Ours, Theirs>;
}

template <typename... Ours, typename Result, typename... Theirs>
constexpr bool sameFunction(int (*)(Ours...), Result (*)(Theirs...)) {
  if constexpr (sizeof...(Ours) != sizeof...(Theirs))
    return false;
  else
    return same<int, Result>() && (same<Ours, Theirs>() && ...);
}

#define HELIX_CHECK(name, parameters)                                                                                  \
  static_assert(sameFunction(decltype(Driver::name)(nullptr), decltype (&::name)(nullptr)), #name);
HELIX_CUDA_DRIVER_FUNCTIONS(HELIX_CHECK)

static_assert(kSuccess == CUDA_SUCCESS && kNotReady == CUDA_ERROR_NOT_READY);
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kComputeMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kComputeMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kSharedPerMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
static_assert(kSharedPerBlockOptin == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kMaxDynamicShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kNonBlocking == CU_STREAM_NON_BLOCKING && kNoTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kRecordExternal == CU_EVENT_RECORD_EXTERNAL);
static_assert(kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(std::is_same_v<Address, CUdeviceptr> && std::is_same_v<int, CUdevice>);

#if __has_include(<cublasLt.h>)
#undef HELIX_CHECK
#define HELIX_CHECK(name, parameters)                                                                                  \
  static_assert(sameFunction(decltype(BlasLt::name)(nullptr), decltype (&::name)(nullptr)), #name);
HELIX_BLASLT_FUNCTIONS(HELIX_CHECK)
static_assert(std::is_same_v<decltype(BlasLt::cublasLtGetVersion), decltype(&::cublasLtGetVersion)>);
static_assert(sizeof(BlasLtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(BlasLtChoice) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(BlasLtChoice, workspaceBytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(BlasLtChoice, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(kBlasLtSuccess == CUBLAS_STATUS_SUCCESS && kBlasLtCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kBlasLtTransposed == CUBLAS_OP_T && sizeof(kBlasLtTransposed) == sizeof(cublasOperation_t));
static_assert(kBlasLtF32 == CUDA_R_32F && kBlasLtF16 == CUDA_R_16F && kBlasLtBF16 == CUDA_R_16BF);
static_assert(kBlasLtTransA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kBlasLtMaxWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kBlasLtReductions == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kBlasLtAlignA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kBlasLtAlignB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kBlasLtAlignC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kBlasLtAlignD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kBlasLtReduceApart == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
#endif

#if __has_include(<nccl.h>)
#undef HELIX_CHECK
#define HELIX_CHECK(name, parameters)                                                                                  \
  static_assert(sameFunction(decltype(Nccl::name)(nullptr), decltype (&::name)(nullptr)), #name);
HELIX_NCCL_FUNCTIONS(HELIX_CHECK)
static_assert(kNcclSuccess == ncclSuccess && kNcclInProgress == ncclInProgress && kNcclInt8 == ncclInt8);
static_assert(offsetof(NcclConfig, blocking) == offsetof(ncclConfig_t, blocking));
static_assert(offsetof(NcclConfig, netName) == offsetof(ncclConfig_t, netName));
static_assert(offsetof(NcclConfig, splitShare) == offsetof(ncclConfig_t, splitShare));
static_assert(NCCL_CONFIG_UNDEF_INT == INT32_MIN);
#endif

} // namespace
} // namespace helix::cuda
