//===- helix-compile.cpp - From a decoder to an artifact -------------------===//
#include "helix/Errors.h"
#include "lib/Artifact/Writer.h"
#include "lib/Import/HuggingFace/HuggingFace.h"
#include "lib/Translate/PlanToHlx.h"
#include "passes/Passes.h"
#include "tools/Dtypes.h"
#include "tools/helix-compile/Bisect.h"
#include "tools/helix-compile/DumpStages.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Support/Timing.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;

namespace {

namespace cl = llvm::cl;

cl::OptionCategory category("Options of helix-compile");

struct Options {
  cl::opt<std::string> input{cl::Positional, cl::desc("<model.onnx, or directory of a Hugging Face checkpoint>"),
                             cl::Required, cl::cat(category)};
  cl::opt<std::string> output{"o", cl::value_desc("model.hlx"), cl::cat(category),
                              cl::desc("The artifact (default: beside the model, with the ending .hlx)")};

  cl::opt<bool> stateless{"stateless", cl::cat(category),
                          cl::desc("The model is no decoder but a function of tensors with fixed shapes, for one rank: "
                                   "helix-run calls it with --inputs and --outputs")};

  cl::opt<int64_t> ranks{"ranks", cl::init(0), cl::cat(category), cl::desc("Ranks (default: kvp * tpa)")};
  cl::opt<int64_t> kvp{"kvp", cl::init(0), cl::cat(category), cl::desc("Ranks that share each KV sequence")};
  cl::opt<int64_t> tpa{
      "tpa", cl::init(0), cl::cat(category),
      cl::desc("Ranks that share the attention heads (default: the largest divisor of the ranks and the KV heads)")};
  cl::opt<int64_t> tpf{"tpf", cl::init(0), cl::cat(category),
                       cl::desc("Ranks that share the FFN's columns (default: ranks / ep)")};
  cl::opt<int64_t> ep{"ep", cl::init(0), cl::cat(category), cl::desc("Ranks that share the experts (default: 1)")};
  cl::opt<bool> kvReplicate{
      "kv-replicate", cl::cat(category),
      cl::desc(
          "Allow more tpa ranks than KV heads: each KV head on tpa / KV heads of them (a baseline to compare with)")};
  cl::opt<int64_t> ffnRanks{"ffn-ranks", cl::init(0), cl::cat(category),
                            cl::desc("Put the FFN on the first so many ranks alone (a baseline to compare with)")};

  cl::opt<int64_t> batch{"batch", cl::init(1), cl::cat(category), cl::desc("Sequences per step (default 1)")};
  cl::opt<int64_t> maxContext{
      "max-context", cl::init(0), cl::cat(category),
      cl::desc(
          "Tokens that a sequence can have (default: the length of the rotary tables, or max_position_embeddings)")};
  cl::opt<int64_t> prefillChunk{"prefill-chunk", cl::init(0), cl::cat(category),
                                cl::desc("Tokens per sequence of a prefill step (default 0: prompts are decoded)")};
  cl::opt<bool> allLogits{"all-logits", cl::cat(category),
                          cl::desc("Let prefill return the logits of all its tokens, as scoring needs")};
  cl::opt<int64_t> block{"block", cl::init(16), cl::cat(category),
                         cl::desc("Tokens that one rank takes before the next does (default 16)")};

  cl::opt<helix::Dtype> weightDtype{"weight-dtype", helix::weightDtypes(), cl::init(helix::Dtype::F32),
                                    cl::cat(category),
                                    cl::desc("Element type of products' weights and the embedding (default f32):")};
  cl::opt<helix::Dtype> activations{
      "activations", helix::activationDtypes(), cl::init(helix::Dtype::F32), cl::cat(category),
      cl::desc("What activations are rounded to before they are multiplied with weights of a few bits (default f32: "
               "they are not); int8 is faster and less exact, on CPUs:")};
  cl::opt<helix::Dtype> kvDtype{"kv-dtype", helix::kvDtypes(), cl::init(helix::Dtype::F32), cl::cat(category),
                                cl::desc("Element type of the KV caches (default f32):")};
  cl::opt<double> kvScale{"kv-scale", cl::init(0), cl::value_desc("S"), cl::cat(category),
                          cl::desc("One scale for all keys and values of int8 and fp8-e4m3 caches (default: each token "
                                   "and head has its own, chosen as it is appended)")};

