//===- PlanToHlx.cpp - helix-translate --plan-to-hlx, --hlx-to-text --------===//
#include "lib/Translate/PlanToHlx.h"
#include "dialects/Plan/Plan.h"
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/Writer.h"
#include "lib/Translate/HlxToText.h"
#include "tools/helix-translate/Modes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"

#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;

namespace {

namespace cl = llvm::cl;

auto category() { return cl::cat(helix::translate::optionCategory); }

cl::opt<std::string> modelDirectory("model-dir", cl::value_desc("directory"), cl::init("."), category(),
                                    cl::desc("For --plan-to-hlx: the model's directory, where its weights lie"));
cl::opt<std::string> artifactDirectory(
    "artifact-dir", cl::value_desc("directory"), category(),
    cl::desc("For --plan-to-hlx: the directory that the artifact is for (default: that of the output file)"));

LogicalResult fail(const helix::artifact::Error &error) {
  llvm::WithColor::error(llvm::errs(), "helix-translate") << error.message << '\n';
  return failure();
}

} // namespace

LogicalResult helix::translate::planToHlxMode(StringRef input, StringRef outputPath, raw_ostream &output) {
  DialectRegistry registry;
  // A module of an earlier level is read too, and refused with what it lacks.
  registry.insert<HelixDialect, plan::PlanDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect,
                  tensor::TensorDialect>();
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  OwningOpRef<ModuleOp> module = parseSourceFile<ModuleOp>(input, sources, &context);
  if (!module)
    return failure();
  std::string directory = artifactDirectory;
  if (directory.empty())
    directory = llvm::sys::path::parent_path(outputPath).str();
  std::optional<artifact::ArtifactT> artifact =
      planToArtifact(*module, {modelDirectory, directory.empty() ? "." : directory, outputPath.str()});
  if (!artifact)
    return failure();
  artifact::Error error;
  std::vector<uint8_t> bytes;
  if (!artifact::encodeArtifact(*artifact, bytes, error) || !artifact::verifyArtifact(bytes, error))
    return fail(error);
  output.write(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  return success();
}

LogicalResult helix::translate::hlxToTextMode(StringRef input, StringRef, raw_ostream &output) {
  artifact::Error error;
  artifact::LoadedArtifact artifact = artifact::readArtifact(input.str(), error);
  if (!artifact)
    return fail(error);
  printArtifact(*artifact, output);
  return success();
}
