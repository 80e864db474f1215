//===- Blas.cpp - Products of many rows ------------------------------------===//
#include "runtime/Cuda/Blas.h"
#include "runtime/Error.h"

namespace helix::cuda {
namespace {

/// Of what cuBLASLt is given: addresses in arenas are multiples of 64.
constexpr uint32_t kOperandAlignment = 16;

void checkBlas(int status, const char *what) {
  if (status != kBlasLtSuccess)
    throw Error(ErrorCode::CudaFailed, std::string(what) + " returned cublasStatus_t " + std::to_string(status));
}

#define HELIX_BLAS(function, ...) checkBlas(blasLt().function(__VA_ARGS__), #function)

int typeOf(DType dtype) { return dtype == DType::F32 ? kBlasLtF32 : dtype == DType::F16 ? kBlasLtF16 : kBlasLtBF16; }

/// A descriptor, given back with `release`.
template <auto release> class Descriptor {
public:
  Descriptor() = default;
  Descriptor(const Descriptor &) = delete;
  ~Descriptor() {
    if (value)
      (blasLt().*release)(value);
  }
  void **out() { return &value; }
  void *get() const { return value; }

private:
  void *value = nullptr;
};
using Matrix = Descriptor<&BlasLt::cublasLtMatrixLayoutDestroy>;

} // namespace

class BlasCall {
public:
  BlasLtHandle handle = nullptr;
  Descriptor<&BlasLt::cublasLtMatmulDescDestroy> product;
  Matrix weightLayout, xLayout, yLayout;
  BlasLtAlgorithm algorithm = {};
  const void *weight = nullptr, *x = nullptr;
  float *y = nullptr;
  float beta = 0;
  void *workspace = nullptr;
  size_t workspaceBytes = 0;
};

BlasScratch blasScratch(const LinearArgs &args, bool rounds) {
  auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  BlasScratch scratch;
  if (args.dtype != DType::F32)
    scratch.powers = aligned(blasParts(args.dtype, rounds) * args.rows * linearStride(args.k, args.dtype) *
                             cpu::elementBytes(args.dtype));
  scratch.workspace = scratch.powers + (args.dtype == DType::F16 ? aligned(args.rows * sizeof(float)) : 0);
  scratch.bytes = scratch.workspace + kBlasWorkspace;
  return scratch;
}

Blas::Blas() {
  if (int status = blasLt().cublasLtCreate(&handle); status != kBlasLtSuccess)
    throw Error(ErrorCode::CudaUnavailable, "cublasLtCreate returned cublasStatus_t " + std::to_string(status));
}

Blas::~Blas() { blasLt().cublasLtDestroy(handle); }

std::shared_ptr<const BlasCall> Blas::call(const LinearArgs &args, const void *x, size_t xStride, size_t k, bool adds,
                                           void *workspace) const {
  // cuBLASLt's matrices are column-major: y' [n, rows] = (weight' [k, n])' · x' [k, rows].
  auto call = std::make_shared<BlasCall>();
  call->handle = handle;
  call->weight = args.weight, call->x = x, call->y = args.y;
  call->beta = adds ? 1 : 0;
  call->workspace = workspace;
  const int type = typeOf(args.dtype);
  HELIX_BLAS(cublasLtMatmulDescCreate, call->product.out(), kBlasLtCompute32F, kBlasLtF32);
  HELIX_BLAS(cublasLtMatmulDescSetAttribute, call->product.get(), kBlasLtTransA, &kBlasLtTransposed,
             sizeof kBlasLtTransposed);
  HELIX_BLAS(cublasLtMatrixLayoutCreate, call->weightLayout.out(), type, k, args.n,
             int64_t(linearStride(args.k, args.dtype)));
  HELIX_BLAS(cublasLtMatrixLayoutCreate, call->xLayout.out(), type, k, args.rows, int64_t(xStride));
  HELIX_BLAS(cublasLtMatrixLayoutCreate, call->yLayout.out(), kBlasLtF32, args.n, args.rows, int64_t(args.n));

  Descriptor<&BlasLt::cublasLtMatmulPreferenceDestroy> preference;
  HELIX_BLAS(cublasLtMatmulPreferenceCreate, preference.out());
  auto prefer = [&](int attribute, auto value) {
    HELIX_BLAS(cublasLtMatmulPreferenceSetAttribute, preference.get(), attribute, &value, sizeof value);
  };
  prefer(kBlasLtMaxWorkspace, uint64_t(kBlasWorkspace));
  prefer(kBlasLtReductions, kBlasLtReduceApart);
  for (int operand : {kBlasLtAlignA, kBlasLtAlignB, kBlasLtAlignC, kBlasLtAlignD})
    prefer(operand, kOperandAlignment);
  BlasLtChoice choice = {};
  int found = 0;
  int status = blasLt().cublasLtMatmulAlgoGetHeuristic(handle, call->product.get(), call->weightLayout.get(),
                                                       call->xLayout.get(), call->yLayout.get(), call->yLayout.get(),
                                                       preference.get(), 1, &choice, &found);
  if (status != kBlasLtSuccess || found == 0 || choice.state != kBlasLtSuccess)
    return nullptr;
  call->algorithm = choice.algorithm;
  call->workspaceBytes = choice.workspaceBytes;
  return call;
}

void run(const BlasCall &call, Stream stream) {
  const float alpha = 1;
  HELIX_BLAS(cublasLtMatmul, call.handle, call.product.get(), &alpha, call.weight, call.weightLayout.get(), call.x,
             call.xLayout.get(), &call.beta, call.y, call.yLayout.get(), call.y, call.yLayout.get(), &call.algorithm,
             call.workspace, call.workspaceBytes, stream);
}

} // namespace helix::cuda
