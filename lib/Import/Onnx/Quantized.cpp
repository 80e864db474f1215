//===- Quantized.cpp - Products with and rows of weights of a few bits -----===//
#include "lib/Import/Onnx/Attributes.h"
#include "lib/Import/Onnx/Entry.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

InFlightDiagnostic formError(Entry &entry, const onnx::NodeProto &node) {
  return nodeError(entry.context, node, ErrorCode::QuantizationUnsupported);
}

/// The constant that a reshaped one is, so that the bytes of both are the same.
const StoredTensor *sourceOf(Entry &entry, const StoredTensor *stored) {
  for (const auto &[reshaped, source] : entry.state.reshaped)
    if (&reshaped == stored)
      return source;
  return stored;
}

/// A weight of codes as a node names its parts; `rows` of `columns` elements.
struct Parts {
  int64_t rows = 0, columns = 0;
  int64_t bits = 0, block = 0;
  bool isSigned = false;
  ZeroPoint zero = ZeroPoint::Middle;
  const StoredTensor *codes = nullptr, *scales = nullptr, *zeros = nullptr;
  /// Elements that a row of codes has in the file, where it is filled up to whole blocks.
  int64_t storedColumns = 0;

  int64_t blocks() const { return llvm::divideCeil(columns, block); }
};

/// Operand `index` as a constant of any type; an error if it is anything else.
FailureOr<const StoredTensor *> anyConstant(Entry &entry, const onnx::NodeProto &node, int index) {
  const GraphValue *value = operand(entry, node, index);
  if (value && value->kind == GraphValue::Kind::Weight)
    return value->weight;
  (void)operandError(entry, node, index, "a constant");
  return failure();
}

LogicalResult checkFormat(Entry &entry, const onnx::NodeProto &node, const Parts &parts) {
  if (parts.bits != 2 && parts.bits != 4 && parts.bits != 8)
    return formError(entry, node) << "codes have " << parts.bits << " bits; supported are 2, 4 and 8";
  if (parts.block < 1 || parts.block > (1 << 20) || parts.block * parts.bits % 8 != 0)
    return formError(entry, node) << "blocks of " << parts.block
                                  << " elements; a block is of whole bytes and at most 2^20 elements";
  return success();
}

/// Takes the scales, one per block, and the zero points, if there are any: codes packed like those of the weight, or
/// numbers of the scales' type.
LogicalResult takeBlocks(Entry &entry, const onnx::NodeProto &node, int scales, int zeros, Parts &parts) {
  FailureOr<const StoredTensor *> scale = constant(entry, node, scales);
  if (failed(scale))
    return failure();
  parts.scales = *scale;
  int64_t count = parts.rows * parts.blocks();
  if (parts.scales->elements != count)
    return formError(entry, node) << "operand " << scales << " has shape " << shapeText(parts.scales->shape)
                                  << "; it must have one scale for each of " << parts.rows << " rows of "
                                  << parts.blocks() << " blocks";
  if (!operand(entry, node, zeros))
    return success();
  FailureOr<const StoredTensor *> zero = anyConstant(entry, node, zeros);
  if (failed(zero))
    return failure();
  parts.zeros = *zero;
  int64_t bytes = parts.rows * llvm::divideCeil(parts.blocks() * parts.bits, 8);
  int32_t type = parts.zeros->proto->data_type();
  if (type == parts.codes->proto->data_type() && parts.zeros->bytes == bytes)
    parts.zero = ZeroPoint::Packed;
  else if (type == parts.scales->proto->data_type() && parts.zeros->elements == count)
    parts.zero = ZeroPoint::Real;
  else
    return formError(entry, node) << "operand " << zeros << " is " << typeText(type) << " of shape "
                                  << shapeText(parts.zeros->shape) << "; zero points are packed like the codes, a row ("
                                  << parts.blocks()
                                  << " of them) in whole bytes, or one number of the scales' type per "
                                  << "block";
  return success();
}

bool roundsActivations(Entry &entry) { return entry.state.options.activations == Dtype::I8; }

