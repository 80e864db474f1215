//===- Import.cpp - The module: entries, arguments, results ----------------===//
#include "lib/Import/Onnx/Onnx.h"

#include "lib/Import/Onnx/Caches.h"
#include "lib/Import/Onnx/Entry.h"
#include "lib/Import/Onnx/Safetensors.h"
#include "lib/Import/Onnx/SameProgram.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;

namespace helix::onnximport {
namespace {

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

/// Takes an input of past keys or values: of the model's float type, with 4 dimensions or, for a static buffer, 3.
LogicalResult bindPast(Entry &entry, const onnx::ValueInfoProto &input) {
  int32_t type = input.type().tensor_type().elem_type();
  bool isHalf = type == onnx::TensorProto::FLOAT16 || type == onnx::TensorProto::BFLOAT16;
  bool isCodes = type == onnx::TensorProto::INT8;
  int rank = input.type().tensor_type().shape().dim_size() == 3 ? 3 : 4;
  FailureOr<SmallVector<int64_t>> dims =
      dimsOf(entry, input, (isHalf && entry.half) || isCodes ? type : int32_t(onnx::TensorProto::FLOAT), rank);
  if (failed(dims))
    return failure();
  bool sizes = llvm::all_of(*dims, [](int64_t dim) { return dim == -1 || (dim > 0 && dim <= INT32_MAX); });
  if (!fits((*dims)[0], entry.batch()) || !sizes)
    return inputError(entry, input,
                      "has shape " + shapeText(*dims) + "; it must be [" + Twine(entry.batch()) +
                          ", KV heads, dynamic, head size]");
  entry.values[input.name()] = {.kind = GraphValue::Kind::Past, .cache = static_cast<unsigned>(entry.pasts.size())};
  entry.pasts.push_back({.name = input.name(), .dims = *dims, .isCodes = isCodes});
  return success();
}

/// What nodes take inputs [batch] of integers for: where new tokens are written, or lengths with them.
llvm::StringMap<bool> lengthInputs(const Model &model) {
  llvm::StringMap<bool> isLength;
  for (const onnx::NodeProto *node : model.nodes) {
    if (node->op_type() == "TensorScatter" && node->input_size() > 2)
      isLength.try_emplace(node->input(2), false);
    if (node->op_type() == "Attention" && node->input_size() > 6)
      isLength.try_emplace(node->input(6), true);
  }
  return isLength;
}

/// Binds an input of integers per sequence, if a node says what it is.
FailureOr<bool> bindLengths(Entry &entry, const onnx::ValueInfoProto &input, const llvm::StringMap<bool> &lengths) {
  auto found = lengths.find(input.name());
  if (found == lengths.end())
    return false;
  FailureOr<SmallVector<int64_t>> dims = dimsOf(entry, input, onnx::TensorProto::INT64, 1);
  if (failed(dims))
    return failure();
  if (!fits((*dims)[0], entry.batch()))
    return inputError(entry, input, "has shape " + shapeText(*dims) + "; it must be [" + Twine(entry.batch()) + "]");
  IntTensor ints;
  ints.shape = {entry.batch()};
  for (int64_t row = 0; row < entry.batch(); ++row)
    ints.elements.push_back({.constant = found->second ? 0 : -entry.tokens, .rowFactor = 1, .row = row});
  entry.values[input.name()] = {.kind = GraphValue::Kind::Ints, .ints = std::move(ints)};
  return true;
}

/// Gives the graph's inputs and initializers their meaning.
LogicalResult bindInputs(Entry &entry, Value ids) {
  for (const auto &[name, stored] : entry.state.model.initializers)
    entry.values[name] = {.kind = GraphValue::Kind::Weight, .weight = &stored};
  for (const onnx::ValueInfoProto &output : entry.state.model.graph().output()) {
    int32_t type = output.type().tensor_type().elem_type();
    entry.half |=
        output.name() == "logits" && (type == onnx::TensorProto::FLOAT16 || type == onnx::TensorProto::BFLOAT16);
  }
  llvm::StringMap<bool> lengths = lengthInputs(entry.state.model);
  for (const onnx::ValueInfoProto &input : entry.state.model.graph().input()) {
    StringRef name = input.name();
    if (entry.values.contains(name))
      continue;
    bool isIds = name == "input_ids", isMask = name == "attention_mask", isPositions = name == "position_ids";
    int32_t type = input.type().tensor_type().elem_type();
    bool isFloat =
        type == onnx::TensorProto::FLOAT || type == onnx::TensorProto::FLOAT16 || type == onnx::TensorProto::BFLOAT16;
    if (!isIds && !isMask && !isPositions && (isFloat || type == onnx::TensorProto::INT8)) {
      if (failed(bindPast(entry, input)))
        return failure();
      continue;
    }
    FailureOr<bool> isLength = bindLengths(entry, input, lengths);
    if (failed(isLength))
      return failure();
    if (*isLength)
      continue;
    if (!isIds && !isMask && !isPositions)
      return inputError(entry, input,
                        "is not one that a decoder has: input_ids, attention_mask, position_ids, and the past keys and "
                        "values that attention takes");
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

/// What goes out of keys and values with the new tokens, as the attention that has used them made them.
GraphValue presentOf(const Entry &entry, const Cached &cached) {
  const PastInput &past = entry.pasts[cached.past];
  bool isPlain =
      cached.scale == 1 && (hasForm(cached, {{Cached::Batch}, {Cached::Head}, {Cached::Token}, {Cached::Width}}) ||
                            (past.capacity != 0 && cached.groups.size() == past.dims.size()));
  if (!past.cache || past.origin != cached.origin || !isPlain)
    return {};
  return {.kind = GraphValue::Kind::Present, .cache = *past.cache, .part = past.part};
}

/// Puts the caches in the order of the graph's inputs: that in which attention found them may be another.
void orderCaches(Entry &entry, Block &body, unsigned first) {
  SmallVector<unsigned> order = llvm::to_vector(llvm::seq<unsigned>(0, entry.caches.size()));
  auto place = [&](unsigned c) { return std::min(entry.caches[c].pasts[0], entry.caches[c].pasts[1]); };
  llvm::sort(order, [&](unsigned a, unsigned b) { return place(a) < place(b); });
  std::vector<Cache> sorted;
  for (unsigned old : order) {
    Cache cache = entry.caches[old];
    BlockArgument moved = body.addArgument(cache.argument.getType(), cache.argument.getLoc());
    cache.argument.replaceAllUsesWith(moved);
    if (cache.newest == cache.argument)
      cache.newest = moved;
    cache.argument = moved;
    for (unsigned past : cache.pasts)
      entry.pasts[past].cache = sorted.size();
    sorted.push_back(cache);
  }
  body.eraseArguments(first, order.size());
  for (auto &value : entry.values)
    if (value.second.kind == GraphValue::Kind::Present)
      value.second.cache = llvm::find(order, value.second.cache) - order.begin();
  entry.caches = std::move(sorted);
}

/// The logits, after a check that the outputs are those and the caches in the order of the past inputs.
FailureOr<Value> checkOutputs(Entry &entry) {
  const onnx::GraphProto &graph = entry.state.model.graph();
  Value logits;
  auto outputError = [&](StringRef name) {
    return modelError(entry.context, ErrorCode::OutputUnsupported) << "output " << quoted(name) << ' ';
  };
  size_t next = 0; // the past input that the next cache continues
  for (const onnx::ValueInfoProto &output : graph.output()) {
    GraphValue value = entry.values.lookup(output.name());
    if (value.kind == GraphValue::Kind::Cached)
      value = presentOf(entry, *value.cached);
    if (value.kind == GraphValue::Kind::Present) {
      const PastInput *past = next < entry.pasts.size() ? &entry.pasts[next] : nullptr;
      if (!past || past->cache != value.cache || past->part != value.part) {
        outputError(output.name()) << "holds the " << (value.part == 0 ? "keys" : "values") << " of layer "
                                   << value.cache << ", but stands where "
                                   << (past ? "the input " + quoted(past->name) + " goes on" : "no input goes on")
                                   << "; caches go out in the order in which they come in";
        return failure();
      }
      ++next;
    } else if (output.name() == "logits" && value.kind == GraphValue::Kind::Tensor && value.value && !logits) {
      View view = value.groups.empty() ? identityView(value.value) : View{value.value, value.groups};
      logits = materialise(entry.builder, value.value.getLoc(), view).value_or(Value());
    } else {
      outputError(output.name()) << "is neither the logits nor a cache; export a model with these outputs alone";
      return failure();
    }
  }
  if (!logits || typeOf(logits).getRank() != 3) {
    outputError("logits") << "is missing: a decoder has logits [batch, tokens, vocabulary]";
    return failure();
  }
  if (next != entry.pasts.size()) {
    modelError(entry.context, ErrorCode::OutputUnsupported)
        << "no output continues the input " << quoted(entry.pasts[next].name) << "; every cache must go out";
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

/// Imports the graph as a function for `batch` slots with `tokens` query tokens each. Returns the vocabulary's size.
FailureOr<int64_t> importEntry(ImportState &state, ModuleOp module, EntryKind kind, int64_t batch, int64_t tokens,
                               LogitRows rows, Explanation *explanation = nullptr) {
  MLIRContext *context = module.getContext();
  OpBuilder top = OpBuilder::atBlockEnd(module.getBody());
  auto function =
      func::FuncOp::create(top, module.getLoc(), stringifyEntryKind(kind), FunctionType::get(context, {}, {}));
  function->setAttr(kEntryAttr, EntryAttr::get(context, kind, batch, tokens, rows));
  Block *body = function.addEntryBlock();
  Entry entry{.state = state,
              .context = context,
              .builder = OpBuilder::atBlockEnd(body),
              .sequences = batch,
              .tokens = tokens,
              .explanation = explanation,
              .observes = state.options.values && rows == LogitRows::All,
              .loc = module.getLoc()};

  auto lengths = RankedTensorType::get({entry.batch()}, top.getI32Type());
  Value ids = body->addArgument(RankedTensorType::get({entry.batch(), tokens}, top.getI64Type()),
                                namedLoc(context, "input_ids"));
  entry.past = body->addArgument(lengths, namedLoc(context, "past"));
  entry.qLen = body->addArgument(lengths, namedLoc(context, "q_len"));
  if (failed(bindInputs(entry, ids)))
    return failure();
  unsigned firstCache = body->getNumArguments();
  for (const onnx::NodeProto *node : state.model.nodes)
    if (failed(importNode(entry, *node)))
      return failure();
  for (const PastInput &past : entry.pasts)
    if (!past.cache) {
      modelError(context, ErrorCode::InputUnsupported)
          << "input " << quoted(past.name)
          << " is not one that a decoder has: input_ids, attention_mask, position_ids, and the past keys and values "
             "that attention takes";
      return failure();
    }
  orderCaches(entry, *body, firstCache);
  FailureOr<Value> logits = checkOutputs(entry);
  if (failed(logits))
    return failure();
  int64_t vocabulary = typeOf(*logits).getDimSize(2);

  SmallVector<Value> results = {rows == LogitRows::Last ? lastLogits(entry, *logits) : *logits};
  for (const Cache &cache : entry.caches)
    results.push_back(cache.newest);
  func::ReturnOp::create(entry.builder, module.getLoc(), results);
  function.setType(FunctionType::get(context, body->getArgumentTypes(), ValueRange(results).getTypes()));
  for (auto &[value, key] : entry.observed) {
    if (auto made = entry.made.find(key); key && made != entry.made.end()) {
      value.value = made->second.value;
      value.groups = made->second.groups;
    }
    state.options.values->push_back(std::move(value));
  }
  return vocabulary;
}

/// Checks the decode entry, the one so far, by an import for another number of sequences and two tokens: the same
/// program must come of it. That also refuses masks that are causal for one token alone, which every mask is that shows
/// it the past.
LogicalResult checkSizes(ImportState &state, func::FuncOp decode) {
  int64_t batch = state.options.batch > 1 ? state.options.batch - 1 : 2;
  for (const onnx::ValueInfoProto &input : state.model.graph().input()) {
    const auto &dims = input.type().tensor_type().shape().dim();
    if (input.name() == "input_ids" && dims.size() == 2 && dims[1].has_dim_value())
      return success();
    if (!dims.empty() && dims[0].has_dim_value())
      batch = state.options.batch;
  }
  if (state.options.maxContext == 1)
    return success();
  size_t inlineWeights = state.inlineWeights.size();
  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(decode.getContext()));
  LogicalResult result = importEntry(state, *module, EntryKind::Prefill, batch, /*tokens=*/2, LogitRows::Last);
  if (succeeded(result)) {
    ArrayRef<InlineWeight> weights(state.inlineWeights);
    result = checkSameProgram({decode, weights.take_front(inlineWeights)},
                              {*module->getOps<func::FuncOp>().begin(), weights.drop_front(inlineWeights)});
  }
  state.inlineWeights.resize(inlineWeights);
  return result;
}

} // namespace
} // namespace helix::onnximport

namespace helix {

Type elementType(MLIRContext *context, Dtype dtype) {
  switch (dtype) {
  case Dtype::F32:
    return Float32Type::get(context);
  case Dtype::F16:
    return Float16Type::get(context);
  case Dtype::BF16:
    return BFloat16Type::get(context);
  case Dtype::I8:
    return IntegerType::get(context, 8);
  case Dtype::F8E4M3:
    return Float8E4M3FNType::get(context);
  }
  return {};
}

KvScaleAttr kvScaleOf(MLIRContext *context, const ImportOptions &options) {
  if (options.kvDtype != Dtype::I8 && options.kvDtype != Dtype::F8E4M3)
    return {};
  if (options.kvScale == 0)
    return KvScaleAttr::get(context, KvGranularity::TokenHead, FloatAttr(), FloatAttr());
  auto scale = FloatAttr::get(Float64Type::get(context), static_cast<float>(options.kvScale));
  return KvScaleAttr::get(context, KvGranularity::Tensor, scale, scale);
}

LogicalResult checkImportOptions(MLIRContext *context, const ImportOptions &options) {
  using onnximport::modelError;
  // Positions are 32-bit; the rest keeps the bytes of any activation below 2^63.
  constexpr int64_t kMaxBatch = 65536, kMaxChunk = 65536, kMaxBlock = 65536, kMaxContext = (int64_t(1) << 31) - 1;
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
  bool isCodes = options.kvDtype == Dtype::I8 || options.kvDtype == Dtype::F8E4M3;
  if (options.kvScale != 0 && !(isCodes && options.kvScale >= 0x1p-126 && options.kvScale <= 0x1p126))
    return modelError(context, ErrorCode::ImportOptionInvalid)
           << "--kv-scale is for --kv-dtype int8 and fp8-e4m3, and from 2^-126 to 2^126; without it each token and "
              "head has a scale of its own";
  if (options.allLogits && options.prefillChunk == 0)
    return modelError(context, ErrorCode::ImportOptionInvalid)
           << "--all-logits concerns the prefill entry; give --prefill-chunk too";
  return success();
}

OwningOpRef<ModuleOp> importOnnx(MLIRContext &context, StringRef path, const ImportOptions &options) {
  using namespace onnximport;
  context.loadDialect<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  if (failed(checkImportOptions(&context, options)))
    return {};
  std::unique_ptr<Model> model = readModel(&context, path, options.weightsRoot);
  if (!model)
    return {};
  ImportState state{*model, options};
  OwningOpRef<ModuleOp> module = ModuleOp::create(namedLoc(&context, model->graph().name()));
  Explanation explanation;
  FailureOr<int64_t> vocabulary = importEntry(state, *module, EntryKind::Decode, options.batch, /*tokens=*/1,
                                              LogitRows::Last, options.explanation ? &explanation : nullptr);
  if (failed(vocabulary) || failed(checkSizes(state, *module->getOps<func::FuncOp>().begin())))
    return {};
  if (options.prefillChunk != 0 &&
      failed(importEntry(state, *module, EntryKind::Prefill, options.batch, options.prefillChunk,
                         options.allLogits ? LogitRows::All : LogitRows::Last)))
    return {};
  (*module)->setAttr("helix.vocabulary", IntegerAttr::get(IntegerType::get(&context, 64), *vocabulary));
  if (failed(writeInlineWeights(&context, state, path)) || failed(verify(*module)))
    return {};
  if (options.explanation)
    explanation.print(*options.explanation);
  return module;
}

} // namespace helix
