//===- BlasLt.h - cuBLASLt, loaded when it is asked for --------------------===//
//
// What is used of cublasLt.h, as in Driver.h. Descriptors, which are types without tags there, are void here.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_BLASLT_H
#define HELIX_RUNTIME_CUDA_BLASLT_H

#include "runtime/Cuda/Driver.h"

#include <string>

struct cublasLtContext;

namespace helix::cuda {

using BlasLtHandle = cublasLtContext *;

/// cublasLtMatmulAlgo_t
struct BlasLtAlgorithm {
  uint64_t data[8];
};

/// cublasLtMatmulHeuristicResult_t
struct BlasLtChoice {
  BlasLtAlgorithm algorithm;
  size_t workspaceBytes;
  int state;
  float waves;
  int reserved[4];
};

/// cublasStatus_t, cublasComputeType_t, cublasOperation_t
inline constexpr int kBlasLtSuccess = 0, kBlasLtCompute32F = 68, kBlasLtTransposed = 1;
/// cudaDataType
inline constexpr int kBlasLtF32 = 0, kBlasLtF16 = 2, kBlasLtBF16 = 14;
/// cublasLtMatmulDescAttributes_t
inline constexpr int kBlasLtTransA = 3;
/// cublasLtMatmulPreferenceAttributes_t
inline constexpr int kBlasLtMaxWorkspace = 1, kBlasLtReductions = 3, kBlasLtAlignA = 5, kBlasLtAlignB = 6,
                     kBlasLtAlignC = 7, kBlasLtAlignD = 8;
/// CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: parts of k are kept and added in order, none is added in place.
inline constexpr uint32_t kBlasLtReduceApart = 2;

// F(name, parameters)
#define HELIX_BLASLT_FUNCTIONS(F)                                                                                      \
  F(cublasLtCreate, (BlasLtHandle *))                                                                                  \
  F(cublasLtDestroy, (BlasLtHandle))                                                                                   \
  F(cublasLtMatmulDescCreate, (void **, int, int))                                                                     \
  F(cublasLtMatmulDescSetAttribute, (void *, int, const void *, size_t))                                               \
  F(cublasLtMatmulDescDestroy, (void *))                                                                               \
  F(cublasLtMatrixLayoutCreate, (void **, int, uint64_t, uint64_t, int64_t))                                           \
  F(cublasLtMatrixLayoutDestroy, (void *))                                                                             \
  F(cublasLtMatmulPreferenceCreate, (void **))                                                                         \
  F(cublasLtMatmulPreferenceSetAttribute, (void *, int, const void *, size_t))                                         \
  F(cublasLtMatmulPreferenceDestroy, (void *))                                                                         \
  F(cublasLtMatmulAlgoGetHeuristic,                                                                                    \
    (BlasLtHandle, void *, void *, void *, void *, void *, void *, int, BlasLtChoice *, int *))                        \
  F(cublasLtMatmul, (BlasLtHandle, void *, const void *, const void *, void *, const void *, void *, const void *,     \
                     const void *, void *, void *, void *, const BlasLtAlgorithm *, void *, size_t, Stream))

struct BlasLt {
#define HELIX_DECLARE(name, parameters) int(*name) parameters = nullptr;
  HELIX_BLASLT_FUNCTIONS(HELIX_DECLARE)
#undef HELIX_DECLARE
  size_t (*cublasLtGetVersion)() = nullptr;
};

/// libcublasLt.so.13 or .12, or the library that the environment variable HELIX_LIBCUBLASLT names. Throws
/// CudaUnavailable if there is none.
const BlasLt &blasLt();

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_BLASLT_H
