//===- Ops.cpp - Parsing, printing, folding of helix ops -------------------===//
#include "dialects/Helix/Helix.h"

#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace helix;

#define GET_OP_CLASSES
#include "dialects/Helix/HelixOps.cpp.inc"

SmallVector<int64_t> WeightOp::windowOffset() {
  if (std::optional<ArrayRef<int64_t>> offset = getWindowOffset())
    return SmallVector<int64_t>(*offset);
  return SmallVector<int64_t>(storedType().getRank(), 0);
}

SmallVector<int64_t> WeightOp::windowSize() {
  if (std::optional<ArrayRef<int64_t>> size = getWindowSize())
    return SmallVector<int64_t>(*size);
  return SmallVector<int64_t>(storedType().getShape());
}

std::pair<int64_t, int64_t> WeightOp::piecesOf(unsigned dim) {
  std::optional<ArrayRef<int64_t>> pieces = getPieces();
  return pieces ? std::pair((*pieces)[2 * dim], (*pieces)[2 * dim + 1]) : std::pair(int64_t{0}, int64_t{0});
}

SmallVector<SplitAttr> WeightOp::splits(unsigned dim) {
  if (!getSlice())
    return {};
  return llvm::map_to_vector(cast<ArrayAttr>((*getSlice())[dim]), [](Attribute a) { return cast<SplitAttr>(a); });
}

WeightOp WeightOp::part(OpBuilder &builder, ArrayRef<int64_t> shape, DenseI64ArrayAttr windowOffset,
                        DenseI64ArrayAttr windowSize, ArrayAttr slice) {
  return WeightOp::create(builder, getLoc(), getType().clone(shape), getNameAttr(), getFileAttr(), getOffsetAttr(),
                          getLengthAttr(), getStoredAttr(), windowOffset, windowSize, slice, getTransposedAttr(),
                          getPiecesAttr(), getScalesAttr(), getZeroPointsAttr());
}

void LinearOp::build(OpBuilder &builder, OperationState &state, Type result, Value x, Value weight) {
  build(builder, state, result, x, weight, Value());
}

void AttentionOp::build(OpBuilder &builder, OperationState &state, Type result, Value q, Value cache, Value past,
                        Value qLen, FloatAttr scale) {
  build(builder, state, result, q, cache, past, qLen, Value(), Value(), scale, FloatAttr(), IntegerAttr());
}

void RopeOp::build(OpBuilder &builder, OperationState &state, Value x, Value cos, Value sin, Value past,
                   bool interleaved) {
  build(builder, state, x.getType(), x, cos, sin, past, interleaved);
}

LogicalResult RegionOp::canonicalize(RegionOp region, PatternRewriter &rewriter) {
  Block &body = region.getBody().front();
  auto yield = cast<YieldOp>(body.getTerminator());
  auto isInside = [&](Value value) { return region.getBody().isAncestor(value.getParentRegion()); };
  SmallVector<Value> kept;
  SmallVector<unsigned> keptIndex;
  for (auto [i, value, result] : llvm::enumerate(yield.getOperands(), region.getResults()))
    if (isInside(value) && !result.use_empty()) {
      kept.push_back(value);
      keptIndex.push_back(i);
    }
  bool isEmpty = llvm::hasSingleElement(body);
  if (kept.size() == region.getNumResults() && !isEmpty)
    return failure();

  auto slim = RegionOp::create(rewriter, region.getLoc(), TypeRange(ValueRange(kept)), region.getPhase());
  SmallVector<Value> replacements(yield.getOperands());
  for (auto [i, result] : llvm::zip(keptIndex, slim.getResults()))
    replacements[i] = result;
  // What nobody reads may be defined inside; any value of the type does.
  for (auto [i, result] : llvm::enumerate(region.getResults()))
    if (result.use_empty() && isInside(replacements[i]))
      replacements[i] = result;
  rewriter.inlineRegionBefore(region.getBody(), slim.getBody(), slim.getBody().end());
  rewriter.setInsertionPoint(yield);
  rewriter.replaceOpWithNewOp<YieldOp>(yield, kept);
  for (auto [result, replacement] : llvm::zip(region.getResults(), replacements))
    if (result != replacement)
      rewriter.replaceAllUsesWith(result, replacement);
  rewriter.eraseOp(region);
  if (isEmpty)
    rewriter.eraseOp(slim);
  return success();
}

std::pair<int64_t, int64_t> PartialAttentionOp::range(unsigned dim) {
  std::optional<ArrayRef<int64_t>> given = dim == 0 ? getSequences() : getQueryTokens();
  return given ? std::pair((*given)[0], (*given)[1]) : std::pair(int64_t{0}, getQ().getType().getDimSize(dim));
}

unsigned MergeAttentionOp::chunkedDim() {
  int64_t tokens = getType().getDimSize(1);
  auto hasAllTokens = [&](Value input) {
    return cast<StackedType>(input.getType()).getValue().getDimSize(2) == tokens;
  };
  return llvm::all_of(getInputs(), hasAllTokens) ? 0 : 1;
}

ParseResult RegionOp::parse(OpAsmParser &parser, OperationState &result) {
  StringRef word;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseKeyword(&word))
    return failure();
  std::optional<Phase> phase = symbolizePhase(word);
  if (!phase)
    return parser.emitError(loc) << "unknown phase '" << word << "'; a region is kvp or tp";
  result.addAttribute("phase", PhaseAttr::get(parser.getContext(), *phase));
  if (parser.parseOptionalAttrDictWithKeyword(result.attributes) || parser.parseRegion(*result.addRegion()))
    return failure();
  return parser.parseOptionalColonTypeList(result.types);
}

void RegionOp::print(OpAsmPrinter &printer) {
  printer << ' ' << stringifyPhase(getPhase());
  printer.printOptionalAttrDictWithKeyword((*this)->getAttrs(), {"phase"});
  printer << ' ';
  printer.printRegion(getBody(), /*printEntryBlockArgs=*/false);
  if (getNumResults())
    printer << " : " << getResultTypes();
}
