//===- Verifiers.cpp - What each plan op demands ---------------------------===//
#include "dialects/Plan/Plan.h"

using namespace mlir;

namespace helix::plan {
namespace {

/// Whether `value` holds exactly the product of `sizes` elements; emits an error otherwise. No product overflows: sizes
/// are compared with the value's own, factor by factor.
LogicalResult expectElements(Operation *op, StringRef what, Type type, ArrayRef<int64_t> sizes) {
  auto tensor = cast<RankedTensorType>(type);
  int64_t want = 1;
  bool fits = tensor.hasStaticShape();
  for (int64_t size : sizes)
    fits = fits && !llvm::MulOverflow(want, size, want);
  if (fits && tensor.getNumElements() == want)
    return success();
  InFlightDiagnostic diagnostic = op->emitOpError() << what << " must have ";
  llvm::interleave(sizes, diagnostic, [&](int64_t size) { diagnostic << size; }, " * ");
  return diagnostic << " elements, but is " << type;
}

/// Whether the shape is static and its bytes fit any arena, so that sums of a few of them do not overflow.
bool hasSaneSize(RankedTensorType type) {
  if (!type.hasStaticShape())
    return false;
  int64_t bytes = std::max(1u, type.getElementTypeBitWidth() / 8);
  for (int64_t size : type.getShape())
    if (llvm::MulOverflow(bytes, size, bytes) || bytes > (int64_t{1} << 46))
      return false;
  return true;
}

LogicalResult verifyPlaces(Operation *op) {
  auto command = cast<CommandOpInterface>(op);
  ArrayAttr places = command.getPlacesAttr();
  if (!places)
    return success();
  if (places.size() != op->getNumResults())
    return op->emitOpError() << "has " << places.size() << " places for " << op->getNumResults() << " results";
  return success();
}

/// Whether `sizes` has one positive size for each of the operands, and they make up `whole`.
LogicalResult expectParts(Operation *op, OperandRange parts, ArrayRef<int64_t> sizes, int64_t whole) {
  int64_t sum = 0;
  bool fits = !parts.empty() && parts.size() == sizes.size();
  for (int64_t size : sizes)
    fits = fits && size > 0 && !llvm::AddOverflow(sum, size, sum);
  if (fits && sum == whole)
    return success();
  return op->emitOpError() << "has " << parts.size() << " operands of sizes " << sizes << ", which must make up "
                           << whole;
}

LogicalResult expectCache(Operation *op, KVType cache, uint64_t batch) {
  if (cache.getSlots() == static_cast<int64_t>(batch))
    return success();
  return op->emitOpError() << "works on " << batch << " sequences, but " << cache << " has other slots";
}

} // namespace

LogicalResult WeightOp::verify() {
  auto type = cast<RankedTensorType>(getType()), stored = cast<RankedTensorType>(getStored());
  int64_t rank = type.getRank();
  if (!type.hasStaticShape() || !stored.hasStaticShape() || rank < 1 || rank > 2 || stored.getRank() != rank)
    return emitOpError() << "needs static types of one or two dimensions, but has " << type << " of stored " << stored;
  if ((getUse() == WeightUse::Table || getUse() == WeightUse::Linear) && rank != 2)
    return emitOpError() << "is " << type << ", but a " << stringifyWeightUse(getUse()) << " has two dimensions";
  if (quant() && getUse() == WeightUse::Vector)
    return emitOpError() << "is " << type << ", but a vector is not quantised";
  if (static_cast<bool>(quant()) != static_cast<bool>(getScalesAttr()))
    return emitOpError() << "is " << type << ", which goes " << (quant() ? "" : "not ") << "with scales";
  if (getUse() == WeightUse::Vector && !type.getElementType().isF32())
    return emitOpError() << "is " << type << ", but generated kernels read f32";
  auto hasRank = [&](auto list) { return !list || static_cast<int64_t>(list->size()) == rank; };
  if (!hasRank(getWindowOffset()) || !hasRank(getWindowSize()) || !hasRank(getSlice()) ||
      getWindowOffset().has_value() != getWindowSize().has_value())
    return emitOpError("needs a window and a slice with one element per dimension, or none");
  if (getPieces() && static_cast<int64_t>(getPieces()->size()) != 2 * rank)
    return emitOpError("needs a run and a stride of pieces per dimension, or none");
  if (ArrayAttr slice = getSliceAttr())
    for (Attribute dim : slice)
      if (auto list = dyn_cast<ArrayAttr>(dim); !list || !llvm::all_of(list, llvm::IsaPred<SplitAttr>))
        return emitOpError() << "slice must hold lists of #helix.split, but one is " << dim;
  return success();
}

LogicalResult KernelOp::verifySymbolUses(SymbolTableCollection &symbols) {
  if (symbols.lookupNearestSymbolFrom<ImageOp>(*this, getImageAttr()))
    return success();
  return emitOpError() << "is in " << getImageAttr() << ", which is no plan.image";
}

LogicalResult GetWeightOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto weight = symbols.lookupNearestSymbolFrom<WeightOp>(*this, getWeightAttr());
  if (!weight)
    return emitOpError() << getWeightAttr() << " is no plan.weight";
  if (weight.getType() != getType())
    return emitOpError() << getWeightAttr() << " is " << weight.getType() << ", not " << getType();
  return success();
}

