//===- Import.cpp - The graph of a decoder, from its configuration ---------===//
#include "lib/Import/HuggingFace/Weights.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;

namespace helix::checkpoint {
namespace {

RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

Activation activationOf(Act act) {
  switch (act) {
  case Act::Silu:
    return Activation::Silu;
  case Act::Gelu:
    return Activation::Gelu;
  case Act::GeluTanh:
    return Activation::GeluTanh;
  case Act::Relu:
    return Activation::Relu;
  }
  llvm_unreachable("an activation of a configuration");
}

/// One function of the module. Ops are named as the modules of transformers: "model.layers.0.self_attn.q_proj".
struct EntryBuilder {
  const Config &config;
  const ImportOptions &options;
  Weights &weights;
  int64_t context; ///< tokens that a slot can hold
  int64_t tokens;
  OpBuilder b;
  Value past = {}, qLen = {};
  SmallVector<Value> caches = {};
  /// cos and sin of each rope.
  SmallVector<std::pair<Value, Value>> tables = {};

  Location named(const Twine &name) { return NameLoc::get(b.getStringAttr(name)); }

  RankedTensorType activations(int64_t rows, int64_t width) {
    return RankedTensorType::get({options.batch, rows, width}, b.getF32Type());
  }

  Value number(Location loc, Type type, double value) {
    return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(cast<ShapedType>(type), static_cast<float>(value)));
  }

  /// The norm named `name`; null after a diagnostic.
  Value norm(const std::string &name, Value x) {
    Value scale = weights.norm(b, name + ".weight");
    if (!scale)
      return {};
    return RMSNormOp::create(b, named(name), x.getType(), x, scale, b.getF64FloatAttr(config.epsilon));
  }

  Value bias(const std::string &name, bool has) { return has ? weights.vector(b, name + ".bias") : Value(); }

  /// x times rows [first, first + width) of the weight of the linear layer `name`, plus its bias.
  Value linear(const std::string &name, Value x, int64_t width, bool hasBias, int64_t first = 0) {
    Value weight = weights.linear(b, name + ".weight", first, width);
    return LinearOp::create(b, named(name), activations(typeOf(x).getDimSize(1), width), x, weight,
                            bias(name, hasBias));
  }

  /// [batch, tokens, heads * headDim] as [batch, tokens, heads, headDim].
  Value heads(const std::string &name, Value x, int64_t count) {
    auto type = RankedTensorType::get({options.batch, tokens, count, config.headDim}, b.getF32Type());
    return tensor::ExpandShapeOp::create(b, named(name), type, x, ArrayRef<ReassociationIndices>{{0}, {1}, {2, 3}});
  }

  Value rotate(const std::string &name, Value x, size_t rope) {
    auto [cos, sin] = tables[rope];
    return RopeOp::create(b, named(name), x, cos, sin, past, /*interleaved=*/false);
  }

  /// Attention of layer `index`, up to and with the output projection; null after a diagnostic.
  Value attention(const std::string &name, unsigned index, Value x) {
    const LayerConfig &layer = config.layers[index];
    int64_t queries = config.heads * config.headDim, keys = config.kvHeads * config.headDim;
    auto project = [&](const char *part, int64_t width, int64_t first) {
      return config.packed ? linear(name + ".qkv_proj", x, width, false, first)
                           : linear(name + "." + part + "_proj", x, width, config.qkvBias);
    };
    Value q = heads(name, project("q", queries, 0), config.heads);
    Value k = heads(name, project("k", keys, queries), config.kvHeads);
    Value v = heads(name, project("v", keys, queries + keys), config.kvHeads);
    if (config.headNorms) {
      q = norm(name + ".q_norm", q);
      k = norm(name + ".k_norm", k);
      if (!q || !k)
        return {};
    }
    q = rotate(name, q, layer.rope);
    k = rotate(name, k, layer.rope);
    Value &cache = caches[index];
    cache = KVAppendOp::create(b, named(name), cache.getType(), k, v, past, qLen, cache);
    Value y = AttentionOp::create(b, named(name), q.getType(), q, cache, past, qLen, /*slopes=*/Value(),
                                  /*sinks=*/Value(), b.getF64FloatAttr(config.scale),
                                  config.softcap != 0 ? b.getF64FloatAttr(config.softcap) : FloatAttr(),
                                  layer.window != 0 ? b.getI64IntegerAttr(layer.window) : IntegerAttr());
    y = tensor::CollapseShapeOp::create(b, named(name), activations(tokens, queries), y,
                                        ArrayRef<ReassociationIndices>{{0}, {1}, {2, 3}});
    return linear(name + ".o_proj", y, config.hidden, config.outputBias);
  }

