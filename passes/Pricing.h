//===- Pricing.h - What a command of a plan takes on some hardware ---------===//
#ifndef HELIX_PASSES_PRICING_H
#define HELIX_PASSES_PRICING_H

#include "dialects/Plan/Plan.h"
#include "lib/Perf/Cost.h"

namespace helix {

/// The hardware of that name or file, for a pass that is to choose by cost; emits the error of the description (HLX6001
/// to HLX6003) at `op`.
mlir::FailureOr<perf::Hardware> hardwareFor(mlir::Operation *op, llvm::StringRef nameOrPath);

/// Attention of `sequences` sequences over `context` tokens each, with `queryTokens` new ones, on a rank that holds its
/// share of them and of which each token sees `window`, if there is one; the work of the whole of `q` [batch, tokens,
/// heads, key_dim] if these are all.
perf::Work attentionWork(KVType cache, int64_t heads, int64_t sequences, int64_t queryTokens, double context,
                         std::optional<uint64_t> window);

/// The collective that carries `sentBytes` from every rank along an axis.
perf::Exchange exchangeOf(perf::CollectiveKind kind, MeshAttr mesh, Axis axis, double sentBytes);

/// Seconds of a command where every sequence has `context` tokens.
double secondsOf(plan::CommandOpInterface command, MeshAttr mesh, double context, const perf::Hardware &hardware);

} // namespace helix

#endif // HELIX_PASSES_PRICING_H
