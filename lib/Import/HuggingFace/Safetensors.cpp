//===- Safetensors.cpp - The header of a .safetensors file -----------------===//
#include "lib/Import/HuggingFace/Safetensors.h"

#include "lib/Import/HuggingFace/Json.h"

#include <algorithm>
#include <array>

namespace helix::checkpoint {
namespace {

// The format's own limit, and what no tensor of a decoder exceeds.
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxRank = 8;

constexpr std::pair<std::string_view, uint64_t> kBytes[] = {
    {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2},
    {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8}};

bool readTensor(const std::string &where, const std::string &name, const Json &json, Tensor &tensor, Error &error) {
  auto invalid = [&](const std::string &what) {
    return error.set(ErrorCode::SafetensorsInvalid, where + ": tensor " + inQuotes(name) + ' ' + what);
  };
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets"))
    return invalid("must have a dtype, a shape, data_offsets, and nothing else");
  const Json &dtype = *json.find("dtype"), &shape = *json.find("shape"), &offsets = *json.find("data_offsets");
  const auto *known = std::find_if(std::begin(kBytes), std::end(kBytes), [&](const auto &type) {
    return dtype.is_string() && dtype.get_ref<const std::string &>() == type.first;
  });
  if (known == std::end(kBytes))
    return invalid("has the unknown dtype " + inQuotes(dtype.is_string() ? dtype.get_ref<const std::string &>() : "?"));
  tensor.dtype = known->first;
  if (!shape.is_array() || shape.size() > kMaxRank)
    return invalid("has a shape that is no list of at most " + std::to_string(kMaxRank) + " sizes");
  int64_t bytes = static_cast<int64_t>(known->second);
  for (const Json &dim : shape) {
    std::optional<int64_t> size = countOf(dim);
    if (!size || __builtin_mul_overflow(bytes, *size, &bytes))
      return invalid("has a shape of sizes that are negative, not whole, or come to more than 2^63 bytes");
    tensor.shape.push_back(*size);
  }
  std::optional<int64_t> begin, end;
  if (offsets.is_array() && offsets.size() == 2) {
    begin = countOf(offsets.front());
    end = countOf(offsets.back());
  }
  if (!begin || !end || *begin > *end)
    return invalid("has data_offsets that are no two whole numbers in ascending order");
  if (*end - *begin != bytes)
    return error.set(ErrorCode::SafetensorsRange, where + ": tensor " + inQuotes(name) + " has " +
                                                      std::to_string(*end - *begin) + " bytes, but dtype " +
                                                      tensor.dtype + " and shape " + listText(tensor.shape) + " need " +
                                                      std::to_string(bytes));
  tensor.offset = *begin;
  tensor.bytes = bytes;
  return true;
}

} // namespace

bool readHeader(const File &file, size_t index, Tensors &tensors, Error &error) {
  const std::string where = inQuotes(file.name);
  std::string text;
  constexpr uint64_t kPrefix = sizeof(uint64_t);
  if (file.bytes < kPrefix)
    return error.set(ErrorCode::SafetensorsInvalid,
                     where + " has " + std::to_string(file.bytes) + " bytes, too few for a safetensors header");
  if (!readBytes(file, 0, kPrefix, text, error))
    return false;
  uint64_t size = 0;
  for (size_t i = kPrefix; i-- > 0;)
    size = size << 8 | static_cast<unsigned char>(text[i]);
  if (size > kMaxHeader || size > file.bytes - kPrefix)
    return error.set(ErrorCode::SafetensorsInvalid, where + ": the header is said to have " + std::to_string(size) +
                                                        " bytes, but the file has " + std::to_string(file.bytes) +
                                                        " and a header at most " + std::to_string(kMaxHeader) +
                                                        "; this is no safetensors file, or a truncated one");
  Json json;
  if (!readBytes(file, kPrefix, size, text, error) || !parseObject(text, "the header of " + where, json, error))
    return false;

  uint64_t start = kPrefix + size, data = file.bytes - start;
  std::vector<std::pair<std::pair<uint64_t, uint64_t>, std::string>> ranges;
  for (const auto &[name, value] : json.items()) {
    if (name == "__metadata__")
      continue;
    Tensor tensor{.file = index};
    if (!readTensor(where, name, value, tensor, error))
      return false;
    ranges.push_back({{tensor.offset, tensor.offset + tensor.bytes}, name});
    tensor.offset += start;
    if (!tensors.emplace(name, std::move(tensor)).second)
      return error.set(ErrorCode::ShardIndexInvalid,
                       "tensor " + inQuotes(name) + " is in " + where + " and in another file of the checkpoint, too");
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t next = 0;
  for (const auto &[range, name] : ranges) {
    if (range.second > data)
      return error.set(ErrorCode::SafetensorsRange, where + ": tensor " + inQuotes(name) + " ends at byte " +
                                                        std::to_string(range.second) + " of the data, which has " +
                                                        std::to_string(data) + "; the file may be truncated");
    if (range.first != next)
      return error.set(ErrorCode::SafetensorsRange,
                       where + ": tensor " + inQuotes(name) + " begins at byte " + std::to_string(range.first) +
                           " of the data, but the one before it ends at " + std::to_string(next) +
                           "; tensors must lie one behind the other");
    next = range.second;
  }
  if (next != data)
    return error.set(ErrorCode::SafetensorsRange, where + ": its tensors end at byte " + std::to_string(next) +
                                                      " of the data, which has " + std::to_string(data));
  return true;
}

} // namespace helix::checkpoint
