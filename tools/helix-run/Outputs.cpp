//===- Outputs.cpp - Whether what a run writes may be written --------------===//
#include "Run.h"
#include "runtime/Error.h"

#include <filesystem>
#include <unistd.h>

namespace helix {
namespace {

namespace fs = std::filesystem;

/// A file that the run writes.
struct Output {
  std::string flag, path;
  ErrorCode code; ///< if it cannot be written
};

std::vector<Output> outputsOf(const RunOptions &options) {
  std::vector<Output> outputs = {{"--outputs", options.outputsFile, ErrorCode::NpzInvalid},
                                 {"--trace", options.traceFile, ErrorCode::ReportUnwritable},
                                 {"--report", options.reportFile, ErrorCode::ReportUnwritable}};
  std::erase_if(outputs, [](const Output &it) { return it.path.empty(); });
  return outputs;
}

void refuseSame(const Output &output, const fs::path &path, const std::string &what) {
  std::error_code ignored; // a file that is not there is not harmed
  if (fs::equivalent(output.path, path, ignored))
    throw Error(ErrorCode::RunArgumentInvalid,
                output.flag + " '" + output.path + "' would overwrite " + what + "; name another file");
}

void checkOutput(const Output &output, const RunOptions &options) {
  auto fail = [&](const std::string &reason) {
    return Error(output.code, output.flag + " '" + output.path + "': " + reason);
  };
  std::error_code code;
  fs::file_status status = fs::status(output.path, code);
  if (fs::is_directory(status))
    throw fail("it is a directory; name a file in it");
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw fail(std::string("it is not a regular file, and ") +
               (output.code == ErrorCode::NpzInvalid ? "an .npz file" : "this") +
               " cannot be written to a device or pipe");
  fs::path directory = fs::path(output.path).parent_path();
  if (directory.empty())
    directory = ".";
  if (!fs::is_directory(directory, code))
    throw fail("'" + directory.string() + "' is not a directory; make it first");
  if (::access(directory.c_str(), W_OK | X_OK) != 0)
    throw fail("no file can be made in '" + directory.string() + "'");
  refuseSame(output, options.artifact, "the artifact");
  if (!options.inputsFile.empty())
    refuseSame(output, options.inputsFile, "the file of --inputs");
  if (!options.promptsFile.empty())
    refuseSame(output, options.promptsFile == "-" ? "/dev/stdin" : options.promptsFile, "the file of --prompts");
}

} // namespace

void checkOutputs(const RunOptions &options) {
  std::vector<Output> outputs = outputsOf(options);
  for (size_t i = 0; i < outputs.size(); ++i) {
    checkOutput(outputs[i], options);
    for (size_t j = 0; j < i; ++j) {
      // They need not be there yet.
      std::error_code ignored;
      if (outputs[i].path == outputs[j].path || fs::equivalent(outputs[i].path, outputs[j].path, ignored))
        throw Error(ErrorCode::RunArgumentInvalid, outputs[j].flag + " and " + outputs[i].flag + " are both '" +
                                                       outputs[i].path + "'; name another file");
    }
  }
}

void checkOutputsAgainstWeights(const RunOptions &options, const artifact::Artifact &artifact) {
  if (!artifact.files())
    return;
  fs::path root = options.session.weightsRoot;
  if (root.empty())
    root = fs::path(options.artifact).parent_path();
  for (const Output &output : outputsOf(options))
    for (const artifact::WeightFile *it : *artifact.files())
      refuseSame(output, root / it->path()->str(), "weights of the artifact");
}

} // namespace helix
