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
           << "the bytes of the weight " << quoted(state.inlineWeights.front().second->name)
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
  for (auto &[op, weight] : state.inlineWeights) {
    const StoredTensor *stored = weight;
    if (indices.insert({stored, tensors.size()}).second)
      tensors.push_back({stored->name, stored->floatType(context), stored->shape, stored->bytes,
                         [context, stored] { return bytesOf(context, *stored); }});
  }
  FailureOr<SmallVector<int64_t>> offsets = writeSafetensors(context, path, tensors);
  if (failed(offsets))
    return failure();
  std::string file = relativePath(*target, state.model.directories.given);
  for (auto &[op, stored] : state.inlineWeights) {
    op.setFile(file);
    op.setOffset((*offsets)[indices.lookup(stored)]);
  }
  return success();
}

} // namespace helix::onnximport
