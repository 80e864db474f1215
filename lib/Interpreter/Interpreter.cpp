//===- Interpreter.cpp - What the helix dialect means ------------------------===//
#include "lib/Interpreter/Interpreter.h"

using namespace mlir;
using namespace helix;

/// Calls nest no deeper than this; a module that needs more is recursive.
static constexpr int kMaxDepth = 16;
/// ids, past and q_len come before the caches.
static constexpr unsigned kFirstCache = 3;

Interpreter::Interpreter(ModuleOp module, StringRef modelDir, const InterpreterOptions &options)
    : module(module), options(options), machine{module->getAttrOfType<MeshAttr>(kMeshAttr), Weights(modelDir)} {
  addModelOps(table);
  addAttentionOps(table);
  addCollectives(table);
  addElementwiseOps(table);
  addShapeOps(table);
  addStatelessOps(table);
  applyMutant(options.mutant, table);
}

FailureOr<std::unique_ptr<Interpreter>> Interpreter::create(ModuleOp module, StringRef modelDir,
                                                            const InterpreterOptions &options) {
  std::unique_ptr<Interpreter> interpreter(new Interpreter(module, modelDir, options));
  if (failed(interpreter->prepare()))
    return failure();
  return interpreter;
}

static bool isStatic(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && tensor.hasStaticShape() && tensor.getElementType().isIntOrFloat() &&
         !llvm::is_contained(tensor.getShape(), 0);
}

/// Whether values of `type` can be held.
static bool isKnown(Type type) {
  if (auto partial = dyn_cast<PartialType>(type))
    return isStatic(partial.getValue());
  if (auto stacked = dyn_cast<StackedType>(type))
    return isStatic(stacked.getValue());
  return isStatic(type) || type.isIntOrFloat() || isa<KVType>(type);
}

/// Checks once what every op function relies on.
LogicalResult Interpreter::prepare() {
  WalkResult known = module.walk([&](Operation *op) {
    for (Type type : op->getResultTypes())
      if (!isKnown(type)) {
        op->emitError() << "the interpreter has no values of type " << type << "; shapes must be static and not empty";
        return WalkResult::interrupt();
      }
    for (Region &region : op->getRegions())
      for (Block &block : region)
        for (BlockArgument argument : block.getArguments())
          if (!isKnown(argument.getType())) {
            op->emitError() << "the interpreter has no values of type " << argument.getType()
                            << "; shapes must be static and not empty";
            return WalkResult::interrupt();
          }
    return WalkResult::advance();
  });
  if (known.wasInterrupted())
    return failure();
  if (auto attr = module->getAttrOfType<IntegerAttr>("helix.vocabulary"))
    vocabularySize = attr.getInt();
  for (auto function : module.getOps<func::FuncOp>()) {
    auto signature = function->getAttrOfType<EntryAttr>(kEntryAttr);
    // A stateless one has none; `call` runs it.
    if (function->hasAttr(kEntryAttr) && !(signature && signature.isStateless()) && failed(addCaches(function)))
      return failure();
  }
  return success();
}

