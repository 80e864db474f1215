//===- Codegen.cpp - helix-codegen -----------------------------------------===//
#include "dialects/Plan/Plan.h"
#include "lib/Codegen/Cpu/Cpu.h"
#include "passes/CodegenStateless.h"
#include "lib/Codegen/Cuda/Cuda.h"
#include "passes/Entries.h"
#include "passes/Passes.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_CODEGEN
#include "passes/Passes.h.inc"

namespace {

RankedTensorType tensorOf(Value value) { return cast<RankedTensorType>(value.getType()); }

/// The tensor whose bytes a value of the helix dialect is.
RankedTensorType bytesOfPartial(Value value) {
  if (auto partial = dyn_cast<PartialType>(value.getType()))
    return partial.getValue();
  return tensorOf(value);
}

/// Rewrites entries, op by op, into plan entries of the same module.
struct Converter {
  ModuleOp module;
  MeshAttr mesh;
  SymbolTable symbols;
  DenseMap<Attribute, StringAttr> weights; ///< a weight's attributes and use → its symbol
  DenseMap<Attribute, WeightOp> matrices;  ///< what products read transposed: a table with these bytes need not be kept
  Operation *lastWeight = nullptr;

  // The entry at hand.
  OpBuilder builder;
  IRMapping map;

  Converter(ModuleOp module, MeshAttr mesh)
      : module(module), mesh(mesh), symbols(module), builder(module.getContext()) {}

  InFlightDiagnostic notFused(Operation *op) {
    return op->emitError(errorPrefix(ErrorCode::NotFused)) << "no command does the work of " << op->getName() << ": ";
  }

  Value in(Value value) { return map.lookup(value); }
  PhaseAttr phase(Operation *op) { return op->getAttrOfType<PhaseAttr>(kPhaseAttr); }

  /// The one axis along which the same ranks lie: both axes of a view are all ranks.
  Axis single(ArrayRef<Axis> axes) { return axes.size() == 1 ? axes.front() : Axis::N; }

  /// What bytes a rank holds of a weight and in which type, whatever it is called and however it is turned.
  Attribute bytesKey(WeightOp op) {
    // Codes mean the same whichever dimension of the weight their blocks lie along, and whatever products round.
    Attribute meaning = builder.getUnitAttr();
    if (QuantAttr quant = op.quant())
      meaning = QuantAttr::get(builder.getContext(), quant.getBits(), quant.getBlock(), 0, quant.getScale(),
                               quant.getZero(), /*activations=*/Type());
    auto orNull = [&](Attribute attribute) { return attribute ? attribute : builder.getUnitAttr(); };
    return builder.getArrayAttr({op.getFileAttr(), op.getOffsetAttr(), op.getStoredAttr(),
                                 orNull(op.getWindowOffsetAttr()), orNull(op.getWindowSizeAttr()),
                                 orNull(op.getSliceAttr()), orNull(op.getPiecesAttr()),
                                 TypeAttr::get(op.getType().getElementType()), meaning, orNull(op.getScalesAttr()),
                                 orNull(op.getZeroPointsAttr())});
  }

  /// Notes the transposed matrices of an entry's products, before anything is converted.
  void noteMatrices(func::FuncOp entry) {
    for (auto linear : entry.getOps<LinearOp>())
      if (auto matrix = linear.getWeight().getDefiningOp<WeightOp>(); matrix && matrix.getTransposed())
        matrices.try_emplace(bytesKey(matrix), matrix);
  }

  /// The module's weight with these attributes, for this use; entries share it.
  Value weight(Value value, plan::WeightUse use) {
    auto op = value.getDefiningOp<WeightOp>();
    if (!op)
      return in(value);
    Attribute key = builder.getArrayAttr(
        {op->getAttrDictionary(), TypeAttr::get(op.getType()), plan::WeightUseAttr::get(builder.getContext(), use)});
    StringAttr &symbol = weights[key];
    if (!symbol) {
      OpBuilder::InsertionGuard guard(builder);
      builder.clearInsertionPoint();
      auto shared =
          plan::WeightOp::create(builder, op.getLoc(), op.getName(), use, op.getType(), op.getName(), op.getFile(),
                                 op.getOffset(), op.getLength(), op.getStored(), op.getWindowOffsetAttr(),
                                 op.getWindowSizeAttr(), op.getSliceAttr(), op.getTransposed(), op.getPiecesAttr(),
                                 op.getScalesAttr(), op.getZeroPointsAttr());
      // Renames it if the name is taken.
      symbol = symbols.insert(shared, lastWeight ? std::next(lastWeight->getIterator()) : module.getBody()->begin());
      lastWeight = shared;
    }
    return plan::GetWeightOp::create(builder, op.getLoc(), op.getType(), FlatSymbolRefAttr::get(symbol));
  }

