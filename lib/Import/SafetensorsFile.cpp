//===- SafetensorsFile.cpp - Weights that an import has to write -----------===//
#include "lib/Import/SafetensorsFile.h"

#include "helix/Errors.h"

#include "mlir/IR/Diagnostics.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/Support/EndianStream.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"

using namespace mlir;

namespace helix {
namespace {

namespace path = llvm::sys::path;

InFlightDiagnostic unwritable(MLIRContext *context, StringRef file) {
  return emitError(UnknownLoc::get(context))
         << errorPrefix(ErrorCode::InlineWeightsUnwritable) << "cannot write the inline weights '" << file << "': ";
}

StringRef dtypeOf(Type type) {
  if (!type)
    return "U8";
  if (type.isF32())
    return "F32";
  return type.isF16() ? "F16" : "BF16";
}

int64_t paddedBytes(const NewTensor &tensor) { return llvm::alignTo(tensor.bytes, 4); }

/// The header: a JSON object, padded with blanks to a multiple of 8 bytes. Offsets count from its end.
std::string headerOf(ArrayRef<NewTensor> tensors) {
  std::string text;
  llvm::raw_string_ostream os(text);
  llvm::json::OStream json(os);
  llvm::StringSet<> names;
  int64_t offset = 0;
  json.object([&] {
    for (const NewTensor &tensor : tensors) {
      // Names are distinct; escaping bytes that are no UTF-8 could make two of them equal.
      std::string name = llvm::json::fixUTF8(tensor.name);
      while (!names.insert(name).second)
        name += '_';
      json.attributeObject(name, [&] {
        json.attribute("dtype", dtypeOf(tensor.element));
        json.attributeArray("shape", [&] {
          for (int64_t dim : tensor.shape)
            json.value(dim);
        });
        json.attributeArray("data_offsets", [&] {
          json.value(offset);
          json.value(offset + tensor.bytes);
        });
      });
      offset += paddedBytes(tensor);
    }
  });
  text.resize(llvm::alignTo(text.size(), 8), ' ');
  return text;
}

} // namespace

FailureOr<std::string> realTarget(MLIRContext *context, StringRef file) {
  StringRef parent = path::parent_path(file);
  SmallString<256> real;
  if (std::error_code error = llvm::sys::fs::real_path(parent.empty() ? "." : parent, real)) {
    unwritable(context, file) << error.message();
    return failure();
  }
  path::append(real, path::filename(file));
  return std::string(real);
}

FailureOr<SmallVector<int64_t>> writeSafetensors(MLIRContext *context, StringRef file, ArrayRef<NewTensor> tensors) {
  std::string header = headerOf(tensors);
  llvm::Error error = llvm::writeToOutput(file, [&](llvm::raw_ostream &os) -> llvm::Error {
    llvm::support::endian::write<uint64_t>(os, header.size(), llvm::endianness::little);
    os << header;
    for (const NewTensor &tensor : tensors) {
      FailureOr<std::string> bytes = tensor.contents();
      if (failed(bytes))
        return llvm::createStringError("a weight cannot be read");
      os << *bytes;
      os.write_zeros(paddedBytes(tensor) - tensor.bytes);
    }
    return llvm::Error::success();
  });
  if (error) {
    unwritable(context, file) << llvm::toString(std::move(error));
    return failure();
  }
  SmallVector<int64_t> offsets;
  auto next = static_cast<int64_t>(sizeof(uint64_t) + header.size());
  for (const NewTensor &tensor : tensors) {
    offsets.push_back(next);
    next += paddedBytes(tensor);
  }
  return offsets;
}

std::string relativePath(StringRef file, StringRef directory) {
  auto fileBegin = path::begin(file), fileEnd = path::end(file);
  auto dirBegin = path::begin(directory), dirEnd = path::end(directory);
  while (fileBegin != fileEnd && dirBegin != dirEnd && *fileBegin == *dirBegin) {
    ++fileBegin;
    ++dirBegin;
  }
  SmallString<256> relative;
  for (; dirBegin != dirEnd; ++dirBegin)
    path::append(relative, "..");
  for (; fileBegin != fileEnd; ++fileBegin)
    path::append(relative, *fileBegin);
  return std::string(relative);
}

} // namespace helix
