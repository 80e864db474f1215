//===- Pricing.cpp - What a command of a plan takes on some hardware -------===//
#include "passes/Pricing.h"

#include "helix/Errors.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace helix {
namespace {

perf::DType dtypeOf(Type element) { return element.isF32() ? perf::DType::F32 : perf::DType::Half; }

/// Ranks between neighbours along an axis.
uint32_t strideOf(MeshAttr mesh, Axis axis) {
  return axis == Axis::Tpa ? mesh.getKvp() : axis == Axis::Ep ? mesh.getTpf() : 1;
}

double weightBytes(Operation *op) {
  double bytes = 0;
  for (Value operand : op->getOperands())
    if (operand.getDefiningOp<plan::GetWeightOp>())
      bytes += plan::bytesOf(operand.getType());
  return bytes;
}

} // namespace

FailureOr<perf::Hardware> hardwareFor(Operation *op, StringRef nameOrPath) {
  perf::Hardware hardware;
  perf::Error error;
  if (perf::loadHardware(nameOrPath.str(), hardware, error))
    return hardware;
  return op->emitError() << error.message;
}

perf::Work attentionWork(KVType cache, int64_t heads, int64_t sequences, int64_t queryTokens, double context,
                         std::optional<uint64_t> window) {
  double widths = cache.getKeyDim() + cache.getValueDim();
  // The query tokens see a window each, and together one that is longer by their number.
  double seen = window ? std::min(context, double(*window)) : context;
  double held = seen / cache.getKvp(),
         read = (window ? std::min(context, seen + queryTokens - 1) : context) / cache.getKvp();
  perf::Work work;
  work.kind = perf::CommandClass::Attention;
  work.kvBytes = read * sequences * cache.getHeads() * cache.tokenBytes();
  work.activationBytes = 4.0 * sequences * queryTokens * heads * (widths + 1);
  work.flops = 2.0 * sequences * queryTokens * held * heads * widths;
  work.dtype = dtypeOf(cache.getElement());
  return work;
}

perf::Exchange exchangeOf(perf::CollectiveKind kind, MeshAttr mesh, Axis axis, double sentBytes) {
  perf::Exchange exchange;
  exchange.kind = kind;
  exchange.peers = mesh.size(axis);
  exchange.stride = strideOf(mesh, axis);
  exchange.ranks = mesh.ranks();
  exchange.sentBytes = sentBytes;
  return exchange;
}

double secondsOf(plan::CommandOpInterface command, MeshAttr mesh, double context, const perf::Hardware &hardware) {
  Operation *op = command;
  if (isa<plan::RecordOp, plan::WaitOp>(op))
    return 0;
  if (auto exchange = dyn_cast<plan::AllToAllOp>(op))
    return perf::price(exchangeOf(perf::CollectiveKind::AllToAll, mesh, exchange.getAxis(),
                                  perf::allToAllBytes(exchange.getPeers(), exchange.chunkBytes())),
                       hardware)
        .total();
  if (auto exchange = dyn_cast<plan::AllReduceOp>(op))
    return perf::price(
               exchangeOf(perf::CollectiveKind::AllReduce, mesh, exchange.getAxis(),
                          perf::allReduceBytes(exchange.getPeers(), exchange.getResult().getType().getNumElements())),
               hardware)
        .total();

  perf::Work work;
  if (auto attention = dyn_cast<plan::PartialAttentionOp>(op)) {
    work = attentionWork(attention.getCache().getType(), attention.getHeads(), attention.sequenceRange().second,
                         attention.tokenRange().second, context, attention.getWindow());
  } else {
    plan::Cost cost = cast<plan::CostOpInterface>(op).getCost();
    auto signature = op->getParentOfType<plan::EntryOp>().getSignature();
    double queries = double(signature.getBatch()) * signature.getTokens();
    work.kind = llvm::TypeSwitch<Operation *, perf::CommandClass>(op)
                    .Case<plan::LinearOp>([](auto) { return perf::CommandClass::Linear; })
                    .Case<plan::LaunchOp>([](auto) { return perf::CommandClass::Elementwise; })
                    .Default([](Operation *) { return perf::CommandClass::Copy; });
    if (auto linear = dyn_cast<plan::LinearOp>(op)) {
      work.weightBytes = weightBytes(op);
      work.dtype = dtypeOf(cast<RankedTensorType>(linear.getWeight().getType()).getElementType());
    }
    work.activationBytes = cost.bytes - work.weightBytes + cost.bytesPerQuery * queries;
    work.flops = cost.flops + cost.flopsPerQuery * queries;
  }
  return perf::price(work, hardware, mesh.ranks()).total();
}

} // namespace helix