/// Makes the caches of the first entry; the others must take the same.
LogicalResult Interpreter::addCaches(func::FuncOp entry) {
  auto signature = entry->getAttrOfType<EntryAttr>(kEntryAttr);
  ArrayRef<Type> types = entry.getArgumentTypes();
  if (!signature || vocabularySize < 1 || types.size() < kFirstCache || entry.getNumResults() < 1)
    return entry.emitError("an entry needs a helix.entry, arguments (ids, past, q_len, caches…), logits, and the "
                           "module's helix.vocabulary");
  Builder builder(module.getContext());
  auto lengths = RankedTensorType::get({signature.getBatch()}, builder.getI32Type());
  auto ids = RankedTensorType::get({signature.getBatch(), signature.getTokens()}, builder.getI64Type());
  auto logits = dyn_cast<RankedTensorType>(entry.getResultTypes().front());
  int64_t rows = signature.getLogits() == LogitRows::Last ? 1 : signature.getTokens();
  if (types[0] != ids || types[1] != lengths || types[2] != lengths || !logits || logits.getRank() != 3 ||
      logits.getDimSize(0) != signature.getBatch() || logits.getDimSize(1) != rows)
    return entry.emitError() << "an entry of batch " << signature.getBatch() << " takes " << ids << ", " << lengths
                             << ", " << lengths << " and returns logits [" << signature.getBatch() << ", " << rows
                             << ", vocabulary], but this is " << entry.getFunctionType();

  types = types.drop_front(kFirstCache);
  if (entry.getResultTypes().drop_front() != types)
    return entry.emitError("an entry returns its caches, in order, after the logits");
  bool first = slotCapacity == 0;
  for (auto [i, type] : llvm::enumerate(types)) {
    auto cacheType = dyn_cast<KVType>(type);
    if (!cacheType || cacheType.getSlots() != signature.getBatch())
      return entry.emitError() << "argument " << i + kFirstCache << " must be a cache of " << signature.getBatch()
                               << " slots, but is " << type;
    if (cacheType.getKvp() != 1 && (!machine.mesh || machine.mesh.getKvp() != cacheType.getKvp()))
      return entry.emitError() << "argument " << i + kFirstCache << " is spread over " << cacheType.getKvp()
                               << " ranks, which the module's mesh does not have";
    if (!first && (i >= caches.size() || caches[i].front().type != cacheType))
      return entry.emitError() << "argument " << i + kFirstCache << " is not a cache of the first entry";
    if (!first)
      continue;
    std::vector<Cache> &perRank = caches.emplace_back();
    for (int64_t rank = 0; rank < machine.ranks(); ++rank)
      perRank.emplace_back(cacheType, cacheType.getKvp() == 1 ? 0 : machine.mesh.coordinate(Axis::Kvp, rank),
                           unwritten(options.mutant));
  }
  if (!first && types.size() != caches.size())
    return entry.emitError() << "takes " << types.size() << " caches, but the first entry " << caches.size();
  slotCapacity = std::numeric_limits<int64_t>::max();
  for (const std::vector<Cache> &perRank : caches)
    slotCapacity = std::min(slotCapacity, perRank.front().type.getCapacity());
  return success();
}

EntryAttr Interpreter::entry(StringRef name) const {
  auto function = const_cast<ModuleOp &>(module).lookupSymbol<func::FuncOp>(name);
  return function ? function->getAttrOfType<EntryAttr>(kEntryAttr) : EntryAttr();
}

void Interpreter::truncate(int64_t slot, int64_t length) {
  for (std::vector<Cache> &perRank : caches)
    for (Cache &cache : perRank)
      cache.truncate(slot, length);
}

void Interpreter::reset() {
  for (std::vector<Cache> &perRank : caches)
    for (Cache &cache : perRank)
      for (int64_t slot = 0; slot < cache.type.getSlots(); ++slot)
        cache.truncate(slot, 0);
}

//===----------------------------------------------------------------------===//
// Entries
//===----------------------------------------------------------------------===//

static Tensor integers(ArrayRef<int64_t> shape, ArrayRef<int64_t> values) {
  return Tensor(shape, std::vector<double>(values.begin(), values.end()));
}

/// The logits of the whole vocabulary from each rank's share.
static Tensor gather(const RankValues &logits, int64_t vocabulary) {
  const Tensor &first = *logits.front().tensor;
  int64_t share = first.width(), rows = first.size() / share;
  Tensor result({first.shape[0], first.shape[1], vocabulary});
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t id = 0; id < vocabulary; ++id)
      result.values[row * vocabulary + id] = logits[id / share].tensor->values[row * share + id % share];
  return result;
}

