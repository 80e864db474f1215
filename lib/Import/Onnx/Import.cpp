//===- Import.cpp - The module: entries, arguments, results ----------------===//
#include "lib/Import/Onnx/Onnx.h"

#include "lib/Import/Onnx/Entry.h"
#include "lib/Import/Onnx/Safetensors.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

// Positions are 32-bit; the rest keeps the bytes of any activation below 2^63.
constexpr int64_t kMaxBatch = 65536, kMaxChunk = 65536, kMaxBlock = 65536, kMaxContext = (int64_t(1) << 31) - 1;

LogicalResult checkOptions(MLIRContext *context, const ImportOptions &options) {
  struct Range {
    StringRef name;
    int64_t value, least, most;
  };
  const Range ranges[] = {{"batch", options.batch, 1, kMaxBatch},
                          {"max-context", options.maxContext, 0, kMaxContext},
                          {"prefill-chunk", options.prefillChunk, 0, kMaxChunk},
                          {"block", options.block, 1, kMaxBlock}};
  for (const Range &range : ranges)
    if (range.value < range.least || range.value > range.most)
      return modelError(context, ErrorCode::ImportOptionInvalid)
             << "--" << range.name << " is " << range.value << "; it must be from " << range.least << " to "
             << range.most;
  if (options.allLogits && options.prefillChunk == 0)
    return modelError(context, ErrorCode::ImportOptionInvalid)
           << "--all-logits concerns the prefill entry; give --prefill-chunk too";
  return success();
}

LogicalResult inputError(Entry &entry, const onnx::ValueInfoProto &input, const Twine &reason) {
  return modelError(entry.context, ErrorCode::InputUnsupported) << "input " << quoted(input.name()) << ' ' << reason;
}

/// The dimensions of an input, -1 where they are dynamic; an error unless it is a tensor of that type and rank.
FailureOr<SmallVector<int64_t>> dimsOf(Entry &entry, const onnx::ValueInfoProto &input, int32_t type, int rank) {
  const onnx::TypeProto::Tensor &tensor = input.type().tensor_type();
  if (!input.type().has_tensor_type() || tensor.elem_type() != type || tensor.shape().dim_size() != rank) {
    (void)inputError(entry, input, "must be a tensor of " + typeText(type) + " with " + Twine(rank) + " dimensions");
    return failure();
  }
  SmallVector<int64_t> dims;
  for (const onnx::TensorShapeProto::Dimension &dim : tensor.shape().dim())
    dims.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
  return dims;
}

/// Whether a dimension is dynamic or what it is bound to.
bool fits(int64_t dim, int64_t bound) { return dim == -1 || dim == bound; }

/// Pairs the inputs that GroupQueryAttention nodes take as past keys and values, in the order of the graph's inputs.
LogicalResult findCaches(Entry &entry) {
  const onnx::GraphProto &graph = entry.state.model.graph();
  llvm::StringMap<const onnx::NodeProto *> users;
  for (const onnx::NodeProto *pointer : entry.state.model.nodes) {
    const onnx::NodeProto &node = *pointer;
    if (node.op_type() != "GroupQueryAttention" || node.input_size() < 5)
      continue;
    for (int index : {3, 4})
      if (!node.input(index).empty() && !users.try_emplace(node.input(index), &node).second)
        return nodeError(entry.context, node, ErrorCode::CacheMismatch)
               << "its past " << quoted(node.input(index)) << " is already that of another layer";
  }
  for (const onnx::ValueInfoProto &input : graph.input()) {
    auto user = users.find(input.name());
    if (user == users.end() || entry.values.contains(input.name()) ||
        entry.state.model.initializers.contains(input.name()))
      continue;
    Cache cache;
    for (int part = 0; part < 2; ++part) {
      cache.names[part] = user->second->input(3 + part);
      auto found = llvm::find_if(graph.input(), [&](const auto &v) { return v.name() == cache.names[part]; });
      if (found == graph.input().end())
        return nodeError(entry.context, *user->second, ErrorCode::CacheMismatch)
               << "its past " << (part == 0 ? "key " : "value ") << quoted(cache.names[part])
               << " must be an input of the model";
      FailureOr<SmallVector<int64_t>> dims = dimsOf(entry, *found, onnx::TensorProto::FLOAT, 4);
      if (failed(dims))
        return failure();
      if (!fits((*dims)[0], entry.batch()) || (*dims)[2] != -1)
        return inputError(entry, *found,
                          "has shape " + shapeText(*dims) + "; it must be [" + Twine(entry.batch()) +
                              ", KV heads, dynamic, head size]");
      cache.dims[part] = *dims;
      entry.values[cache.names[part]] = {.kind = GraphValue::Kind::Past,
                                         .cache = static_cast<unsigned>(entry.caches.size()),
                                         .part = static_cast<unsigned>(part)};
    }
    entry.caches.push_back(std::move(cache));
  }
  return success();
}

