//===- StatelessWork.cpp - Commands of stateless entries, as they are written ===//
#include "lib/Translate/StatelessWork.h"

using namespace mlir;

namespace helix {
namespace {

artifact::DType dtypeOf(Type type) {
  using artifact::DType;
  if (type.isInteger())
    return type.isInteger(1) ? DType::Bool : DType::I64;
  return type.isF16() ? DType::F16 : type.isBF16() ? DType::BF16 : DType::F32;
}

/// -1 where there is no bound.
int64_t boundOf(std::optional<uint64_t> bound) { return bound ? static_cast<int64_t>(*bound) : -1; }

artifact::ScoreStage stageOf(std::optional<ScoreStage> stage) {
  static_assert(int(artifact::ScoreStage::Scaled) == int(ScoreStage::Scaled) + 1 &&
                int(artifact::ScoreStage::Probabilities) == int(ScoreStage::Probabilities) + 1);
  return stage ? static_cast<artifact::ScoreStage>(int(*stage) + 1) : artifact::ScoreStage::Values;
}

} // namespace

void setStatelessWork(artifact::WorkUnion &work, plan::DenseAttentionOp op) {
  artifact::DenseAttentionT t;
  t.batch = op.getBatch(), t.heads = op.getHeads(), t.kv_heads = op.getKvHeads();
  t.tokens = op.getTokens(), t.keys = op.getKeys(), t.key_dim = op.getKeyDim(), t.value_dim = op.getValueDim();
  t.scale = op.getScale().convertToDouble();
  t.softcap = op.getSoftcap() ? op.getSoftcap()->convertToDouble() : 0;
  t.offset = op.getOffset(), t.left = boundOf(op.getLeft()), t.right = boundOf(op.getRight());
  if (std::optional<ArrayRef<int64_t>> mask = op.getMaskShape())
    t.mask_shape.assign(mask->begin(), mask->end());
  t.truths = op.getMask() && op.getMask().getType().getElementType().isInteger(1);
  t.lengths = static_cast<bool>(op.getLengths());
  t.stage = stageOf(op.getStage());
  work.Set(std::move(t));
}

void setStatelessWork(artifact::WorkUnion &work, plan::RotateOp op) {
  artifact::RotateT t;
  t.batch = op.getBatch(), t.heads = op.getHeads(), t.tokens = op.getTokens(), t.dim = op.getDim();
  t.half = op.getHalf(), t.rows = op.getRows();
  t.positions = static_cast<bool>(op.getPositions());
  t.interleaved = op.getInterleaved();
  work.Set(std::move(t));
}

void setStatelessWork(artifact::WorkUnion &work, plan::ScatterOp op) {
  artifact::ScatterT t;
  t.batch = op.getBatch(), t.outer = op.getOuter(), t.tokens = op.getTokens(), t.capacity = op.getCapacity();
  t.inner = op.getInner();
  t.indices = static_cast<bool>(op.getIndices());
  t.circular = op.getCircular();
  work.Set(std::move(t));
}

void setStatelessWork(artifact::WorkUnion &work, plan::TransposeOp op) {
  artifact::TransposeT t;
  t.shape.assign(op.getShape().begin(), op.getShape().end());
  t.permutation.assign(op.getPermutation().begin(), op.getPermutation().end());
  work.Set(std::move(t));
}

std::unique_ptr<artifact::PortT> portOf(IOAttr io, RankedTensorType type) {
  auto port = std::make_unique<artifact::PortT>();
  port->name = io.getName().str();
  port->dtype = dtypeOf(io.getElement());
  port->dims.assign(type.getShape().begin(), type.getShape().end());
  return port;
}

} // namespace helix
