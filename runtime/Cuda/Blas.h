//===- Blas.h - Products of many rows --------------------------------------===//
//
// A weight lies on the device as cuBLASLt's operand of a product y = x · weight: transposed, its rows padded. x is f32.
// Where the weight is, too, so is the product. Where its elements are of 16 bits, x is split into as many numbers of
// that type as hold it (of bf16 three, exactly; of f16 two, 22 bits, of a row that is divided by a power of two first),
// and their products are added up in f32, the smallest first; or it is rounded to that type, which takes one product
// and not three or two.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_BLAS_H
#define HELIX_RUNTIME_CUDA_BLAS_H

#include "runtime/Cuda/BlasLt.h"
#include "runtime/Cuda/Kernels.h"

#include <memory>

namespace helix::cuda {

/// Of each product, within scratch: what cuBLASLt may keep there.
inline constexpr size_t kBlasWorkspace = size_t(32) << 20;

/// Numbers of the weight's type that an element of x becomes.
constexpr uint32_t blasParts(DType dtype, bool rounds) {
  return dtype == DType::F32 || rounds ? 1 : dtype == DType::BF16 ? 3 : 2;
}

/// Whether a product is rather cuBLASLt's: the written kernels read the weight, at best from the second-level cache,
/// once for every kSkinnyRows rows, cuBLASLt once for every part.
constexpr bool isForBlas(const LinearArgs &args, bool rounds) {
  return args.rows > kSkinnyRows * blasParts(args.dtype, rounds) && args.n != 0 && args.k != 0;
}

/// Where a product's scratch has what, in bytes; multiples of 256.
struct BlasScratch {
  size_t parts = 0; ///< [blasParts, rows, linearStride(k)], of the weight's type; nothing of f32
  size_t powers = 0, workspace = 0, bytes = 0;
};
BlasScratch blasScratch(const LinearArgs &args, bool rounds);

/// A call of cublasLtMatmul, everything about it decided.
class BlasCall;

/// cuBLASLt on the GPU whose context is current.
class Blas {
public:
  /// Throws CudaUnavailable if there is none or it refuses the GPU.
  Blas();
  ~Blas();
  Blas(const Blas &) = delete;

  /// Such as 130101 for 13.1.1.
  size_t version() const { return blasLt().cublasLtGetVersion(); }

  /// y [rows, n] = x · weight, or, if `adds`, y + x · weight. x [rows][xStride], of the weight's type; `k` elements of
  /// each. The same algorithm for the same sizes. Null if cuBLASLt has none. `workspace`: kBlasWorkspace bytes.
  std::shared_ptr<const BlasCall> call(const LinearArgs &args, const void *x, size_t xStride, size_t k, bool adds,
                                       void *workspace) const;

private:
  BlasLtHandle handle = nullptr;
};

/// Puts it on a stream, which may be captured. Throws CudaFailed.
void run(const BlasCall &call, Stream stream);

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_BLAS_H
