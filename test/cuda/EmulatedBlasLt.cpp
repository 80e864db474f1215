//===- EmulatedBlasLt.cpp - cuBLASLt without a GPU -------------------------===//
//
// The functions of runtime/Cuda/BlasLt.h, as a library for HELIX_LIBCUBLASLT, on streams of EmulatedDriver.cpp. A
// product is what its descriptors say, in float64. What cuBLASLt would read or write beside its operands, or leave
// undefined, returns an error; the workspace is overwritten. HELIX_EMULATED_LOG gets a line per choice of an algorithm.
// HELIX_EMULATED_CUBLASLT makes it misbehave:
//
//   refuse     no handle
//   none       no algorithm for any product
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/BlasLt.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <vector>

using namespace helix::cuda;

namespace {

enum Status { Success = 0, NotInitialized = 1, InvalidValue = 7, NotSupported = 15 };

constexpr size_t kNeededWorkspace = 4096;

struct Product {
  int compute, scale;
  int transA = 0, transB = 0;
};
struct Matrix {
  int type;
  uint64_t rows, columns;
  int64_t stride;

  size_t elementBytes() const { return type == kBlasLtF32 ? 4 : 2; }
  size_t bytes() const { return ((columns - 1) * size_t(stride) + rows) * elementBytes(); }
  bool isValid() const {
    return (type == kBlasLtF32 || type == kBlasLtF16 || type == kBlasLtBF16) && rows != 0 && columns != 0 &&
           stride >= int64_t(rows);
  }
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = 7;
  uint32_t alignments[4] = {256, 256, 256, 256};
};

std::string misbehaviour() {
  const char *text = std::getenv("HELIX_EMULATED_CUBLASLT");
  return text ? text : "";
}

template <typename Function> Function driverFunction(const char *name) {
  static void *library = ::dlopen(std::getenv("HELIX_LIBCUDA"), RTLD_NOW);
  return reinterpret_cast<Function>(::dlsym(library, name));
}

bool isMemory(const void *at, size_t bytes) {
  return driverFunction<bool (*)(Address, size_t)>("helixEmulatedIsMemory")(reinterpret_cast<Address>(at), bytes);
}

double elementOf(const Matrix &matrix, const void *data, size_t row, size_t column) {
  const auto *at = static_cast<const char *>(data) + (column * size_t(matrix.stride) + row) * matrix.elementBytes();
  if (matrix.type == kBlasLtF32) {
    float x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  if (matrix.type == kBlasLtBF16)
    return std::bit_cast<float>(uint32_t(bits) << 16);
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double x = exponent == 31  ? (fraction ? NAN : INFINITY)
             : exponent == 0 ? std::ldexp(fraction, -24)
                             : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -x : x;
}

/// What makes two products the same to an algorithm.
BlasLtAlgorithm algorithmOf(const Product &product, const Matrix &a, const Matrix &b, const Matrix &d) {
  return {{0x48656c69784c74, uint64_t(product.transA), a.rows, a.columns, b.columns, d.rows,
           uint64_t(a.stride) << 32 | uint64_t(b.stride), uint64_t(a.type)}};
}

/// Whether cuBLASLt has such a product: op(A) transposed, in f32, of operands of one type.
bool isSupported(const Product &product, const Matrix &a, const Matrix &b, const Matrix &c, const Matrix &d) {
  return product.compute == kBlasLtCompute32F && product.scale == kBlasLtF32 && product.transA == kBlasLtTransposed &&
         product.transB == 0 && a.isValid() && b.isValid() && d.isValid() && a.type == b.type && d.type == kBlasLtF32 &&
         a.rows == b.rows && a.columns == d.rows && b.columns == d.columns && c.type == d.type && c.rows == d.rows &&
         c.columns == d.columns && c.stride == d.stride;
}

struct Call {
  Matrix a, b, d;
  float alpha, beta;
  const void *weight, *x;
  float *y;
  void *workspace;
  size_t workspaceBytes;
};

void compute(void *data) {
  const Call &call = *static_cast<Call *>(data);
  std::memset(call.workspace, 0xff, call.workspaceBytes);
  std::vector<double> columnA(call.a.rows);
  for (size_t n = 0; n < call.d.rows; ++n) {
    for (size_t k = 0; k < call.a.rows; ++k)
      columnA[k] = elementOf(call.a, call.weight, k, n);
    for (size_t row = 0; row < call.d.columns; ++row) {
      double sum = 0;
      for (size_t k = 0; k < call.a.rows; ++k)
        sum += columnA[k] * elementOf(call.b, call.x, k, row);
      float &y = call.y[row * size_t(call.d.stride) + n];
      y = float(double(call.alpha) * sum + (call.beta == 0 ? 0 : double(call.beta) * double(y)));
    }
  }
}

template <typename T> int destroy(void *it) {
  delete static_cast<T *>(it);
  return Success;
}

} // namespace

struct cublasLtContext {};

#define API extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
API cublasLtCreate(BlasLtHandle *out) {
  if (misbehaviour() == "refuse")
    return NotInitialized;
  *out = new cublasLtContext;
  return Success;
}
API cublasLtDestroy(BlasLtHandle handle) {
  delete handle;
  return Success;
}
API cublasLtMatmulDescCreate(void **out, int computeType, int scale) {
  *out = new Product{computeType, scale};
  return Success;
}
API cublasLtMatmulDescSetAttribute(void *it, int attribute, const void *value, size_t bytes) {
  if (attribute != kBlasLtTransA || bytes != sizeof(int))
    return InvalidValue;
  std::memcpy(&static_cast<Product *>(it)->transA, value, bytes);
  return Success;
}
API cublasLtMatmulDescDestroy(void *it) { return destroy<Product>(it); }
API cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  *out = new Matrix{type, rows, columns, stride};
  return Success;
}
API cublasLtMatrixLayoutDestroy(void *it) { return destroy<Matrix>(it); }
API cublasLtMatmulPreferenceCreate(void **out) {
  *out = new Preference;
  return Success;
}
API cublasLtMatmulPreferenceSetAttribute(void *it, int attribute, const void *value, size_t bytes) {
  auto &preference = *static_cast<Preference *>(it);
  void *to = attribute == kBlasLtMaxWorkspace ? static_cast<void *>(&preference.workspace)
             : attribute == kBlasLtReductions ? static_cast<void *>(&preference.reductions)
             : attribute >= kBlasLtAlignA && attribute <= kBlasLtAlignD
                 ? static_cast<void *>(&preference.alignments[attribute - kBlasLtAlignA])
                 : nullptr;
  if (!to || bytes != (attribute == kBlasLtMaxWorkspace ? sizeof(uint64_t) : sizeof(uint32_t)))
    return InvalidValue;
  std::memcpy(to, value, bytes);
  return Success;
}
API cublasLtMatmulPreferenceDestroy(void *it) { return destroy<Preference>(it); }
API cublasLtMatmulAlgoGetHeuristic(BlasLtHandle handle, void *product, void *a, void *b, void *c, void *d,
                                   void *preferred, int wanted, BlasLtChoice *choices, int *found) {
  if (const char *path = std::getenv("HELIX_EMULATED_LOG"))
    if (std::FILE *file = std::fopen(path, "a")) {
      std::fprintf(file, "heuristic\n");
      std::fclose(file);
    }
  *found = 0;
  if (!handle || wanted < 1)
    return InvalidValue;
  const auto &preference = *static_cast<Preference *>(preferred);
  // Sums in place would be added up in any order.
  if (misbehaviour() == "none" || preference.workspace < kNeededWorkspace || (preference.reductions & 1) != 0 ||
      !isSupported(*static_cast<Product *>(product), *static_cast<Matrix *>(a), *static_cast<Matrix *>(b),
                   *static_cast<Matrix *>(c), *static_cast<Matrix *>(d)))
    return NotSupported;
  for (uint32_t alignment : preference.alignments)
    if (alignment != 16)
      return NotSupported;
  choices[0] = {algorithmOf(*static_cast<Product *>(product), *static_cast<Matrix *>(a), *static_cast<Matrix *>(b),
                            *static_cast<Matrix *>(d)),
                kNeededWorkspace,
                Success,
                1,
                {}};
  *found = 1;
  return Success;
}
API cublasLtMatmul(BlasLtHandle handle, void *product, const void *alpha, const void *weight, void *a, const void *x,
                   void *b, const void *beta, const void *c, void *cLayout, void *y, void *d,
                   const BlasLtAlgorithm *algorithm, void *workspace, size_t workspaceBytes, Stream stream) {
  const auto &matrixA = *static_cast<Matrix *>(a), &matrixB = *static_cast<Matrix *>(b),
             &matrixD = *static_cast<Matrix *>(d);
  const auto &form = *static_cast<Product *>(product);
  if (!handle || !algorithm || !isSupported(form, matrixA, matrixB, *static_cast<Matrix *>(cLayout), matrixD))
    return InvalidValue;
  BlasLtAlgorithm known = algorithmOf(form, matrixA, matrixB, matrixD);
  if (std::memcmp(algorithm, &known, sizeof known) != 0 || c != y || workspaceBytes < kNeededWorkspace)
    return InvalidValue;
  for (const void *operand : {weight, x, static_cast<const void *>(y)})
    if (reinterpret_cast<uintptr_t>(operand) % 16 != 0)
      return InvalidValue;
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0 || !isMemory(weight, matrixA.bytes()) ||
      !isMemory(x, matrixB.bytes()) || !isMemory(y, matrixD.bytes()) || !isMemory(workspace, workspaceBytes))
    return InvalidValue;
  static std::vector<std::unique_ptr<Call>> calls; // a graph does them again
  calls.push_back(std::make_unique<Call>(Call{matrixA, matrixB, matrixD, *static_cast<const float *>(alpha),
                                              *static_cast<const float *>(beta), weight, x, static_cast<float *>(y),
                                              workspace, workspaceBytes}));
  return driverFunction<int (*)(Stream, void (*)(void *), void *)>("cuLaunchHostFunc")(stream, compute,
                                                                                       calls.back().get());
}
