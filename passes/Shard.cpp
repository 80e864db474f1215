//===- Shard.cpp - helix-shard ---------------------------------------------===//
#include "passes/AttentionPattern.h"
#include "passes/Levels.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_SHARD
#include "passes/Passes.h.inc"

namespace {

/// What the artifact's reader takes, too.
constexpr int64_t kMaxRanks = 4096;

ShardingAttr sharding(MLIRContext *context, View view, int64_t rank, int64_t dim, ArrayRef<Axis> axes) {
  Builder builder(context);
  SmallVector<Attribute> dims(rank, builder.getArrayAttr({}));
  dims[dim] = builder.getArrayAttr(
      llvm::map_to_vector(axes, [&](Axis axis) -> Attribute { return builder.getStringAttr(stringifyAxis(axis)); }));
  return ShardingAttr::get(context, view, builder.getArrayAttr(dims));
}

struct ShardPass : impl::ShardBase<ShardPass> {
  using ShardBase::ShardBase;

  void runOnOperation() override {
    if (failed(verifyModelLevel(getOperation())))
      return signalPassFailure();
    SmallVector<func::FuncOp> entries = entriesOf(getOperation());
    if (isStateless(entries.front())) {
      if (failed(checkSingleRank()))
        return signalPassFailure();
      return;
    }
    FailureOr<MeshAttr> mesh = chooseMesh(entries);
    if (failed(mesh))
      return signalPassFailure();
    getOperation()->setAttr(kMeshAttr, *mesh);
    if (failed(chooseFfnRanks(*mesh)))
      return signalPassFailure();
    for (func::FuncOp entry : entries)
      if (failed(shardEntry(entry, *mesh)))
        return signalPassFailure();
  }

  /// A stateless entry is not split: there is nothing to set but the mesh.
  LogicalResult checkSingleRank() {
    for (int64_t size : {ranks.getValue(), kvp.getValue(), tpa.getValue(), ep.getValue(), tpf.getValue()})
      if (size != 0 && size != 1)
        return getOperation().emitError(errorPrefix(ErrorCode::StatelessMesh))
               << "a stateless function is for one rank, but " << size
               << " along an axis were asked for; leave the mesh out";
    getOperation()->setAttr(kMeshAttr, MeshAttr::get(&getContext(), 1, 1, 1, 1));
    return success();
  }

  InFlightDiagnostic meshError() { return getOperation().emitError(errorPrefix(ErrorCode::MeshInvalid)); }

  /// The mesh that the options ask for; where they are silent, the design's default.
  FailureOr<MeshAttr> chooseMesh(ArrayRef<func::FuncOp> entries) {
    int64_t kvHeads = 0;
    for (func::FuncOp entry : entries)
      for (Type type : entry.getArgumentTypes().drop_front(kFirstCache)) {
        int64_t heads = cast<KVType>(type).getHeads();
        kvHeads = kvHeads ? std::min(kvHeads, heads) : heads;
      }
    if (!kvHeads)
      return getOperation().emitError(errorPrefix(ErrorCode::NotADecoder))
             << "no entry has a KV cache, so there is no attention to shard";
    for (int64_t size : {ranks.getValue(), kvp.getValue(), tpa.getValue(), ep.getValue(), tpf.getValue()})
      if (size < 0 || size > kMaxRanks)
        return meshError() << "a mesh has from 1 to " << kMaxRanks << " ranks, but " << size
                           << " along an axis were asked for";

    int64_t k = kvp, t = tpa, n = ranks;
    if (k && t && n && k * t != n)
      return meshError() << "kvp * tpa = " << k << " * " << t << " is not the " << n << " ranks asked for";
    if (!n)
      n = (k ? k : 1) * (t ? t : 1);
    if (!t && k) {
      if (n % k)
        return meshError() << "kvp = " << k << " does not divide " << n << " ranks";
      t = n / k;
    }
    if (!t)
      for (t = n; n % t || kvHeads % t; --t)
        ;
    if (n % t)
      return meshError() << "tpa = " << t << " does not divide " << n << " ranks";
    k = n / t;
    if (t > kvHeads && !kvReplicate)
      return getOperation().emitError(errorPrefix(ErrorCode::TpaTooLarge))
             << "tpa = " << t << ", but the model has " << kvHeads
             << " KV heads; a larger tpa would copy the cache. Take tpa <= " << kvHeads
             << " and a larger kvp, or ask for the copies (--kv-replicate)";

    if (n > kMaxRanks)
      return meshError() << "kvp * tpa = " << k << " * " << t << " is more than the " << kMaxRanks
                         << " ranks that an artifact can be for";

    int64_t e = ep ? ep.getValue() : 1, f = tpf ? tpf.getValue() : n / e;
    if (e > 1)
      return meshError() << "ep = " << e << " splits experts, but the model has none; take ep = 1";
    if (e * f != n)
      return meshError() << "ep * tpf = " << e << " * " << f << " must be kvp * tpa = " << n;
    return MeshAttr::get(&getContext(), t, k, e, f);
  }

  /// The ranks that hold the FFN, where they are not all.
  LogicalResult chooseFfnRanks(MeshAttr mesh) {
    getOperation()->removeAttr(kFfnRanksAttr);
    int64_t first = ffnRanks;
    if (first == 0)
      return success();
    auto invalid = [&] { return getOperation().emitError(errorPrefix(ErrorCode::FfnRanksInvalid)); };
    if (first < 1 || first > mesh.ranks())
      return invalid() << "the FFN cannot lie on " << first << " of " << mesh.ranks() << " ranks; take from 1 to "
                       << mesh.ranks();
    if (ep || tpf)
      return invalid() << "the FFN lies on the first " << first
                       << " ranks, each with an equal part of its columns; leave ep and tpf out";
    getOperation()->setAttr(kFfnRanksAttr, Builder(&getContext()).getI64IntegerAttr(first));
    return success();
  }

  void mark(Operation *op, View view, int64_t dim, ArrayRef<Axis> axes) {
    int64_t rank = cast<RankedTensorType>(op->getResult(0).getType()).getRank();
    op->setAttr(kShardingAttr, sharding(&getContext(), view, rank, dim, axes));
    ++sharded;
  }

  LogicalResult shardAttention(AttentionOp attention, MeshAttr mesh) {
    FailureOr<AttentionPattern> pattern = matchAttention(attention, mesh);
    if (failed(pattern) || failed(kvReplicas(attention, *pattern, mesh)))
      return failure();
    for (Operation *op : pattern->heads)
      mark(op, View::Attn, 2, {Axis::Tpa});
    // After the exchange each rank has a slice of its shard's heads.
    mark(attention, View::Attn, 2, {Axis::Tpa, Axis::Kvp});
    mark(pattern->collapse, View::Attn, 2, {Axis::Tpa, Axis::Kvp});
    return success();
  }

  LogicalResult shardEntry(func::FuncOp entry, MeshAttr mesh) {
    if (failed(matchWeights(entry)))
      return failure();
    WalkResult walk = entry.walk([&](AttentionOp attention) { return WalkResult(shardAttention(attention, mesh)); });
    if (walk.wasInterrupted())
      return failure();
    FailureOr<HeadPattern> head = matchHead(entry);
    if (failed(head))
      return failure();
    mark(head->product, View::Flat, 2, {Axis::N});
    for (Operation *op : head->tail)
      mark(op, View::Flat, 2, {Axis::N});
    return success();
  }
};

} // namespace
} // namespace helix