  /// A weight that a command reads as it is, if there is one.
  Value vector(Value value) { return value ? weight(value, plan::WeightUse::Vector) : Value(); }

  //===--------------------------------------------------------------------===//
  // Ops
  //===--------------------------------------------------------------------===//

  LogicalResult convert(EmbeddingOp op) {
    RankedTensorType result = bytesOfPartial(op.getResult()), table = tensorOf(op.getTable());
    int64_t hidden = table.getDimSize(1);
    auto rows = op.getTable().getDefiningOp<WeightOp>();
    WeightOp matrix = rows && !rows.getTransposed() ? matrices.lookup(bytesKey(rows)) : WeightOp();
    Value weightValue =
        matrix ? weight(matrix, plan::WeightUse::Linear) : weight(op.getTable(), plan::WeightUse::Table);
    auto command = plan::EmbeddingOp::create(builder, op.getLoc(), result, in(op.getIds()), weightValue,
                                             result.getNumElements() / hidden, table.getDimSize(0), hidden,
                                             bool(matrix), nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(LinearOp op) {
    RankedTensorType result = bytesOfPartial(op.getResult()), matrix = tensorOf(op.getWeight());
    int64_t k = matrix.getDimSize(0), n = matrix.getDimSize(1);
    auto command = plan::LinearOp::create(builder, op.getLoc(), result, in(op.getX()),
                                          weight(op.getWeight(), plan::WeightUse::Linear), result.getNumElements() / n,
                                          k, n, nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(KVAppendOp op) {
    ArrayRef<int64_t> key = tensorOf(op.getKey()).getShape();
    auto command = plan::KVAppendOp::create(builder, op.getLoc(), op.getResult().getType(), in(op.getKey()),
                                            in(op.getValue()), in(op.getPast()), in(op.getQLen()), in(op.getCache()),
                                            key[0], key[1], nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(PartialAttentionOp op) {
    ArrayRef<int64_t> q = tensorOf(op.getQ()).getShape();
    KVType cache = op.getCache().getType();
    int64_t padded = op.getResult().getType().getValue().getDimSize(2), kvp = cache.getKvp();
    int64_t sequences = op.range(0).second, tokens = op.range(1).second;
    // It writes straight into the packed send buffer.
    auto send =
        RankedTensorType::get({kvp, sequences, tokens, padded / kvp, cache.getValueDim() + 1}, builder.getF32Type());
    auto command = plan::PartialAttentionOp::create(
        builder, op.getLoc(), send, in(op.getQ()), in(op.getCache()), in(op.getPast()), in(op.getQLen()),
        vector(op.getSlopes()), q[0], q[1], q[2], padded, op.getScale(), op.getSoftcapAttr(), op.getWindowAttr(),
        op.getSequencesAttr(), op.getQueryTokensAttr(), nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(AllToAllOp op) {
    Axis axis = op.getResult().getType().getAxis();
    Value send = in(op.getInput());
    // A rank alone has received what it sends.
    if (mesh.size(axis) > 1)
      send = plan::AllToAllOp::create(builder, op.getLoc(), op.getResult().getType().getValue(), send, axis,
                                      mesh.size(axis), nullptr, nullptr, phase(op));
    map.map(op.getResult(), send);
    return success();
  }

  LogicalResult convert(MergeAttentionOp op) {
    ArrayRef<int64_t> out = tensorOf(op.getResult()).getShape();
    SmallVector<Value> chunks;
    SmallVector<int64_t> sizes;
    unsigned dim = op.chunkedDim();
    for (Value chunk : op.getInputs()) {
      chunks.push_back(in(chunk));
      sizes.push_back(cast<StackedType>(chunk.getType()).getValue().getDimSize(dim + 1));
    }
    int64_t peers = cast<StackedType>(op.getInputs().front().getType()).getValue().getDimSize(0);
    // One chunk is the whole.
    DenseI64ArrayAttr cut = sizes.size() == 1 ? DenseI64ArrayAttr() : builder.getDenseI64ArrayAttr(sizes);
    auto command =
        plan::MergeAttentionOp::create(builder, op.getLoc(), op.getResult().getType(), chunks, vector(op.getSinks()),
                                       peers, out[0], out[1], out[2], out[3], dim == 0 ? cut : DenseI64ArrayAttr(),
                                       dim == 1 ? cut : DenseI64ArrayAttr(), nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(tensor::ConcatOp op) {
    // What is behind the dimension goes along with it.
    auto width = [&](RankedTensorType type) {
      return ShapedType::getNumElements(type.getShape().drop_front(op.getDim()));
    };
    RankedTensorType result = op.getResultType();
    SmallVector<Value> parts;
    SmallVector<int64_t> widths;
    for (Value part : op.getInputs()) {
      parts.push_back(in(part));
      widths.push_back(width(tensorOf(part)));
    }
    auto command = plan::ConcatOp::create(builder, op.getLoc(), result, parts, result.getNumElements() / width(result),
                                          widths, nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(AllReduceOp op) {
    Axis axis = single(op.getInput().getType().getAxes());
    Value value = in(op.getInput());
    // A rank alone has the whole sum.
    if (mesh.size(axis) > 1)
      value = plan::AllReduceOp::create(builder, op.getLoc(), op.getResult().getType(), value, axis, mesh.size(axis),
                                        nullptr, nullptr, phase(op));
    map.map(op.getResult(), value);
    return success();
  }

  LogicalResult convert(LastTokenOp op) {
    ArrayRef<int64_t> x = tensorOf(op.getX()).getShape();
    auto command = plan::LastTokenOp::create(builder, op.getLoc(), op.getResult().getType(), in(op.getX()),
                                             in(op.getQLen()), x[0], x[1], x[2], nullptr, nullptr, phase(op));
    map.map(op.getResult(), command.getResult());
    return success();
  }

  LogicalResult convert(func::CallOp op) {
    if (!symbols.lookup<plan::KernelOp>(op.getCallee()))
      return notFused(op) << "@" << op.getCallee() << " has no " << kKernelAttr;
    SmallVector<Value> operands =
        llvm::map_to_vector(op.getOperands(), [&](Value operand) { return weight(operand, plan::WeightUse::Vector); });
    auto command = plan::LaunchOp::create(builder, op.getLoc(), op.getResultTypes(), op.getCallee(), operands, nullptr,
                                          nullptr, phase(op));
    map.map(op.getResults(), command.getResults());
    return success();
  }

  LogicalResult convert(Operation *op) {
    // A weight is fetched where it is used; a reshape changes no byte.
    if (isa<WeightOp>(op))
      return success();
    if (isa<tensor::ExpandShapeOp, tensor::CollapseShapeOp>(op)) {
      map.map(op->getResult(0), in(op->getOperand(0)));
      return success();
    }
    return llvm::TypeSwitch<Operation *, LogicalResult>(op)
        .Case<EmbeddingOp, LinearOp, KVAppendOp, PartialAttentionOp, AllToAllOp, MergeAttentionOp, AllReduceOp,
              LastTokenOp, tensor::ConcatOp, func::CallOp>([&](auto typed) { return convert(typed); })
        .Case<DenseAttentionOp, RotateOp, ScatterOp, TransposeOp>([&](auto typed) {
          map.map(typed.getResult(), commandOf(builder, map, typed));
          return success();
        })
        .Default([&](Operation *other) -> LogicalResult {
          return notFused(other) << "run helix-flatten and helix-fuse first";
        });
  }

  /// Checks what conversions look up, so that none of them meets a value without bytes: a weight that is reshaped, or
  /// read by an op that takes none.
  LogicalResult checkWeights(func::FuncOp entry) {
    for (auto op : entry.getOps<WeightOp>())
      for (OpOperand &use : op->getUses()) {
        Operation *user = use.getOwner();
        bool isVector = false;
        if (auto attention = dyn_cast<PartialAttentionOp>(user))
          isVector = &use == attention.getSlopesMutable().begin();
        if (auto merge = dyn_cast<MergeAttentionOp>(user))
          isVector = isa<RankedTensorType>(use.get().getType());
        if (!(isa<EmbeddingOp, LinearOp>(user) && use.getOperandNumber() == 1) && !isVector && !isa<func::CallOp>(user))
          return notFused(user) << "it reads a weight";
      }
    return success();
  }

  LogicalResult convertEntry(func::FuncOp entry) {
    if (!entry.getBody().hasOneBlock() || entry.getNumResults() == 0)
      return notFused(entry) << "@" << entry.getName() << " must be one block that returns logits";
    if (failed(checkWeights(entry)))
      return failure();
    auto signature = entry->getAttrOfType<EntryAttr>(kEntryAttr);
    auto command = plan::EntryOp::create(builder, entry.getLoc(), entry.getName(), signature, nullptr, nullptr,
                                         portsOf(entry.getArgAttrsAttr()), portsOf(entry.getResAttrsAttr()));
    symbols.insert(command);
    map.clear();
    Block &source = entry.getBody().front();
    SmallVector<Location> locations;
    for (BlockArgument argument : source.getArguments())
      locations.push_back(argument.getLoc());
    Block *body = builder.createBlock(&command.getBody(), {}, source.getArgumentTypes(), locations);
    map.map(source.getArguments(), body->getArguments());
    for (Operation &op : source.without_terminator())
      if (failed(convert(&op)))
        return failure();
    Operation *end = source.getTerminator();
    if (isStateless(entry)) {
      returnOutputs(builder, map, cast<func::ReturnOp>(end));
    } else {
      Value logits = end->getOperand(0);
      if (!isa<RankedTensorType>(logits.getType()) || logits.getDefiningOp<WeightOp>())
        return notFused(end) << "the logits must be computed";
      plan::ReturnOp::create(builder, end->getLoc(), in(logits));
    }
    builder.clearInsertionPoint();
    return success();
  }
};

struct CodegenPass : impl::CodegenBase<CodegenPass> {
  using CodegenBase::CodegenBase;

  void getDependentDialects(DialectRegistry &registry) const override {
    CodegenBase::getDependentDialects(registry);
    codegen::registerCpuDialects(registry);
    codegen::registerCudaDialects(registry);
  }

  /// Image and kernels of the module; without kernels none.
  LogicalResult compile(Converter &converter, ArrayRef<func::FuncOp> kernels) {
    if (target != "cpu" && target != "cuda")
      return getOperation().emitError(errorPrefix(ErrorCode::TargetUnsupported))
             << "unknown target '" << target << "'; take cpu or cuda";
    FailureOr<codegen::Image> image =
        target == "cpu" ? codegen::compileForCpu(kernels, {features}) : codegen::compileForCuda(kernels, {archs});
    if (failed(image))
      return failure();
    if (kernels.empty())
      return success();
    OpBuilder builder(&getContext());
    Location loc = builder.getUnknownLoc();
    auto type = RankedTensorType::get({static_cast<int64_t>(image->code.size())}, builder.getI8Type());
    ArrayRef<char> bytes(image->code.data(), image->code.size());
    auto code = DenseIntElementsAttr::getFromRawBuffer(type, bytes);
    auto imageOp =
        plan::ImageOp::create(builder, loc, "image", image->triple, image->features, cast<DenseIntElementsAttr>(code));
    StringAttr symbol = converter.symbols.insert(imageOp);
    for (size_t i = 0; i < kernels.size(); ++i) {
      const codegen::CompiledKernel &compiled = image->kernels[i];
      FunctionType signature = func::FuncOp(kernels[i]).getFunctionType();
      SmallVector<int64_t> buffers;
      for (Type buffer : llvm::concat<const Type>(signature.getInputs(), signature.getResults()))
        buffers.push_back(plan::bytesOf(buffer));
      auto op = plan::KernelOp::create(builder, loc, compiled.symbol, symbol.getValue(), compiled.groups, buffers,
                                       llvm::APFloat(compiled.cost.bytes), llvm::APFloat(compiled.cost.flops));
      converter.symbols.insert(op);
      ++compiledKernels;
    }
    imageBytes += image->code.size();
    return success();
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto mesh = module->getAttrOfType<MeshAttr>(kMeshAttr);
    SmallVector<func::FuncOp> entries = entriesOf(module);
    if (!mesh || entries.empty()) {
      module.emitError(errorPrefix(ErrorCode::NotFused))
          << "the module needs " << kMeshAttr << " and a function with " << kEntryAttr;
      return signalPassFailure();
    }
    // Out of the module, so that their names are free for what they become.
    SmallVector<OwningOpRef<func::FuncOp>> functions;
    SmallVector<func::FuncOp> kernels;
    for (auto function : llvm::make_early_inc_range(module.getOps<func::FuncOp>())) {
      if (function->hasAttr(kKernelAttr))
        kernels.push_back(function);
      function->remove();
      functions.push_back(OwningOpRef<func::FuncOp>(function));
    }
    Converter converter(module, mesh);
    if (failed(compile(converter, kernels)))
      return signalPassFailure();
    for (func::FuncOp entry : entries)
      converter.noteMatrices(entry);
    for (func::FuncOp entry : entries)
      if (failed(converter.convertEntry(entry)))
        return signalPassFailure();
  }
};

} // namespace
} // namespace helix
