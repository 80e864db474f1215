//===- Npz.cpp - NumPy's .npz files ----------------------------------------===//
#include "Npz.h"
#include "runtime/Error.h"

#include <cstring>
#include <memory>
#include <optional>
#include <regex>
#include <zip.h>

namespace helix {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr uint64_t kMaxEntryBytes = uint64_t(1) << 30; // of what is read

[[noreturn]] void fail(const std::string &path, const std::string &reason) {
  throw Error(ErrorCode::NpzInvalid, "'" + path + "': " + reason);
}

zip_t *openOrFail(const std::string &path, int flags) {
  int code = 0;
  zip_t *archive = zip_open(path.c_str(), flags, &code);
  if (archive)
    return archive;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string reason = zip_error_strerror(&error);
  zip_error_fini(&error);
  fail(path, reason);
}

struct Discard {
  void operator()(zip_t *archive) const { zip_discard(archive); }
};
using Archive = std::unique_ptr<zip_t, Discard>;

std::string header(const NpzArray &array) {
  std::string shape;
  for (uint64_t size : array.shape)
    shape += (shape.empty() ? "" : ", ") + std::to_string(size);
  if (array.shape.size() == 1)
    shape += ",";
  std::string type = array.floats.empty() && !array.integers.empty() ? "<i8" : "<f4";
  std::string text = "{'descr': '" + (array.type.empty() ? type : array.type) +
                     "', 'fortran_order': False, 'shape': (" + shape + "), }";
  // The data starts at a multiple of 64 bytes, after a newline.
  size_t prefix = sizeof(kMagic) - 1 + 2 + 2;
  text.append(63 - (prefix + text.size()) % 64, ' ');
  text += '\n';
  std::string result(kMagic, sizeof(kMagic) - 1);
  result += {'\1', '\0', char(text.size() & 0xff), char(text.size() >> 8)};
  return result + text;
}

std::string contents(const NpzArray &array) {
  std::string bytes = header(array);
  if (!array.floats.empty())
    bytes.append(reinterpret_cast<const char *>(array.floats.data()), array.floats.size() * sizeof(float));
  if (!array.integers.empty())
    bytes.append(reinterpret_cast<const char *>(array.integers.data()), array.integers.size() * sizeof(int64_t));
  return bytes + array.bytes;
}

std::string readEntry(const std::string &path, zip_t *archive, uint64_t index) {
  zip_stat_t status;
  if (zip_stat_index(archive, index, 0, &status) != 0 || !(status.valid & ZIP_STAT_SIZE) ||
      status.size > kMaxEntryBytes)
    fail(path, "an array has no size, or one over 1 GiB");
  std::unique_ptr<zip_file_t, int (*)(zip_file_t *)> file(zip_fopen_index(archive, index, 0), zip_fclose);
  std::string bytes(status.size, '\0');
  if (!file || zip_fread(file.get(), bytes.data(), bytes.size()) != zip_int64_t(bytes.size()))
    fail(path, "an array is damaged");
  return bytes;
}

/// The header of an array, as text, and where its elements start.
std::pair<std::string, size_t> parseHeader(const std::string &path, const std::string &name, const std::string &bytes) {
  auto bad = [&](const std::string &reason) { fail(path, "array '" + name + "' " + reason); };
  if (bytes.size() < 12 || bytes.compare(0, 6, kMagic, 6) != 0)
    bad("is not in NumPy's format");
  bool wide = bytes[6] >= 2;
  size_t start = wide ? 12 : 10, length = uint8_t(bytes[8]) | size_t(uint8_t(bytes[9])) << 8;
  if (wide)
    length |= size_t(uint8_t(bytes[10])) << 16 | size_t(uint8_t(bytes[11])) << 24;
  if (length > bytes.size() - start || length > 4096)
    bad("has a damaged header");
  return {bytes.substr(start, length), start + length};
}

std::vector<int64_t> parseIntegers(const std::string &path, const std::string &name, const std::string &bytes) {
  auto bad = [&](const std::string &reason) { fail(path, "array '" + name + "' " + reason); };
  auto [text, start] = parseHeader(path, name, bytes);
  static const std::regex pattern(R"(\{'descr': '<i([48])', 'fortran_order': (?:True|False), )"
                                  R"('shape': \(([0-9]{1,18}),\),? *\} *\n?)");
  std::smatch match;
  if (!std::regex_match(text, match, pattern))
    bad("is not of one dimension and of type i64 or i32");
  size_t size = match[1] == "8" ? 8 : 4, count = std::stoull(match[2]);
  if ((bytes.size() - start) / size != count || (bytes.size() - start) % size != 0)
    bad("does not have the bytes of its shape");
  std::vector<int64_t> values(count);
  const char *data = bytes.data() + start;
  for (size_t i = 0; i < count; ++i) {
    int32_t narrow;
    if (size == 8)
      std::memcpy(&values[i], data + i * 8, 8);
    else
      std::memcpy(&narrow, data + i * 4, 4), values[i] = narrow;
  }
  return values;
}

} // namespace

