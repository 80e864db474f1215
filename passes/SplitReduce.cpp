//===- SplitReduce.cpp - helix-split-reduce --------------------------------===//
#include "passes/Entries.h"
#include "passes/Passes.h"
#include "passes/Pricing.h"

#include "lib/Perf/Overlap.h"

#include "llvm/ADT/SetVector.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_SPLITREDUCE
#include "passes/Passes.h.inc"

namespace {

/// Columns of a product that its kernels take together; a chunk of fewer would waste some.
constexpr uint64_t kGranule = 64;

/// A product with a weight, of which every rank has a partial sum, and the reduction of that.
struct Site {
  LinearOp product;
  WeightOp weight;
  AllReduceOp reduce;

  RankedTensorType result() { return cast<RankedTensorType>(reduce.getResult().getType()); }
  int64_t columns() { return result().getShape().back(); }
  int64_t rows() { return result().getNumElements() / columns(); }
  /// What entries share, and so must cut alike.
  Attribute key() { return weight->getAttrDictionary(); }
};

std::optional<Site> siteOf(AllReduceOp reduce) {
  auto product = reduce.getInput().getDefiningOp<LinearOp>();
  auto weight = product ? product.getWeight().getDefiningOp<WeightOp>() : WeightOp();
  if (!weight || !weight.splits(weight.storedDim(1)).empty() || weight.piecesOf(weight.storedDim(1)).first != 0)
    return std::nullopt;
  return Site{product, weight, reduce};
}

void cut(Site site, ArrayRef<uint64_t> sizes) {
  OpBuilder builder(site.product);
  Attribute phase = site.product->getAttr(kPhaseAttr);
  SmallVector<int64_t> offset = site.weight.windowOffset(), size = site.weight.windowSize();
  unsigned along = site.weight.storedDim(1);
  auto columns = [](RankedTensorType type, int64_t count) {
    SmallVector<int64_t> shape(type.getShape());
    shape.back() = count;
    return type.clone(shape);
  };
  SmallVector<Value> parts;
  for (int64_t count : sizes) {
    size[along] = count;
    Value weight = site.weight.part(builder, columns(site.weight.getType(), count).getShape(),
                                    builder.getDenseI64ArrayAttr(offset), builder.getDenseI64ArrayAttr(size),
                                    site.weight.getSliceAttr());
    auto partial = cast<PartialType>(site.product.getResult().getType());
    auto part = PartialType::get(builder.getContext(), columns(partial.getValue(), count), partial.getReduction(),
                                 partial.getAxes());
    Value product = LinearOp::create(builder, site.product.getLoc(), part, site.product.getX(), weight);
    parts.push_back(
        AllReduceOp::create(builder, site.reduce.getLoc(), columns(site.result(), count), product).getResult());
    offset[along] += count;
    if (phase)
      for (Value value : {product, parts.back()})
        value.getDefiningOp()->setAttr(kPhaseAttr, phase);
  }
  builder.setInsertionPoint(site.reduce);
  auto joined =
      tensor::ConcatOp::create(builder, site.reduce.getLoc(), site.result(), site.result().getRank() - 1, parts);
  if (phase)
    joined->setAttr(kPhaseAttr, phase);
  site.reduce.replaceAllUsesWith(joined.getResult());
  site.reduce.erase();
  site.product.erase();
}

struct SplitReducePass : impl::SplitReduceBase<SplitReducePass> {
  using SplitReduceBase::SplitReduceBase;

  void runOnOperation() override {
    if (chunks < 0) {
      getOperation().emitError(errorPrefix(ErrorCode::OverlapInvalid))
          << "cannot cut products into " << chunks.getValue()
          << " chunks; take 1 or more, or 0 to have the number chosen";
      return signalPassFailure();
    }
    auto mesh = getOperation()->getAttrOfType<MeshAttr>(kMeshAttr);
    if (chunks == 1 || !mesh || mesh.ranks() == 1)
      return;
    std::optional<perf::Hardware> target;
    if (chunks == 0) {
      FailureOr<perf::Hardware> named = hardwareFor(getOperation(), hardware);
      if (failed(named))
        return signalPassFailure();
      target = *named;
    }
    SmallVector<Site> sites;
    getOperation().walk([&](AllReduceOp reduce) {
      if (std::optional<Site> site = siteOf(reduce))
        sites.push_back(*site);
    });
    // The entry with the fewest rows decides for all: a weight that entries cut differently would be stored twice.
    DenseMap<Attribute, Site> deciding;
    for (Site &site : sites)
      if (auto [known, isNew] = deciding.try_emplace(site.key(), site); !isNew && site.rows() < known->second.rows())
        known->second = site;
    DenseMap<Attribute, SmallVector<uint64_t>> chosen;
    llvm::SetVector<WeightOp> whole;
    for (auto &[key, site] : deciding)
      chosen[key] = target ? choose(site, mesh, *target) : even(site.columns(), chunks);
    for (Site &site : sites) {
      ArrayRef<uint64_t> sizes = chosen[site.key()];
      if (sizes.size() < 2)
        continue;
      ++products;
      pieces += sizes.size();
      cut(site, sizes);
    }
    for (Site &site : sites)
      whole.insert(site.weight);
    for (WeightOp weight : whole)
      if (weight.use_empty())
        weight.erase();
  }

  static SmallVector<uint64_t> even(uint64_t columns, uint64_t count) {
    // Products too narrow for whole panels are cut all the same: the number was asked for.
    uint64_t granule = columns >= count * kGranule ? kGranule : 1;
    return llvm::to_vector(perf::chunkSizes(columns, count, granule));
  }

  SmallVector<uint64_t> choose(Site &site, MeshAttr mesh, const perf::Hardware &target) {
    RankedTensorType weight = site.weight.getType();
    double elements = site.rows() * double(site.columns()), input = 4.0 * site.rows() * weight.getDimSize(0);
    perf::Overlapped overlapped;
    overlapped.work.kind = perf::CommandClass::Linear;
    overlapped.work.weightBytes = heldBytes(weight);
    overlapped.work.activationBytes = input + 4 * elements;
    overlapped.work.flops = 2.0 * site.rows() * weight.getNumElements();
    overlapped.work.dtype = weight.getElementType().isF32() ? perf::DType::F32 : perf::DType::Half;
    overlapped.exchange = exchangeOf(perf::CollectiveKind::AllReduce, mesh, Axis::N,
                                     perf::allReduceBytes(mesh.ranks(), uint64_t(elements)));
    overlapped.items = site.columns();
    overlapped.elements = uint64_t(elements);
    overlapped.granule = kGranule;
    overlapped.ranks = mesh.ranks();
    overlapped.sharedBytes = input;
    perf::Work join;
    join.kind = perf::CommandClass::Copy;
    join.activationBytes = 8 * elements;
    overlapped.join = join;
    return llvm::to_vector(perf::chooseOverlap(overlapped, kMaxChunks, target).sizes);
  }

  static constexpr uint64_t kMaxChunks = 16;
};

} // namespace
} // namespace helix
