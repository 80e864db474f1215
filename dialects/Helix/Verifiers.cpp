//===- Verifiers.cpp - What each helix op demands of its operands ----------===//
#include "dialects/Helix/Helix.h"

using namespace mlir;
using namespace helix;

namespace {

RankedTensorType tensorOf(Value value) { return cast<RankedTensorType>(value.getType()); }

/// The tensor of a result that may be a partial sum; null (with an error) if it is partial in another way.
RankedTensorType wholeOrSum(Operation *op, Type type) {
  auto partial = dyn_cast<PartialType>(type);
  if (!partial)
    return cast<RankedTensorType>(type);
  if (partial.getReduction() == Reduction::Sum)
    return partial.getValue();
  op->emitOpError("result must be a whole tensor or a partial sum, but is ") << type;
  return {};
}

LogicalResult expectShape(Operation *op, StringRef what, RankedTensorType type, ArrayRef<int64_t> shape) {
  if (type.getShape() == shape)
    return success();
  return op->emitOpError() << what << " must have shape " << RankedTensorType::get(shape, type.getElementType())
                           << ", but has " << type;
}

LogicalResult expectLengths(Operation *op, StringRef what, Value lengths, int64_t batch) {
  return expectShape(op, what, tensorOf(lengths), {batch});
}

/// Query [batch, tokens, heads, key_dim] against a cache, and what comes of it.
LogicalResult verifyQuery(Operation *op, Value q, KVType cache, Value past, Value qLen, RankedTensorType result,
                          bool padsHeads) {
  ArrayRef<int64_t> shape = tensorOf(q).getShape();
  if (shape[0] != cache.getSlots())
    return op->emitOpError() << "has " << shape[0] << " sequences, but the cache has " << cache.getSlots() << " slots";
  if (shape[3] != cache.getKeyDim())
    return op->emitOpError() << "query width is " << shape[3] << ", but the cache's key width is " << cache.getKeyDim();
  if (shape[2] % cache.getHeads() != 0)
    return op->emitOpError() << shape[2] << " query heads do not divide into groups over " << cache.getHeads()
                             << " KV heads";
  if (failed(expectLengths(op, "past", past, shape[0])) || failed(expectLengths(op, "q_len", qLen, shape[0])))
    return failure();
  int64_t heads = shape[2];
  if (padsHeads && result.getRank() == 4 && result.getDimSize(2) > heads)
    heads = result.getDimSize(2);
  return expectShape(op, "result", result, {shape[0], shape[1], heads, cache.getValueDim()});
}

/// One number per head, where `vector` is given, and a cap that caps.
LogicalResult verifyScores(Operation *op, Value vector, StringRef what, int64_t heads, std::optional<APFloat> softcap) {
  if (vector && failed(expectShape(op, what, tensorOf(vector), {heads})))
    return failure();
  if (softcap && !(softcap->isFinite() && softcap->convertToDouble() > 0))
    return op->emitOpError() << "softcap must be finite and positive";
  return success();
}

/// Whether a weight's scales and zero points are those that its encoding and its stored codes need.
LogicalResult verifyCodes(WeightOp op) {
  RankedTensorType stored = op.storedType();
  QuantAttr quant = op.quant();
  auto codes = dyn_cast<IntegerType>(stored.getElementType());
  if (!quant && op.getType().getEncoding())
    return op.emitOpError() << "has the unknown encoding " << op.getType().getEncoding();
  if (!quant && (codes || op.getScalesAttr() || op.getZeroPointsAttr()))
    return op.emitOpError() << "is stored as " << stored << ", so its type needs a #helix.quant";
  if (!quant)
    return success();
  if (!codes || codes.getWidth() != quant.getBits() || stored.getRank() != 2)
    return op.emitOpError() << "has codes of " << quant.getBits() << " bits, but is stored as " << stored;
  if (op.storedDim(quant.getAxis()) != 1)
    return op.emitOpError() << "has blocks along dimension " << quant.getAxis()
                            << ", which is not the last of the stored tensor";
  if (!op.getType().getElementType().isF32())
    return op.emitOpError() << "is quantised, so that products with it are computed in f32, not in "
                            << op.getType().getElementType();
  // A list of another length is refused behind this.
  if (op.getPieces() && op.getPieces()->size() == 4 && op.piecesOf(1).first != 0)
    return op.emitOpError() << "takes the rows of its codes in pieces";
  if (stored.getDimSize(1) * quant.getBits() % 8 != 0)
    return op.emitOpError() << "has rows that do not end with a byte";
  bool own = quant.getZero() == ZeroPoint::Packed || quant.getZero() == ZeroPoint::Real;
  if (!op.getScalesAttr() || op.getScalesAttr().getElement() != quant.getScale() ||
      static_cast<bool>(op.getZeroPointsAttr()) != own)
    return op.emitOpError() << "needs scales of " << quant.getScale() << " and " << (own ? "" : "no ")
                            << "zero points";
  Type zero = quant.getZero() == ZeroPoint::Real ? quant.getScale() : Type(codes);
  if (own && op.getZeroPointsAttr().getElement() != zero)
    return op.emitOpError() << "needs zero points of " << zero;
  auto expectLength = [&](StringRef what, BytesAttr bytes, int64_t bits) -> LogicalResult {
    int64_t blocks = llvm::divideCeil(stored.getDimSize(1), quant.getBlock());
    auto need = static_cast<unsigned __int128>(stored.getDimSize(0)) * llvm::divideCeil(blocks * bits, 8);
    if (need == static_cast<uint64_t>(bytes.getLength()))
      return success();
    return op.emitOpError() << what << " of " << stored << " have " << static_cast<uint64_t>(need)
                            << " bytes, but length is " << bytes.getLength();
  };
  if (failed(expectLength("scales", op.getScalesAttr(), quant.getScale().getIntOrFloatBitWidth())))
    return failure();
  return own ? expectLength("zero points", op.getZeroPointsAttr(), zero.getIntOrFloatBitWidth()) : success();
}

} // namespace

