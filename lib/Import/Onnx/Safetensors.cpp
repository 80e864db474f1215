//===- Safetensors.cpp - Weights whose bytes are inside the protobuf -------===//
#include "lib/Import/Onnx/Safetensors.h"

#include "lib/Import/SafetensorsFile.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/Support/FileSystem.h"

using namespace mlir;

namespace helix::onnximport {

LogicalResult writeInlineWeights(MLIRContext *context, ImportState &state, StringRef modelPath) {
  if (state.inlineWeights.empty())
    return success();
  StringRef path = state.options.inlineWeightsPath;
  if (path.empty())
    return modelError(context, ErrorCode::InlineWeightsPathMissing)
           << "the bytes of the weight " << quoted(state.inlineWeights.front().stored->name)
           << " are inside the protobuf; say where to put such weights with --inline-weights=FILE.safetensors, or "
              "export the model with external data";
  FailureOr<std::string> target = realTarget(context, path);
  if (failed(target))
    return failure();
  bool isInput = llvm::sys::fs::equivalent(*target, modelPath);
  for (const auto &entry : state.model.initializers)
    isInput |= entry.second.isExternal() && llvm::sys::fs::equivalent(*target, entry.second.path);
  if (isInput)
    return modelError(context, ErrorCode::InlineWeightsUnwritable)
           << "the inline weights " << quoted(path) << " would overwrite a file of the model";

  llvm::MapVector<const StoredTensor *, size_t> indices;
  SmallVector<NewTensor> tensors;
  for (auto &[op, weight, part] : state.inlineWeights) {
    const StoredTensor *stored = weight;
    if (!indices.insert({stored, tensors.size()}).second)
      continue;
    NewTensor tensor{stored->name, stored->floatType(context), stored->shape, stored->bytes,
                     [context, stored] { return bytesOf(context, *stored); }};
    if (stored->isCodes())
      tensor.shape = {stored->bytes};
    tensors.push_back(std::move(tensor));
  }
  FailureOr<SmallVector<int64_t>> offsets =
      writeSafetensors(context, (path + state.options.inlineWeightsSuffix).str(), tensors);
  if (failed(offsets))
    return failure();
  std::string file = relativePath(*target, state.model.directories.given);
  for (auto &[op, stored, part] : state.inlineWeights) {
    int64_t offset = (*offsets)[indices.lookup(stored)];
    auto moved = [&](BytesAttr bytes) {
      return BytesAttr::get(context, StringAttr::get(context, file), offset, bytes.getLength(), bytes.getElement());
    };
    switch (part) {
    case InlineWeight::Part::Bytes:
      op.setFile(file);
      op.setOffset(offset);
      break;
    case InlineWeight::Part::Scales:
      op.setScalesAttr(moved(op.getScalesAttr()));
      break;
    case InlineWeight::Part::ZeroPoints:
      op.setZeroPointsAttr(moved(op.getZeroPointsAttr()));
    }
  }
  return success();
}

} // namespace helix::onnximport
