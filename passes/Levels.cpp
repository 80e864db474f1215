//===- Levels.cpp - What makes a module model level, or SPMD level ---------===//
#include "passes/Levels.h"

#include "llvm/ADT/StringSet.h"

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

/// A stateless entry takes and returns tensors, each with a `helix.io` that names it.
LogicalResult verifyStateless(func::FuncOp entry) {
  auto error = [&] {
    return entry.emitError(errorPrefix(ErrorCode::StatelessInvalid)) << "@" << entry.getName() << ' ';
  };
  if (!entry.getBody().hasOneBlock())
    return error() << "must be a definition with one block";
  auto verifyPort = [&](StringRef what, unsigned index, Type type, Attribute attr,
                        llvm::StringSet<> &names) -> LogicalResult {
    auto io = dyn_cast_or_null<IOAttr>(attr);
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (!io || !tensor || !tensor.hasStaticShape() || tensor.getElementType() != io.innerElement())
      return error() << "is stateless, so " << what << " " << index << " must be a tensor of static shape with a "
                     << kIOAttr << " that fits its element type, but is " << type;
    if (!names.insert(io.getName()).second)
      return error() << "has two " << what << "s of the name " << io.getName();
    return success();
  };
  llvm::StringSet<> inputs, outputs;
  for (auto [i, type] : llvm::enumerate(entry.getArgumentTypes()))
    if (failed(verifyPort("argument", i, type, entry.getArgAttr(i, kIOAttr), inputs)))
      return failure();
  for (auto [i, type] : llvm::enumerate(entry.getResultTypes()))
    if (failed(verifyPort("result", i, type, entry.getResultAttr(i, kIOAttr), outputs)))
      return failure();
  if (entry.getNumResults() == 0)
    return error() << "is stateless and returns nothing";
  for (Type type : entry.getResultTypes())
    if (!cast<RankedTensorType>(type).getElementType().isF32())
      return error() << "returns " << type << ", but results of a stateless entry are floats";
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

/// The entry takes (ids, past, q_len, caches…) and returns (logits, the same caches…), and uses each cache linearly: a
/// version that is read or appended to after it was appended to would have to be copied whole.
LogicalResult verifyEntry(func::FuncOp entry) {
  if (isStateless(entry))
    return verifyStateless(entry);
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

/// An op of a model-level entry.
LogicalResult verifyWhole(Operation *op) {
  if (isa<RegionOp, PartialAttentionOp, AllToAllOp, MergeAttentionOp, AllReduceOp>(op))
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << op->getName() << " belongs to the SPMD level";
  for (Type type : op->getResultTypes()) {
    if (isa<PartialType, StackedType>(type))
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << type << " belongs to the SPMD level";
    if (auto shaped = dyn_cast<ShapedType>(type); shaped && !shaped.hasStaticShape())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << "result " << type << " has a dynamic shape; bind it when importing";
    if (auto cache = dyn_cast<KVType>(type); cache && cache.getKvp() != 1)
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << type << " is sharded at model level";
  }
  if (auto weight = dyn_cast<WeightOp>(op); weight && weight.getSlice())
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << "weight has a slice at model level";
  return success();
}

/// A cache, stacked value or all-to-all that disagrees with the mesh.
LogicalResult verifyAgainstMesh(Operation *op, MeshAttr mesh) {
  for (Type type : llvm::concat<const Type>(op->getOperandTypes(), op->getResultTypes())) {
    if (auto cache = dyn_cast<KVType>(type); cache && cache.getKvp() != mesh.getKvp())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << type << " is spread over " << cache.getKvp() << " ranks, but the mesh has kvp = " << mesh.getKvp();
    if (auto stacked = dyn_cast<StackedType>(type);
        stacked && stacked.getValue().getDimSize(0) != mesh.size(stacked.getAxis()))
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << type << " stacks " << stacked.getValue().getDimSize(0) << " peers, but the mesh has "
             << mesh.size(stacked.getAxis()) << " along " << stringifyAxis(stacked.getAxis());
  }
  return success();
}

/// The shares of all ranks cover the window, each element once per replica; that is, no split leaves a tail uncovered.
LogicalResult verifySlice(WeightOp weight, MeshAttr mesh) {
  if (!weight.getSlice())
    return success();
  SmallVector<int64_t> size = weight.windowSize();
  for (unsigned d = 0; d < size.size(); ++d) {
    int64_t covered = size[d];
    for (SplitAttr split : weight.splits(d)) {
      int64_t chunks = split.chunks(mesh);
      if (!chunks)
        return weight.emitError(errorPrefix(ErrorCode::LevelInvalid))
               << "dimension " << d << ": " << split.getReplicas() << " copies do not divide the "
               << mesh.size(split.getAxis()) << " ranks along " << stringifyAxis(split.getAxis());
      if (split.getChunk() < ceilDiv(covered, chunks))
        return weight.emitError(errorPrefix(ErrorCode::LevelInvalid))
               << "dimension " << d << ": " << chunks << " chunks of " << split.getChunk() << " do not cover "
               << covered << " elements";
      covered = std::min(covered, split.getChunk());
    }
  }
  return success();
}

LogicalResult verifyLocal(Operation *op, MeshAttr mesh) {
  if (isa<AttentionOp>(op))
    return op->emitError(errorPrefix(ErrorCode::LevelInvalid)) << op->getName() << " belongs to the model level";
  for (Value result : op->getResults())
    if (isa<PartialType, StackedType>(result.getType()) && !result.hasOneUse())
      return op->emitError(errorPrefix(ErrorCode::LevelInvalid))
             << "partial result " << result.getType() << " must be completed by exactly one op, but has "
             << std::distance(result.use_begin(), result.use_end()) << " uses";
  if (auto weight = dyn_cast<WeightOp>(op))
    return verifySlice(weight, mesh);
  return verifyAgainstMesh(op, mesh);
}

LogicalResult verifyEntries(ArrayRef<func::FuncOp> entries, function_ref<LogicalResult(Operation *)> verifyOp) {
  if (entries.size() > 1 && llvm::any_of(entries, isStateless))
    return func::FuncOp(entries.front()).emitError(errorPrefix(ErrorCode::StatelessInvalid))
           << "a stateless entry must be the only one of its module";
  for (func::FuncOp entry : entries)
    if (failed(verifyEntry(entry)) ||
        entry.walk([&](Operation *op) { return WalkResult(verifyOp(op)); }).wasInterrupted())
      return failure();
  return success();
}

} // namespace

LogicalResult verifyModelLevel(ModuleOp module) {
  SmallVector<func::FuncOp> entries = entriesOf(module);
  if (entries.empty())
    return module.emitError(errorPrefix(ErrorCode::NotADecoder)) << "the module has no function with " << kEntryAttr;
  return verifyEntries(entries, verifyWhole);
}

LogicalResult verifySpmdLevel(ModuleOp module) {
  auto mesh = module->getAttrOfType<MeshAttr>(kMeshAttr);
  SmallVector<func::FuncOp> entries = entriesOf(module);
  if (!mesh || entries.empty())
    return module.emitError(errorPrefix(ErrorCode::LevelInvalid))
           << "the module needs " << kMeshAttr << " and a function with " << kEntryAttr;
  if (isStateless(entries.front()) && mesh.ranks() != 1)
    return module.emitError(errorPrefix(ErrorCode::StatelessMesh))
           << "a stateless entry is for one rank, but the mesh has " << mesh.ranks();
  return verifyEntries(entries, [&](Operation *op) { return verifyLocal(op, mesh); });
}

} // namespace helix
