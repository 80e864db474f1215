//===- Kernels.h - CUDA kernels that an artifact's commands launch ---------===//
//
// The GPU's counterparts of runtime/Cpu/Kernels.h: the same arguments, with addresses on the device, the same cache
// layout and block table, the same packed send buffer. This header knows no CUDA. `launches` turns arguments into
// launches by arithmetic alone; what a launch needs at run time (lengths, positions, token ids) the kernels read from
// device memory, so that a captured graph is replayed with other values. Launches run in order on one stream.
//
// To run one: load the image (cuModuleLoadData), take the kernel from it by name, allow it `sharedBytes` of dynamic
// shared memory if they exceed 48 KiB (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), and launch it with one
// parameter, the bytes of `argument`: void *parameters[] = {launch.argument.data()}.
//
// A row's result depends neither on the other rows nor on their number. Sizes are in elements, activations row-major
// f32; rows = batch * tokens. Addresses need their element's alignment, weights and caches 16 bytes.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CUDA_KERNELS_H
#define HELIX_RUNTIME_CUDA_KERNELS_H

#include "runtime/Cpu/Kernels.h"
#include "runtime/Cpu/Quantized.h"
#include "runtime/Cpu/Sampling.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace helix::cuda {

using cpu::DType;
using cpu::KvCache;

/// A fat binary: cubins for sm_80, sm_90a and sm_100, and PTX for what comes after.
struct KernelImage {
  const char *name;
  std::span<const std::byte> code;
};

/// In the order of ImageId; empty if the library was built without the CUDA toolkit.
std::span<const KernelImage> kernelImages();

enum class ImageId : uint32_t {
  Rows,
  Attention,
  AttentionTensor,
  AttentionLatent,
  Linear,
  LinearQuantized,
  Link,
  Sampling
};

/// What launches depend on of the GPU that runs them. The sizes are those of an H200.
struct DeviceShape {
  uint32_t multiprocessors = 132;
  uint32_t sharedBytesPerBlock = 232448;          ///< CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
  uint32_t sharedBytesPerMultiprocessor = 233472; ///< CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
};

struct Launch {
  ImageId image = ImageId::Rows;
  const char *kernel = nullptr;
  std::array<uint32_t, 3> grid = {1, 1, 1};
  std::array<uint32_t, 3> block = {1, 1, 1};
  uint32_t sharedBytes = 0;             ///< dynamic
  std::vector<std::byte> argument = {}; ///< the one parameter
};

//===-----------------------------------------------------------------------===//
// Weights
//===-----------------------------------------------------------------------===//

/// Elements from a row of a weight [k, n] of use Linear to the next: on the device it lies transposed, [n][stride],
/// each row padded with zeros to whole 128 bits. As such it serves as an embedding table, too, and as a column-major
/// operand of a BLAS.
constexpr size_t linearStride(size_t k, DType dtype) {
  size_t unit = 16 / cpu::elementBytes(dtype);
  return (k + unit - 1) / unit * unit;
}

/// Bytes of a weight [k, n] on the device.
constexpr size_t linearBytes(size_t k, size_t n, DType dtype) {
  return n * linearStride(k, dtype) * cpu::elementBytes(dtype);
}