LogicalResult WeightOp::verify() {
  RankedTensorType stored = storedType();
  RankedTensorType local = getType();
  int64_t rank = stored.getRank();
  if (!stored.hasStaticShape() || !local.hasStaticShape())
    return emitOpError("needs static shapes");
  if (local.getRank() != rank)
    return emitOpError() << "is " << local << ", but its stored tensor has rank " << rank;
  if (getTransposed() && rank != 2)
    return emitOpError() << "is transposed, but has rank " << rank;
  unsigned __int128 bytes = stored.getElementTypeBitWidth();
  for (int64_t size : stored.getShape()) {
    bytes *= static_cast<uint64_t>(size);
    if (bytes >> 66)
      return emitOpError() << "stored tensor " << stored << " has more than 2^63 bytes";
  }
  bytes /= 8;
  if (bytes != getLength())
    return emitOpError() << "stored tensor " << stored << " has " << static_cast<uint64_t>(bytes)
                         << " bytes, but length is " << getLength();
  if (failed(verifyCodes(*this)))
    return failure();
  if (getWindowOffset().has_value() != getWindowSize().has_value())
    return emitOpError("needs both window_offset and window_size, or neither");
  SmallVector<int64_t> offset = windowOffset(), size = windowSize();
  if (static_cast<int64_t>(offset.size()) != rank || static_cast<int64_t>(size.size()) != rank)
    return emitOpError() << "needs a window offset and size per dimension of " << stored;
  if (getPieces() && static_cast<int64_t>(getPieces()->size()) != 2 * rank)
    return emitOpError() << "needs a run and a stride of pieces per dimension of " << stored;
  for (int64_t d = 0; d < rank; ++d) {
    auto [run, stride] = piecesOf(d);
    if (run < 0 || (run == 0 ? stride != 0 : stride < run))
      return emitOpError() << "pieces of " << run << " at a stride of " << stride << " along dimension " << d
                           << " overlap or go backwards";
    // From the window's first to its last element.
    int64_t last = size[d] - 1, extent = size[d];
    bool overflows = run > 0 && (__builtin_mul_overflow(last / run, stride, &extent) ||
                                 __builtin_add_overflow(extent, last % run + 1, &extent));
    if (offset[d] < 0 || size[d] < 1 || overflows || offset[d] > stored.getDimSize(d) - extent)
      return emitOpError() << "window [" << offset[d] << ", +" << extent << ") is not inside dimension " << d << " of "
                           << stored;
  }
  if (!getSlice()) {
    SmallVector<int64_t> shape(size);
    if (getTransposed())
      std::swap(shape[0], shape[1]);
    if (local.getShape() != ArrayRef<int64_t>(shape))
      return emitOpError() << "has shape " << local << ", but its window is "
                           << RankedTensorType::get(shape, local.getElementType());
    return success();
  }
  if (static_cast<int64_t>(getSlice()->size()) != rank)
    return emitOpError() << "slice needs a list of splits per dimension of " << stored;
  for (auto [d, dim] : llvm::enumerate(*getSlice())) {
    auto list = dyn_cast<ArrayAttr>(dim);
    if (!list || !llvm::all_of(list, llvm::IsaPred<SplitAttr>))
      return emitOpError() << "slice of dimension " << d << " must be a list of #helix.split, but is " << dim;
    int64_t share = size[d];
    for (Attribute a : list)
      share = std::min(share, cast<SplitAttr>(a).getChunk());
    int64_t localSize = local.getDimSize(storedDim(d));
    if (localSize < share || (list.empty() && localSize != share))
      return emitOpError() << "dimension " << d << " holds a share of " << share << " elements, but its local size is "
                           << localSize;
  }
  return success();
}

