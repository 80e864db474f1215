//===- Mutants.cpp - Deliberate bugs, for tests that must see them ----------===//
#include "lib/Interpreter/Mutants.h"

#include "lib/Interpreter/Ops.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

#include <cmath>

using namespace mlir;
using namespace helix;

static constexpr StringRef kNames[] = {
    "no-rope",       "local-rope",       "base2-merge",        "unweighted-merge", "double-append",
    "lost-append",   "global-length",    "uniform-attention",  "head-shift",       "block-off-by-one",
    "peers-swapped", "no-rescale-empty", "softcap-after-mask", "sink-per-rank",
};

ArrayRef<StringRef> helix::mutantNames() { return kNames; }

std::optional<Mutant> helix::symbolizeMutant(StringRef name) {
  const auto *found = llvm::find(kNames, name);
  if (found == std::end(kNames))
    return std::nullopt;
  return static_cast<Mutant>(found - kNames + 1);
}

double helix::unwritten(Mutant mutant) { return mutant == Mutant::None ? std::numeric_limits<double>::quiet_NaN() : 0; }

//===----------------------------------------------------------------------===//
// Rope
//===----------------------------------------------------------------------===//

static FailureOr<RankValue> unrotated(RopeOp, Operands operands, int64_t) { return operands[0]; }

/// How the module lays out its caches; kernels know it from the entries.
static KVType cacheLayout(Operation *op) {
  KVType layout;
  op->getParentOfType<ModuleOp>().walk([&](func::FuncOp function) {
    for (Type type : function.getArgumentTypes())
      if (auto cache = dyn_cast<KVType>(type))
        layout = cache;
  });
  return layout;
}

static FailureOr<RankValue> rotatedLocally(RopeOp op, Operands operands, int64_t) {
  KVType layout = cacheLayout(op);
  const Tensor &past = *operands[3].tensor;
  return RankValue(rotate(*operands[0].tensor, *operands[1].tensor, *operands[2].tensor, op.getInterleaved(),
                          [&](int64_t b, int64_t t) {
                            int64_t position = static_cast<int64_t>(past.values[b]) + t;
                            return layout ? local(layout, position) : position;
                          }));
}

//===----------------------------------------------------------------------===//
// Append and attention
//===----------------------------------------------------------------------===//

static bool startsBlock(KVType type, int64_t position) { return position % type.getBlock() == 0; }

/// Appends token by token where `places` says: the places of a rank's cache that a position is written to.
static OpFunction appendTo(Places places) {
  return [places](Operation *, ArrayRef<RankValues> operands, Machine &machine) -> FailureOr<RankValues> {
    RankValues result;
    for (int64_t rank = 0; rank < machine.ranks(); ++rank) {
      const Tensor &key = *operands[0][rank].tensor, &value = *operands[1][rank].tensor;
      Cache &cache = *operands[4][rank].cache;
      for (int64_t b = 0; b < key.shape[0]; ++b)
        for (int64_t t = 0; t < operands[3][rank].tensor->values[b]; ++t)
          for (int64_t place : places(cache, static_cast<int64_t>(operands[2][rank].tensor->values[b]) + t))
            for (int64_t h = 0; h < cache.type.getHeads(); ++h)
              cache.write(b, place, h, key.at({b, t, h}), value.at({b, t, h}));
      ++cache.version;
      result.push_back(RankValue(cache));
    }
    return result;
  };
}

static SmallVector<int64_t> lostPlaces(const Cache &cache, int64_t position) {
  if (owner(cache.type, position) != cache.kvpRank || startsBlock(cache.type, position))
    return {};
  return {local(cache.type, position)};
}

/// Where the rank behind the owner keeps its copy: beyond its own tokens.
static int64_t copyPlace(KVType type, int64_t position) { return type.localCapacity() + local(type, position); }

static bool holdsCopy(const Cache &cache, int64_t position) {
  return cache.type.getKvp() > 1 && startsBlock(cache.type, position) &&
         (owner(cache.type, position) + 1) % cache.type.getKvp() == cache.kvpRank;
}

static SmallVector<int64_t> doubledPlaces(const Cache &cache, int64_t position) {
  if (owner(cache.type, position) == cache.kvpRank)
    return {local(cache.type, position)};
  if (holdsCopy(cache, position))
    return {copyPlace(cache.type, position)};
  return {};
}

static SmallVector<int64_t> visibleWithCopies(const Cache &cache, int64_t length) {
  SmallVector<int64_t> places = heldPlaces(cache, length);
  for (int64_t position = 0; position < length; ++position)
    if (holdsCopy(cache, position))
      places.push_back(copyPlace(cache.type, position));
  return places;
}

static SmallVector<int64_t> visibleToGlobalLength(const Cache &cache, int64_t length) {
  return llvm::to_vector(llvm::seq<int64_t>(0, std::min(length, cache.type.localCapacity())));
}

static SmallVector<int64_t> visibleByLongerBlock(const Cache &cache, int64_t length) {
  if (cache.type.getKvp() == 1)
    return heldPlaces(cache, length);
  int64_t block = cache.type.getBlock() + 1, round = block * cache.type.getKvp();
  SmallVector<int64_t> places;
  for (int64_t position = 0; position < length; ++position)
    if (position / block % cache.type.getKvp() == cache.kvpRank)
      places.push_back(position / round * block + position % block);
  return places;
}

static bool isWhole(Operation *op) { return isa<AttentionOp>(op); }