FailureOr<Tensor> Interpreter::runEntry(StringRef name, ArrayRef<int64_t> ids, ArrayRef<int64_t> past,
                                        ArrayRef<int64_t> qLen) {
  EntryAttr signature = entry(name);
  if (!signature)
    return module.emitError() << "there is no entry @" << name;
  auto function = module.lookupSymbol<func::FuncOp>(name);
  size_t batch = signature.getBatch(), tokens = signature.getTokens();
  if (ids.size() != batch * tokens || past.size() != batch || qLen.size() != batch)
    return function.emitError() << "takes " << batch << " sequences of " << tokens << " tokens";
  for (size_t b = 0; b < batch; ++b) {
    if (past[b] < 0 || qLen[b] < 0 || qLen[b] > signature.getTokens() || past[b] > slotCapacity - qLen[b])
      return function.emitError() << "slot " << b << " cannot take " << qLen[b] << " tokens from position " << past[b]
                                  << ": an entry takes " << tokens << " and a slot holds " << slotCapacity;
    for (int64_t t = 0; t < qLen[b]; ++t)
      if (int64_t id = ids[b * tokens + t]; id < 0 || id >= vocabularySize)
        return function.emitError() << "id " << id << " is not in the vocabulary of " << vocabularySize;
  }

  int64_t width = cast<RankedTensorType>(function.getResultTypes().front()).getDimSize(2);
  if (width != vocabularySize && width * machine.ranks() < vocabularySize)
    return function.emitError() << "returns " << width << " logits per rank, too few for the vocabulary of "
                                << vocabularySize;

  SmallVector<RankValues> arguments;
  for (Tensor value : {integers({signature.getBatch(), signature.getTokens()}, ids),
                       integers({signature.getBatch()}, past), integers({signature.getBatch()}, qLen)})
    arguments.push_back(RankValues(machine.ranks(), RankValue(std::move(value))));
  for (std::vector<Cache> &perRank : caches)
    arguments.push_back(llvm::map_to_vector<1>(perRank, [](Cache &cache) { return RankValue(cache); }));
  FailureOr<SmallVector<RankValues>> results = runFunction(function, arguments, 0);
  if (failed(results))
    return failure();
  for (size_t i = 0; i < caches.size(); ++i)
    for (auto [rank, cache] : llvm::enumerate(caches[i])) {
      const RankValue &returned = (*results)[i + 1][rank];
      if (returned.cache != &cache || returned.version != cache.version)
        return function.emitError() << "result " << i + 1 << " is not the newest version of cache " << i;
    }
  return gather(results->front(), vocabularySize);
}

//===----------------------------------------------------------------------===//
// Functions, blocks, ops
//===----------------------------------------------------------------------===//

FailureOr<SmallVector<RankValues>> Interpreter::call(StringRef name, ArrayRef<RankValues> arguments) {
  auto function = module.lookupSymbol<func::FuncOp>(name);
  if (!function)
    return module.emitError() << "there is no function @" << name;
  return runFunction(function, arguments, 0);
}

FailureOr<SmallVector<RankValues>> Interpreter::runFunction(func::FuncOp function, ArrayRef<RankValues> arguments,
                                                            int depth) {
  if (depth > kMaxDepth)
    return function.emitError("calls itself");
  if (!function.getBody().hasOneBlock())
    return function.emitError("has no body of one block");
  if (arguments.size() != function.getNumArguments())
    return function.emitError() << "takes " << function.getNumArguments() << " arguments, not " << arguments.size();
  Scope scope;
  for (auto [parameter, argument] : llvm::zip(function.getArguments(), arguments))
    scope[parameter] = argument;
  return runBlock(function.getBody().front(), scope, depth);
}

/// Runs the ops of `block` in order; the result is what its terminator returns.
FailureOr<SmallVector<RankValues>> Interpreter::runBlock(Block &block, Scope &scope, int depth) {
  for (Operation &op : block.without_terminator()) {
    FailureOr<SmallVector<RankValues>> results = runOp(op, scope, depth);
    if (failed(results))
      return failure();
    for (auto [value, result] : llvm::zip(op.getResults(), *results))
      scope[value] = result;
    if (options.observe)
      options.observe(&op, *results);
  }
  return llvm::map_to_vector(block.getTerminator()->getOperands(), [&](Value value) { return scope.at(value); });
}

/// The value with its tensors rounded to f32.
static RankValue rounded(RankValue value) {
  for (TensorRef *part : {&value.tensor, &value.lse})
    if (*part) {
      auto copy = std::make_shared<Tensor>(**part);
      for (double &x : copy->values)
        x = static_cast<float>(x);
      *part = copy;
    }
  return value;
}

FailureOr<SmallVector<RankValues>> Interpreter::runOp(Operation &op, Scope &scope, int depth) {
  SmallVector<RankValues> operands =
      llvm::map_to_vector(op.getOperands(), [&](Value value) { return scope.at(value); });
  if (auto region = dyn_cast<RegionOp>(op))
    return runBlock(region.getBody().front(), scope, depth);
  if (auto call = dyn_cast<func::CallOp>(op)) {
    auto callee = module.lookupSymbol<func::FuncOp>(call.getCallee());
    if (!callee)
      return op.emitError() << "there is no function @" << call.getCallee();
    return runFunction(callee, operands, depth + 1);
  }
  auto known = table.find(op.getName().getStringRef());
  if (known == table.end())
    return op.emitError() << "the interpreter does not know " << op.getName();
  FailureOr<RankValues> result = known->second(&op, operands, machine);
  if (failed(result))
    return failure();
  if (options.roundActivations)
    for (RankValue &value : *result)
      value = rounded(std::move(value));
  return SmallVector<RankValues>{std::move(*result)};
}
