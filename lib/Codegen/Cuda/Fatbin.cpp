//===- Fatbin.cpp - From PTX to a fat binary -------------------------------===//
#include "lib/Codegen/Cuda/Cuda.h"

#include "helix/Errors.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;

namespace helix::codegen {
namespace {

/// A program of the CUDA toolkit; empty if it is not found.
std::string toolkitProgram(StringRef name) {
  // Without a toolkit of its own choice the one that a shell would find.
  std::optional<std::string> home = llvm::sys::Process::GetEnv("CUDA_HOME");
  if (home) {
    SmallString<128> directory(*home);
    llvm::sys::path::append(directory, "bin");
    auto program = llvm::sys::findProgramByName(name, {StringRef(directory)});
    return program ? *program : "";
  }
  if (auto program = llvm::sys::findProgramByName(name))
    return *program;
  auto program = llvm::sys::findProgramByName(name, {"/usr/local/cuda/bin"});
  return program ? *program : "";
}

/// Temporary files of one call; they and their directory go with it.
class Workspace {
public:
  explicit Workspace(Location loc) : loc(loc) {}

  LogicalResult open() {
    if (std::error_code error = llvm::sys::fs::createUniqueDirectory("helix-codegen", directory))
      return fail() << "cannot make a temporary directory: " << error.message();
    return success();
  }
  ~Workspace() {
    for (const std::string &file : files)
      llvm::sys::fs::remove(file);
    if (!directory.empty())
      llvm::sys::fs::remove(directory);
  }

  std::string path(StringRef name) {
    SmallString<128> file(directory);
    llvm::sys::path::append(file, name);
    files.push_back(file.str().str());
    return files.back();
  }

  LogicalResult write(const std::string &file, StringRef text) {
    std::error_code error;
    llvm::raw_fd_ostream stream(file, error);
    stream << text;
    stream.close();
    if (!error && !stream.has_error())
      return success();
    stream.clear_error();
    return fail() << "cannot write " << file;
  }

  FailureOr<std::string> read(const std::string &file) {
    auto contents = llvm::MemoryBuffer::getFile(file, /*IsText=*/false, /*RequiresNullTerminator=*/false);
    if (contents)
      return (*contents)->getBuffer().str();
    fail() << "cannot read " << file << ": " << contents.getError().message();
    return failure();
  }

  LogicalResult run(const std::string &program, ArrayRef<StringRef> arguments) {
    SmallVector<StringRef> all = {program};
    all.append(arguments.begin(), arguments.end());
    std::string log = path("log"), message;
    std::optional<StringRef> redirects[] = {StringRef(""), StringRef(log), StringRef(log)};
    if (llvm::sys::ExecuteAndWait(program, all, std::nullopt, redirects, /*SecondsToWait=*/120, /*MemoryLimit=*/0,
                                  &message) == 0)
      return success();
    auto said = llvm::MemoryBuffer::getFile(log);
    return fail() << program << " says: " << (said ? (*said)->getBuffer().take_front(2000).trim() : StringRef(message));
  }

private:
  InFlightDiagnostic fail() { return emitError(loc, errorPrefix(ErrorCode::ToolkitFailed)); }

  Location loc;
  SmallString<128> directory;
  SmallVector<std::string> files;
};

} // namespace

FailureOr<std::string> assemble(Location loc, StringRef ptx, StringRef ptxArch, ArrayRef<StringRef> archs,
                                std::string &features) {
  auto number = [](StringRef arch) { return arch.drop_front(3); }; // sm_90a → 90a
  features = ("ptx_" + number(ptxArch)).str();
  std::string ptxas = toolkitProgram("ptxas"), fatbinary = toolkitProgram("fatbinary");
  if (ptxas.empty() || fatbinary.empty())
    return (ptx + StringRef("\0", 1)).str();
  Workspace work(loc);
  if (failed(work.open()))
    return failure();
  std::string source = work.path("kernels.ptx"), output = work.path("kernels.fatbin");
  if (failed(work.write(source, ptx)))
    return failure();
  SmallVector<std::string> parts = {"--create=" + output, "-64"};
  for (StringRef arch : archs) {
    std::string cubin = work.path((arch + ".cubin").str());
    if (failed(work.run(ptxas, {"-O3", ("-arch=" + arch).str(), source, "-o", cubin})))
      return failure();
    parts.push_back(("--image3=kind=elf,sm=" + number(arch) + ",file=" + cubin).str());
    features += ("," + arch).str();
  }
  parts.push_back(("--image3=kind=ptx,sm=" + number(ptxArch) + ",file=" + source).str());
  if (failed(work.run(fatbinary, llvm::map_to_vector(parts, [](const std::string &part) { return StringRef(part); }))))
    return failure();
  return work.read(output);
}

} // namespace helix::codegen