void writeNpz(const std::string &path, const std::vector<NpzArray> &arrays) {
  Archive archive(openOrFail(path, ZIP_CREATE | ZIP_TRUNCATE));
  for (const NpzArray &array : arrays) {
    std::string bytes = contents(array);
    void *copy = std::malloc(bytes.size()); // libzip frees it
    if (!copy)
      throw std::bad_alloc();
    std::memcpy(copy, bytes.data(), bytes.size());
    zip_source_t *source = zip_source_buffer(archive.get(), copy, bytes.size(), 1);
    if (!source) {
      std::free(copy);
      fail(path, zip_strerror(archive.get()));
    }
    zip_int64_t index = zip_file_add(archive.get(), (array.name + ".npy").c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      zip_source_free(source);
      fail(path, zip_strerror(archive.get()));
    }
    zip_set_file_compression(archive.get(), zip_uint64_t(index), ZIP_CM_STORE, 0);
    zip_file_set_dostime(archive.get(), zip_uint64_t(index), 0, 1 << 5 | 1, 0); // 1980-01-01
  }
  if (zip_close(archive.get()) != 0)
    fail(path, zip_strerror(archive.get()));
  archive.release();
}

std::vector<NpzArray> readNpz(const std::string &path) {
  Archive archive(openOrFail(path, ZIP_RDONLY));
  std::vector<NpzArray> arrays;
  for (zip_int64_t i = 0, count = zip_get_num_entries(archive.get(), 0); i < count; ++i) {
    const char *entry = zip_get_name(archive.get(), zip_uint64_t(i), 0);
    NpzArray array{entry ? entry : "", {}, {}, {}, {}, {}};
    if (!array.name.ends_with(".npy"))
      fail(path, "it holds '" + array.name + "', which is no array");
    array.name.resize(array.name.size() - 4);
    std::string bytes = readEntry(path, archive.get(), zip_uint64_t(i));
    auto [text, start] = parseHeader(path, array.name, bytes);
    static const std::regex pattern(R"(\{'descr': '([<|][a-zA-Z][0-9]{1,2})', 'fortran_order': False, )"
                                    R"('shape': \(([0-9, ]{0,200})\),? *\} *\n?)");
    std::smatch match;
    if (!std::regex_match(text, match, pattern))
      fail(path, "array '" + array.name + "' is not of plain numbers in row-major order");
    array.type = match[1];
    std::string shape = match[2];
    static const std::regex size("[0-9]{1,18}");
    for (std::sregex_iterator it(shape.begin(), shape.end(), size), end; it != end; ++it)
      array.shape.push_back(std::stoull(it->str()));
    array.bytes = bytes.substr(start);
    arrays.push_back(std::move(array));
  }
  return arrays;
}

std::vector<std::vector<int64_t>> readNpzIntegers(const std::string &path, const std::string &prefix) {
  Archive archive(openOrFail(path, ZIP_RDONLY));
  std::vector<std::vector<int64_t>> arrays;
  for (;;) {
    std::string name = prefix + std::to_string(arrays.size());
    zip_int64_t index = zip_name_locate(archive.get(), (name + ".npy").c_str(), 0);
    if (index < 0)
      break;
    arrays.push_back(parseIntegers(path, name, readEntry(path, archive.get(), zip_uint64_t(index))));
  }
  // What was not read must not be taken for read.
  for (zip_int64_t i = 0, count = zip_get_num_entries(archive.get(), 0); i < count; ++i) {
    const char *entry = zip_get_name(archive.get(), zip_uint64_t(i), 0);
    std::string name = entry ? entry : "";
    if (name.size() <= prefix.size() + 4 || !name.starts_with(prefix) || !name.ends_with(".npy"))
      continue;
    name.resize(name.size() - 4);
    std::string number = name.substr(prefix.size());
    if (number.find_first_not_of("0123456789") != std::string::npos)
      continue;
    bool read =
        number.size() <= 18 && std::stoull(number) < arrays.size() && std::to_string(std::stoull(number)) == number;
    if (!read)
      fail(path, "it has an array '" + name + "' but none '" + prefix + std::to_string(arrays.size()) +
                     "'; number them from 0 without a gap");
  }
  if (arrays.empty())
    fail(path, "it has no array '" + prefix + "0'");
  return arrays;
}

} // namespace helix