/// Packs a weight for `linear` out of row-major memory on the device, as loadWeight gives it for WeightUse::Table.
struct PackArgs {
  const void *from = nullptr; ///< [k, n], or [n, k] if it is transposed already; not the same memory as `to`
  void *to = nullptr;         ///< [n][linearStride(k)]
  DType dtype = DType::F32;
  bool transposed = false;
  size_t k = 0, n = 0;
};
std::vector<Launch> launches(const PackArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// Linear
//===-----------------------------------------------------------------------===//

/// Rows up to which `linear` streams the weight at the memory's rate; beyond, a BLAS is faster.
inline constexpr size_t kSkinnyRows = 16;

struct LinearArgs {
  const float *x = nullptr;     ///< [rows, k]
  const void *weight = nullptr; ///< [n][linearStride(k)]
  DType dtype = DType::F32;     ///< of the weight
  float *y = nullptr;           ///< [rows, n]
  void *scratch = nullptr;      ///< linearScratchBytes(…) bytes, 16-byte aligned; may be shared along a stream
  size_t rows = 0, k = 0, n = 0;
};
size_t linearScratchBytes(const LinearArgs &args);

/// y = x · weight, summed in f32. Where the weight's type is of 16 bits, x enters with at least 21 of its 24 bits.
std::vector<Launch> launches(const LinearArgs &args, const DeviceShape &device);

/// Weights of codes lie on the device as on the host (runtime/Cpu/Quantized.h).
struct LinearQuantizedArgs : cpu::LinearQuantizedArgs {
  void *scratch = nullptr; ///< linearScratchBytes(…) bytes, as above
};
size_t linearScratchBytes(const LinearQuantizedArgs &args);

/// y = x · weight. Products of x, whole, with code - zero (of a Real zero point: with code - 2^(bits - 1), and the rest
/// times their sum) are summed in f32 over at most kQuantRun elements of a block, and times its scale added up.
std::vector<Launch> launches(const LinearQuantizedArgs &args, const DeviceShape &device);

/// Which of several weights, of experts, each row of a product is with. Weights lie one after another; those that no
/// row names are not read.
struct LinearGroups {
  const int32_t *experts = nullptr; ///< [rows], ascending; a row of what is no expert is zero
  const int32_t *xRows = nullptr;   ///< [rows], the row of x that a row of y is of; null: the same
  uint32_t count = 0;               ///< of experts
  size_t weightBytes = 0;           ///< from a weight to the next, a multiple of 16
};

/// y[row] = x[xRows[row]] · weight[experts[row]], else as `linear`: a row's result depends on its x and its weight
/// alone.
struct LinearGroupedArgs : LinearArgs {
  LinearGroups groups;
};
std::vector<Launch> launches(const LinearGroupedArgs &args, const DeviceShape &device);

struct LinearQuantizedGroupedArgs : LinearQuantizedArgs {
  LinearGroups groups;
};
std::vector<Launch> launches(const LinearQuantizedGroupedArgs &args, const DeviceShape &device);

/// Rows as sums of `parts` rows of a type of 16 bits, for a BLAS. One part is the nearest number, ties to even; of
/// more, those of bf16 have eight bits of x each, those of f16 are the nearest to what the parts before leave.
struct SplitRowsArgs {
  const float *x = nullptr; ///< [rows, k]
  void *to = nullptr;       ///< [parts, rows, linearStride(k)], padded with zeros
  DType dtype = DType::BF16;
  uint32_t parts = 3;
  float *powers = nullptr; ///< [rows], of f16: the power of two by which a row is divided first, so that f16 holds it
  size_t rows = 0, k = 0;
};
std::vector<Launch> launches(const SplitRowsArgs &args, const DeviceShape &device);

/// y [rows, n], each row times a factor.
struct ScaleRowsArgs {
  float *y = nullptr;
  const float *factors = nullptr; ///< [rows]
  size_t rows = 0, n = 0;
};
std::vector<Launch> launches(const ScaleRowsArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// Token rows
//===-----------------------------------------------------------------------===//

struct EmbeddingArgs {
  const int64_t *ids = nullptr; ///< [rows]
  const void *table = nullptr;  ///< [vocabulary][stride], the ids firstId … firstId + vocabulary - 1
  DType dtype = DType::F32;     ///< of the table
  float *y = nullptr;           ///< [rows, hidden]
  size_t rows = 0, vocabulary = 0, hidden = 0;
  size_t stride = 0; ///< hidden for a table, linearStride(hidden) for a tied weight of use Linear
  int64_t firstId = 0;
};
/// An id that the table does not hold, whatever it is, gives zeros.
std::vector<Launch> launches(const EmbeddingArgs &args, const DeviceShape &device);

/// As cpu::embeddingQuantized.
std::vector<Launch> launches(const cpu::EmbeddingQuantizedArgs &args, const DeviceShape &device);

std::vector<Launch> launches(const cpu::LastTokenArgs &args, const DeviceShape &device);

/// As cpu::concat; the parts' addresses are the device's, the parts themselves the host's.
std::vector<Launch> launches(const cpu::ConcatArgs &args, const DeviceShape &device);

/// Copies the logits of each slot's last token to where they stay until its next step.
struct KeepLogitsArgs {
  const float *logits = nullptr; ///< [batch, tokens, vocabulary], or [batch, 1, vocabulary] if they are the last ones
  const int32_t *qLen = nullptr; ///< [batch]; slots without tokens keep what they have
  float *last = nullptr;         ///< [batch, vocabulary]
  size_t batch = 0, tokens = 0, vocabulary = 0;
};
std::vector<Launch> launches(const KeepLogitsArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// Attention
//===-----------------------------------------------------------------------===//

std::vector<Launch> launches(const cpu::KvAppendArgs &args, const DeviceShape &device);

/// Writes small numbers where the first `tokens` tokens of a slot lie on this rank, for timing.
struct KvFillArgs {
  KvCache cache;
  uint64_t slot = 0, tokens = 0;
};
std::vector<Launch> launches(const KvFillArgs &args, const DeviceShape &device);

struct AttentionArgs : cpu::AttentionArgs {
  float *scratch = nullptr; ///< attentionScratchBytes(…) bytes; no other launch may use it at the same time
};
size_t attentionScratchBytes(const cpu::AttentionArgs &args);

/// As cpu::partialAttention. A sequence is split by the number of its tokens that this rank holds, and by args.tokens;
/// the parts are combined in order. Where the cache's type is of 16 bits, an infinite key or value may give a NaN.
std::vector<Launch> launches(const AttentionArgs &args, const DeviceShape &device);

/// As cpu::mergeAttention; the chunks' addresses are the device's, the chunks themselves the host's.
std::vector<Launch> launches(const cpu::MergeArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// Reduction
//===-----------------------------------------------------------------------===//

/// out[i] = ((buffers[0][i] + buffers[1][i]) + buffers[2][i]) + … for i < elements. `out` may be the first of the
/// buffers, or any other if there are at most kReduceBuffers.
struct ReduceArgs {
  float *out = nullptr;
  std::span<const float *const> buffers; ///< addresses of the device, in memory of the host; at least one
  size_t elements = 0;
};
inline constexpr size_t kReduceBuffers = 64;
std::vector<Launch> launches(const ReduceArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// An artificial link
//===-----------------------------------------------------------------------===//

/// What an exchange takes on a link that a rank's exchanges go over one after another, in nanoseconds of the GPU's
/// clock. The ranks are first, first + stride, …, `peers` of them. With `waits` false the exchange begins now, or when
/// its rank's link is free; with it true the launch ends when the exchange has on the link of every rank. It waits in
/// one warp.
struct LinkArgs {
  uint64_t *free = nullptr; ///< [ranks], when the rank's link is free
  uint64_t *end = nullptr;  ///< [ranks], when what is under way ends
  uint32_t first = 0, stride = 1, peers = 0;
  uint64_t nanoseconds = 0;
  bool waits = false;
};
std::vector<Launch> launches(const LinkArgs &args, const DeviceShape &device);

//===-----------------------------------------------------------------------===//
// Sampling
//===-----------------------------------------------------------------------===//

/// The first token of each row of logits as cpu::topCandidates orders them.
struct BestTokenArgs {
  const float *logits = nullptr; ///< [rows, stride], of which `count` >= 1 are the ids firstId, firstId + 1, …
  float *value = nullptr;        ///< [rows]
  int64_t *id = nullptr;         ///< [rows]
  size_t rows = 0, count = 0, stride = 0;
  int64_t firstId = 0;
};
std::vector<Launch> launches(const BestTokenArgs &args, const DeviceShape &device);

/// Sums of a chunk of a row.
struct DrawSum {
  double weight = 0;
  uint64_t count = 0;
};

/// Logits of a row that a block takes.
inline constexpr uint32_t kDrawChunk = 2048;
constexpr size_t drawChunks(size_t count) { return (count + kDrawChunk - 1) / kDrawChunk; }

/// What cpu::Draw asks of each row of logits; what it does not ask for stays as it is. Scores are within 2e-5 and the
/// rounding to f32; weights are summed in f64 in a fixed order.
struct DrawArgs {
  const float *logits = nullptr;    ///< [rows, stride], of which `count` are the ids firstId, firstId + 1, …
  const cpu::Draw *draws = nullptr; ///< [rows]
  const float *largest = nullptr;   ///< [rows], the first token's logit
  uint64_t *keys = nullptr;         ///< [rows, drawChunks(count), 2, cpu::kListed], for the launches alone
  DrawSum *sums = nullptr;          ///< [rows, drawChunks(count)], the same
  cpu::Candidate *lists = nullptr;  ///< [rows, 2, cpu::kListed]: the firsts, then the likeliest; the host may hold them
  cpu::Share *shares = nullptr;     ///< [rows], as well
  size_t rows = 0, count = 0, stride = 0;
  int64_t firstId = 0;
};
std::vector<Launch> launches(const DrawArgs &args, const DeviceShape &device);

} // namespace helix::cuda

#endif // HELIX_RUNTIME_CUDA_KERNELS_H
