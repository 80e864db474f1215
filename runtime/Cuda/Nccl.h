//===- Nccl.h - NCCL, loaded when it is asked for --------------------------===//
//
// What is used of nccl.h, as in Driver.h.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_NCCL_H
#define HELIX_RUNTIME_CUDA_NCCL_H

#include "runtime/Cuda/Driver.h"

struct ncclComm;

namespace helix::cuda {

using NcclComm = ncclComm *;

struct NcclUniqueId {
  char internal[128];
};

/// The first fields of ncclConfig_t, as of NCCL 2.18; NCCL reads no more than `size` bytes.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = 0;
  int cgaClusterSize = INT32_MIN; ///< NCCL_CONFIG_UNDEF_INT
  int minCTAs = INT32_MIN;
  int maxCTAs = INT32_MIN;
  const char *netName = nullptr;
  int splitShare = INT32_MIN;
};

/// ncclResult_t, ncclDataType_t
inline constexpr int kNcclSuccess = 0, kNcclInProgress = 7, kNcclInt8 = 0;

#define HELIX_NCCL_FUNCTIONS(F)                                                                                        \
  F(ncclGetVersion, (int *))                                                                                           \
  F(ncclGetUniqueId, (NcclUniqueId *))                                                                                 \
  F(ncclCommInitRankConfig, (NcclComm *, int, NcclUniqueId, int, NcclConfig *))                                        \
  F(ncclCommSplit, (NcclComm, int, int, NcclComm *, NcclConfig *))                                                     \
  F(ncclCommGetAsyncError, (NcclComm, int *))                                                                          \
  F(ncclCommFinalize, (NcclComm))                                                                                      \
  F(ncclCommDestroy, (NcclComm))                                                                                       \
  F(ncclCommAbort, (NcclComm))                                                                                         \
  F(ncclGroupStart, ())                                                                                                \
  F(ncclGroupEnd, ())                                                                                                  \
  F(ncclSend, (const void *, size_t, int, int, NcclComm, Stream))                                                      \
  F(ncclRecv, (void *, size_t, int, int, NcclComm, Stream))

struct Nccl {
#define HELIX_DECLARE(name, parameters) int(*name) parameters = nullptr;
  HELIX_NCCL_FUNCTIONS(HELIX_DECLARE)
#undef HELIX_DECLARE
  const char *(*ncclGetErrorString)(int) = nullptr;
  const char *(*ncclGetLastError)(NcclComm) = nullptr;
};

/// libnccl.so.2, or the library that the environment variable HELIX_LIBNCCL names. Throws NcclUnavailable if there is
/// none, or one older than 2.18.
const Nccl &nccl();

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_NCCL_H
