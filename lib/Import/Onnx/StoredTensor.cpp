//===- StoredTensor.cpp - A constant of the model and where its bytes are --===//
#include "lib/Import/Onnx/StoredTensor.h"

#include "lib/Import/Onnx/Diagnostics.h"
#include "lib/Import/SafetensorsFile.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

namespace fs = llvm::sys::fs;
namespace path = llvm::sys::path;

// No tensor of a decoder has more dimensions, and no dimension is larger than a 32-bit index can count.
constexpr int kMaxRank = 8;
constexpr int64_t kMaxDim = (int64_t(1) << 31) - 1;

InFlightDiagnostic tensorError(MLIRContext *context, const StoredTensor &stored, ErrorCode code) {
  return modelError(context, code) << "tensor " << quoted(stored.name) << ": ";
}

/// Bits per element of the types that are read; 0 for others.
int64_t elementBits(int32_t type) {
  switch (type) {
  case onnx::TensorProto::INT64:
    return 64;
  case onnx::TensorProto::FLOAT:
  case onnx::TensorProto::INT32:
    return 32;
  case onnx::TensorProto::FLOAT16:
  case onnx::TensorProto::BFLOAT16:
    return 16;
  case onnx::TensorProto::BOOL:
  case onnx::TensorProto::UINT8:
  case onnx::TensorProto::INT8:
    return 8;
  case onnx::TensorProto::UINT4:
  case onnx::TensorProto::INT4:
    return 4;
  default:
    return 0;
  }
}

LogicalResult describeShape(MLIRContext *context, StoredTensor &stored) {
  const onnx::TensorProto &tensor = *stored.proto;
  int64_t bits = elementBits(tensor.data_type());
  if (bits == 0)
    return tensorError(context, stored, ErrorCode::TypeUnsupported)
           << "is of " << typeText(tensor.data_type())
           << "; supported are FLOAT, FLOAT16, BFLOAT16, INT32, INT64 and BOOL, and for quantised weights UINT8, INT8, "
              "UINT4 and INT4";
  if (tensor.dims_size() > kMaxRank)
    return tensorError(context, stored, ErrorCode::TensorShapeInvalid)
           << "has " << tensor.dims_size() << " dimensions; at most " << kMaxRank << " are supported";
  stored.shape.assign(tensor.dims().begin(), tensor.dims().end());
  int64_t elements = 1, bytes = 0;
  // An empty list of integers is the shape of a scalar.
  bool isEmptyList = stored.isInteger() && stored.shape.size() == 1 && stored.shape[0] == 0;
  for (int64_t dim : stored.shape)
    if ((dim < 1 && !isEmptyList) || dim > kMaxDim || __builtin_mul_overflow(elements, dim, &elements))
      return tensorError(context, stored, ErrorCode::TensorShapeInvalid)
             << "has shape " << shapeText(stored.shape) << "; every dimension must be from 1 to " << kMaxDim
             << " and their product below 2^63";
  if (__builtin_mul_overflow(elements, std::max<int64_t>(1, bits / 8), &bytes))
    return tensorError(context, stored, ErrorCode::TensorShapeInvalid)
           << "has shape " << shapeText(stored.shape) << ", which is more than 2^63 bytes";
  stored.elements = elements;
  stored.bytes = bits < 8 ? (elements + 1) / 2 : bytes;
  return success();
}

bool hasInlineData(const onnx::TensorProto &tensor) {
  return tensor.has_raw_data() || tensor.float_data_size() || tensor.int32_data_size() || tensor.int64_data_size() ||
         tensor.double_data_size() || tensor.uint64_data_size() || tensor.string_data_size();
}

LogicalResult checkInline(MLIRContext *context, const StoredTensor &stored) {
  const onnx::TensorProto &tensor = *stored.proto;
  int64_t typed = 0;
  switch (tensor.data_type()) {
  case onnx::TensorProto::FLOAT:
    typed = tensor.float_data_size();
    break;
  case onnx::TensorProto::INT64:
    typed = tensor.int64_data_size();
    break;
  default:
    typed = tensor.int32_data_size();
  }
  if (tensor.has_raw_data() && typed == 0 && static_cast<int64_t>(tensor.raw_data().size()) == stored.bytes)
    return success();
  // Two elements of four bits are one of the list.
  bool isPacked = stored.isCodes() && stored.bytes != stored.elements;
  if (!tensor.has_raw_data() && typed == (isPacked ? stored.bytes : stored.elements))
    return success();
  return tensorError(context, stored, ErrorCode::TensorDataInvalid)
         << "has shape " << shapeText(stored.shape) << ", so " << stored.bytes << " bytes, but holds "
         << tensor.raw_data().size() << " raw bytes and " << typed << " elements";
}

