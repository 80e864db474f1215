//===- Quantized.h - Weights of a few bits with a scale per block ----------===//
//
// An element is (code - zero) * scale: a code of 2, 4 or 8 bits, the scale and zero point of the block that it is in.
// Blocks are runs of the stored tensor's last dimension, counted from its start; a rank's share may begin and end
// within one. Everything else is as in Kernels.h and Weights.h.
//
//===-----------------------------------------------------------------------===//
#ifndef HELIX_RUNTIME_CPU_QUANTIZED_H
#define HELIX_RUNTIME_CPU_QUANTIZED_H

#include "runtime/Cpu/Codes.h"
#include "runtime/Cpu/Weights.h"

namespace helix::cpu {

/// The code that stands for zero, numbered as in lib/Artifact/Artifact.fbs: 2^(bits - 1); 0; a code per block; a number
/// of the scales' type per block.
enum class ZeroPoint : uint8_t { Middle = 0, Zero = 1, Packed = 2, Real = 3 };

struct QuantFormat {
  uint32_t bits = 4;
  uint32_t block = 32;
  DType scale = DType::F32;
  ZeroPoint zero = ZeroPoint::Middle;
  bool isSigned = false; ///< codes and packed zero points of the file are two's complement; in memory they never are
  DType activations = DType::F32; ///< what products take of x: f32, or I8: rounded, a scale per row and block
  /// Codes are numbers, with the zero point Zero and activations f32: of 8 bits E4M3 without infinities (OCP OFP8), of
  /// 4 E2M1.
  bool isFloat = false;
  /// The file's scales are bytes of E8M0, 2^(byte - 127), 255 NaN (OCP Microscaling Formats v1.0); `scale` is BF16,
  /// which holds them all, and as which they lie in memory.
  bool isPower = false;
  uint32_t rowBlock = 1; ///< rows of the stored tensor that share the file's scales; in memory each has its own
};

/// What a code of a format of floats means.
constexpr float floatCode(uint32_t bits, uint32_t code) {
  return bits == 8 ? toFloat(Fp8{uint8_t(code)}) : toFloat(Fp4{uint8_t(code)});
}

/// Where the parts of a packed weight lie, in bytes from its start.
///
/// A Linear weight [k, n], transposed, is packed in panels of kPanelWidth columns: codes [panel][k][width], width =
/// kPanelWidth * bits / 8, scales and zero points [panel][blocks][kPanelWidth]. Byte i of a row of codes holds those of
/// the columns i, i + width, …, the first in the lowest bits, so that a vector of them needs one shift. A Table
/// [vocabulary, hidden] keeps its rows: codes [row][hidden * bits / 8, rounded up], scales and zero points
/// [row][blocks]. Packed zero points take a byte each.
struct QuantLayout {
  uint64_t blocks = 0; ///< that the share of any rank reaches into at most
  uint64_t scales = 0, zeros = 0;
  uint64_t bytes = 0;
};

/// Nothing if the plan is inconsistent (as in packedBytes), takes its columns in pieces, or is no transposed Linear
/// weight or Table of two dimensions that is computed in f32, or bits, block or scales are not as above.
std::optional<QuantLayout> quantLayout(const WeightPlan &plan, const QuantFormat &format);

/// What of a row the rank has: `count` elements, the first of them number `first` of its block. The rest of the row is
/// zero, whatever codes it has.
struct QuantShare {
  uint64_t first = 0, count = 0;
};
QuantShare quantShare(const WeightPlan &plan, const QuantFormat &format);

/// Packs the rank's share of `codes`, `scales` and `zeros` (empty if the format has none), each row-major as in the
/// file; a row of codes, and one of packed zero points, ends with its last byte. False, and `packed` is as it was, if
/// there is no layout or a span does not have its size.
bool loadQuantized(const WeightPlan &plan, const QuantFormat &format, std::span<const std::byte> codes,
                   std::span<const std::byte> scales, std::span<const std::byte> zeros, std::span<std::byte> packed);

struct LinearQuantizedArgs {
  const float *x = nullptr;          ///< [rows, k]
  const std::byte *weight = nullptr; ///< [k, n] as loadQuantized packs it
  QuantFormat format;
  QuantLayout layout;
  QuantShare share;   ///< of k
  float *y = nullptr; ///< [rows, n]
  size_t rows = 0, k = 0, n = 0;
  std::byte *rounded = nullptr; ///< of activations I8: roundedBytes(…) that all threads share, aligned to 64
};

/// y = x · weight for the columns of panels [begin, end); items are linearItems(n). The products x · (code - zero) of a
/// block are summed in f32 in ascending k, and times its scale added to the blocks before it.
///
/// With activations I8, x is what roundRows made of it, and a block's products of integers are summed exactly: the sum
/// of code_x · (code - zero), in f32, times scale_x · scale is added to the blocks before it. With a Real zero it is
/// the sum of code_x · code, less the zero times the sum of code_x. Blocks have at most artifact::kLongestInt8Block
/// elements, so that no sum leaves 32 bits.
void linearQuantized(const LinearQuantizedArgs &args, size_t begin, size_t end);

/// The case of activations I8.
void linearInt8(const LinearQuantizedArgs &args, size_t begin, size_t end);

/// Bytes of `rounded`; 0 where activations stay f32.
size_t roundedBytes(const LinearQuantizedArgs &args);

/// To be done before linearQuantized where activations are I8: rounds rows [begin, end) of x. The elements of a row
/// that meet a block of the weight, or the rank's part of it, share a scale: the largest |x| over 127; a code is the
/// integer next to x / scale, halves to even, in f32. Where that scale is 0, codes are 0. An infinity or a NaN makes
/// the row NaN.
void roundRows(const LinearQuantizedArgs &args, size_t begin, size_t end);

/// The case of codes that are floats.
void linearFloatCodes(const LinearQuantizedArgs &args, size_t begin, size_t end);

struct EmbeddingQuantizedArgs {
  const int64_t *ids = nullptr;     ///< [rows]
  const std::byte *table = nullptr; ///< [vocabulary, hidden], the ids firstId … firstId + vocabulary - 1
  QuantFormat format;
  QuantLayout layout;
  QuantShare share;   ///< of hidden
  float *y = nullptr; ///< [rows, hidden]
  size_t rows = 0, vocabulary = 0, hidden = 0;
  int64_t firstId = 0;
  bool tied = false; ///< the table is a matrix [hidden, vocabulary] in panels, as `linearQuantized` reads it
};

/// Items are rows. An id that the table does not hold, whatever it is, gives zeros.
void embeddingQuantized(const EmbeddingQuantizedArgs &args, size_t begin, size_t end);

} // namespace helix::cpu

#endif // HELIX_RUNTIME_CPU_QUANTIZED_H
