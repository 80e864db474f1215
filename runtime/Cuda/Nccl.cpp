//===- Nccl.cpp - NCCL, loaded when it is asked for ------------------------===//
#include "runtime/Cuda/Nccl.h"
#include "runtime/Cuda/Library.h"

namespace helix::cuda {
namespace {

Nccl load() {
  constexpr ErrorCode code = ErrorCode::NcclUnavailable;
  const std::string use = "several processes run the artifact, and NCCL cannot be loaded here";
  void *library = openLibrary({"libnccl.so.2", "libnccl.so"}, "HELIX_LIBNCCL", code, use);
  Nccl nccl;
#define HELIX_FIND(name, parameters) findFunction(library, #name, nccl.name, code, use);
  HELIX_NCCL_FUNCTIONS(HELIX_FIND)
#undef HELIX_FIND
  findFunction(library, "ncclGetErrorString", nccl.ncclGetErrorString, code, use);
  findFunction(library, "ncclGetLastError", nccl.ncclGetLastError, code, use);
  int version = 0;
  if (nccl.ncclGetVersion(&version) != kNcclSuccess || version < 21800)
    throw Error(code, use + ": it is version " + std::to_string(version) + ", 21800 (2.18) or newer is needed");
  return nccl;
}

} // namespace

const Nccl &nccl() {
  static const Nccl loaded = load();
  return loaded;
}

} // namespace helix::cuda
