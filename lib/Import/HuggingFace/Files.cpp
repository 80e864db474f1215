//===- Files.cpp - The files of a checkpoint -------------------------------===//
#include "lib/Import/HuggingFace/Files.h"

#include <filesystem>
#include <fstream>

namespace helix::checkpoint {
namespace {

namespace fs = std::filesystem;

bool isInside(const fs::path &file, const fs::path &directory) {
  if (directory.empty())
    return false;
  fs::path relative = file.lexically_relative(directory);
  return !relative.empty() && *relative.begin() != "..";
}

} // namespace

bool findDirectories(const std::string &directory, const std::string &weightsRoot, Directories &directories,
                     Error &error) {
  std::error_code failed;
  fs::path given = fs::canonical(directory, failed);
  if (failed || !fs::is_directory(given, failed))
    return error.set(ErrorCode::CheckpointUnreadable,
                     "cannot read the checkpoint " + inQuotes(directory) + ": it is not a directory");
  directories.given = given;
  fs::path config = fs::canonical(given / "config.json", failed);
  if (failed)
    return error.set(ErrorCode::CheckpointUnreadable,
                     "the directory " + inQuotes(directory) +
                         " holds no config.json; give the directory of a Hugging Face checkpoint, or an .onnx file");
  directories.resolved = config.parent_path();
  if (weightsRoot.empty())
    return true;
  fs::path root = fs::canonical(weightsRoot, failed);
  if (failed || !fs::is_directory(root, failed))
    return error.set(ErrorCode::ImportOptionInvalid,
                     "the weights root " + inQuotes(weightsRoot) + " is not a directory");
  directories.weightsRoot = root;
  return true;
}

bool hasFile(const Directories &directories, const std::string &name) {
  std::error_code failed;
  return fs::exists(fs::path(directories.given) / name, failed) ||
         (!directories.weightsRoot.empty() && fs::exists(fs::path(directories.weightsRoot) / name, failed));
}

bool findFile(const Directories &directories, const std::string &name, File &file, Error &error) {
  if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
    return error.set(ErrorCode::CheckpointPath,
                     "the file " + inQuotes(name) +
                         " must be named without directories: a checkpoint is one directory");
  std::error_code failed;
  fs::path real;
  bool inGiven = false;
  for (const std::string &root : {directories.given, directories.weightsRoot}) {
    if (root.empty() || !real.empty())
      continue;
    real = fs::canonical(fs::path(root) / name, failed);
    if (failed)
      real.clear();
    inGiven = !real.empty() && root == directories.given;
  }
  if (real.empty())
    return error.set(ErrorCode::CheckpointUnreadable,
                     "the file " + inQuotes(name) + " is not in the checkpoint's directory" +
                         (directories.weightsRoot.empty() ? "" : " nor in the weights root"));
  if (!isInside(real, directories.given) && !isInside(real, directories.resolved) &&
      !isInside(real, directories.weightsRoot))
    return error.set(ErrorCode::CheckpointPath,
                     "the file " + inQuotes(name) +
                         " is a link out of the checkpoint's directory; if that is meant, give --weights-root");
  // Looked at before it is opened: opening a pipe would wait for ever.
  if (!fs::is_regular_file(real, failed))
    return error.set(ErrorCode::CheckpointUnreadable, "the file " + inQuotes(name) + " is not a regular file");
  file.bytes = fs::file_size(real, failed);
  if (failed)
    return error.set(ErrorCode::CheckpointUnreadable, "cannot read " + inQuotes(name) + ": " + failed.message());
  file.path = real;
  file.name = inGiven ? name : real.lexically_relative(directories.given).string();
  return true;
}

bool readBytes(const File &file, uint64_t offset, uint64_t bytes, std::string &contents, Error &error) {
  contents.resize(bytes);
  std::ifstream stream(file.path, std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  if (!stream || !stream.read(contents.data(), static_cast<std::streamsize>(bytes)))
    return error.set(ErrorCode::CheckpointUnreadable, "cannot read " + std::to_string(bytes) + " bytes at " +
                                                          std::to_string(offset) + " of " + inQuotes(file.name));
  return true;
}

} // namespace helix::checkpoint