/// The value of a numeric key: decimal digits alone, below 2^63.
FailureOr<int64_t> parseCount(MLIRContext *context, const StoredTensor &stored, StringRef key, StringRef text) {
  uint64_t value = 0;
  if (text.empty() || !llvm::all_of(text, llvm::isDigit) || text.getAsInteger(10, value) ||
      value > static_cast<uint64_t>(INT64_MAX)) {
    tensorError(context, stored, ErrorCode::ExternalDataRange)
        << "external data " << key << " is " << quoted(text) << "; it must be a number of bytes from 0 to 2^63 - 1";
    return failure();
  }
  return static_cast<int64_t>(value);
}

/// Whether `file` lies in `directory` or below; both real paths.
bool isInside(StringRef file, StringRef directory) {
  if (directory.empty() || !file.consume_front(directory))
    return false;
  return path::is_separator(directory.back()) || (!file.empty() && path::is_separator(file.front()));
}

/// Finds the file of external data and checks that its real path is one that a model may name.
LogicalResult locate(MLIRContext *context, StoredTensor &stored, StringRef location, const Directories &directories) {
  if (location.empty() || path::is_absolute(location) || location.contains('\0'))
    return tensorError(context, stored, ErrorCode::ExternalDataPath)
           << "external data location " << quoted(location) << " must be a path relative to the model";

  const StringRef roots[] = {directories.given, directories.resolved, directories.weightsRoot};
  SmallString<256> real;
  bool found = false, inGiven = false;
  for (StringRef root : roots) {
    if (root.empty() || found)
      continue;
    SmallString<256> candidate(root);
    path::append(candidate, location);
    found = !fs::real_path(candidate, real);
    inGiven = found && root == directories.given;
  }
  if (!found)
    return tensorError(context, stored, ErrorCode::ExternalDataMissing)
           << "external data file " << quoted(location) << " is not in the model's directory"
           << (directories.weightsRoot.empty() ? "; put it there or give --weights-root" : " nor in the weights root");
  if (llvm::none_of(roots, [&](StringRef root) { return isInside(real, root); }))
    return tensorError(context, stored, ErrorCode::ExternalDataPath)
           << "external data location " << quoted(location)
           << " leads out of the model's directory; if that is meant, give --weights-root";
  fs::file_status status;
  if (fs::status(real, status) || status.type() != fs::file_type::regular_file)
    return tensorError(context, stored, ErrorCode::ExternalDataMissing)
           << "external data " << quoted(location) << " is not a regular file";

  stored.path = std::string(real);
  SmallString<256> file(location);
  path::remove_dots(file);
  // A location with .. may pass through links, so it is replaced by what it leads to.
  bool plain = inGiven && llvm::none_of(llvm::make_range(path::begin(file), path::end(file)),
                                        [](StringRef part) { return part == ".."; });
  stored.file = plain ? std::string(file) : relativePath(real, directories.given);

  if (stored.offset > INT64_MAX - stored.bytes)
    return tensorError(context, stored, ErrorCode::ExternalDataRange)
           << "external data offset " << stored.offset << " plus length " << stored.bytes << " is past 2^63";
  if (static_cast<uint64_t>(stored.offset + stored.bytes) > status.getSize())
    return tensorError(context, stored, ErrorCode::ExternalDataRange)
           << "external data is bytes " << stored.offset << " to " << stored.offset + stored.bytes << " of "
           << quoted(location) << ", which has " << status.getSize() << "; the file may be truncated";
  return success();
}

