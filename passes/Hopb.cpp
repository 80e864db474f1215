//===- Hopb.cpp - helix-hopb -----------------------------------------------===//
#include "passes/Entries.h"
#include "passes/Passes.h"
#include "passes/Pricing.h"

#include "lib/Perf/Overlap.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_HOPB
#include "passes/Passes.h.inc"

namespace {

/// Attention, its exchange and its merge, which can be cut along the batch or the query tokens.
struct Site {
  PartialAttentionOp attention;
  AllToAllOp exchange;
  MergeAttentionOp merge;

  RankedTensorType partial() { return attention.getType().getValue(); }
  /// Decode has one query token; a prefill chunk is cut along its tokens, which all sequences have.
  unsigned dim() { return partial().getDimSize(1) == 1 ? 0 : 1; }
  int64_t items() { return partial().getDimSize(dim()); }
};

/// The attention's site, unless it has been cut before or nothing is exchanged.
std::optional<Site> siteOf(PartialAttentionOp attention) {
  if (attention.getSequences() || attention.getQueryTokens())
    return std::nullopt;
  auto exchange = dyn_cast<AllToAllOp>(*attention->user_begin());
  if (!exchange || exchange.getType().getValue().getDimSize(0) == 1)
    return std::nullopt;
  auto merge = dyn_cast<MergeAttentionOp>(*exchange->user_begin());
  if (!merge || merge.getInputs().size() != 1)
    return std::nullopt;
  return Site{attention, exchange, merge};
}

void cut(Site site, ArrayRef<uint64_t> sizes) {
  OpBuilder builder(site.attention);
  unsigned dim = site.dim();
  SmallVector<Value> chunks;
  int64_t first = 0;
  for (int64_t size : sizes) {
    auto resize = [&](RankedTensorType type, unsigned at) {
      SmallVector<int64_t> shape(type.getShape());
      shape[at] = size;
      return type.clone(shape);
    };
    auto range = builder.getDenseI64ArrayAttr({first, size});
    PartialAttentionOp attention = site.attention;
    auto partial = PartialType::get(builder.getContext(), resize(site.partial(), dim), Reduction::Lse, {Axis::Kvp});
    auto part = cast<PartialAttentionOp>(builder.clone(*attention));
    part.getResult().setType(partial);
    dim == 0 ? part.setSequencesAttr(range) : part.setQueryTokensAttr(range);
    auto stacked =
        StackedType::get(builder.getContext(), Axis::Kvp, resize(site.exchange.getType().getValue(), dim + 1));
    chunks.push_back(AllToAllOp::create(builder, site.exchange.getLoc(), stacked, part));
    first += size;
  }
  builder.setInsertionPoint(site.merge);
  site.merge.replaceAllUsesWith(
      MergeAttentionOp::create(builder, site.merge.getLoc(), site.merge.getType(), chunks, site.merge.getSinks())
          .getResult());
  site.merge.erase();
  site.exchange.erase();
  site.attention.erase();
}

struct HopbPass : impl::HopbBase<HopbPass> {
  using HopbBase::HopbBase;

  void runOnOperation() override {
    if (chunks < 0) {
      getOperation().emitError(errorPrefix(ErrorCode::OverlapInvalid))
          << "cannot cut attention into " << chunks.getValue()
          << " chunks; take 1 or more, or 0 to have the number chosen";
      return signalPassFailure();
    }
    if (chunks == 1)
      return;
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    std::optional<perf::Hardware> target;
    if (chunks == 0) {
      FailureOr<perf::Hardware> named = hardwareFor(getOperation(), hardware);
      if (failed(named))
        return signalPassFailure();
      target = *named;
    }
    SmallVector<Site> sites;
    getOperation().walk([&](PartialAttentionOp attention) {
      if (std::optional<Site> site = siteOf(attention))
        sites.push_back(*site);
    });
    for (Site &site : sites) {
      SmallVector<uint64_t> sizes = target ? choose(site, mesh, *target) : even(site.items(), chunks);
      if (sizes.size() < 2)
        continue;
      ++exchanges;
      pieces += sizes.size();
      cut(site, sizes);
    }
  }

  static SmallVector<uint64_t> even(uint64_t items, uint64_t count) {
    return llvm::to_vector(perf::chunkSizes(items, count));
  }

  /// As many chunks as the cost model likes best.
  SmallVector<uint64_t> choose(Site &site, MeshAttr mesh, const perf::Hardware &target) {
    KVType cache = site.attention.getCache().getType();
    ArrayRef<int64_t> q = site.attention.getQ().getType().getShape();
    double tokens = context ? context : cache.getCapacity();
    RankedTensorType stacked = site.exchange.getType().getValue();
    perf::Overlapped overlapped;
    overlapped.work = attentionWork(cache, q[2], q[0], q[1], tokens, site.attention.getWindow());
    overlapped.exchange =
        exchangeOf(perf::CollectiveKind::AllToAll, mesh, Axis::Kvp,
                   perf::allToAllBytes(stacked.getDimSize(0), 4.0 * stacked.getNumElements() / stacked.getDimSize(0)));
    overlapped.items = site.items();
    // Every chunk of query tokens reads the whole cache.
    if (site.dim() == 1) {
      overlapped.sharedBytes = std::exchange(overlapped.work.kvBytes, 0);
      overlapped.work.activationBytes += overlapped.sharedBytes;
    }
    overlapped.ranks = mesh.ranks();
    return llvm::to_vector(perf::chooseOverlap(overlapped, kMaxChunks, target).sizes);
  }

  static constexpr uint64_t kMaxChunks = 64;
};

} // namespace
} // namespace helix
