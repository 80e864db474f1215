//===- Outputs.cpp - Whether --outputs may be written ----------------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <filesystem>
#include <unistd.h>

namespace helix {
namespace {

namespace fs = std::filesystem;

void refuseSame(const std::string &outputs, const fs::path &path, const std::string &what) {
  std::error_code ignored; // a file that is not there is not harmed
  if (fs::equivalent(outputs, path, ignored))
    throw Error(ErrorCode::RunArgumentInvalid,
                "--outputs '" + outputs + "' would overwrite " + what + "; name another file");
}

} // namespace

void checkOutputs(const RunOptions &options) {
  const std::string &path = options.outputsFile;
  if (path.empty())
    return;
  auto fail = [&](const std::string &reason) {
    return Error(ErrorCode::NpzInvalid, "--outputs '" + path + "': " + reason);
  };
  std::error_code code;
  fs::file_status status = fs::status(path, code);
  if (fs::is_directory(status))
    throw fail("it is a directory; name a file in it");
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw fail("it is not a regular file, and an .npz file cannot be written to a device or pipe");
  fs::path directory = fs::path(path).parent_path();
  if (directory.empty())
    directory = ".";
  if (!fs::is_directory(directory, code))
    throw fail("'" + directory.string() + "' is not a directory; make it first");
  if (::access(directory.c_str(), W_OK | X_OK) != 0)
    throw fail("no file can be made in '" + directory.string() + "'");
  refuseSame(path, options.artifact, "the artifact");
  if (!options.inputsFile.empty())
    refuseSame(path, options.inputsFile, "the file of --inputs");
  if (!options.promptsFile.empty())
    refuseSame(path, options.promptsFile == "-" ? "/dev/stdin" : options.promptsFile, "the file of --prompts");
}

void checkOutputsAgainstWeights(const RunOptions &options, const artifact::Artifact &artifact) {
  if (options.outputsFile.empty() || !artifact.files())
    return;
  fs::path root = options.session.weightsRoot;
  if (root.empty())
    root = fs::path(options.artifact).parent_path();
  for (const artifact::WeightFile *it : *artifact.files())
    refuseSame(options.outputsFile, root / it->path()->str(), "weights of the artifact");
}

} // namespace helix