LogicalResult EmbeddingOp::verify() {
  RankedTensorType result = wholeOrSum(*this, getResult().getType());
  if (!result)
    return failure();
  ArrayRef<int64_t> ids = tensorOf(getIds()).getShape();
  return expectShape(*this, "result", result, {ids[0], ids[1], tensorOf(getTable()).getDimSize(1)});
}

LogicalResult LinearOp::verify() {
  RankedTensorType result = wholeOrSum(*this, getResult().getType());
  if (!result)
    return failure();
  SmallVector<int64_t> shape(tensorOf(getX()).getShape());
  ArrayRef<int64_t> weight = tensorOf(getWeight()).getShape();
  if (shape.empty() || shape.back() != weight[0])
    return emitOpError() << "contracts " << tensorOf(getX()) << " with the first dimension of "
                         << tensorOf(getWeight());
  shape.back() = weight[1];
  if (getBias()) {
    if (isa<PartialType>(getResult().getType()))
      return emitOpError("adds a bias to a partial sum, so once per rank; add it behind the reduction");
    if (failed(expectShape(*this, "bias", tensorOf(getBias()), {weight[1]})))
      return failure();
  }
  return expectShape(*this, "result", result, shape);
}

LogicalResult BroadcastOp::verify() {
  ArrayRef<int64_t> x = tensorOf(getX()).getShape(), result = getType().getShape();
  if (x.empty() || x.size() > result.size() || result.take_back(x.size()) != x)
    return emitOpError() << "repeats " << tensorOf(getX()) << " to " << getType()
                         << ", whose last dimensions must be the operand's";
  return success();
}

LogicalResult RMSNormOp::verify() {
  ArrayRef<int64_t> shape = tensorOf(getX()).getShape();
  if (shape.empty())
    return emitOpError("needs at least one dimension");
  return expectShape(*this, "scale", tensorOf(getScale()), {shape.back()});
}