  Value ffn(const std::string &name, Value x) {
    int64_t width = config.intermediate;
    std::string gate = name + ".gate_proj", up = name + ".up_proj", down = name + ".down_proj";
    Value gateWeight, upWeight;
    if (config.packed) {
      gate = up = name + ".gate_up_proj";
      gateWeight = weights.linear(b, gate + ".weight", 0, width);
      upWeight = weights.linear(b, gate + ".weight", width, width);
    } else {
      gateWeight = weights.linear(b, gate + ".weight");
      upWeight = weights.linear(b, up + ".weight");
    }
    Value downWeight = weights.linear(b, down + ".weight");
    Value gateBias = bias(gate, config.mlpBias), upBias = bias(up, config.mlpBias),
          downBias = bias(down, config.mlpBias);
    // A name for each part, which fusion hands to the products and the activation.
    Location loc = FusedLoc::get(b.getContext(), {named(gate), named(up), named(name + ".act_fn"), named(down)});
    return FFNOp::create(b, loc, x.getType(), x, gateWeight, upWeight, downWeight, gateBias, upBias, downBias,
                         activationOf(config.activation));
  }

  /// x plus what the block makes of it.
  Value add(const std::string &name, Value x, Value y) { return arith::AddFOp::create(b, named(name), x, y); }

  Value layer(unsigned index, Value x) {
    std::string name = "model.layers." + std::to_string(index);
    Value y = norm(name + ".input_layernorm", x);
    if (y)
      y = attention(name + ".self_attn", index, y);
    if (y && config.postNorms)
      y = norm(name + ".post_attention_layernorm", y);
    if (!y)
      return {};
    x = add(name + ".self_attn", x, y);
    y = norm(name + (config.postNorms ? ".pre_feedforward_layernorm" : ".post_attention_layernorm"), x);
    if (y)
      y = ffn(name + ".mlp", y);
    if (y && config.postNorms)
      y = norm(name + ".post_feedforward_layernorm", y);
    return y ? add(name + ".mlp", x, y) : Value();
  }