LogicalResult LaunchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto kernel = symbols.lookupNearestSymbolFrom<KernelOp>(*this, getKernelAttr());
  if (!kernel)
    return emitOpError() << getKernelAttr() << " is no plan.kernel";
  SmallVector<int64_t> bytes;
  for (Type type : llvm::concat<const Type>(getOperandTypes(), getResultTypes()))
    bytes.push_back(bytesOf(type));
  if (kernel.getBuffers() != ArrayRef<int64_t>(bytes))
    return emitOpError() << "passes buffers of " << bytes << " bytes, but " << getKernelAttr() << " takes "
                         << kernel.getBuffers();
  return success();
}

/// A stateless entry takes what its inputs name, and returns what its outputs name.
static LogicalResult verifyStateless(EntryOp entry) {
  Block &body = entry.getBody().front();
  auto fits = [](std::optional<ArrayAttr> ports, TypeRange types) {
    return ports && llvm::equal(*ports, types, [](Attribute port, Type type) {
             auto tensor = dyn_cast<RankedTensorType>(type);
             return tensor && hasSaneSize(tensor) && tensor.getElementType() == cast<IOAttr>(port).innerElement();
           });
  };
  if (!fits(entry.getInputs(), body.getArgumentTypes()) || !fits(entry.getOutputs(), entry.getReturned().getTypes()))
    return entry.emitOpError("is stateless: it needs an #helix.io for each of its tensors, inputs and outputs");
  return success();
}

/// Another entry takes (ids, past, q_len, caches…) and returns logits.
static LogicalResult verifyDecoder(EntryOp op) {
  Block &body = op.getBody().front();
  EntryAttr entry = op.getSignature();
  MLIRContext *context = op.getContext();
  Type i64 = IntegerType::get(context, 64), i32 = IntegerType::get(context, 32);
  SmallVector<Type> want = {RankedTensorType::get({entry.getBatch(), entry.getTokens()}, i64),
                            RankedTensorType::get({entry.getBatch()}, i32),
                            RankedTensorType::get({entry.getBatch()}, i32)};
  for (auto [i, type] : llvm::enumerate(want))
    if (i >= body.getNumArguments() || body.getArgument(i).getType() != type)
      return op.emitOpError() << "argument " << i << " must be " << type;
  for (BlockArgument argument : body.getArguments().drop_front(want.size()))
    if (!isa<KVType>(argument.getType()))
      return op.emitOpError() << "argument " << argument.getArgNumber() << " must be a cache, but is "
                              << argument.getType();
  if (op.getReturned().size() != 1 || op.getInputs() || op.getOutputs())
    return op.emitOpError("must return its logits, and has no other inputs and outputs");
  return success();
}

LogicalResult EntryOp::verify() {
  Block &body = getBody().front();
  for (Operation &op : body.without_terminator()) {
    if (!isa<CommandOpInterface, GetWeightOp>(op))
      return op.emitOpError("is not a command");
    for (Type type : op.getResultTypes())
      if (auto tensor = dyn_cast<RankedTensorType>(type); tensor && !hasSaneSize(tensor))
        return op.emitOpError() << "makes " << type << "; values have static shapes of at most 2^46 bytes";
  }
  if (!isa<ReturnOp>(body.getTerminator()))
    return emitOpError("must end in plan.return");
  return getSignature().isStateless() ? verifyStateless(*this) : verifyDecoder(*this);
}