/// Gives the graph's inputs and initializers their meaning.
LogicalResult bindInputs(Entry &entry, Value ids) {
  for (const auto &[name, stored] : entry.state.model.initializers)
    entry.values[name] = {.kind = GraphValue::Kind::Weight, .weight = &stored};
  if (failed(findCaches(entry)))
    return failure();
  for (const onnx::ValueInfoProto &input : entry.state.model.graph().input()) {
    StringRef name = input.name();
    if (entry.values.contains(name))
      continue;
    bool isIds = name == "input_ids", isMask = name == "attention_mask", isPositions = name == "position_ids";
    if (!isIds && !isMask && !isPositions)
      return inputError(entry, input,
                        "is not one that a decoder has: input_ids, attention_mask, position_ids, and the past keys and "
                        "values that GroupQueryAttention takes");
    FailureOr<SmallVector<int64_t>> dims = dimsOf(entry, input, onnx::TensorProto::INT64, 2);
    if (failed(dims))
      return failure();
    if (!fits((*dims)[0], entry.batch()) || !fits((*dims)[1], isMask ? -1 : entry.tokens))
      return inputError(entry, input,
                        "has the static shape " + shapeText(*dims) + ", but is to be [" + Twine(entry.batch()) + ", " +
                            (isMask ? "dynamic" : Twine(entry.tokens).str()) +
                            "]; export the model with dynamic dimensions");
    GraphValue value;
    value.kind = isIds ? GraphValue::Kind::Ids : isMask ? GraphValue::Kind::Mask : GraphValue::Kind::Positions;
    value.value = isIds ? ids : Value();
    entry.values[name] = value;
  }
  return success();
}

/// The logits, after a check that the outputs are those and the caches in the order of the past inputs.
FailureOr<Value> checkOutputs(Entry &entry) {
  const onnx::GraphProto &graph = entry.state.model.graph();
  Value logits;
  auto outputError = [&](StringRef name) {
    return modelError(entry.context, ErrorCode::OutputUnsupported) << "output " << quoted(name) << ' ';
  };
  // Per part, the cache that comes next, and the part's outputs so far.
  unsigned next[2] = {0, 0};
  for (const onnx::ValueInfoProto &output : graph.output()) {
    GraphValue value = entry.values.lookup(output.name());
    if (value.kind == GraphValue::Kind::Present) {
      if (value.cache != next[value.part]++) {
        outputError(output.name()) << "is the cache of layer " << value.cache << " in the order of the past inputs, "
                                   << "but stands where layer " << next[value.part] - 1 << " is expected";
        return failure();
      }
    } else if (output.name() == "logits" && value.kind == GraphValue::Kind::Tensor && value.value && !logits) {
      logits = value.value;
    } else {
      outputError(output.name()) << "is neither the logits nor a cache; export a model with these outputs alone";
      return failure();
    }
  }
  if (!logits || typeOf(logits).getRank() != 3) {
    outputError("logits") << "is missing: a decoder has logits [batch, tokens, vocabulary]";
    return failure();
  }
  for (unsigned part : {0, 1})
    if (next[part] != entry.caches.size()) {
      modelError(entry.context, ErrorCode::OutputUnsupported)
          << "the model has " << entry.caches.size() << " caches, but " << next[part] << " outputs with their "
          << (part == 0 ? "keys" : "values");
      return failure();
    }
  return logits;
}

