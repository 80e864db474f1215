//===- Import.cpp - helix-translate --import-onnx, --import-huggingface ----===//
#include "dialects/Helix/Helix.h"
#include "helix/Errors.h"
#include "lib/Import/HuggingFace/HuggingFace.h"
#include "tools/Dtypes.h"
#include "tools/helix-translate/Modes.h"

#include "mlir/IR/Diagnostics.h"

#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;

namespace {

namespace cl = llvm::cl;

auto category() { return cl::cat(helix::translate::optionCategory); }

cl::opt<bool> stateless("stateless", category(),
                        cl::desc("The model is no decoder but a function of tensors with fixed shapes"));
cl::opt<int64_t> batch("batch", cl::desc("Slots: sequences per step"), cl::init(1), category());
cl::opt<int64_t> maxContext("max-context", cl::init(0), category(),
                            cl::desc("Tokens that a slot can hold (default: the length of the rotary tables)"));
cl::opt<int64_t> prefillChunk("prefill-chunk", cl::init(0), category(),
                              cl::desc("Tokens per slot of the prefill entry (default 0: no such entry)"));
cl::opt<bool> allLogits("all-logits", category(),
                        cl::desc("Let the prefill entry return the logits of all its tokens"));
cl::opt<int64_t> block("block", cl::desc("Tokens in a block of the KV cache"), cl::init(16), category());

cl::opt<helix::Dtype> weightDtype("weight-dtype", cl::desc("Element type of linear weights and the embedding table:"),
                                  helix::weightDtypes(), cl::init(helix::Dtype::F32), category());
cl::opt<helix::Dtype> activations("activations",
                                  cl::desc("What activations are rounded to before they are multiplied with weights of "
                                           "a few bits:"),
                                  helix::activationDtypes(), cl::init(helix::Dtype::F32), category());
cl::opt<helix::Dtype> kvDtype("kv-dtype", cl::desc("Element type of the KV caches:"), helix::kvDtypes(),
                              cl::init(helix::Dtype::F32), category());
cl::opt<double> kvScale("kv-scale", cl::init(0), cl::value_desc("S"), category(),
                        cl::desc("One scale for all keys and values of int8 and fp8-e4m3 caches (default: each token "
                                 "and head has its own)"));
cl::opt<std::string> weightsRoot("weights-root", cl::value_desc("directory"), category(),
                                 cl::desc("Where external data may lie besides the model's directory"));
cl::opt<std::string> inlineWeights("inline-weights", cl::value_desc("file.safetensors"), category(),
                                   cl::desc("Where to put weights whose bytes are inside the protobuf"));
cl::opt<bool> explainImport("explain-import", category(),
                            cl::desc("Say on stderr what was raised from which nodes, and what was taken as it is"));

using Importer = OwningOpRef<ModuleOp> (*)(MLIRContext &, StringRef, const helix::ImportOptions &);

/// Runs one of the importers on `input` and prints its module.
LogicalResult importWith(Importer import, StringRef input, StringRef outputPath, raw_ostream &output) {
  using namespace helix;
  MLIRContext context(MLIRContext::Threading::DISABLED);
  // The message names the node and its op, so the location would repeat it.
  ScopedDiagnosticHandler handler(&context, [](Diagnostic &diagnostic) {
    llvm::WithColor::error(llvm::errs(), "helix-translate") << diagnostic << '\n';
    return success();
  });
  ImportOptions options;
  options.batch = batch;
  options.maxContext = maxContext;
  options.prefillChunk = prefillChunk;
  options.allLogits = allLogits;
  options.block = block;
  options.weightDtype = weightDtype;
  options.activations = activations;
  options.kvDtype = kvDtype;
  options.kvScale = kvScale;
  options.weightsRoot = weightsRoot;
  options.inlineWeightsPath = inlineWeights;
  options.explanation = explainImport ? &llvm::errs() : nullptr;
  OwningOpRef<ModuleOp> module = import(context, input, options);
  if (!module)
    return failure();
  WalkResult walk = module->walk([&](WeightOp weight) {
    SmallString<256> path(modelDirectory(input));
    llvm::sys::path::append(path, weight.getFile());
    if (!llvm::sys::fs::equivalent(path, outputPath))
      return WalkResult::advance();
    return WalkResult(weight.emitError(errorPrefix(ErrorCode::OutputIsInput))
                      << "the output '" << outputPath << "' holds the model's weights; write to another file");
  });
  if (walk.wasInterrupted())
    return failure();
  // Locations carry the names of the nodes, which later stages report and trace by.
  module->print(output, OpPrintingFlags().enableDebugInfo());
  output << '\n';
  return success();
}

} // namespace

LogicalResult helix::translate::importOnnxMode(StringRef input, StringRef outputPath, raw_ostream &output) {
  return importWith(stateless ? importStateless : importOnnx, input, outputPath, output);
}

LogicalResult helix::translate::importHuggingFaceMode(StringRef input, StringRef outputPath, raw_ostream &output) {
  return importWith(importHuggingFace, input, outputPath, output);
}
