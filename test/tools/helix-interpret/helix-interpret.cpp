//===- helix-interpret.cpp - A model in the reference interpreter ------------===//
#include "lib/Interpreter/Interpreter.h"
#include "test/tools/helix-interpret/Npz.h"
#include "test/tools/helix-interpret/Scoring.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;
using namespace helix;

namespace cl = llvm::cl;

namespace {

struct Arguments {
  std::string model, modelDir, prompts, outputs, mutant;
  int64_t decodeLast, tokens;
  bool roundActivations;
};

Arguments parseArguments(int argc, char **argv) {
  static cl::OptionCategory category("helix-interpret");
  static cl::opt<std::string> model(cl::Positional, cl::desc("<module of either helix level, or - for stdin>"),
                                    cl::Required, cl::cat(category));
  static cl::opt<std::string> modelDir("model-dir", cl::desc("Directory of the weights' files"), cl::init("."),
                                       cl::cat(category));
  static cl::opt<std::string> prompts("prompts", cl::desc("JSON lines, {\"ids\": [...]} each"), cl::Required,
                                      cl::cat(category));
  static cl::opt<std::string> outputs("outputs", cl::desc("Write logits_<prompt> [tokens, vocabulary] to this .npz"),
                                      cl::cat(category));
  static cl::opt<std::string> mutant("mutant", cl::desc("Interpret with this deliberate bug"), cl::cat(category));
  static cl::opt<int64_t> decodeLast("decode-last", cl::init(0), cl::cat(category),
                                     cl::desc("Tokens at the end of a prompt that are decoded one by one; those before "
                                              "go through @prefill where it can give the logits asked for"));
  static cl::opt<int64_t> tokens("tokens", cl::init(0), cl::cat(category),
                                 cl::desc("Generate so many tokens, each the likeliest, and print them"));
  static cl::opt<bool> roundActivations("round-activations", cl::cat(category),
                                        cl::desc("Round the result of every op to f32"));
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(argc, argv,
                              "A model in the reference interpreter: float64, op by op, on simulated ranks\n");
  return {model, modelDir, prompts, outputs, mutant, decodeLast, tokens, roundActivations};
}

llvm::Expected<std::vector<Sequence>> readPrompts(StringRef path) {
  auto file = llvm::MemoryBuffer::getFile(path, /*IsText=*/true);
  if (!file)
    return llvm::createStringError("cannot read " + path.str() + ": " + file.getError().message());
  std::vector<Sequence> sequences;
  int64_t number = 0;
  for (StringRef line : llvm::split((*file)->getBuffer(), '\n')) {
    ++number;
    if (line.trim().empty())
      continue;
    auto wrong = [&] {
      return llvm::createStringError(path.str() + ":" + std::to_string(number) +
                                     ": a prompt is {\"ids\": [...]} with at least one token id");
    };
    llvm::Expected<llvm::json::Value> value = llvm::json::parse(line);
    if (!value) {
      llvm::consumeError(value.takeError());
      return wrong();
    }
    const llvm::json::Object *object = value->getAsObject();
    const llvm::json::Array *ids = object ? object->getArray("ids") : nullptr;
    if (!ids || ids->empty())
      return wrong();
    Sequence &sequence = sequences.emplace_back();
    for (const llvm::json::Value &id : *ids) {
      std::optional<int64_t> number = id.getAsInteger();
      if (!number)
        return wrong();
      sequence.ids.push_back(*number);
    }
    sequence.prompt = sequence.ids.size();
  }
  return sequences;
}

/// How many tokens at the end of a prompt are decoded: all where @prefill cannot give the logits asked for.
int64_t decodedTokens(const Interpreter &interpreter, const Arguments &arguments) {
  EntryAttr prefill = interpreter.entry("prefill");
  bool usable = prefill && (prefill.getLogits() == LogitRows::All || arguments.outputs.empty());
  return usable ? arguments.decodeLast : std::numeric_limits<int64_t>::max();
}

llvm::Error run(const Arguments &arguments, MLIRContext &context, llvm::SourceMgr &sources) {
  // Where a diagnostic has been printed, nothing is left to say.
  auto reported = [] { return llvm::createStringError(""); };
  llvm::Expected<std::vector<Sequence>> sequences = readPrompts(arguments.prompts);
  if (!sequences)
    return sequences.takeError();
  InterpreterOptions options;
  options.roundActivations = arguments.roundActivations;
  if (!arguments.mutant.empty()) {
    std::optional<Mutant> mutant = symbolizeMutant(arguments.mutant);
    if (!mutant)
      return llvm::createStringError("unknown mutant " + arguments.mutant + "; there are " +
                                     llvm::join(mutantNames(), ", "));
    options.mutant = *mutant;
  }

  OwningOpRef<ModuleOp> module = parseSourceFile<ModuleOp>(arguments.model, sources, ParserConfig(&context));
  if (!module)
    return reported();
  auto interpreter = Interpreter::create(*module, arguments.modelDir, options);
  if (failed(interpreter))
    return reported();
  if (!(*interpreter)->entry("decode"))
    return llvm::createStringError("the module has no entry @decode");
  EntryAttr prefill = (*interpreter)->entry("prefill");
  if (prefill && prefill.getBatch() != (*interpreter)->entry("decode").getBatch())
    return llvm::createStringError("@prefill and @decode differ in their number of slots");
  int64_t decoded = decodedTokens(**interpreter, arguments);
  if (failed(score(**interpreter, *sequences, {decoded, arguments.tokens, !arguments.outputs.empty()})))
    return reported();
  for (const Sequence &sequence : *sequences)
    if (arguments.tokens > 0) {
      llvm::interleave(ArrayRef(sequence.ids).drop_front(sequence.prompt), llvm::outs(), ",");
      llvm::outs() << "\n";
    }
  if (arguments.outputs.empty())
    return llvm::Error::success();
  std::vector<Matrix> matrices;
  for (auto [i, sequence] : llvm::enumerate(*sequences))
    matrices.push_back(
        {"logits_" + std::to_string(i), sequence.fed, (*interpreter)->vocabulary(), std::move(sequence.logits)});
  return writeNpz(arguments.outputs, matrices);
}

} // namespace

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  Arguments arguments = parseArguments(argc, argv);
  DialectRegistry registry;
  registry.insert<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  MLIRContext context(registry);
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  llvm::Error error = run(arguments, context, sources);
  if (!error)
    return 0;
  std::string message = llvm::toString(std::move(error));
  if (!message.empty())
    llvm::WithColor::error(llvm::errs(), "helix-interpret") << message << "\n";
  return 1;
}