LogicalResult checkExternal(MLIRContext *context, StoredTensor &stored, const Directories &directories) {
  const onnx::TensorProto &tensor = *stored.proto;
  if (hasInlineData(tensor))
    return tensorError(context, stored, ErrorCode::TensorDataInvalid) << "has both external and inline data";
  llvm::StringMap<StringRef> keys;
  for (const onnx::StringStringEntryProto &entry : tensor.external_data()) {
    // The checksum is not verified: that would read the whole file. The base path is a note of the exporter.
    if (!llvm::is_contained({"location", "offset", "length", "checksum", "basepath"}, StringRef(entry.key())))
      return tensorError(context, stored, ErrorCode::ExternalDataKeys)
             << "external data has the unknown key " << quoted(entry.key());
    if (!keys.try_emplace(entry.key(), entry.value()).second)
      return tensorError(context, stored, ErrorCode::ExternalDataKeys)
             << "external data has the key " << quoted(entry.key()) << " twice";
  }
  if (!keys.contains("location"))
    return tensorError(context, stored, ErrorCode::ExternalDataKeys) << "external data has no location";
  if (keys.contains("offset")) {
    FailureOr<int64_t> offset = parseCount(context, stored, "offset", keys.lookup("offset"));
    if (failed(offset))
      return failure();
    stored.offset = *offset;
  }
  if (keys.contains("length")) {
    FailureOr<int64_t> length = parseCount(context, stored, "length", keys.lookup("length"));
    if (failed(length))
      return failure();
    if (*length != stored.bytes)
      return tensorError(context, stored, ErrorCode::ExternalDataRange)
             << "external data length is " << *length << ", but shape " << shapeText(stored.shape) << " needs "
             << stored.bytes << " bytes";
  }
  return locate(context, stored, keys.lookup("location"), directories);
}

} // namespace

Type floatType(MLIRContext *context, int32_t type) {
  switch (type) {
  case onnx::TensorProto::FLOAT:
    return Float32Type::get(context);
  case onnx::TensorProto::FLOAT16:
    return Float16Type::get(context);
  case onnx::TensorProto::BFLOAT16:
    return BFloat16Type::get(context);
  default:
    return {};
  }
}

FailureOr<StoredTensor> describe(MLIRContext *context, StringRef name, const onnx::TensorProto &tensor,
                                 const Directories &directories) {
  StoredTensor stored;
  stored.name = name.str();
  stored.proto = &tensor;
  if (failed(describeShape(context, stored)))
    return failure();
  if (tensor.has_segment()) {
    tensorError(context, stored, ErrorCode::TensorDataInvalid) << "is stored in segments, which is not supported";
    return failure();
  }
  bool external = tensor.data_location() == onnx::TensorProto::EXTERNAL;
  if (!external && tensor.external_data_size() != 0) {
    tensorError(context, stored, ErrorCode::ExternalDataKeys) << "names external data, but is not stored there";
    return failure();
  }
  if (failed(external ? checkExternal(context, stored, directories) : checkInline(context, stored)))
    return failure();
  return stored;
}

FailureOr<std::string> bytesOf(MLIRContext *context, const StoredTensor &tensor) {
  const onnx::TensorProto &proto = *tensor.proto;
  if (tensor.isExternal()) {
    auto slice = llvm::MemoryBuffer::getFileSlice(tensor.path, tensor.bytes, tensor.offset);
    if (!slice || static_cast<int64_t>((*slice)->getBufferSize()) != tensor.bytes) {
      tensorError(context, tensor, ErrorCode::ExternalDataMissing) << "its external data cannot be read";
      return failure();
    }
    return (*slice)->getBuffer().str();
  }
  if (proto.has_raw_data())
    return proto.raw_data();
  std::string bytes(tensor.bytes, '\0');
  char *out = bytes.data();
  for (int64_t i = 0, end = tensor.isCodes() ? tensor.bytes : tensor.elements; i < end; ++i) {
    switch (proto.data_type()) {
    case onnx::TensorProto::FLOAT:
      llvm::support::endian::write<float, llvm::endianness::little>(out + 4 * i, proto.float_data(i));
      break;
    case onnx::TensorProto::INT64:
      llvm::support::endian::write64le(out + 8 * i, proto.int64_data(i));
      break;
    case onnx::TensorProto::INT32:
      llvm::support::endian::write32le(out + 4 * i, proto.int32_data(i));
      break;
    case onnx::TensorProto::BOOL:
      out[i] = proto.int32_data(i) != 0;
      break;
    case onnx::TensorProto::UINT8:
    case onnx::TensorProto::INT8:
    case onnx::TensorProto::UINT4:
    case onnx::TensorProto::INT4:
      out[i] = static_cast<char>(proto.int32_data(i));
      break;
    default: // The 16 bits of a float16 or bfloat16.
      llvm::support::endian::write16le(out + 2 * i, static_cast<uint16_t>(proto.int32_data(i)));
    }
  }
  return bytes;
}

} // namespace helix::onnximport
