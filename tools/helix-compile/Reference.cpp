//===- Reference.cpp - Values to compare with ------------------------------===//
#include "tools/helix-compile/Reference.h"

#include "helix/Errors.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

#include <memory>
#include <zip.h>

using namespace llvm;
namespace endian = llvm::support::endian;

namespace helix {
namespace {

constexpr uint64_t kMaxBytes = uint64_t(1) << 32; // of one array
constexpr size_t kMaxHeader = 65536;

/// The text between `key` and the next `end` of a header; empty if there is none.
StringRef fieldOf(StringRef header, StringRef key, char end) {
  size_t begin = header.find(key);
  if (begin == StringRef::npos)
    return {};
  StringRef rest = header.substr(begin + key.size());
  return rest.take_until([end](char c) { return c == end; });
}

double halfAt(const char *data) {
  return APFloat(APFloat::IEEEhalf(), APInt(16, endian::read16le(data))).convertToDouble();
}

double elementAt(StringRef type, const char *data) {
  if (type == "<f2")
    return halfAt(data);
  if (type == "<f4")
    return bit_cast<float>(endian::read32le(data));
  if (type == "<f8")
    return bit_cast<double>(endian::read64le(data));
  if (type == "<i4")
    return static_cast<int32_t>(endian::read32le(data));
  return static_cast<double>(static_cast<int64_t>(endian::read64le(data)));
}

/// Parses NumPy's format. `isNumber` tells an array of another type from one that is malformed.
bool parseArray(StringRef bytes, ReferenceArray &array, bool &isNumber) {
  isNumber = true;
  if (!bytes.starts_with("\x93NUMPY") || bytes.size() < 12)
    return false;
  bool wide = bytes[6] >= 2;
  size_t start = wide ? 12 : 10;
  size_t length = wide ? endian::read32le(bytes.data() + 8) : endian::read16le(bytes.data() + 8);
  if (length > kMaxHeader || length > bytes.size() - start)
    return false;
  StringRef header = bytes.substr(start, length), data = bytes.substr(start + length);
  StringRef type = fieldOf(header, "'descr': '", '\'');
  isNumber = is_contained({"<f2", "<f4", "<f8", "<i4", "<i8"}, type);
  bool fortran = fieldOf(header, "'fortran_order': ", ',') != "False";
  SmallVector<StringRef> dims;
  fieldOf(header, "'shape': (", ')').split(dims, ',', -1, /*KeepEmpty=*/false);
  uint64_t width = static_cast<uint64_t>(type.back() - '0'), count = 1;
  for (StringRef dim : dims) {
    uint64_t size = 0;
    if (dim.trim().empty())
      continue;
    if (dim.trim().getAsInteger(10, size) || (size != 0 && count > kMaxBytes / size))
      return false;
    count *= size;
    array.shape.push_back(static_cast<int64_t>(size));
  }
  if (!isNumber)
    return true;
  // In a list of one element or none the order does not matter.
  if ((fortran && dims.size() > 1) || data.size() != count * width)
    return false;
  array.values.reserve(count);
  for (uint64_t i = 0; i < count; ++i)
    array.values.push_back(elementAt(type, data.data() + i * width));
  return true;
}

} // namespace

bool readReference(const std::string &path, std::map<std::string, ReferenceArray> &arrays, std::string &message) {
  auto fail = [&](const std::string &reason) {
    message = errorPrefix(ErrorCode::NpzInvalid) + "'" + path + "': " + reason;
    return false;
  };
  int code = 0;
  std::unique_ptr<zip_t, void (*)(zip_t *)> archive(zip_open(path.c_str(), ZIP_RDONLY, &code), zip_discard);
  if (!archive) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    return fail("cannot be read: " + reason);
  }
  zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t status;
    zip_stat_init(&status);
    if (zip_stat_index(archive.get(), i, 0, &status) != 0 || !(status.valid & ZIP_STAT_SIZE) ||
        status.size > kMaxBytes || !status.name)
      return fail("an array has no size, or one over 4 GiB");
    std::unique_ptr<zip_file_t, int (*)(zip_file_t *)> file(zip_fopen_index(archive.get(), i, 0), zip_fclose);
    std::string bytes(status.size, '\0');
    if (!file || zip_fread(file.get(), bytes.data(), bytes.size()) != static_cast<zip_int64_t>(bytes.size()))
      return fail("an array is damaged");
    StringRef name = status.name;
    name.consume_back(".npy");
    ReferenceArray array;
    bool isNumber = false;
    if (!parseArray(bytes, array, isNumber))
      return fail("array '" + name.str() + "' is not in NumPy's format, or in Fortran's order");
    if (isNumber)
      arrays[name.str()] = std::move(array);
  }
  return true;
}

} // namespace helix