  /// The logits of all tokens or of the last; null after a diagnostic.
  Value logits(Value ids, LogitRows rows) {
    std::string table = "model.embed_tokens";
    Value x = EmbeddingOp::create(b, named(table), activations(tokens, config.hidden), ids,
                                  weights.table(b, table + ".weight"));
    if (config.embeddingScale != 1)
      x = arith::MulFOp::create(b, named(table), x, number(named(table), x.getType(), config.embeddingScale));
    for (const Rope &rope : config.ropes)
      tables.push_back(weights.rope(b, rope, context));
    for (unsigned i = 0; x && i < config.layers.size(); ++i)
      x = layer(i, x);
    if (x)
      x = norm("model.norm", x);
    if (!x)
      return {};
    Location head = named("lm_head");
    if (rows == LogitRows::Last)
      x = LastTokenOp::create(b, head, activations(1, config.hidden), x, qLen);
    Value weight = weights.linear(b, config.tied ? table + ".weight" : "lm_head.weight");
    Value y = LinearOp::create(b, head, activations(typeOf(x).getDimSize(1), config.vocabulary), x, weight);
    if (config.finalSoftcap == 0)
      return y;
    Value cap = number(head, y.getType(), config.finalSoftcap);
    y = math::TanhOp::create(b, head, arith::DivFOp::create(b, head, y, cap));
    return arith::MulFOp::create(b, head, y, cap);
  }
};

/// Adds the function of one kind with `tokens` query tokens per slot.
LogicalResult buildEntry(ModuleOp module, const Config &config, const ImportOptions &options, Weights &weights,
                         int64_t context, EntryKind kind, int64_t tokens, LogitRows rows) {
  MLIRContext *ctx = module.getContext();
  OpBuilder top = OpBuilder::atBlockEnd(module.getBody());
  auto function = func::FuncOp::create(top, module.getLoc(), stringifyEntryKind(kind), FunctionType::get(ctx, {}, {}));
  function->setAttr(kEntryAttr, EntryAttr::get(ctx, kind, options.batch, tokens, rows));
  Block *body = function.addEntryBlock();
  EntryBuilder builder{.config = config,
                       .options = options,
                       .weights = weights,
                       .context = context,
                       .tokens = tokens,
                       .b = OpBuilder::atBlockEnd(body)};
  auto lengths = RankedTensorType::get({options.batch}, top.getI32Type());
  Value ids =
      body->addArgument(RankedTensorType::get({options.batch, tokens}, top.getI64Type()), builder.named("input_ids"));
  builder.past = body->addArgument(lengths, builder.named("past"));
  builder.qLen = body->addArgument(lengths, builder.named("q_len"));
  int64_t capacity = (context + options.block - 1) / options.block * options.block;
  auto cache = KVType::get(ctx, options.batch, config.kvHeads, config.headDim, config.headDim,
                           elementType(ctx, options.kvDtype), options.block, /*kvp=*/1, capacity, kvScaleOf(ctx, options));
  for (size_t i = 0; i < config.layers.size(); ++i)
    builder.caches.push_back(
        body->addArgument(cache, builder.named("model.layers." + Twine(i) + ".self_attn.past_key_values")));
  Value logits = builder.logits(ids, rows);
  if (!logits)
    return failure();
  SmallVector<Value> results = {logits};
  results.append(builder.caches);
  func::ReturnOp::create(builder.b, module.getLoc(), results);
  function.setType(FunctionType::get(ctx, body->getArgumentTypes(), ValueRange(results).getTypes()));
  return success();
}

/// The longest context; an error if the rotary tables do not reach so far, or depend on how far it has come.
FailureOr<int64_t> contextOf(MLIRContext *context, const Config &config, const ImportOptions &options) {
  auto refuse = [&](ErrorCode code) { return emitError(UnknownLoc::get(context)) << errorPrefix(code); };
  int64_t length = options.maxContext != 0 ? options.maxContext : config.positions;
  if (length > config.positions)
    return refuse(ErrorCode::ContextTooLong) << "the model is for " << config.positions
                                             << " positions (max_position_embeddings), but the longest context "
                                             << "is to be " << length << "; lower --max-context";
  for (const Rope &rope : config.ropes) {
    if (rope.kind == Rope::Kind::LongRope && rope.shortFactors != rope.longFactors && length > rope.trained)
      return refuse(ErrorCode::RopeUnsupported)
             << "the model turns to other rotary tables where a sequence grows beyond " << rope.trained
             << " tokens (longrope), for all of its tokens, but contexts are to have up to " << length
             << "; give --max-context " << rope.trained << " or less";
    constexpr int64_t kMaxTable = (int64_t(1) << 31) / int64_t(sizeof(float));
    if (length > kMaxTable / rope.width)
      return refuse(ErrorCode::ContextTooLong)
             << "its rotary tables for " << length << " positions are more than 2^31 bytes; lower --max-context";
  }
  // Keys and values of all slots must be countable in 63 bits of bytes.
  int64_t bytes = 0;
  if (__builtin_mul_overflow(config.kvHeads * config.headDim * 2 * int64_t(sizeof(float)), length + options.block,
                             &bytes) ||
      __builtin_mul_overflow(bytes, options.batch, &bytes))
    return refuse(ErrorCode::ImportOptionInvalid) << "a cache for " << options.batch << " sequences of " << length
                                                  << " tokens is more than 2^63 bytes; lower --batch or --max-context";
  return length;
}

void explain(const Config &config, ArrayRef<std::string> ignored, raw_ostream &os) {
  os << "built from config.json: " << config.modelType << ", " << config.layers.size() << " layers\n";
  auto list = [&](StringRef what, ArrayRef<std::string> names) {
    os << what << ": ";
    llvm::interleaveComma(names, os, [&](const std::string &name) { os << inQuotes(name); });
    os << (names.empty() ? "none\n" : "\n");
  };
  list("fields that change nothing", config.ignored);
  list("tensors that change nothing", ignored);
}

} // namespace
} // namespace helix::checkpoint

namespace helix {

OwningOpRef<ModuleOp> importHuggingFace(MLIRContext &context, StringRef directory, const ImportOptions &options) {
  using namespace checkpoint;
  context.loadDialect<HelixDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect, tensor::TensorDialect>();
  if (failed(checkImportOptions(&context, options)))
    return {};
  Error error;
  Checkpoint checkpoint;
  Config config;
  std::vector<std::string> ignored;
  if (!readCheckpoint(directory.str(), options.weightsRoot, checkpoint, error) ||
      !readConfig(checkpoint.config, config, error) || !checkTensors(config, checkpoint, ignored, error)) {
    checkpointError(&context, error);
    return {};
  }
  FailureOr<int64_t> length = contextOf(&context, config, options);
  if (failed(length))
    return {};
  OwningOpRef<ModuleOp> module = ModuleOp::create(NameLoc::get(StringAttr::get(&context, config.modelType)));
  Weights weights(&context, options, checkpoint, config);
  auto build = [&](EntryKind kind, int64_t tokens, LogitRows rows) {
    return buildEntry(*module, config, options, weights, *length, kind, tokens, rows);
  };
  if (failed(build(EntryKind::Decode, /*tokens=*/1, LogitRows::Last)))
    return {};
  if (options.prefillChunk != 0 &&
      failed(build(EntryKind::Prefill, options.prefillChunk, options.allLogits ? LogitRows::All : LogitRows::Last)))
    return {};
  (*module)->setAttr("helix.vocabulary", IntegerAttr::get(IntegerType::get(&context, 64), config.vocabulary));
  if (failed(weights.write()) || failed(verify(*module)))
    return {};
  if (options.explanation)
    explain(config, ignored, *options.explanation);
  return module;
}

} // namespace helix
