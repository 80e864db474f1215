//===- Bisect.cpp - The first node that differs from a reference -----------===//
#include "tools/helix-compile/Bisect.h"

#include "helix/Errors.h"
#include "lib/Interpreter/Interpreter.h"
#include "tools/helix-compile/Reference.h"

#include "mlir/Pass/PassManager.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/WithColor.h"

#include <cmath>

using namespace mlir;

namespace helix {
namespace {

LogicalResult fail(ErrorCode code, const Twine &message) {
  llvm::WithColor::error(llvm::errs(), "helix-compile") << errorPrefix(code) << message << '\n';
  return failure();
}

std::string shapeText(ArrayRef<int64_t> shape) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << '[';
  llvm::interleaveComma(shape, os);
  os << ']';
  return text;
}

std::string numberText(double value) {
  std::string text;
  llvm::raw_string_ostream(text) << llvm::format("%.6g", value);
  return text;
}

using Groups = SmallVector<SmallVector<unsigned, 2>, 4>;

/// A tensor in the order, and of the shape, that the graph sees.
Tensor seenAs(const Tensor &tensor, const Groups &groups) {
  if (groups.empty())
    return tensor;
  SmallVector<int64_t> strides(tensor.shape.size(), 1), shape, sizes, steps;
  for (size_t d = strides.size(); d-- > 1;)
    strides[d - 1] = strides[d] * tensor.shape[d];
  for (ArrayRef<unsigned> group : groups) {
    shape.push_back(1);
    for (unsigned d : group) {
      shape.back() *= tensor.shape[d];
      sizes.push_back(tensor.shape[d]);
      steps.push_back(strides[d]);
    }
  }
  Tensor result{ArrayRef<int64_t>(shape)};
  for (int64_t flat = 0; flat < result.size(); ++flat) {
    int64_t rest = flat, source = 0;
    for (size_t d = sizes.size(); d-- > 0;) {
      source += rest % sizes[d] * steps[d];
      rest /= sizes[d];
    }
    result.values[flat] = tensor.values[source];
  }
  return result;
}

/// How far a value is from its reference.
struct Difference {
  double error = 0;   ///< max|ours - theirs|
  double largest = 0; ///< max|theirs|
  size_t worst = 0;
  double relative() const { return error == 0 ? 0 : error / largest; }
};

Difference compare(ArrayRef<double> ours, ArrayRef<double> theirs) {
  Difference difference;
  for (size_t i = 0; i < theirs.size(); ++i) {
    double error =
        ours[i] == theirs[i] || (std::isnan(ours[i]) && std::isnan(theirs[i])) ? 0 : std::abs(ours[i] - theirs[i]);
    if (std::isnan(error))
      error = std::numeric_limits<double>::infinity();
    if (std::isfinite(theirs[i]))
      difference.largest = std::max(difference.largest, std::abs(theirs[i]));
    if (error > difference.error)
      difference.error = error, difference.worst = i;
  }
  return difference;
}

/// One run in the interpreter, and what its values are to be.
struct Comparison {
  const BisectOptions &options;
  const std::map<std::string, ReferenceArray> &reference;
  ArrayRef<ImportedValue> values;
  std::string level;
  /// By value of the graph.
  std::map<std::string, TensorRef> found = {};
  std::map<std::string, std::string> becameOf = {};

  /// Runs `prefill` of the module on the reference's sequences, each op's results going to `observe`.
  LogicalResult run(ModuleOp module, Mutant mutant,
                    const std::function<void(Operation *, ArrayRef<RankValues>)> &observe) {
    InterpreterOptions interpret;
    interpret.mutant = mutant;
    interpret.observe = observe;
    auto interpreter = Interpreter::create(module, modelDirectory(options.model), interpret);
    if (failed(interpreter))
      return failure();
    const ReferenceArray &ids = reference.at("input_ids");
    std::vector<int64_t> tokens(ids.values.begin(), ids.values.end());
    std::vector<int64_t> past(ids.shape[0], 0), lengths(ids.shape[0], ids.shape[1]);
    return (*interpreter)->runEntry("prefill", tokens, past, lengths);
  }

  std::string describe(const ImportedValue &value, const Tensor &ours, const ReferenceArray &theirs,
                       const Difference &difference) const {
    std::string text = "node '" + value.node + "' (" + value.op + "): value '" + value.name + "' " +
                       shapeText(theirs.shape) + ", " + becameOf.at(value.name) + " here, ";
    if (ArrayRef<int64_t>(theirs.shape) != ArrayRef<int64_t>(ours.shape))
      return text + "has shape " + shapeText(ours.shape);
    SmallVector<int64_t> index;
    auto rest = static_cast<int64_t>(difference.worst);
    for (int64_t size : llvm::reverse(theirs.shape)) {
      index.insert(index.begin(), rest % size);
      rest /= size;
    }
    return text + "differs by up to " + numberText(difference.error) + " where the largest element is " +
           numberText(difference.largest) + " (" + numberText(difference.relative()) + " of it): at " +
           shapeText(index) + " it is " + numberText(ours.values[difference.worst]) + " and should be " +
           numberText(theirs.values[difference.worst]);
  }