  cl::opt<std::string> hopb{
      "hopb", cl::init("off"), cl::value_desc("off|N|auto"), cl::cat(category),
      cl::desc("Hide the all-to-all behind attention: cut both into N chunks of the batch (of the "
               "tokens in prefill), or as many as take least time on --hardware (default off). The "
               "result is the same, bit for bit")};
  cl::opt<std::string> splitReduce{
      "split-reduce", cl::init("off"), cl::value_desc("off|N|auto"), cl::cat(category),
      cl::desc("Hide all-reduces behind the products before them: cut both into N chunks of columns (default off)")};
  cl::opt<bool> overlap{
      "overlap", cl::cat(category),
      cl::desc("Give collectives a stream of their own, beside which whatever does not need them runs "
               "(on with --hopb or --split-reduce)")};
  cl::opt<std::string> hardware{"hardware", cl::init("cpu"), cl::value_desc("system|file.json"), cl::cat(category),
                                cl::desc("What auto chooses and streams are scheduled for (default cpu); see "
                                         "docs/hardware.md")};
  cl::opt<int64_t> context{"context", cl::init(0), cl::cat(category),
                           cl::desc("Cached tokens per sequence that they are chosen for (default: --max-context)")};

  cl::opt<std::string> target{"target", cl::init("cpu"), cl::cat(category),
                              cl::desc("What to run on: cpu (default) or cuda")};
  cl::opt<std::string> cpuFeatures{"cpu-features", cl::init("x86-64-v3"), cl::cat(category),
                                   cl::desc("x86-64-v3 (default) or x86-64-v4")};
  cl::opt<std::string> cudaArch{"cuda-arch", cl::init("sm_80,sm_90a,sm_100"), cl::cat(category),
                                cl::desc("GPUs to assemble generated kernels for, if there is a CUDA toolkit (default "
                                         "sm_80,sm_90a,sm_100); PTX of the lowest is added for newer ones")};

