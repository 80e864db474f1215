//===- Costs.cpp - What each command costs, as coefficients ----------------===//
//
// Bytes count each operand and result once, as if caches held what a command reads twice: decode streams its weights
// and its KV cache, all else is small.
//
//===-----------------------------------------------------------------------===//
#include "dialects/Plan/Plan.h"

using namespace mlir;

namespace helix::plan {
namespace {

double total(ValueRange values) {
  double bytes = 0;
  for (Value value : values)
    bytes += bytesOf(value.getType());
  return bytes;
}

} // namespace

Cost EmbeddingOp::getCost() {
  double row = double(bytesOf(getTable().getType())) / getVocabulary();
  return {.bytes = double(getRows()) * (8 + row + 4.0 * getHidden())};
}

Cost LinearOp::getCost() {
  return {.bytes = total((*this)->getOperands()) + total(getResult()), .flops = 2.0 * getRows() * getK() * getN()};
}

Cost KVAppendOp::getCost() {
  KVType cache = getCache().getType();
  // Each of the kvp ranks writes its share of the tokens.
  double read = 4.0 * (cache.getKeyDim() + cache.getValueDim());
  return {.bytesPerQuery = cache.getHeads() * (read + cache.tokenBytes()) / cache.getKvp()};
}

Cost PartialAttentionOp::getCost() {
  KVType cache = getCache().getType();
  double widths = cache.getKeyDim() + cache.getValueDim();
  // Of the batch's query tokens.
  double share = double(sequenceRange().second) / getBatch() * tokenRange().second / getTokens();
  Cost cost;
  cost.bytes = total(getResult());
  cost.bytesPerQuery = 4.0 * getHeads() * cache.getKeyDim() * share;
  cost.bytesPerCached = double(sequenceRange().second) * cache.getHeads() * cache.tokenBytes();
  cost.flopsPerQueryCached = 2.0 * getHeads() * widths * share;
  return cost;
}

Cost MergeAttentionOp::getCost() {
  double rows = double(getBatch()) * getTokens() * getHeads();
  // Per peer: a product and a sum per element.
  return {.bytes = total((*this)->getOperands()) + total(getResult()),
          .flops = 2.0 * getPeers() * rows * getValueDim()};
}

Cost ConcatOp::getCost() { return {.bytes = 2 * total(getResult())}; }

Cost RecordOp::getCost() { return {}; }

Cost WaitOp::getCost() { return {}; }

Cost LastTokenOp::getCost() { return {.bytes = 2 * total(getResult())}; }

Cost LaunchOp::getCost() {
  auto kernel = SymbolTable::lookupNearestSymbolFrom<KernelOp>(*this, getKernelAttr());
  return {.bytes = kernel.getBytes().convertToDouble(), .flops = kernel.getFlops().convertToDouble()};
}

Cost AllToAllOp::getCost() { return {.bytes = 2 * total(getResult())}; }

Cost AllReduceOp::getCost() {
  // Scatter the parts, sum one share of each peer, gather the whole.
  double elements = getResult().getType().getNumElements();
  return {.bytes = 3 * 4 * elements, .flops = elements * (getPeers() - 1) / getPeers()};
}

} // namespace helix::plan
