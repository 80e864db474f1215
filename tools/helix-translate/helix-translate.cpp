//===- helix-translate.cpp - Between Helix and other formats ---------------===//
#include "helix/Errors.h"
#include "tools/helix-translate/Modes.h"

#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/WithColor.h"

namespace {

namespace cl = llvm::cl;

struct Mode {
  llvm::StringRef flag, description;
  llvm::LogicalResult (*run)(llvm::StringRef input, llvm::StringRef outputPath, llvm::raw_ostream &output);
};

const Mode kModes[] = {
    {"import-onnx", "An ONNX decoder to the helix dialect", helix::translate::importOnnxMode},
    {"import-huggingface", "The checkpoint in a directory, config.json and safetensors, to the helix dialect",
     helix::translate::importHuggingFaceMode},
    {"plan-to-hlx", "A complete plan to an artifact", helix::translate::planToHlxMode},
    {"hlx-to-text", "An artifact to text for people", helix::translate::hlxToTextMode},
};

} // namespace

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  auto category = cl::cat(helix::translate::optionCategory);
  cl::opt<const Mode *> mode(cl::desc("What to translate:"), cl::Required, category);
  for (const Mode &known : kModes)
    mode.getParser().addLiteralOption(known.flag, &known, known.description);
  cl::opt<std::string> input(cl::Positional, cl::desc("<input file; standard input if -, for a plan>"), cl::init("-"));
  cl::opt<std::string> outputPath("o", cl::desc("Output file; standard output if -"), cl::value_desc("file"),
                                  cl::init("-"), category);
  cl::HideUnrelatedOptions(helix::translate::optionCategory);
  cl::ParseCommandLineOptions(argc, argv, "Helix: translate between formats\n");

  if (input != "-" && outputPath != "-" && llvm::sys::fs::equivalent(input, outputPath)) {
    llvm::WithColor::error(llvm::errs(), "helix-translate")
        << helix::errorPrefix(helix::ErrorCode::OutputIsInput) << "the output '" << outputPath
        << "' is the input; write to another file\n";
    return 1;
  }

  // Written whole or not at all.
  llvm::Error error = llvm::writeToOutput(outputPath, [&](llvm::raw_ostream &output) {
    return llvm::failed(mode->run(input, outputPath, output)) ? llvm::createStringError("") : llvm::Error::success();
  });
  if (!error)
    return 0;
  // A mode has reported its own failure.
  std::string message = llvm::toString(std::move(error));
  if (!message.empty())
    llvm::WithColor::error(llvm::errs(), "helix-translate") << outputPath << ": " << message << '\n';
  return 1;
}
