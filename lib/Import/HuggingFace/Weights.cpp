//===- Weights.cpp - Weights of a checkpoint in the module -----------------===//
#include "lib/Import/HuggingFace/Weights.h"

#include "lib/Import/SafetensorsFile.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"

using namespace mlir;

namespace helix::checkpoint {
namespace {

FloatType storedType(MLIRContext *context, const Tensor &tensor) {
  if (tensor.dtype == "F32")
    return Float32Type::get(context);
  if (tensor.dtype == "F16")
    return Float16Type::get(context);
  return BFloat16Type::get(context);
}

FailureOr<std::vector<float>> valuesOf(MLIRContext *context, const Checkpoint &checkpoint, const Tensor &tensor) {
  std::string bytes;
  Error error;
  if (!readBytes(checkpoint.files[tensor.file], tensor.offset, tensor.bytes, bytes, error)) {
    checkpointError(context, error);
    return failure();
  }
  FloatType type = storedType(context, tensor);
  size_t width = type.getWidth() / 8;
  std::vector<float> values(bytes.size() / width);
  for (size_t i = 0; i < values.size(); ++i) {
    const char *at = bytes.data() + i * width;
    uint64_t bits = width == 4 ? llvm::support::endian::read32le(at) : llvm::support::endian::read16le(at);
    // f16 and bf16 are in f32 exactly.
    values[i] = static_cast<float>(APFloat(type.getFloatSemantics(), APInt(type.getWidth(), bits)).convertToDouble());
  }
  return values;
}

std::string bytesOf(ArrayRef<float> values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  for (auto [i, value] : llvm::enumerate(values))
    llvm::support::endian::write<float, llvm::endianness::little>(bytes.data() + i * sizeof(float), value);
  return bytes;
}

} // namespace

InFlightDiagnostic checkpointError(MLIRContext *context, const Error &error) {
  return emitError(UnknownLoc::get(context)) << error.message;
}

Value Weights::stored(OpBuilder &b, StringRef name, Dtype dtype, bool transposed, int64_t first, int64_t rows) {
  const Tensor &tensor = checkpoint.tensors.at(name.str());
  SmallVector<int64_t> shape(ArrayRef<int64_t>(tensor.shape)), offset(shape.size(), 0);
  auto storedTensor = RankedTensorType::get(shape, storedType(context, tensor));
  DenseI64ArrayAttr windowOffset, windowSize;
  if (rows != 0 && rows != shape[0]) {
    offset[0] = first;
    shape[0] = rows;
    windowOffset = b.getDenseI64ArrayAttr(offset);
    windowSize = b.getDenseI64ArrayAttr(shape);
  }
  if (transposed)
    std::swap(shape[0], shape[1]);
  return WeightOp::create(
      b, NameLoc::get(b.getStringAttr(name)), RankedTensorType::get(shape, elementType(context, dtype)),
      b.getStringAttr(name), b.getStringAttr(checkpoint.files[tensor.file].name),
      b.getI64IntegerAttr(static_cast<int64_t>(tensor.offset)), b.getI64IntegerAttr(static_cast<int64_t>(tensor.bytes)),
      TypeAttr::get(storedTensor), windowOffset, windowSize, ArrayAttr(), transposed ? b.getUnitAttr() : UnitAttr(),
      /*pieces=*/DenseI64ArrayAttr());
}

Value Weights::computed(OpBuilder &b, StringRef name) {
  Computed &entry = made.find(name.str())->second;
  auto type = RankedTensorType::get(entry.shape, b.getF32Type());
  auto op =
      WeightOp::create(b, NameLoc::get(b.getStringAttr(name)), type, b.getStringAttr(name), b.getStringAttr(""),
                       b.getI64IntegerAttr(0), b.getI64IntegerAttr(type.getNumElements() * int64_t(sizeof(float))),
                       TypeAttr::get(type), DenseI64ArrayAttr(), DenseI64ArrayAttr(), ArrayAttr(), UnitAttr(),
                       /*pieces=*/DenseI64ArrayAttr());
  entry.ops.push_back(op);
  return op;
}

Value Weights::linear(OpBuilder &b, StringRef name, int64_t first, int64_t rows) {
  return stored(b, name, options.weightDtype, /*transposed=*/true, first, rows);
}

Value Weights::table(OpBuilder &b, StringRef name) {
  return stored(b, name, options.weightDtype, /*transposed=*/false, 0, 0);
}

Value Weights::vector(OpBuilder &b, StringRef name) { return stored(b, name, Dtype::F32, false, 0, 0); }

Value Weights::norm(OpBuilder &b, StringRef name) {
  if (config.normOffset == 0)
    return vector(b, name);
  std::string sum = (name + " + 1").str();
  if (made.find(sum) == made.end()) {
    const Tensor &tensor = checkpoint.tensors.at(name.str());
    FailureOr<std::vector<float>> values = valuesOf(context, checkpoint, tensor);
    if (failed(values))
      return {};
    for (float &value : *values)
      value += static_cast<float>(config.normOffset);
    made[sum] = {.shape = SmallVector<int64_t>(ArrayRef<int64_t>(tensor.shape)), .values = std::move(*values)};
  }
  return computed(b, sum);
}

std::pair<Value, Value> Weights::rope(OpBuilder &b, const Rope &rope, int64_t positions) {
  std::string cos = rope.name + ".cos", sin = rope.name + ".sin";
  if (made.find(cos) == made.end()) {
    RopeTables tables = ropeTables(rope, positions);
    SmallVector<int64_t> shape = {positions, rope.width / 2};
    made[cos] = {.shape = shape, .values = std::move(tables.cos)};
    made[sin] = {.shape = shape, .values = std::move(tables.sin)};
  }
  Value cosine = computed(b, cos), sine = computed(b, sin);
  return {cosine, sine};
}

LogicalResult Weights::write() {
  auto error = [&](ErrorCode code) { return emitError(UnknownLoc::get(context)) << errorPrefix(code); };
  StringRef path = options.inlineWeightsPath;
  if (path.empty())
    return error(ErrorCode::InlineWeightsPathMissing)
           << "rotary tables are computed from the configuration; say where to put them with "
              "--inline-weights=FILE.safetensors";
  FailureOr<std::string> target = realTarget(context, path);
  if (failed(target))
    return failure();
  for (const File &file : checkpoint.files)
    if (llvm::sys::fs::equivalent(*target, file.path))
      return error(ErrorCode::InlineWeightsUnwritable)
             << "the inline weights '" << path << "' would overwrite a file of the checkpoint";
  SmallVector<NewTensor> tensors;
  for (const auto &[name, entry] : made) {
    const std::vector<float> &values = entry.values;
    tensors.push_back({name, Float32Type::get(context), entry.shape,
                       static_cast<int64_t>(values.size() * sizeof(float)),
                       [&values]() -> FailureOr<std::string> { return bytesOf(values); }});
  }
  FailureOr<SmallVector<int64_t>> offsets =
      writeSafetensors(context, (path + options.inlineWeightsSuffix).str(), tensors);
  if (failed(offsets))
    return failure();
  std::string file = relativePath(*target, checkpoint.directories.given);
  for (auto [entry, offset] : llvm::zip_equal(made, *offsets))
    for (WeightOp op : entry.second.ops) {
      op.setFile(file);
      op.setOffset(offset);
    }
  return success();
}

} // namespace helix::checkpoint