/// The weight op; `transposed`: [columns, rows], for products.
Value weightOf(Entry &entry, const Parts &parts, bool transposed) {
  OpBuilder &b = entry.builder;
  auto code = IntegerType::get(entry.context, parts.bits, parts.isSigned ? IntegerType::Signed : IntegerType::Unsigned);
  // Rows are embedded as they are.
  Type activations = transposed && roundsActivations(entry) ? b.getIntegerType(8) : Type();
  auto quant = QuantAttr::get(entry.context, parts.bits, parts.block, transposed ? 0 : 1,
                              parts.scales->floatType(entry.context), parts.zero, activations);
  SmallVector<int64_t> shape = {parts.rows, parts.columns};
  auto stored = RankedTensorType::get({parts.rows, parts.storedColumns}, code);
  DenseI64ArrayAttr offset, size;
  if (parts.storedColumns != parts.columns) {
    offset = b.getDenseI64ArrayAttr({0, 0});
    size = b.getDenseI64ArrayAttr(shape);
  }
  if (transposed)
    std::swap(shape[0], shape[1]);
  auto type = RankedTensorType::get(shape, b.getF32Type(), quant);
  auto bytesOf = [&](const StoredTensor *part, Type element) {
    return part ? BytesAttr::get(entry.context, b.getStringAttr(part->file), part->offset, part->bytes, element)
                : BytesAttr();
  };
  Type zeroType = parts.zero == ZeroPoint::Real ? quant.getScale() : Type(code);
  auto op = WeightOp::create(b, entry.loc, type, b.getStringAttr(parts.codes->name), b.getStringAttr(parts.codes->file),
                             b.getI64IntegerAttr(parts.codes->offset), b.getI64IntegerAttr(parts.codes->bytes),
                             TypeAttr::get(stored), offset, size, ArrayAttr(),
                             transposed ? b.getUnitAttr() : UnitAttr(), /*pieces=*/DenseI64ArrayAttr(),
                             bytesOf(parts.scales, quant.getScale()), bytesOf(parts.zeros, zeroType));
  using Part = InlineWeight::Part;
  for (auto [stored, part] :
       {std::pair(parts.codes, Part::Bytes), {parts.scales, Part::Scales}, {parts.zeros, Part::ZeroPoints}})
    if (stored && !stored->isExternal())
      entry.state.inlineWeights.push_back({op, sourceOf(entry, stored), part});
  return op;
}

} // namespace

LogicalResult importMatMulNBits(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  Parts parts;
  parts.columns = attributes.required("K");
  parts.rows = attributes.required("N");
  parts.bits = attributes.integer("bits", 4);
  parts.block = attributes.required("block_size");
  // A hint of how inexactly activations may be rounded; products here are exact.
  attributes.ignore("accuracy_level");
  attributes.onlyInteger("weight_prepacked", 0, {0});
  if (failed(attributes.finish()) || failed(checkFormat(entry, node, parts)))
    return failure();
  if (roundsActivations(entry) && parts.block > QuantAttr::kLongestInt8Block)
    return formError(entry, node) << "blocks of " << parts.block << " elements; with activations of 8 bits at most "
                                  << QuantAttr::kLongestInt8Block << " can be summed; leave --activations out";
  if (operand(entry, node, 4))
    return formError(entry, node) << "operand 4 ('g_idx') orders the blocks anew, which is not supported; quantise "
                                     "without reordering by activations";
  FailureOr<View> x = rowsOperand(entry, node, 0);
  FailureOr<const StoredTensor *> codes = anyConstant(entry, node, 1);
  if (failed(x) || failed(codes))
    return failure();
  parts.codes = *codes;
  constexpr int64_t limit = int64_t(1) << 31;
  if (parts.columns < 1 || parts.rows < 1 || parts.columns >= limit || parts.rows >= limit)
    return formError(entry, node) << "K is " << parts.columns << " and N " << parts.rows << "; both are from 1 to 2^31";
  parts.storedColumns = parts.blocks() * parts.block;
  if (parts.codes->proto->data_type() != onnx::TensorProto::UINT8 ||
      parts.codes->bytes != parts.rows * (parts.storedColumns * parts.bits / 8))
    return formError(entry, node) << "operand 1 is " << typeText(parts.codes->proto->data_type()) << " of shape "
                                  << shapeText(parts.codes->shape) << "; it must be UINT8 [" << parts.rows << ", "
                                  << parts.blocks() << ", " << parts.block * parts.bits / 8 << "]";
  if (failed(takeBlocks(entry, node, 2, 3, parts)))
    return failure();
  SmallVector<int64_t> shape(typeOf(x->value).getShape());
  if (shape.back() != parts.columns)
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "multiplies " << shapeText(x->shape()) << " by a weight of " << parts.columns << " rows";
  shape.back() = parts.rows;
  auto type = RankedTensorType::get(shape, entry.builder.getF32Type());
  x->value = LinearOp::create(entry.builder, entry.loc, type, x->value, weightOf(entry, parts, /*transposed=*/true));
  if (operand(entry, node, 5)) {
    std::optional<Value> bias = broadcastVector(entry, node, 5, *x);
    if (!bias)
      return operandError(entry, node, 5, "a constant along the last dimension");
    x->value = arith::AddFOp::create(entry.builder, entry.loc, x->value, *bias);
  }
  defineView(entry, node, 0, std::move(*x));
  return success();
}

