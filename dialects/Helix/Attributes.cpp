//===- Attributes.cpp - Mesh, sharding, slices, entries --------------------===//
#include "dialects/Helix/Helix.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace helix;

#define GET_ATTRDEF_CLASSES
#include "dialects/Helix/HelixAttrs.cpp.inc"

void HelixDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/Helix/HelixAttrs.cpp.inc"
      >();
}

View helix::viewOf(Axis axis) {
  switch (axis) {
  case Axis::N:
    return View::Flat;
  case Axis::Tpa:
  case Axis::Kvp:
    return View::Attn;
  case Axis::Ep:
  case Axis::Tpf:
    return View::Ffn;
  }
  llvm_unreachable("an axis has a view");
}

int64_t MeshAttr::size(Axis axis) const {
  switch (axis) {
  case Axis::N:
    return ranks();
  case Axis::Tpa:
    return getTpa();
  case Axis::Kvp:
    return getKvp();
  case Axis::Ep:
    return getEp();
  case Axis::Tpf:
    return getTpf();
  }
  llvm_unreachable("an axis has a size");
}

int64_t MeshAttr::coordinate(Axis axis, int64_t rank) const {
  switch (axis) {
  case Axis::N:
    return rank;
  case Axis::Tpa:
    return rank / getKvp();
  case Axis::Kvp:
    return rank % getKvp();
  case Axis::Ep:
    return rank / getTpf();
  case Axis::Tpf:
    return rank % getTpf();
  }
  llvm_unreachable("an axis has coordinates");
}

LogicalResult MeshAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t tpa, int64_t kvp, int64_t ep,
                               int64_t tpf) {
  // Small enough that no product of sizes overflows.
  for (int64_t size : {tpa, kvp, ep, tpf})
    if (size < 1 || size > (1 << 20))
      return emitError() << "a mesh axis has from 1 to 2^20 ranks, but one has " << size;
  if (tpa * kvp != ep * tpf)
    return emitError() << "tpa * kvp = " << tpa * kvp << " and ep * tpf = " << ep * tpf
                       << " must be the same number of ranks";
  return success();
}

LogicalResult ShardingAttr::verify(function_ref<InFlightDiagnostic()> emitError, View view, ArrayAttr dims) {
  llvm::SmallDenseSet<Axis> seen;
  for (Attribute dim : dims) {
    auto list = dyn_cast<ArrayAttr>(dim);
    if (!list)
      return emitError() << "a sharding has a list of axes per dimension, but one is " << dim;
    for (Attribute name : list) {
      auto text = dyn_cast<StringAttr>(name);
      std::optional<Axis> axis = text ? symbolizeAxis(text.getValue()) : std::nullopt;
      if (!axis)
        return emitError() << "unknown axis " << name << "; the axes are n, tpa, kvp, ep and tpf";
      if (viewOf(*axis) != view)
        return emitError() << "axis " << name << " is not of view " << stringifyView(view);
      if (!seen.insert(*axis).second)
        return emitError() << "axis " << name << " splits two dimensions";
    }
  }
  return success();
}

bool ShardingAttr::isReplicated() const {
  return llvm::all_of(getDims(), [](Attribute dim) { return cast<ArrayAttr>(dim).empty(); });
}

SmallVector<Axis> ShardingAttr::axes(unsigned dim) const {
  return llvm::map_to_vector(cast<ArrayAttr>(getDims()[dim]),
                             [](Attribute name) { return *symbolizeAxis(cast<StringAttr>(name).getValue()); });
}

LogicalResult SplitAttr::verify(function_ref<InFlightDiagnostic()> emitError, Axis axis, int64_t chunk,
                                int64_t replicas) {
  if (chunk < 1)
    return emitError() << "a split's chunk must be at least 1, but is " << chunk;
  if (replicas < 1)
    return emitError() << "a split's replicas must be at least 1, but are " << replicas;
  return success();
}

int64_t SplitAttr::chunks(MeshAttr mesh) const {
  int64_t size = mesh.size(getAxis());
  return size % getReplicas() == 0 ? size / getReplicas() : 0;
}

int64_t SplitAttr::index(MeshAttr mesh, int64_t rank) const { return mesh.coordinate(getAxis(), rank) / getReplicas(); }

LogicalResult QuantAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t bits, int64_t block, int64_t axis,
                                Type scale, ZeroPoint, Type activations) {
  if (bits != 2 && bits != 4 && bits != 8)
    return emitError() << "codes have 2, 4 or 8 bits, not " << bits;
  if (block < 1 || block > (1 << 20))
    return emitError() << "a block has from 1 to 2^20 elements, not " << block;
  if (axis < 0 || axis > 1)
    return emitError() << "blocks lie along dimension 0 or 1, not " << axis;
  if (!scale.isF32() && !scale.isF16() && !scale.isBF16())
    return emitError() << "scales are f32, f16 or bf16, not " << scale;
  if (activations && !activations.isSignlessInteger(8))
    return emitError() << "activations are rounded to i8 or not at all, not to " << activations;
  if (activations && block > kLongestInt8Block)
    return emitError() << "with activations of i8 a block has at most " << kLongestInt8Block << " elements, not "
                       << block;
  return success();
}

