//===- Checkpoint.cpp - config.json and the tensors of a checkpoint --------===//
#include "lib/Import/HuggingFace/Checkpoint.h"

#include "lib/Import/HuggingFace/Json.h"

namespace helix::checkpoint {
namespace {

constexpr char kConfig[] = "config.json", kSingle[] = "model.safetensors", kIndex[] = "model.safetensors.index.json";
constexpr uint64_t kMaxText = uint64_t(1) << 26; // of a JSON file

bool readText(const Directories &directories, const std::string &name, std::string &text, Error &error) {
  File file;
  if (!findFile(directories, name, file, error))
    return false;
  if (file.bytes > kMaxText)
    return error.set(ErrorCode::CheckpointJsonInvalid, inQuotes(name) + " has " + std::to_string(file.bytes) +
                                                           " bytes; at most " + std::to_string(kMaxText) + " are read");
  return readBytes(file, 0, file.bytes, text, error);
}

/// Where the index says that each tensor is.
bool readIndex(const Directories &directories, std::map<std::string, std::string> &fileOf, Error &error) {
  std::string text;
  Json json;
  if (!readText(directories, kIndex, text, error) || !parseObject(text, inQuotes(kIndex), json, error))
    return false;
  auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty())
    return error.set(ErrorCode::ShardIndexInvalid, inQuotes(kIndex) + " has no weight_map from tensors to files");
  for (const auto &[name, file] : map->items()) {
    if (!file.is_string())
      return error.set(ErrorCode::ShardIndexInvalid,
                       inQuotes(kIndex) + ": the file of tensor " + inQuotes(name) + " is not a text");
    fileOf.emplace(name, file.get_ref<const std::string &>());
  }
  return true;
}

bool readShards(Checkpoint &checkpoint, Error &error) {
  std::map<std::string, std::string> fileOf;
  if (!readIndex(checkpoint.directories, fileOf, error))
    return false;
  std::map<std::string, size_t> shards;
  for (const auto &[name, file] : fileOf) {
    auto [shard, isNew] = shards.emplace(file, checkpoint.files.size());
    if (!isNew)
      continue;
    File &found = checkpoint.files.emplace_back();
    if (!findFile(checkpoint.directories, file, found, error) ||
        !readHeader(found, shard->second, checkpoint.tensors, error))
      return false;
  }
  for (const auto &[name, file] : fileOf) {
    auto tensor = checkpoint.tensors.find(name);
    if (tensor == checkpoint.tensors.end() || tensor->second.file != shards[file])
      return error.set(ErrorCode::ShardIndexInvalid, inQuotes(kIndex) + " says that tensor " + inQuotes(name) +
                                                         " is in " + inQuotes(file) + ", which does not hold it");
  }
  for (const auto &[name, tensor] : checkpoint.tensors)
    if (!fileOf.contains(name))
      return error.set(ErrorCode::ShardIndexInvalid, inQuotes(kIndex) + " does not list tensor " + inQuotes(name) +
                                                         " of " + inQuotes(checkpoint.files[tensor.file].name));
  return true;
}

} // namespace

bool readCheckpoint(const std::string &directory, const std::string &weightsRoot, Checkpoint &checkpoint,
                    Error &error) {
  Directories &directories = checkpoint.directories;
  if (!findDirectories(directory, weightsRoot, directories, error) ||
      !readText(directories, kConfig, checkpoint.config, error))
    return false;
  // As transformers does, the single file first.
  if (hasFile(directories, kSingle)) {
    File &file = checkpoint.files.emplace_back();
    return findFile(directories, kSingle, file, error) && readHeader(file, 0, checkpoint.tensors, error);
  }
  if (hasFile(directories, kIndex))
    return readShards(checkpoint, error);
  return error.set(ErrorCode::CheckpointUnreadable,
                   "the directory " + inQuotes(directory) + " holds neither " + kSingle + " nor " + kIndex +
                       "; weights in other formats (.bin, .pth, .gguf) are not read: save them as safetensors");
}

} // namespace helix::checkpoint