LogicalResult importGatherBlockQuantized(Entry &entry, const onnx::NodeProto &node) {
  Attributes attributes(entry.context, node);
  Parts parts;
  parts.bits = attributes.integer("bits", 4);
  parts.block = attributes.integer("block_size", 128);
  attributes.onlyInteger("gather_axis", 0, {0});
  attributes.onlyInteger("quantize_axis", 1, {1, -1});
  if (failed(attributes.finish()) || failed(checkFormat(entry, node, parts)))
    return failure();
  FailureOr<const StoredTensor *> codes = anyConstant(entry, node, 0);
  if (failed(codes))
    return failure();
  parts.codes = *codes;
  const GraphValue *ids = operand(entry, node, 1);
  if (!ids || ids->kind != GraphValue::Kind::Ids)
    return operandError(entry, node, 1, "the token ids");
  int32_t type = parts.codes->proto->data_type();
  bool isTyped = type == onnx::TensorProto::UINT4 || type == onnx::TensorProto::INT4;
  if (parts.codes->shape.size() != 2 || (type != onnx::TensorProto::UINT8 && !isTyped) || (isTyped && parts.bits != 4))
    return formError(entry, node) << "operand 0 is " << typeText(type) << " of shape " << shapeText(parts.codes->shape)
                                  << " with codes of " << parts.bits
                                  << " bits; it must be UINT8, UINT4 or INT4 [vocabulary, hidden], the latter two of 4 "
                                     "bits";
  parts.rows = parts.codes->shape[0];
  parts.columns = parts.storedColumns = parts.codes->shape[1] * (isTyped ? 1 : 8 / parts.bits);
  parts.isSigned = type == onnx::TensorProto::INT4;
  // ONNX Runtime: bytes count from the middle, 4-bit types from what they call zero.
  parts.zero = type == onnx::TensorProto::UINT4 ? ZeroPoint::Zero : ZeroPoint::Middle;
  if (parts.columns * parts.bits % 8 != 0)
    return formError(entry, node) << "rows of " << parts.columns << " codes of " << parts.bits
                                  << " bits do not end with a byte";
  if (failed(takeBlocks(entry, node, 2, 3, parts)))
    return failure();
  auto result = RankedTensorType::get({entry.batch(), entry.tokens, parts.columns}, entry.builder.getF32Type());
  Value table = weightOf(entry, parts, /*transposed=*/false);
  defineTensor(entry, node, 0, EmbeddingOp::create(entry.builder, entry.loc, result, ids->value, table));
  return success();
}

bool isReshapeOfCodes(Entry &entry, const onnx::NodeProto &node) {
  const GraphValue *value = node.op_type() == "Reshape" ? operand(entry, node, 0) : nullptr;
  return value && value->kind == GraphValue::Kind::Weight && value->weight->isCodes();
}

LogicalResult importReshapeOfCodes(Entry &entry, const onnx::NodeProto &node) {
  FailureOr<IntTensor> sizes = reshapeSizes(entry, node);
  if (failed(sizes))
    return failure();
  const StoredTensor &from = *operand(entry, node, 0)->weight;
  int64_t known = 1;
  std::optional<size_t> open;
  SmallVector<int64_t> shape;
  for (auto [i, size] : llvm::enumerate(sizes->elements)) {
    if (!size.isConstant() || size.constant < -1 || size.constant > from.elements ||
        (size.constant == 0 && i >= from.shape.size()) || (size.constant == -1 && open))
      return operandError(entry, node, 1, "the sizes of a constant's new shape");
    shape.push_back(size.constant == 0 ? from.shape[i] : size.constant);
    if (size.constant == -1)
      open = i;
    else if (__builtin_mul_overflow(known, shape.back(), &known))
      known = 0;
  }
  if (open && known > 0)
    shape[*open] = from.elements / known;
  if (known < 1 || (open ? from.elements % known != 0 : known != from.elements))
    return nodeError(entry.context, node, ErrorCode::ShapeMismatch)
           << "makes " << shapeText(shape) << " of a constant of shape " << shapeText(from.shape);
  auto &[reshaped, source] = entry.state.reshaped.emplace_back(from, sourceOf(entry, &from));
  reshaped.shape = shape;
  define(entry, node, 0, {.kind = GraphValue::Kind::Weight, .weight = &reshaped});
  return success();
}

} // namespace helix::onnximport