int64_t QuantAttr::blockBytes() const {
  int64_t scale = getScale().getIntOrFloatBitWidth() / 8;
  return scale + (getZero() == ZeroPoint::Packed ? 1 : getZero() == ZeroPoint::Real ? scale : 0);
}

int64_t helix::heldBytes(RankedTensorType type) {
  auto quant = dyn_cast_or_null<QuantAttr>(type.getEncoding());
  if (!quant)
    return type.getNumElements() * llvm::divideCeil(type.getElementTypeBitWidth(), 8);
  int64_t along = type.getDimSize(quant.getAxis()), rows = type.getNumElements() / std::max<int64_t>(1, along);
  return rows * (llvm::divideCeil(along * quant.getBits(), 8) +
                 llvm::divideCeil(along, quant.getBlock()) * quant.blockBytes());
}

LogicalResult BytesAttr::verify(function_ref<InFlightDiagnostic()> emitError, StringAttr file, int64_t offset,
                                int64_t length, Type element) {
  if (file.getValue().contains('\0'))
    return emitError() << "a file's name has a zero byte";
  if (offset < 0 || length < 0)
    return emitError() << "bytes start and extend from 0 on, not " << offset << ", +" << length;
  if (!element.isIntOrFloat())
    return emitError() << "bytes hold numbers, not " << element;
  return success();
}

LogicalResult KvScaleAttr::verify(function_ref<InFlightDiagnostic()> emitError, KvGranularity granularity,
                                  FloatAttr key, FloatAttr value) {
  bool isTensor = granularity == KvGranularity::Tensor;
  if (isTensor != static_cast<bool>(key) || isTensor != static_cast<bool>(value))
    return emitError() << "a scale per tensor says which for keys and for values, one per token and head does not";
  for (FloatAttr scale : {key, value})
    // As f32, and its inverse.
    if (scale && !(scale.getValueAsDouble() >= 0x1p-126 && scale.getValueAsDouble() <= 0x1p126))
      return emitError() << "the scale of a KV cache is from 2^-126 to 2^126, not " << scale;
  return success();
}

LogicalResult EntryAttr::verify(function_ref<InFlightDiagnostic()> emitError, EntryKind kind, int64_t batch,
                                int64_t tokens, LogitRows logits) {
  if (kind == EntryKind::Stateless && (batch != 1 || tokens != 1 || logits != LogitRows::All))
    return emitError() << "a stateless entry has no slots, tokens and logits of its own";
  if (batch < 1 || tokens < 1)
    return emitError() << "an entry has at least one slot and one token per slot, but this has batch " << batch
                       << " and tokens " << tokens;
  return success();
}

EntryAttr EntryAttr::getStateless(MLIRContext *context) {
  return get(context, EntryKind::Stateless, /*batch=*/1, /*tokens=*/1, LogitRows::All);
}

Attribute EntryAttr::parse(AsmParser &parser, Type) {
  FailureOr<EntryKind> kind;
  if (parser.parseLess() || failed(kind = FieldParser<EntryKind>::parse(parser)))
    return {};
  if (*kind == EntryKind::Stateless)
    return parser.parseGreater() ? EntryAttr() : getStateless(parser.getContext());
  int64_t batch, tokens;
  FailureOr<LogitRows> logits;
  if (parser.parseComma() || parser.parseKeyword("batch") || parser.parseEqual() || parser.parseInteger(batch) ||
      parser.parseComma() || parser.parseKeyword("tokens") || parser.parseEqual() || parser.parseInteger(tokens) ||
      parser.parseComma() || parser.parseKeyword("logits") || parser.parseEqual() ||
      failed(logits = FieldParser<LogitRows>::parse(parser)) || parser.parseGreater())
    return {};
  auto emitError = [&] { return parser.emitError(parser.getNameLoc()); };
  return getChecked(emitError, parser.getContext(), *kind, batch, tokens, *logits);
}

void EntryAttr::print(AsmPrinter &printer) const {
  printer << '<' << stringifyEntryKind(getKind());
  if (!isStateless())
    printer << ", batch = " << getBatch() << ", tokens = " << getTokens()
            << ", logits = " << stringifyLogitRows(getLogits());
  printer << '>';
}

LogicalResult IOAttr::verify(function_ref<InFlightDiagnostic()> emitError, StringAttr name, Type element) {
  if (name.empty() || name.getValue().contains('\0'))
    return emitError() << "an input or output has a name";
  if (!element.isF32() && !element.isF16() && !element.isBF16() && !element.isSignlessInteger(64) &&
      !element.isSignlessInteger(1))
    return emitError() << "inputs and outputs are f32, f16, bf16, i64 or i1, but " << name << " is " << element;
  return success();
}

Type IOAttr::innerElement() const {
  return isa<FloatType>(getElement()) ? Float32Type::get(getContext()) : getElement();
}
