//===- Safetensors.cpp - Weights whose bytes are inside the protobuf -------===//
#include "lib/Import/Onnx/Safetensors.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/EndianStream.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

StringRef safetensorsType(Type type) {
  if (type.isF32())
    return "F32";
  return type.isF16() ? "F16" : "BF16";
}

using Offsets = llvm::MapVector<const StoredTensor *, int64_t>;

/// The header: a JSON object, padded with blanks to a multiple of 8 bytes. Offsets count from its end.
std::string headerOf(MLIRContext *context, const Offsets &offsets) {
  std::string text;
  llvm::raw_string_ostream os(text);
  llvm::json::OStream json(os);
  llvm::StringSet<> names;
  json.object([&] {
    for (auto [stored, offset] : offsets) {
      // Names are distinct values of the graph; escaping bytes that are no UTF-8 could make two of them equal.
      std::string name = llvm::json::fixUTF8(stored->name);
      while (!names.insert(name).second)
        name += '_';
      json.attributeObject(name, [&, stored = stored, offset = offset] {
        json.attribute("dtype", safetensorsType(stored->floatType(context)));
        json.attributeArray("shape", [&] {
          for (int64_t dim : stored->shape)
            json.value(dim);
        });
        json.attributeArray("data_offsets", [&] {
          json.value(offset);
          json.value(offset + stored->bytes);
        });
      });
    }
  });
  text.resize(llvm::alignTo(text.size(), 8), ' ');
  return text;
}

/// The real path of a file that need not be there yet; its directory must.
FailureOr<std::string> realTarget(MLIRContext *context, StringRef path) {
  StringRef parent = llvm::sys::path::parent_path(path);
  SmallString<256> real;
  if (std::error_code error = llvm::sys::fs::real_path(parent.empty() ? "." : parent, real)) {
    modelError(context, ErrorCode::InlineWeightsUnwritable)
        << "cannot write the inline weights " << quoted(path) << ": " << error.message();
    return failure();
  }
  llvm::sys::path::append(real, llvm::sys::path::filename(path));
  return std::string(real);
}

} // namespace

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

  Offsets offsets;
  int64_t size = 0;
  for (auto &[op, stored] : state.inlineWeights)
    if (offsets.insert({stored, size}).second)
      size += llvm::alignTo(stored->bytes, 4);
  std::string header = headerOf(context, offsets);

  llvm::Error error = llvm::writeToOutput(path, [&](llvm::raw_ostream &os) -> llvm::Error {
    llvm::support::endian::write<uint64_t>(os, header.size(), llvm::endianness::little);
    os << header;
    for (auto [stored, offset] : offsets) {
      FailureOr<std::string> bytes = bytesOf(context, *stored);
      if (failed(bytes))
        return llvm::createStringError("a weight cannot be read");
      os << *bytes;
      os.write_zeros(llvm::alignTo(stored->bytes, 4) - stored->bytes);
    }
    return llvm::Error::success();
  });
  if (error)
    return modelError(context, ErrorCode::InlineWeightsUnwritable)
           << "cannot write the inline weights " << quoted(path) << ": " << llvm::toString(std::move(error));

  std::string file = relativePath(*target, state.model.directories.given);
  for (auto &[op, stored] : state.inlineWeights) {
    op.setFile(file);
    op.setOffset(sizeof(uint64_t) + header.size() + offsets.lookup(stored));
  }
  return success();
}

} // namespace helix::onnximport