/// Both attention ops over what `visible` lists.
template <typename Op> static void attendOver(OpTable &table, Places visible, bool capsMasked = false) {
  addLocal<Op>(table, [visible, capsMasked](Op op, Operands in, int64_t) -> FailureOr<RankValue> {
    Type type = op->getResult(0).getType();
    auto shape = isWhole(op) ? cast<RankedTensorType>(type) : cast<PartialType>(type).getValue();
    AttentionInputs inputs(op, in);
    inputs.capsMasked = capsMasked;
    RankValue result = attend(inputs, shape.getDimSize(2), visible);
    if (isWhole(op))
      result.lse = nullptr;
    return result;
  });
}

/// Runs the op of the table after `change` to its query.
static void changeQuery(OpTable &table, StringRef name, Tensor (*change)(const Tensor &q, KVType cache)) {
  OpFunction original = table[name];
  table[name] = [original, change](Operation *op, ArrayRef<RankValues> operands, Machine &machine) {
    SmallVector<RankValues> changed(operands);
    for (RankValue &q : changed[0])
      q = change(*q.tensor, cast<KVType>(op->getOperand(1).getType()));
    return original(op, changed, machine);
  };
}

static Tensor zeros(const Tensor &q, KVType) { return Tensor(q.shape); }

static Tensor shiftGroup(const Tensor &q, KVType cache) {
  Tensor result(q.shape);
  int64_t heads = q.shape[2], by = heads / cache.getHeads();
  for (int64_t b = 0; b < q.shape[0]; ++b)
    for (int64_t t = 0; t < q.shape[1]; ++t)
      for (int64_t h = 0; h < heads; ++h)
        std::copy_n(q.at({b, t, h}), q.width(), result.at({b, t, (h + by) % heads}));
  return result;
}

//===----------------------------------------------------------------------===//
// Exchange and merge
//===----------------------------------------------------------------------===//

static constexpr double kNothing = -std::numeric_limits<double>::infinity();

static void mergeWith(OpTable &table, double (*weight)(double lse, double max)) {
  addLocal<MergeAttentionOp>(table, [weight](MergeAttentionOp op, Operands operands, int64_t) -> FailureOr<RankValue> {
    return RankValue(merge(op, operands, weight));
  });
}

static void swapPeers(OpTable &table) {
  OpFunction original = table[AllToAllOp::getOperationName()];
  table[AllToAllOp::getOperationName()] = [original](Operation *op, ArrayRef<RankValues> operands,
                                                     Machine &machine) -> FailureOr<RankValues> {
    FailureOr<RankValues> result = original(op, operands, machine);
    if (succeeded(result) && machine.mesh && machine.mesh.getKvp() > 1)
      for (int64_t rank = 0; rank < machine.ranks(); rank += machine.mesh.getKvp())
        std::swap((*result)[rank], (*result)[rank + 1]);
    return result;
  };
}

void helix::applyMutant(Mutant mutant, OpTable &table) {
  auto attendOverAll = [&](Places visible) {
    attendOver<AttentionOp>(table, visible);
    attendOver<PartialAttentionOp>(table, visible);
  };
  auto changeQueries = [&](Tensor (*change)(const Tensor &, KVType)) {
    changeQuery(table, AttentionOp::getOperationName(), change);
    changeQuery(table, PartialAttentionOp::getOperationName(), change);
  };
  OpFunction &append = table[KVAppendOp::getOperationName()];
  switch (mutant) {
  case Mutant::None:
    return;
  case Mutant::NoRope:
    return addLocal<RopeOp>(table, unrotated);
  case Mutant::LocalRope:
    return addLocal<RopeOp>(table, rotatedLocally);
  case Mutant::Base2Merge:
    return mergeWith(table, [](double lse, double max) { return lse == kNothing ? 0 : std::exp2(lse - max); });
  case Mutant::UnweightedMerge:
    return mergeWith(table, [](double lse, double) { return lse == kNothing ? 0. : 1.; });
  case Mutant::DoubleAppend:
    append = appendTo(doubledPlaces);
    return attendOverAll(visibleWithCopies);
  case Mutant::LostAppend:
    append = appendTo(lostPlaces);
    return;
  case Mutant::GlobalLength:
    return attendOverAll(visibleToGlobalLength);
  case Mutant::UniformAttention:
    return changeQueries(zeros);
  case Mutant::HeadShift:
    return changeQueries(shiftGroup);
  case Mutant::BlockOffByOne:
    return attendOverAll(visibleByLongerBlock);
  case Mutant::PeersSwapped:
    return swapPeers(table);
  case Mutant::NoRescaleEmpty:
    return mergeWith(table, [](double lse, double max) {
      return max == kNothing ? 0 : lse == kNothing ? 1 : std::exp(lse - max);
    });
  case Mutant::SoftcapAfterMask:
    attendOver<AttentionOp>(table, heldPlaces, /*capsMasked=*/true);
    return attendOver<PartialAttentionOp>(table, heldPlaces, /*capsMasked=*/true);
  case Mutant::SinkPerRank:
    return addLocal<MergeAttentionOp>(
        table, [](MergeAttentionOp op, Operands operands, int64_t) -> FailureOr<RankValue> {
          return RankValue(merge(
              op, operands, [](double lse, double max) { return lse == kNothing ? 0 : std::exp(lse - max); },
              /*sinkPerPeer=*/true));
        });
  }
}
