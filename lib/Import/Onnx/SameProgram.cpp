//===- SameProgram.cpp - One program for every number of tokens ------------===//
#include "lib/Import/Onnx/SameProgram.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

struct Comparison {
  EntryAttr one, other;
  llvm::DenseMap<Value, Value> values; ///< of one to those of the other
  /// What the parts of weights come from that have no file yet.
  llvm::DenseMap<Operation *, SmallVector<const StoredTensor *, 3>> inlined[2];

  Comparison(const Imported &one, const Imported &other)
      : one(one.function->getAttrOfType<EntryAttr>(kEntryAttr)),
        other(other.function->getAttrOfType<EntryAttr>(kEntryAttr)) {
    for (const InlineWeight &weight : one.inlineWeights)
      inlined[0][weight.op].push_back(weight.stored);
    for (const InlineWeight &weight : other.inlineWeights)
      inlined[1][weight.op].push_back(weight.stored);
    auto [ours, theirs] = std::pair(one.function, other.function);
    for (auto [a, b] : llvm::zip_equal(ours.getArguments(), theirs.getArguments()))
      values[a] = b;
  }

  /// Whether a size of one and one of the other are the same, or the same multiple of tokens, sequences or both.
  bool isSameSize(int64_t a, int64_t b) const {
    auto isMultiple = [&](int64_t ofOne, int64_t ofOther) {
      return a % ofOne == 0 && b % ofOther == 0 && a / ofOne == b / ofOther;
    };
    return a == b || isMultiple(one.getTokens(), other.getTokens()) || isMultiple(one.getBatch(), other.getBatch()) ||
           isMultiple(one.getTokens() * one.getBatch(), other.getTokens() * other.getBatch());
  }

  bool areSameSizes(ArrayRef<int64_t> a, ArrayRef<int64_t> b) const {
    return a.size() == b.size() && llvm::all_of(llvm::zip_equal(a, b), [&](auto sizes) {
             return isSameSize(std::get<0>(sizes), std::get<1>(sizes));
           });
  }

  bool isSameType(Type a, Type b) const {
    if (auto cache = dyn_cast<KVType>(a))
      return b == KVType::get(a.getContext(), other.getBatch(), cache.getHeads(), cache.getKeyDim(),
                              cache.getValueDim(), cache.getElement(), cache.getBlock(), cache.getKvp(),
                              cache.getCapacity(), cache.getScale());
    auto ofOne = dyn_cast<RankedTensorType>(a), ofOther = dyn_cast<RankedTensorType>(b);
    if (!ofOne || !ofOther)
      return a == b;
    return ofOne.getElementType() == ofOther.getElementType() && areSameSizes(ofOne.getShape(), ofOther.getShape());
  }

  /// Whether an attribute is the same, but for shapes: those that ops on tensors take, and that of a constant with one
  /// number everywhere.
  bool isSame(StringRef name, Attribute a, Attribute b) const {
    if (name == "static_sizes" || name == "static_output_shape")
      return areSameSizes(cast<DenseI64ArrayAttr>(a), cast<DenseI64ArrayAttr>(b));
    auto ofOne = dyn_cast_or_null<SplatElementsAttr>(a), ofOther = dyn_cast_or_null<SplatElementsAttr>(b);
    if (ofOne && ofOther)
      return isSameType(ofOne.getType(), ofOther.getType()) &&
             ofOne.getSplatValue<Attribute>() == ofOther.getSplatValue<Attribute>();
    return a == b;
  }

  /// What of two ops differs, apart from their shapes; empty if nothing does.
  std::string difference(Operation *a, Operation *b) {
    if (a->getName() != b->getName() || a->getNumOperands() != b->getNumOperands() ||
        a->getNumResults() != b->getNumResults())
      return "it becomes another op";
    for (auto [ofOne, ofOther] : llvm::zip_equal(a->getOperands(), b->getOperands()))
      if (values.lookup(ofOne) != ofOther)
        return "it takes another operand";
    for (auto [ofOne, ofOther] : llvm::zip_equal(a->getResults(), b->getResults())) {
      if (!isSameType(ofOne.getType(), ofOther.getType()))
        return "its shape is another";
      values[ofOne] = ofOther;
    }
    for (NamedAttribute attribute : a->getAttrs())
      if (!isSame(attribute.getName(), attribute.getValue(), b->getAttr(attribute.getName())))
        return "its " + attribute.getName().str() + " is another";
    return inlined[0].lookup(a) == inlined[1].lookup(b) ? "" : "it computes another constant";
  }
};

SmallVector<Operation *> opsOf(func::FuncOp function) {
  SmallVector<Operation *> ops;
  function.getBody().walk<WalkOrder::PreOrder>([&](Operation *op) { ops.push_back(op); });
  return ops;
}

std::string counted(EntryAttr entry) {
  auto text = [](int64_t count, StringRef what) { return (Twine(count) + " " + what + (count == 1 ? "" : "s")).str(); };
  return text(entry.getBatch(), "sequence") + " of " + text(entry.getTokens(), "token");
}

} // namespace

LogicalResult checkSameProgram(const Imported &one, const Imported &other) {
  Comparison comparison(one, other);
  SmallVector<Operation *> ours = opsOf(one.function), theirs = opsOf(other.function);
  for (auto [a, b] : llvm::zip(ours, theirs))
    if (std::string difference = comparison.difference(a, b); !difference.empty()) {
      auto name = dyn_cast<NameLoc>(a->getLoc());
      return emitError(a->getLoc()) << errorPrefix(ErrorCode::SizeDependent) << "node "
                                    << quoted(name ? name.getName().getValue() : "?") << ": " << difference << " for "
                                    << counted(comparison.one) << " than for " << counted(comparison.other)
                                    << "; what a model computes for a token must not depend on these numbers";
    }
  // Every op of the shorter program is one of the longer, so that ends in another op than the return.
  return success(ours.size() == theirs.size());
}

} // namespace helix::onnximport