LogicalResult LayerNormOp::verify() {
  ArrayRef<int64_t> shape = tensorOf(getX()).getShape();
  if (shape.empty())
    return emitOpError("needs at least one dimension");
  if (getBias() && failed(expectShape(*this, "bias", tensorOf(getBias()), {shape.back()})))
    return failure();
  return expectShape(*this, "scale", tensorOf(getScale()), {shape.back()});
}

LogicalResult PositionEmbeddingOp::verify() {
  ArrayRef<int64_t> result = getType().getShape();
  if (failed(expectLengths(*this, "past", getPast(), result[0])))
    return failure();
  return expectShape(*this, "result", getType(), {result[0], result[1], tensorOf(getTable()).getDimSize(1)});
}

LogicalResult RopeOp::verify() {
  ArrayRef<int64_t> x = tensorOf(getX()).getShape();
  RankedTensorType cos = tensorOf(getCos()), sin = tensorOf(getSin());
  if (cos != sin)
    return emitOpError() << "cos is " << cos << ", but sin is " << sin;
  if (2 * cos.getDimSize(1) > x[3])
    return emitOpError() << "rotates " << 2 * cos.getDimSize(1) << " elements of heads that have " << x[3];
  return expectLengths(*this, "past", getPast(), x[0]);
}

LogicalResult KVAppendOp::verify() {
  KVType cache = getCache().getType();
  ArrayRef<int64_t> key = tensorOf(getKey()).getShape();
  if (key[0] != cache.getSlots() || key[2] != cache.getHeads() || key[3] != cache.getKeyDim())
    return emitOpError() << "key " << tensorOf(getKey()) << " does not fit the cache " << cache;
  if (failed(expectShape(*this, "value", tensorOf(getValue()), {key[0], key[1], key[2], cache.getValueDim()})) ||
      failed(expectLengths(*this, "past", getPast(), key[0])))
    return failure();
  return expectLengths(*this, "q_len", getQLen(), key[0]);
}

LogicalResult AttentionOp::verify() {
  int64_t heads = tensorOf(getQ()).getDimSize(2);
  if (failed(verifyScores(*this, getSlopes(), "slopes", heads, getSoftcap())) ||
      failed(verifyScores(*this, getSinks(), "sinks", heads, std::nullopt)))
    return failure();
  return verifyQuery(*this, getQ(), getCache().getType(), getPast(), getQLen(), getType(), /*padsHeads=*/false);
}

LogicalResult FFNOp::verify() {
  RankedTensorType result = wholeOrSum(*this, getResult().getType());
  if (!result)
    return failure();
  RankedTensorType x = tensorOf(getX()), up = tensorOf(getUp()), down = tensorOf(getDown());
  RankedTensorType first = getGate() ? tensorOf(getGate()) : up;
  if (x.getRank() < 1 || x.getShape().back() != first.getDimSize(0))
    return emitOpError() << "contracts " << x << " with the first dimension of " << first;
  if (failed(expectShape(*this, "up", up, first.getShape())) ||
      failed(expectShape(*this, "down", down, {up.getDimSize(1), down.getDimSize(1)})))
    return failure();
  if (getGateBias() && !getGate())
    return emitOpError("has a bias of a gate, but no gate");
  if (getDownBias() && isa<PartialType>(getResult().getType()))
    return emitOpError("adds a bias to a partial sum, so once per rank; add it behind the reduction");
  for (auto [name, bias, width] :
       {std::tuple("gate_bias", getGateBias(), up.getDimSize(1)), std::tuple("up_bias", getUpBias(), up.getDimSize(1)),
        std::tuple("down_bias", getDownBias(), down.getDimSize(1))})
    if (bias && failed(expectShape(*this, name, tensorOf(bias), {width})))
      return failure();
  SmallVector<int64_t> shape(x.getShape());
  shape.back() = down.getDimSize(1);
  return expectShape(*this, "result", result, shape);
}

LogicalResult LastTokenOp::verify() {
  ArrayRef<int64_t> x = tensorOf(getX()).getShape();
  if (failed(expectLengths(*this, "q_len", getQLen(), x[0])))
    return failure();
  return expectShape(*this, "result", getType(), {x[0], 1, x[2]});
}

