//===- VerifyCaches.cpp - Caches are used linearly -------------------------===//
#include "passes/VerifyCaches.h"

using namespace mlir;

namespace helix {
namespace {

LogicalResult verifySignature(func::FuncOp entry) {
  auto attr = dyn_cast<EntryAttr>(entry->getAttr(kEntryAttr));
  if (!attr)
    return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
           << kEntryAttr << " of @" << entry.getName() << " must be a #helix.entry";
  if (!entry.getBody().hasOneBlock())
    return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
           << "@" << entry.getName() << " must be a definition with one block";
  Type i64 = IntegerType::get(entry.getContext(), 64), i32 = IntegerType::get(entry.getContext(), 32);
  SmallVector<Type> want = {RankedTensorType::get({attr.getBatch(), attr.getTokens()}, i64),
                            RankedTensorType::get({attr.getBatch()}, i32),
                            RankedTensorType::get({attr.getBatch()}, i32)};
  ArrayRef<Type> have = entry.getArgumentTypes();
  for (auto [i, type] : llvm::enumerate(want))
    if (i >= have.size() || have[i] != type)
      return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
             << "argument " << i << " of @" << entry.getName() << " must be " << type
             << "; an entry takes ids, past, q_len, then one cache per layer";
  ArrayRef<Type> caches = have.drop_front(kFirstCache);
  if (!llvm::all_of(caches, llvm::IsaPred<KVType>))
    return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
           << "arguments of @" << entry.getName() << " after q_len must be KV caches";
  ArrayRef<Type> results = entry.getResultTypes();
  int64_t rows = attr.getLogits() == LogitRows::All ? attr.getTokens() : 1;
  auto logits = results.empty() ? RankedTensorType() : dyn_cast<RankedTensorType>(results.front());
  if (!logits || logits.getRank() != 3 || logits.getDimSize(0) != attr.getBatch() || logits.getDimSize(1) != rows ||
      !logits.getElementType().isF32())
    return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
           << "@" << entry.getName() << " must return logits [" << attr.getBatch() << ", " << rows
           << ", vocabulary] in f32 first";
  if (results.drop_front() != caches)
    return entry.emitError(errorPrefix(ErrorCode::NotADecoder))
           << "@" << entry.getName() << " must return its caches after the logits, in the order of its arguments";
  return success();
}

/// The op that makes the next version of a cache out of this use of it: an append, or what hands it out of a region.
bool consumes(OpOperand &use) { return isa<KVAppendOp, YieldOp, func::ReturnOp>(use.getOwner()); }

LogicalResult verifyLinear(Value cache) {
  Operation *consumer = nullptr;
  for (OpOperand &use : cache.getUses()) {
    if (!consumes(use))
      continue;
    if (consumer)
      return use.getOwner()->emitError(errorPrefix(ErrorCode::StaleCache))
             << "appends to or returns a cache that " << consumer->getName() << " at " << consumer->getLoc()
             << " takes too; use its result instead";
    consumer = use.getOwner();
  }
  if (!consumer)
    return success();
  for (Operation *user : cache.getUsers()) {
    if (user == consumer)
      continue;
    Operation *inBlock = consumer->getBlock()->findAncestorOpInBlock(*user);
    if (!inBlock || !inBlock->isBeforeInBlock(consumer))
      return user->emitError(errorPrefix(ErrorCode::StaleCache))
             << "reads a cache after it was appended to; read the result of the append instead";
  }
  return success();
}

} // namespace

LogicalResult verifyEntry(func::FuncOp entry) {
  if (failed(verifySignature(entry)))
    return failure();
  for (Value cache : entry.getArguments().drop_front(kFirstCache))
    if (failed(verifyLinear(cache)))
      return failure();
  WalkResult walk = entry.walk([&](Operation *op) {
    for (Value result : op->getResults())
      if (isa<KVType>(result.getType()) && failed(verifyLinear(result)))
        return WalkResult::interrupt();
    return WalkResult::advance();
  });
  return failure(walk.wasInterrupted());
}

} // namespace helix