LogicalResult EmbeddingOp::verify() {
  if (failed(expectElements(*this, "ids", getIds().getType(), {int64_t(getRows())})) ||
      failed(expectElements(*this, "table", getTable().getType(), {int64_t(getVocabulary()), int64_t(getHidden())})) ||
      failed(expectElements(*this, "result", getType(), {int64_t(getRows()), int64_t(getHidden())})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult LinearOp::verify() {
  int64_t rows = getRows(), k = getK(), n = getN();
  if (failed(expectElements(*this, "x", getX().getType(), {rows, k})) ||
      failed(expectElements(*this, "weight", getWeight().getType(), {k, n})) ||
      failed(expectElements(*this, "result", getType(), {rows, n})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult KVAppendOp::verify() {
  int64_t batch = getBatch(), tokens = getTokens();
  KVType cache = getCache().getType();
  if (failed(expectCache(*this, cache, batch)) ||
      failed(expectElements(*this, "key", getKey().getType(), {batch, tokens, cache.getHeads(), cache.getKeyDim()})) ||
      failed(expectElements(*this, "value", getValue().getType(),
                            {batch, tokens, cache.getHeads(), cache.getValueDim()})) ||
      failed(expectElements(*this, "past", getPast().getType(), {batch})) ||
      failed(expectElements(*this, "q_len", getQLen().getType(), {batch})))
    return failure();
  if (getPlacesAttr())
    return emitOpError("writes a cache, which is in no arena");
  return success();
}

LogicalResult PartialAttentionOp::verify() {
  int64_t batch = getBatch(), tokens = getTokens(), heads = getHeads(), padded = getPaddedHeads();
  KVType cache = getCache().getType();
  if (heads % cache.getHeads() != 0 || padded < heads || padded % cache.getKvp() != 0)
    return emitOpError() << heads << " heads, padded to " << padded << ", must be whole groups over "
                         << cache.getHeads() << " KV heads, and padded to a multiple of kvp = " << cache.getKvp();
  for (auto range : {getSequences(), getQueryTokens()})
    if (range && range->size() != 2)
      return emitOpError("sequences and query_tokens must be (first, count)");
  if ((getSlopes() && failed(expectElements(*this, "slopes", getSlopes().getType(), {heads}))) ||
      failed(expectCache(*this, cache, batch)) ||
      failed(expectElements(*this, "q", getQ().getType(), {batch, tokens, heads, cache.getKeyDim()})) ||
      failed(expectElements(*this, "past", getPast().getType(), {batch})) ||
      failed(expectElements(*this, "q_len", getQLen().getType(), {batch})) ||
      failed(expectElements(*this, "result", getType(),
                            {sequenceRange().second, tokenRange().second, padded, cache.getValueDim() + 1})))
    return failure();
  for (auto [name, range, whole] :
       {std::tuple("sequences", sequenceRange(), batch), std::tuple("query_tokens", tokenRange(), tokens)})
    if (range.first < 0 || range.second < 1 || range.first > whole - range.second)
      return emitOpError() << name << " from " << range.first << " on, " << range.second << " of them, must lie within "
                           << whole;
  return verifyPlaces(*this);
}

LogicalResult MergeAttentionOp::verify() {
  int64_t peers = getPeers(), batch = getBatch(), tokens = getTokens(), heads = getHeads(), width = getValueDim();
  SmallVector<int64_t> chunks = {batch};
  bool alongTokens = getTokenChunks().has_value();
  if (alongTokens && getBatchChunks())
    return emitOpError("has chunks of the batch or of the query tokens, not of both");
  if (std::optional<ArrayRef<int64_t>> given = alongTokens ? getTokenChunks() : getBatchChunks())
    chunks.assign(given->begin(), given->end());
  if (failed(expectParts(*this, getStacked(), chunks, alongTokens ? tokens : batch)))
    return failure();
  for (auto [chunk, size] : llvm::zip_equal(getStacked(), chunks))
    if (failed(expectElements(*this, "stacked", chunk.getType(),
                              {peers, alongTokens ? batch : size, alongTokens ? size : tokens, heads, width + 1})))
      return failure();
  if ((getSinks() && failed(expectElements(*this, "sinks", getSinks().getType(), {heads}))) ||
      failed(expectElements(*this, "result", getType(), {batch, tokens, heads, width})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult ConcatOp::verify() {
  auto columns = cast<RankedTensorType>(getType()).getNumElements() / int64_t(getRows());
  if (failed(expectParts(*this, getParts(), getWidths(), columns)))
    return failure();
  for (auto [part, width] : llvm::zip_equal(getParts(), getWidths()))
    if (failed(expectElements(*this, "part", part.getType(), {int64_t(getRows()), width})))
      return failure();
  if (failed(expectElements(*this, "result", getType(), {int64_t(getRows()), columns})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult LastTokenOp::verify() {
  int64_t batch = getBatch(), tokens = getTokens(), hidden = getHidden();
  if (failed(expectElements(*this, "x", getX().getType(), {batch, tokens, hidden})) ||
      failed(expectElements(*this, "q_len", getQLen().getType(), {batch})) ||
      failed(expectElements(*this, "result", getType(), {batch, 1, hidden})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult LaunchOp::verify() {
  for (Type type : llvm::concat<const Type>(getOperandTypes(), getResultTypes()))
    if (!cast<RankedTensorType>(type).hasStaticShape())
      return emitOpError() << "needs static shapes, but has " << type;
  return verifyPlaces(*this);
}

LogicalResult AllToAllOp::verify() {
  if (getSend().getType().getNumElements() % getPeers() != 0)
    return emitOpError() << getSend().getType() << " does not split over " << getPeers() << " peers";
  if (failed(expectElements(*this, "result", getType(), {getSend().getType().getNumElements()})))
    return failure();
  return verifyPlaces(*this);
}

LogicalResult AllReduceOp::verify() {
  if (failed(expectElements(*this, "result", getType(), {getPartial().getType().getNumElements()})))
    return failure();
  return verifyPlaces(*this);
}

static LogicalResult verifyEvent(Operation *op) {
  if (cast<CommandOpInterface>(op).getPlacesAttr())
    return op->emitOpError("has no results that could have places");
  return success();
}

LogicalResult RecordOp::verify() { return verifyEvent(*this); }
LogicalResult WaitOp::verify() { return verifyEvent(*this); }

} // namespace helix::plan