LogicalResult RegionOp::verify() {
  if ((*this)->getParentOfType<RegionOp>())
    return emitOpError("must not be nested in another region");
  auto yield = dyn_cast<YieldOp>(getBody().front().getTerminator());
  if (!yield)
    return emitOpError("must end in helix.yield");
  if (yield.getOperandTypes() != getResultTypes())
    return emitOpError() << "yields " << yield.getOperandTypes() << ", but has results " << getResultTypes();
  return success();
}

LogicalResult PartialAttentionOp::verify() {
  PartialType partial = getType();
  if (partial.getReduction() != Reduction::Lse)
    return emitOpError() << "result must be an lse partial over kvp, but is " << partial;
  if (failed(verifyScores(*this, getSlopes(), "slopes", tensorOf(getQ()).getDimSize(2), getSoftcap())))
    return failure();
  SmallVector<int64_t> whole(partial.getValue().getShape());
  ArrayRef<int64_t> q = tensorOf(getQ()).getShape();
  for (auto [dim, name, given] :
       {std::tuple{0u, "sequences", getSequences()}, {1u, "query_tokens", getQueryTokens()}}) {
    if (given && given->size() != 2)
      return emitOpError() << name << " must be (first, count)";
    auto [first, count] = range(dim);
    if (first < 0 || count < 1 || first > q[dim] - count || count != whole[dim])
      return emitOpError() << name << " from " << first << " on, " << count << " of them, must lie within the "
                           << q[dim] << " of q and be the " << whole[dim] << " of the result";
    whole[dim] = q[dim];
  }
  return verifyQuery(*this, getQ(), getCache().getType(), getPast(), getQLen(), partial.getValue().clone(whole),
                     /*padsHeads=*/true);
}

LogicalResult AllToAllOp::verify() {
  PartialType partial = getInput().getType();
  if (partial.getReduction() != Reduction::Lse)
    return emitOpError() << "exchanges an lse partial, not " << partial;
  ArrayRef<int64_t> in = partial.getValue().getShape();
  RankedTensorType out = getType().getValue();
  int64_t peers = out.getDimSize(0);
  if (peers < 1 || in[2] % peers != 0)
    return emitOpError() << in[2] << " heads do not split over " << peers << " peers; pad them to a multiple";
  return expectShape(*this, "result", out, {peers, in[0], in[1], in[2] / peers, in[3] + 1});
}

LogicalResult MergeAttentionOp::verify() {
  if (getInputs().empty())
    return emitOpError("needs the partials of the peers");
  auto stackedOf = [](Value input) { return cast<StackedType>(input.getType()).getValue().getShape(); };
  ArrayRef<int64_t> first = stackedOf(getInputs().front());
  SmallVector<int64_t> result = {first[1], first[2], first[3], first[4] - 1};
  unsigned dim = chunkedDim();
  for (Value input : getInputs().drop_front()) {
    SmallVector<int64_t> like(first);
    like[dim + 1] = stackedOf(input)[dim + 1];
    if (stackedOf(input) != ArrayRef<int64_t>(like))
      return emitOpError() << "chunks must differ in the batch or in the query tokens alone, but are "
                           << getInputs().front().getType() << " and " << input.getType();
    result[dim] += like[dim + 1];
  }
  if (failed(expectShape(*this, "result", getType(), result)))
    return failure();
  return verifyScores(*this, getSinks(), "sinks", result[2], std::nullopt);
}

LogicalResult AllReduceOp::verify() {
  PartialType partial = getInput().getType();
  if (partial.getReduction() != Reduction::Sum)
    return emitOpError() << "reduces a partial sum, not " << partial
                         << "; an lse partial is made whole by all_to_all and merge_attention";
  if (partial.getValue() != getResult().getType())
    return emitOpError() << "result must be " << partial.getValue() << ", but is " << getResult().getType();
  return success();
}