  cl::opt<std::string> dumpDir{"dump-dir", cl::value_desc("directory"), cl::cat(category),
                               cl::desc("Write the IR after each stage there, as numbered files")};
  cl::opt<bool> explainImport{"explain-import", cl::cat(category),
                              cl::desc("Say what was raised from which nodes, and what was taken as it is")};
  cl::opt<std::string> bisect{
      "bisect", cl::value_desc("ref.npz"), cl::cat(category),
      cl::desc("Compile nothing: run the model in the reference interpreter and name the first ONNX node whose value "
               "differs from this reference (scripts/intermediates.py writes one)")};
  cl::opt<double> bisectTolerance{"bisect-tolerance", cl::init(1e-4), cl::cat(category),
                                  cl::desc("Relative to a value's largest element (default 1e-4)")};
  cl::opt<std::string> bisectMutant{"bisect-mutant", cl::Hidden, cl::cat(category),
                                    cl::desc("Interpret the sharded model with this deliberate bug")};
  cl::opt<std::string> weightsRoot{"weights-root", cl::value_desc("directory"), cl::cat(category),
                                   cl::desc("Where external data may lie besides the model's directory")};
};

const char *const kOverview =
    "Helix: compile a decoder, ONNX or a Hugging Face checkpoint, into an artifact that N ranks run\n\n"
    "  helix-compile model.onnx -o model.hlx --kvp 2 --tpa 2 --batch 4 --max-context 4096 --prefill-chunk 64\n"
    "  helix-compile Llama-3.2-1B/ -o llama.hlx --kvp 4 --max-context 4096 --weight-dtype bf16\n\n"
    "Weights stay in their files; the artifact finds them relative to itself.\n"
    "Also: --mlir-timing, --mlir-print-ir-after-all, --mlir-pass-pipeline-crash-reproducer=FILE.\n";

/// The name of the ONNX node in a location.
StringRef nodeOf(Location location) {
  if (auto name = dyn_cast<NameLoc>(location))
    return name.getName().getValue();
  if (auto fused = dyn_cast<FusedLoc>(location))
    for (Location part : fused.getLocations())
      if (StringRef name = nodeOf(part); !name.empty())
        return name;
  return {};
}

LogicalResult print(Diagnostic &diagnostic) {
  if (diagnostic.getSeverity() == DiagnosticSeverity::Error)
    llvm::WithColor::error(llvm::errs(), "helix-compile");
  else
    llvm::WithColor::note(llvm::errs(), "helix-compile");
  std::string message = diagnostic.str();
  llvm::errs() << message;
  if (StringRef node = nodeOf(diagnostic.getLocation()); !node.empty() && !StringRef(message).contains(node))
    llvm::errs() << " (ONNX node '" << node << "')";
  llvm::errs() << '\n';
  for (Diagnostic &note : diagnostic.getNotes())
    (void)print(note);
  return success();
}

LogicalResult invalidArgument(const Twine &message) {
  llvm::WithColor::error(llvm::errs(), "helix-compile")
      << helix::errorPrefix(helix::ErrorCode::CompileArgumentInvalid) << message << '\n';
  return failure();
}

LogicalResult check(const Options &options, StringRef output) {
  for (const cl::opt<int64_t> *size :
       {&options.ranks, &options.kvp, &options.tpa, &options.tpf, &options.ep, &options.ffnRanks})
    if (*size < 0 || (*size == 0 && size->getNumOccurrences()))
      return invalidArgument("--" + size->ArgStr + " " + Twine(*size) + ": take 1 or more, or leave it out");
  StringRef directory = llvm::sys::path::parent_path(output);
  if (!directory.empty() && !llvm::sys::fs::is_directory(directory))
    return invalidArgument("-o " + output + ": there is no directory '" + directory + "'");
  if (llvm::sys::fs::is_directory(output))
    return invalidArgument("-o " + output + " is a directory; name a file");
  if (llvm::sys::fs::equivalent(options.input, output))
    return invalidArgument("-o " + output + " would write over the model");
  if (options.activations == helix::Dtype::I8 && options.target == "cuda")
    return invalidArgument("--activations int8 is for CPUs; leave it out with --target cuda");
  return success();
}

/// An option that no weight is concerned by was meant for another model.
LogicalResult checkActivations(const Options &options, ModuleOp module) {
  if (options.activations == helix::Dtype::F32)
    return success();
  WalkResult found = module.walk([](helix::WeightOp weight) {
    return weight.quant() && weight.quant().getActivations() ? WalkResult::interrupt() : WalkResult::advance();
  });
  if (found.wasInterrupted())
    return success();
  return invalidArgument("--activations int8: no product of this model has a weight of a few bits; leave it out");
}

/// What concerns decoders has no effect on a stateless model.
LogicalResult checkStateless(const Options &options) {
  for (const cl::Option *option : std::initializer_list<const cl::Option *>{
           &options.kvReplicate, &options.ffnRanks, &options.batch, &options.maxContext, &options.prefillChunk,
           &options.allLogits, &options.block, &options.kvDtype, &options.hopb, &options.splitReduce, &options.overlap,
           &options.hardware, &options.context, &options.explainImport, &options.kvScale, &options.bisect})
    if (option->getNumOccurrences() != 0)
      return invalidArgument("--" + option->ArgStr + " has no effect with --stateless; leave one of them out");
  if (options.target != "cpu")
    return invalidArgument("--target " + options.target + ": stateless functions run on the CPU");
  return success();
}

/// Chunks that "off", "auto" or a number stand for: 1, 0, or it.
FailureOr<int64_t> chunksOf(const cl::opt<std::string> &option) {
  int64_t chunks = 0;
  if (option == "off")
    return int64_t{1};
  if (option == "auto")
    return int64_t{0};
  if (!StringRef(option).getAsInteger(10, chunks) && chunks >= 1)
    return chunks;
  return invalidArgument("--" + option.ArgStr + " " + option + ": take off, auto, or a number of chunks from 1 on");
}

bool isCheckpoint(const std::string &input) { return llvm::sys::fs::is_directory(input); }

/// Where the artifact goes if nothing is said: beside the model.
std::string defaultOutput(const std::string &input) {
  if (isCheckpoint(input)) {
    // The directory's name may have dots of its own.
    StringRef directory = input;
    while (directory.size() > 1 && llvm::sys::path::is_separator(directory.back()))
      directory = directory.drop_back();
    return (directory + ".hlx").str();
  }
  SmallString<256> beside(input);
  llvm::sys::path::replace_extension(beside, "hlx");
  return std::string(beside);
}

helix::ImportOptions importOptions(const Options &options, StringRef output) {
  helix::ImportOptions import;
  import.batch = options.batch;
  import.maxContext = options.maxContext;
  import.prefillChunk = options.prefillChunk;
  import.allLogits = options.allLogits;
  import.block = options.block;
  import.weightDtype = options.weightDtype;
  import.activations = options.activations;
  import.kvDtype = options.kvDtype;
  import.kvScale = options.kvScale;
  import.weightsRoot = options.weightsRoot;
  import.explanation = options.explainImport ? &llvm::errs() : nullptr;
  // The model's own weights may be model.safetensors, beside a model.hlx.
  SmallString<256> beside(output);
  llvm::sys::path::replace_extension(beside, "tables.safetensors");
  import.inlineWeightsPath = beside.str();
  return import;
}

void summarise(const helix::artifact::ArtifactT &artifact, const Options &options, StringRef output) {
  uint64_t code = 0;
  for (const auto &image : artifact.images)
    code += image->code.size();
  llvm::errs() << output << ": " << artifact.mesh->tpa * artifact.mesh->kvp << " ranks (kvp " << artifact.mesh->kvp
               << " x tpa " << artifact.mesh->tpa << "; ";
  if (options.ffnRanks)
    llvm::errs() << "FFN on the first " << options.ffnRanks;
  else
    llvm::errs() << "tpf " << artifact.mesh->tpf << " x ep " << artifact.mesh->ep;
  llvm::errs() << "), " << artifact.weights.size() << " weights, " << artifact.kernels.size()
               << " generated kernels in " << code << " bytes\n";
  for (const auto &entry : artifact.entries) {
    llvm::errs() << "  " << helix::artifact::EnumNameEntryKind(entry->kind) << ": ";
    if (entry->kind == helix::artifact::EntryKind::Stateless)
      llvm::errs() << entry->inputs.size() << " inputs, " << entry->outputs.size() << " outputs, ";
    else
      llvm::errs() << "batch " << entry->batch << ", tokens " << entry->tokens << ", ";
    llvm::errs() << entry->commands.size() << " commands on " << entry->streams
                 << (entry->streams == 1 ? " stream" : " streams") << ", arenas of " << entry->device_bytes << " + "
                 << entry->comm_bytes << " bytes\n";
  }
}

LogicalResult compile(const Options &options, TimingScope &timing) {
  std::string output = options.output;
  if (output.empty())
    output = defaultOutput(options.input);
  if (failed(check(options, output)) || (options.stateless && failed(checkStateless(options))))
    return failure();
  if (options.context < 0)
    return invalidArgument("--context " + Twine(options.context) + ": take 1 or more, or leave it out");

  DialectRegistry registry;
  registry.insert<helix::HelixDialect, helix::plan::PlanDialect>();
  MLIRContext context(registry);
  context.printOpOnDiagnostic(false);
  ScopedDiagnosticHandler handler(&context, print);

  helix::PipelineOptions pipeline;
  pipeline.shard = {options.ranks, options.kvp,         options.tpa,     options.ep,
                    options.tpf,   options.kvReplicate, options.ffnRanks};
  FailureOr<int64_t> hopb = chunksOf(options.hopb), splitReduce = chunksOf(options.splitReduce);
  if (failed(hopb) || failed(splitReduce))
    return failure();
  pipeline.hopb = {*hopb, options.hardware, options.context};
  pipeline.splitReduce = {*splitReduce, options.hardware};
  pipeline.codegen = {options.target, options.cpuFeatures, options.cudaArch};
  pipeline.schedule = {options.overlap || *hopb != 1 || *splitReduce != 1, options.hardware, options.context};

  if (!options.bisect.empty()) {
    if (isCheckpoint(options.input))
      return invalidArgument("--bisect compares values of an ONNX graph, which a checkpoint has not");
    return helix::bisect(context, {options.input, options.bisect, options.bisectTolerance, options.bisectMutant},
                         importOptions(options, output), pipeline);
  }

  helix::ImportOptions importing = importOptions(options, output);
  // What is there stays as it is unless all else is done.
  importing.inlineWeightsSuffix = ("." + Twine(llvm::sys::Process::getProcessId()) + ".tmp").str();
  std::string pending = importing.inlineWeightsPath + importing.inlineWeightsSuffix;
  llvm::FileRemover remover(pending);
  OwningOpRef<ModuleOp> module;
  {
    TimingScope scope = timing.nest("import");
    auto import = options.stateless             ? helix::importStateless
                  : isCheckpoint(options.input) ? helix::importHuggingFace
                                                : helix::importOnnx;
    module = import(context, options.input, importing);
    if (!module || failed(checkActivations(options, *module)))
      return failure();
  }

  PassManager pm(&context);
  if (failed(applyPassManagerCLOptions(pm)))
    return failure();
  pm.enableTiming(timing);
  helix::buildHelixPipeline(pm, pipeline);
  helix::DumpStages *dumps = nullptr;
  if (!options.dumpDir.empty()) {
    auto owned = std::make_unique<helix::DumpStages>(options.dumpDir);
    dumps = owned.get();
    if (failed(dumps->prepare(&context)))
      return failure();
    dumps->dump(*module, "import");
    pm.addInstrumentation(std::move(owned));
  }
  if (failed(pm.run(*module)) || (dumps && dumps->hasFailed()))
    return failure();

  TimingScope scope = timing.nest("write");
  StringRef directory = llvm::sys::path::parent_path(output);
  std::optional<helix::artifact::ArtifactT> artifact =
      helix::planToArtifact(*module, {helix::modelDirectory(options.input), directory.empty() ? "." : directory.str(),
                                      output, importing.inlineWeightsSuffix});
  if (!artifact)
    return failure();
  helix::artifact::Error error;
  if (!helix::artifact::writeArtifact(*artifact, output, error)) {
    llvm::WithColor::error(llvm::errs(), "helix-compile") << error.message << '\n';
    return failure();
  }
  if (llvm::sys::fs::exists(pending))
    if (std::error_code code = llvm::sys::fs::rename(pending, importing.inlineWeightsPath)) {
      llvm::WithColor::error(llvm::errs(), "helix-compile")
          << helix::errorPrefix(helix::ErrorCode::InlineWeightsUnwritable) << "cannot write '"
          << importing.inlineWeightsPath << "': " << code.message() << '\n';
      return failure();
    }
  summarise(*artifact, options, output);
  return success();
}

} // namespace

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  registerPassManagerCLOptions();
  registerDefaultTimingManagerCLOptions();
  Options options;
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(argc, argv, kOverview);
  DefaultTimingManager manager;
  applyDefaultTimingManagerCLOptions(manager);
  TimingScope timing = manager.getRootScope();
  return failed(compile(options, timing));
}