  /// Compares in the graph's order and reports.
  LogicalResult report(raw_ostream &os) const {
    int64_t compared = 0;
    double largest = 0;
    const ImportedValue *last = nullptr;
    for (const ImportedValue &value : values) {
      auto ours = found.find(value.name);
      auto theirs = reference.find(value.name);
      if (ours == found.end() || theirs == reference.end())
        continue;
      Tensor seen = seenAs(*ours->second, value.groups);
      bool fits = ArrayRef<int64_t>(theirs->second.shape) == ArrayRef<int64_t>(seen.shape);
      Difference difference = fits ? compare(seen.values, theirs->second.values) : Difference();
      if (!fits || difference.relative() > options.tolerance) {
        os << level << ": " << compared << " values agree"
           << (last ? ", the last of them '" + last->name + "' of node '" + last->node + "'" : "") << '\n';
        reportBetween(os, last, value);
        return fail(ErrorCode::BisectDiffers, level + ": " + describe(value, seen, theirs->second, difference));
      }
      ++compared;
      largest = std::max(largest, difference.relative());
      last = &value;
    }
    if (compared == 0)
      return fail(ErrorCode::BisectReference, level + ": no value of '" + options.reference +
                                                  "' has the name of one of the graph's that is to be compared");
    os << level << ": all " << compared << " values agree, to " << numberText(largest) << '\n';
    return success();
  }

  /// What the graph has between the last value that agrees and the first that differs, and cannot be compared.
  void reportBetween(raw_ostream &os, const ImportedValue *last, const ImportedValue &first) const {
    constexpr size_t kMost = 12;
    SmallVector<std::string> between;
    bool isBehind = last == nullptr;
    for (const ImportedValue &value : values) {
      if (value.name == first.name)
        break;
      if (isBehind)
        between.push_back("'" + value.node + "' (" + value.op + ")");
      isBehind |= last && value.name == last->name;
    }
    if (between.empty())
      return;
    os << "  not compared between them, as they have no value of their own here or in the reference: ";
    llvm::interleaveComma(ArrayRef(between).take_front(kMost), os);
    os << (between.size() > kMost ? ", ...\n" : "\n");
  }
};

/// The names of the nodes that a location says, the last of them first: that of the value.
StringRef nameOf(Location location) {
  if (auto name = dyn_cast<NameLoc>(location))
    return name.getName().getValue();
  if (auto fused = dyn_cast<FusedLoc>(location))
    return fused.getLocations().empty() ? StringRef() : nameOf(fused.getLocations().back());
  return {};
}

/// Whether a value that op `was` made at model level may be the whole result of `is` on every rank. A bias of a reduced
/// product is added behind the reduction.
bool isSame(Operation *was, Operation *is) {
  auto product = dyn_cast<LinearOp>(was);
  if (product && product.getBias() && !isa<LinearOp>(is))
    return isa<arith::AddFOp>(is);
  if (isa<LinearOp, EmbeddingOp>(was) && isa<AllReduceOp, FFNOp>(is))
    return true;
  return was->getName() == is->getName();
}

LogicalResult compareImported(ModuleOp module, Comparison &comparison) {
  DenseMap<Value, SmallVector<const ImportedValue *>> wanted;
  for (const ImportedValue &value : comparison.values)
    if (value.value && comparison.reference.contains(value.name)) {
      wanted[value.value].push_back(&value);
      Operation *op = value.value.getDefiningOp();
      comparison.becameOf[value.name] = op ? op->getName().getStringRef().str() : "an argument";
    }
  auto observe = [&](Operation *op, ArrayRef<RankValues> results) {
    for (auto [result, value] : llvm::zip(op->getResults(), results))
      for (const ImportedValue *imported : wanted.lookup(result))
        comparison.found[imported->name] = value.front().tensor;
  };
  if (failed(comparison.run(module, Mutant::None, observe)))
    return failure();
  return comparison.report(llvm::outs());
}

/// The same on the mesh, in a module that passes made of `module`: what is whole on each rank has kept its node's name
/// and its shape.
LogicalResult compareSharded(ModuleOp sharded, Comparison &comparison, Mutant mutant) {
  llvm::StringMap<SmallVector<std::pair<const ImportedValue *, Operation *>>> wanted;
  for (const ImportedValue &value : comparison.values)
    if (Operation *op = value.value ? value.value.getDefiningOp() : nullptr;
        op && comparison.reference.contains(value.name))
      if (StringRef name = nameOf(op->getLoc()); !name.empty())
        wanted[name].push_back({&value, op});
  auto observe = [&](Operation *op, ArrayRef<RankValues> results) {
    auto known = wanted.find(nameOf(op->getLoc()));
    if (known == wanted.end() || op->getNumResults() != 1 || !isa<RankedTensorType>(op->getResult(0).getType()))
      return;
    for (auto [value, was] : known->second)
      if (op->getResult(0).getType() == value->value.getType() && isSame(was, op)) {
        comparison.found[value->name] = results.front().front().tensor;
        comparison.becameOf[value->name] = op->getName().getStringRef().str();
      }
  };
  if (failed(comparison.run(sharded, mutant, observe)))
    return failure();
  return comparison.report(llvm::outs());
}

} // namespace