/// Logits of the last token alone: taken before the final product where the logits are that product.
Value lastLogits(Entry &entry, Value logits) {
  OpBuilder &b = entry.builder;
  auto take = [&](Location loc, Value x) -> Value {
    RankedTensorType type = typeOf(x);
    auto last = RankedTensorType::get({type.getDimSize(0), 1, type.getDimSize(2)}, type.getElementType());
    return LastTokenOp::create(b, loc, last, x, entry.qLen);
  };
  auto product = logits.getDefiningOp<LinearOp>();
  if (!product || !logits.use_empty())
    return take(logits.getLoc(), logits);
  Location loc = product.getLoc();
  auto type = RankedTensorType::get({entry.batch(), 1, typeOf(logits).getDimSize(2)}, b.getF32Type());
  Value result = LinearOp::create(b, loc, type, take(loc, product.getX()), product.getWeight());
  product.erase();
  return result;
}

NameLoc namedLoc(MLIRContext *context, StringRef name) { return NameLoc::get(StringAttr::get(context, name)); }

/// Imports the graph as the function `name` with `tokens` query tokens per slot. Returns the vocabulary's size.
FailureOr<int64_t> importEntry(ImportState &state, ModuleOp module, EntryKind kind, int64_t tokens, LogitRows rows) {
  MLIRContext *context = module.getContext();
  OpBuilder top = OpBuilder::atBlockEnd(module.getBody());
  auto function =
      func::FuncOp::create(top, module.getLoc(), stringifyEntryKind(kind), FunctionType::get(context, {}, {}));
  function->setAttr(kEntryAttr, EntryAttr::get(context, kind, state.options.batch, tokens, rows));
  Block *body = function.addEntryBlock();
  Entry entry{.state = state,
              .context = context,
              .builder = OpBuilder::atBlockEnd(body),
              .tokens = tokens,
              .loc = module.getLoc()};

  auto lengths = RankedTensorType::get({entry.batch()}, top.getI32Type());
  Value ids = body->addArgument(RankedTensorType::get({entry.batch(), tokens}, top.getI64Type()),
                                namedLoc(context, "input_ids"));
  entry.past = body->addArgument(lengths, namedLoc(context, "past"));
  entry.qLen = body->addArgument(lengths, namedLoc(context, "q_len"));
  if (failed(bindInputs(entry, ids)))
    return failure();
  // The attention node that uses a cache gives it its type.
  for (Cache &cache : entry.caches)
    cache.newest = cache.argument = body->addArgument(top.getNoneType(), namedLoc(context, cache.names[0]));

  for (const onnx::NodeProto *node : state.model.nodes)
    if (failed(importNode(entry, *node)))
      return failure();
  FailureOr<Value> logits = checkOutputs(entry);
  if (failed(logits))
    return failure();
  int64_t vocabulary = typeOf(*logits).getDimSize(2);

  SmallVector<Value> results = {rows == LogitRows::Last ? lastLogits(entry, *logits) : *logits};
  for (const Cache &cache : entry.caches)
    results.push_back(cache.newest);
  func::ReturnOp::create(entry.builder, module.getLoc(), results);
  function.setType(FunctionType::get(context, body->getArgumentTypes(), ValueRange(results).getTypes()));
  return vocabulary;
}

} // namespace
} // namespace helix::onnximport

namespace helix {

OwningOpRef<ModuleOp> importOnnx(MLIRContext &context, StringRef path, const ImportOptions &options) {
  using namespace onnximport;
  context.loadDialect<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  if (failed(checkOptions(&context, options)))
    return {};
  std::unique_ptr<Model> model = readModel(&context, path, options.weightsRoot);
  if (!model)
    return {};
  ImportState state{*model, options};
  OwningOpRef<ModuleOp> module = ModuleOp::create(namedLoc(&context, model->graph().name()));
  FailureOr<int64_t> vocabulary = importEntry(state, *module, EntryKind::Decode, /*tokens=*/1, LogitRows::Last);
  if (failed(vocabulary))
    return {};
  if (options.prefillChunk != 0 && failed(importEntry(state, *module, EntryKind::Prefill, options.prefillChunk,
                                                      options.allLogits ? LogitRows::All : LogitRows::Last)))
    return {};
  (*module)->setAttr("helix.vocabulary", IntegerAttr::get(IntegerType::get(&context, 64), *vocabulary));
  if (failed(writeInlineWeights(&context, state, path)) || failed(verify(*module)))
    return {};
  return module;
}

} // namespace helix
