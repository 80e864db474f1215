//===- Weights.cpp - What a rank holds of a weight ---------------------------===//
#include "lib/Interpreter/Weights.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace helix;

/// Element `index` of the little-endian tensor in `bytes`.
static double element(StringRef bytes, FloatType type, int64_t index) {
  const char *at = bytes.data() + index * (type.getWidth() / 8);
  if (type.isF32())
    return llvm::bit_cast<float>(llvm::support::endian::read32le(at));
  APInt bits(16, llvm::support::endian::read16le(at));
  return llvm::APFloat(type.getFloatSemantics(), bits).convertToDouble();
}

FailureOr<StringRef> Weights::bytes(WeightOp op, StringRef name, int64_t offset, int64_t length) {
  std::unique_ptr<llvm::MemoryBuffer> &file = files[name.str()];
  if (!file) {
    SmallString<128> path(directory);
    llvm::sys::path::append(path, name);
    auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
    if (!buffer)
      return op.emitOpError() << "cannot read " << path << ": " << buffer.getError().message();
    file = std::move(*buffer);
  }
  StringRef all = file->getBuffer();
  if (static_cast<uint64_t>(offset) > all.size() || static_cast<uint64_t>(length) > all.size() - offset)
    return op.emitOpError() << "needs bytes [" << offset << ", +" << length << ") of " << name << ", which has "
                            << all.size();
  return all.substr(offset, length);
}

namespace {

/// The bytes of a weight of codes, and what they mean.
struct Codes {
  RankedTensorType stored;
  QuantAttr quant;
  StringRef codes, scales, zeros;

  /// Code `index` of `row`, whose rows of `count` codes end with a byte.
  int64_t code(StringRef bytes, int64_t count, int64_t row, int64_t index) const {
    int64_t bits = quant.getBits(), rowBytes = llvm::divideCeil(count * bits, 8);
    int64_t code = static_cast<uint8_t>(bytes[row * rowBytes + index * bits / 8]) >> index * bits % 8;
    code &= (1 << bits) - 1;
    return stored.getElementType().isSignedInteger() ? code ^ 1 << (bits - 1) : code;
  }

  /// (code - zero) * scale of an element.
  double element(int64_t row, int64_t column) const {
    int64_t columns = stored.getDimSize(1), blocks = llvm::divideCeil(columns, quant.getBlock());
    int64_t block = column / quant.getBlock();
    auto type = cast<FloatType>(quant.getScale());
    double zero = 0;
    switch (quant.getZero()) {
    case ZeroPoint::Middle:
      zero = 1 << (quant.getBits() - 1);
      break;
    case ZeroPoint::Zero:
      break;
    case ZeroPoint::Packed:
      zero = code(zeros, blocks, row, block);
      break;
    case ZeroPoint::Real:
      zero = ::element(zeros, type, row * blocks + block);
    }
    return (code(codes, columns, row, column) - zero) * ::element(scales, type, row * blocks + block);
  }
};

} // namespace

/// The range of the window's dimension `d` that `rank` holds.
static std::pair<int64_t, int64_t> share(WeightOp op, unsigned d, MeshAttr mesh, int64_t rank) {
  int64_t lo = 0, hi = op.windowSize()[d];
  for (SplitAttr split : op.splits(d)) {
    lo = std::min(lo + split.index(mesh, rank) * split.getChunk(), hi);
    hi = std::min(lo + split.getChunk(), hi);
  }
  return {lo, hi};
}

FailureOr<TensorRef> Weights::load(WeightOp op, MeshAttr mesh, int64_t rank) {
  TensorRef &weight = loaded[{op, rank}];
  if (weight)
    return weight;
  if (op.getSlice() && !mesh)
    return op.emitOpError("is sliced over a mesh, but the module has no mesh");
  FailureOr<StringRef> data = bytes(op, op.getFile(), op.getOffset(), op.getLength());
  if (failed(data))
    return failure();
  RankedTensorType stored = op.storedType();
  Codes codes{stored, op.quant(), *data, {}, {}};
  for (auto [part, at] : {std::pair(op.getScalesAttr(), &codes.scales), {op.getZeroPointsAttr(), &codes.zeros}}) {
    if (!part)
      continue;
    FailureOr<StringRef> read = bytes(op, part.getFile(), part.getOffset(), part.getLength());
    if (failed(read))
      return failure();
    *at = *read;
  }
  int64_t dims = stored.getRank();
  SmallVector<int64_t> lo(dims), size(dims);
  for (int64_t d = 0; d < dims; ++d) {
    auto [begin, end] = share(op, d, mesh, rank);
    lo[d] = begin;
    size[d] = end - begin;
    if (size[d] > op.getType().getDimSize(op.storedDim(d)))
      return op.emitOpError() << "rank " << rank << "'s share of dimension " << d << " is " << size[d]
                              << " elements, more than the local size";
  }

  // What the share does not fill stays zero.
  auto result = std::make_shared<Tensor>(op.getType().getShape());
  if (codes.quant && codes.quant.getActivations()) {
    int64_t first = op.windowOffset()[1] + lo[1], block = codes.quant.getBlock();
    for (int64_t end = 0; end < size[1];) {
      end = std::min(((first + end) / block + 1) * block - first, size[1]);
      result->blockEnds.push_back(end);
    }
  }
  for (int64_t flat = 0; flat < result->size(); ++flat) {
    int64_t source = 0, rest = flat, stride = 1;
    SmallVector<int64_t> index(dims); // in the stored tensor's order
    for (int64_t d = dims - 1; d >= 0; --d) {
      index[op.storedDim(d)] = rest % result->shape[d];
      rest /= result->shape[d];
    }
    bool inside = true;
    for (int64_t d = dims - 1; d >= 0; --d) {
      inside &= index[d] < size[d];
      int64_t at = lo[d] + index[d];
      if (auto [run, step] = op.piecesOf(d); run != 0)
        at = at / run * step + at % run;
      source += (op.windowOffset()[d] + at) * stride;
      stride *= stored.getDimSize(d);
    }
    if (inside && codes.quant)
      result->values[flat] = codes.element(source / stored.getDimSize(1), source % stored.getDimSize(1));
    else if (inside)
      result->values[flat] =
          roundTo(op.getType().getElementType(), element(*data, cast<FloatType>(stored.getElementType()), source));
  }
  weight = std::move(result);
  return weight;
}