LogicalResult bisect(MLIRContext &context, const BisectOptions &options, ImportOptions import,
                     const PipelineOptions &pipeline) {
  std::map<std::string, ReferenceArray> reference;
  std::string message;
  if (!readReference(options.reference, reference, message)) {
    llvm::WithColor::error(llvm::errs(), "helix-compile") << message << '\n';
    return failure();
  }
  auto ids = reference.find("input_ids");
  if (ids == reference.end() || ids->second.shape.size() != 2 || ids->second.values.empty())
    return fail(ErrorCode::BisectReference,
                "'" + options.reference + "' has no input_ids [batch, tokens]; scripts/intermediates.py writes both");
  std::optional<Mutant> mutant = options.mutant.empty() ? Mutant::None : symbolizeMutant(options.mutant);
  if (!mutant)
    return fail(ErrorCode::CompileArgumentInvalid, "there is no mutant '" + options.mutant + "'");

  // Weights out of the protobuf need a file for as long as the interpreter reads them.
  SmallString<128> scratch;
  if (std::error_code error = llvm::sys::fs::createTemporaryFile("helix-bisect", "safetensors", scratch))
    return fail(ErrorCode::InlineWeightsUnwritable, "cannot make a temporary file: " + error.message());
  llvm::FileRemover remover(scratch);
  std::vector<ImportedValue> values;
  import.inlineWeightsPath = std::string(scratch);
  import.batch = ids->second.shape[0];
  import.prefillChunk = ids->second.shape[1];
  import.maxContext = std::max(import.maxContext, import.prefillChunk);
  import.allLogits = true;
  import.values = &values;
  OwningOpRef<ModuleOp> module = importOnnx(context, options.model, import);
  if (!module)
    return failure();
  int64_t vocabulary = (*module)->getAttrOfType<IntegerAttr>("helix.vocabulary").getInt();
  for (double id : ids->second.values)
    if (!(id >= 0 && id < double(vocabulary) && id == std::floor(id)))
      return fail(ErrorCode::BisectReference, "'" + options.reference + "' has the input id " +
                                                  llvm::formatv("{0}", id).str() +
                                                  ", which is none of the vocabulary of " + std::to_string(vocabulary));

  auto level = [&](std::string name) { return Comparison{options, reference, values, std::move(name)}; };
  Comparison imported = level("imported graph");
  size_t absent = llvm::count_if(reference, [&](const auto &array) {
    return array.first != "input_ids" &&
           llvm::none_of(values, [&](const ImportedValue &v) { return v.name == array.first && v.value; });
  });
  llvm::outs() << "imported graph: " << absent << " of " << reference.size() - 1
               << " values of the reference have no value of their own: masks, positions, rotary tables, and what is "
                  "inside of attention, norms and rotary embeddings\n";
  if (failed(compareImported(*module, imported)))
    return failure();

  // Before fusion more values are whole; after it the program is what kernels are made for.
  for (bool isFused : {false, true}) {
    OwningOpRef<ModuleOp> sharded = module->clone();
    PassManager pm(&context);
    buildModelPhase(pm, pipeline);
    if (isFused) {
      buildSpmdPhase(pm, pipeline);
    } else {
      pm.addPass(createPartition());
      pm.addPass(createHopb(pipeline.hopb));
      pm.addPass(createFlatten());
    }
    if (failed(pm.run(*sharded)))
      return failure();
    Comparison comparison = level(isFused ? "on the mesh, fused" : "on the mesh");
    if (failed(compareSharded(*sharded, comparison, *mutant)))
      return failure();
  }
  return success();
}

} // namespace helix
