//===- PlanToHlx.cpp - From the plan dialect to an artifact ----------------===//
#include "lib/Translate/PlanToHlx.h"

#include "dialects/Plan/Plan.h"
#include "helix/Errors.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/Writer.h"
#include "lib/Translate/StatelessWork.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <filesystem>

using namespace mlir;

namespace helix {
namespace {

using namespace artifact;

InFlightDiagnostic invalid(Operation *op) { return op->emitError(errorPrefix(ErrorCode::PlanInvalid)); }

DType dtypeOf(Type type) {
  if (type.isInteger())
    return DType::I8;
  if (isa<Float8E4M3FNType>(type))
    return DType::F8E4M3;
  return type.isF16() ? DType::F16 : type.isBF16() ? DType::BF16 : DType::F32;
}

artifact::Axis axisOf(helix::Axis axis) { return static_cast<artifact::Axis>(axis); }
static_assert(int(artifact::Axis::Tpf) == int(helix::Axis::Tpf) && int(artifact::Axis::Kvp) == int(helix::Axis::Kvp));
static_assert(int(artifact::WeightUse::Vector) == int(plan::WeightUse::Vector));
static_assert(int(artifact::ZeroPoint::Real) == int(helix::ZeroPoint::Real));
static_assert(int(artifact::EntryKind::Stateless) == int(helix::EntryKind::Stateless));
static_assert(int(artifact::LogitRows::All) == int(helix::LogitRows::All));

/// The name in a location: that of the ONNX node.
StringRef nameIn(Location location) {
  if (auto name = dyn_cast<NameLoc>(location))
    return name.getName().getValue();
  if (auto fused = dyn_cast<FusedLoc>(location))
    for (Location part : fused.getLocations())
      if (StringRef name = nameIn(part); !name.empty())
        return name;
  return {};
}

struct Writer {
  ModuleOp module;
  const HlxPaths &paths;
  MeshAttr mesh;
  ArtifactT artifact;
  llvm::StringMap<uint32_t> files;
  DenseMap<Attribute, uint32_t> weights, images, kernels; ///< symbol → index
  SmallVector<Type> caches;                               ///< of every entry

  Writer(ModuleOp module, const HlxPaths &paths) : module(module), paths(paths) {}

  //===--------------------------------------------------------------------===//
  // Tables
  //===--------------------------------------------------------------------===//

  /// Index of the file in the artifact's list.
  FailureOr<uint32_t> fileOf(plan::WeightOp weight, StringRef name) {
    auto [it, isNew] = files.try_emplace(name, files.size());
    if (!isNew)
      return it->second;
    SmallString<256> path(paths.weights), directory;
    llvm::sys::path::append(path, name);
    llvm::sys::fs::file_status status;
    SmallString<256> present(path);
    present += paths.suffix;
    if (!llvm::sys::fs::exists(present))
      present = path;
    if (llvm::sys::fs::status(present, status) || status.type() != llvm::sys::fs::file_type::regular_file)
      return weight.emitError(errorPrefix(ErrorCode::WeightFileMissing))
             << "weight '" << weight.getName() << "' is in '" << path << "', which is no file; give the model's "
             << "directory";
    if (!paths.output.empty() && llvm::sys::fs::equivalent(path, paths.output))
      return weight.emitError(errorPrefix(ErrorCode::OutputIsInput))
             << "the output '" << paths.output << "' holds the model's weights; write to another file";
    auto file = std::make_unique<WeightFileT>();
    // Weights may lie behind a link; the artifact's own path is taken as it is given, so that it can be moved with
    // them.
    SmallString<256> root;
    if (llvm::sys::fs::real_path(paths.weights, root) || llvm::sys::fs::real_path(paths.artifact, directory))
      return weight.emitError(errorPrefix(ErrorCode::WeightFileMissing))
             << "'" << paths.artifact << "', where the artifact would go, or '" << paths.weights
             << "', the model's directory, does not exist";
    llvm::sys::path::append(root, name);
    file->path = std::filesystem::path(root.str().str()).lexically_normal().lexically_relative(directory.str().str());
    file->bytes = status.getSize();
    artifact.files.push_back(std::move(file));
    return it->second;
  }

  FailureOr<std::unique_ptr<FileRangeT>> rangeOf(plan::WeightOp op, BytesAttr bytes) {
    FailureOr<uint32_t> file = fileOf(op, bytes.getFile().getValue());
    if (failed(file))
      return failure();
    auto range = std::make_unique<FileRangeT>();
    range->file = *file;
    range->offset = bytes.getOffset();
    range->length = bytes.getLength();
    return range;
  }

  LogicalResult addQuantization(plan::WeightOp op, QuantAttr quant, WeightT &weight) {
    auto quantization = std::make_unique<QuantizationT>();
    quantization->bits = quant.getBits();
    quantization->is_signed = cast<RankedTensorType>(op.getStored()).getElementType().isSignedInteger();
    quantization->block = quant.getBlock();
    quantization->scale_dtype = dtypeOf(quant.getScale());
    quantization->zero = static_cast<artifact::ZeroPoint>(quant.getZero());
    static_assert(QuantAttr::kLongestInt8Block == artifact::kLongestInt8Block);
    quantization->activations = quant.getActivations() ? artifact::DType::I8 : artifact::DType::F32;
    FailureOr<std::unique_ptr<FileRangeT>> scales = rangeOf(op, op.getScalesAttr());
    if (failed(scales))
      return failure();
    quantization->scales = std::move(*scales);
    if (BytesAttr bytes = op.getZeroPointsAttr()) {
      FailureOr<std::unique_ptr<FileRangeT>> zeros = rangeOf(op, bytes);
      if (failed(zeros))
        return failure();
      quantization->zero_points = std::move(*zeros);
    }
    weight.quantization = std::move(quantization);
    return success();
  }

  LogicalResult add(plan::WeightOp op) {
    FailureOr<uint32_t> file = fileOf(op, op.getFile());
    if (failed(file))
      return failure();
    auto stored = cast<RankedTensorType>(op.getStored()), local = cast<RankedTensorType>(op.getType());
    auto weight = std::make_unique<WeightT>();
    weight->name = op.getName();
    weight->file = *file;
    weight->offset = op.getOffset();
    weight->length = op.getLength();
    weight->stored_dtype = dtypeOf(stored.getElementType());
    if (QuantAttr quant = op.quant())
      if (failed(addQuantization(op, quant, *weight)))
        return failure();
    weight->dtype = dtypeOf(local.getElementType());
    weight->use = static_cast<artifact::WeightUse>(op.getUse());
    for (int64_t d = 0; d < stored.getRank(); ++d) {
      auto dim = std::make_unique<WeightDimT>();
      dim->stored = stored.getDimSize(d);
      dim->window_offset = op.getWindowOffset() ? (*op.getWindowOffset())[d] : 0;
      dim->window_size = op.getWindowSize() ? (*op.getWindowSize())[d] : stored.getDimSize(d);
      if (std::optional<ArrayRef<int64_t>> pieces = op.getPieces()) {
        dim->run = (*pieces)[2 * d];
        dim->stride = (*pieces)[2 * d + 1];
      }
      if (ArrayAttr slice = op.getSliceAttr())
        for (Attribute attribute : cast<ArrayAttr>(slice[d])) {
          auto split = std::make_unique<SplitT>();
          split->axis = axisOf(cast<SplitAttr>(attribute).getAxis());
          split->chunk = cast<SplitAttr>(attribute).getChunk();
          split->replicas = cast<SplitAttr>(attribute).getReplicas();
          dim->splits.push_back(std::move(split));
        }
      dim->local = local.getDimSize(op.getTransposed() ? 1 - d : d);
      weight->dims.push_back(std::move(dim));
    }
    weight->transposed = op.getTransposed();
    weights[op.getSymNameAttr()] = artifact.weights.size();
    artifact.weights.push_back(std::move(weight));
    return success();
  }

  LogicalResult add(plan::ImageOp op) {
    auto image = std::make_unique<ImageT>();
    image->triple = op.getTriple();
    image->features = op.getFeatures();
    auto bytes = op.getCode().getValues<uint8_t>();
    image->code.assign(bytes.begin(), bytes.end());
    images[op.getSymNameAttr()] = artifact.images.size();
    artifact.images.push_back(std::move(image));
    return success();
  }

  LogicalResult add(plan::KernelOp op) {
    auto kernel = std::make_unique<KernelT>();
    kernel->symbol = op.getSymName();
    kernel->image = images[op.getImageAttr().getAttr()];
    if (op.getGroups() > std::numeric_limits<uint32_t>::max())
      return invalid(op) << "a kernel has fewer than 2^32 groups";
    kernel->groups = op.getGroups();
    kernel->buffers.assign(op.getBuffers().begin(), op.getBuffers().end());
    kernels[op.getSymNameAttr()] = artifact.kernels.size();
    artifact.kernels.push_back(std::move(kernel));
    return success();
  }

  //===--------------------------------------------------------------------===//
  // Entries
  //===--------------------------------------------------------------------===//

  FailureOr<std::unique_ptr<OperandT>> operand(Operation *user, Value value) {
    auto operand = std::make_unique<OperandT>();
    if (isa<RankedTensorType>(value.getType()))
      operand->bytes = plan::bytesOf(value.getType());
    // A cache is the entry's argument, however often it was appended to.
    while (auto append = value.getDefiningOp<plan::KVAppendOp>())
      value = append.getCache();
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      bool isCache = isa<KVType>(argument.getType());
      operand->space = isCache ? Space::Kv : Space::Input;
      operand->index = argument.getArgNumber() - (isCache ? kInputs : 0);
      return operand;
    }
    if (auto get = value.getDefiningOp<plan::GetWeightOp>()) {
      operand->space = Space::Weight;
      operand->index = weights[get.getWeightAttr().getAttr()];
      return operand;
    }
    ArrayAttr places = value.getDefiningOp<plan::CommandOpInterface>().getPlacesAttr();
    if (!places)
      return user->emitError(errorPrefix(ErrorCode::PlanIncomplete))
             << "an operand has no place; run helix-place and helix-verify-plan";
    auto place = cast<plan::PlaceAttr>(places[cast<OpResult>(value).getResultNumber()]);
    operand->space = place.getArena() == plan::Arena::Comm ? Space::Comm : Space::Device;
    operand->offset = place.getOffset();
    return operand;
  }

  void setWork(WorkUnion &work, Operation *op) {
    llvm::TypeSwitch<Operation *>(op)
        .Case([&](plan::EmbeddingOp op) {
          EmbeddingT t;
          t.rows = op.getRows(), t.vocabulary = op.getVocabulary(), t.hidden = op.getHidden();
          t.tied = op.getTied();
          work.Set(std::move(t));
        })
        .Case([&](plan::LinearOp op) {
          LinearT t;
          t.rows = op.getRows(), t.k = op.getK(), t.n = op.getN();
          work.Set(std::move(t));
        })
        .Case([&](plan::KVAppendOp op) {
          KVType cache = op.getCache().getType();
          KvAppendT t;
          t.batch = op.getBatch(), t.tokens = op.getTokens(), t.heads = cache.getHeads();
          t.key_dim = cache.getKeyDim(), t.value_dim = cache.getValueDim();
          work.Set(std::move(t));
        })
        .Case([&](plan::PartialAttentionOp op) {
          KVType cache = op.getCache().getType();
          PartialAttentionT t;
          t.batch = op.getBatch(), t.tokens = op.getTokens(), t.heads = op.getHeads();
          t.padded_heads = op.getPaddedHeads(), t.key_dim = cache.getKeyDim(), t.value_dim = cache.getValueDim();
          t.scale = op.getScale().convertToDouble();
          t.softcap = op.getSoftcap() ? op.getSoftcap()->convertToDouble() : 0;
          t.window = op.getWindow().value_or(0);
          t.slopes = static_cast<bool>(op.getSlopes());
          std::tie(t.batch_begin, t.batch_count) = op.sequenceRange();
          std::tie(t.token_begin, t.token_count) = op.tokenRange();
          work.Set(std::move(t));
        })
        .Case([&](plan::MergeAttentionOp op) {
          MergeAttentionT t;
          t.peers = op.getPeers(), t.batch = op.getBatch(), t.tokens = op.getTokens(), t.heads = op.getHeads();
          t.value_dim = op.getValueDim();
          t.along = op.getTokenChunks() ? ChunkDim::Tokens : ChunkDim::Batch;
          if (std::optional<ArrayRef<int64_t>> chunks = op.getTokenChunks() ? op.getTokenChunks() : op.getBatchChunks())
            t.chunks.assign(chunks->begin(), chunks->end());
          t.sinks = static_cast<bool>(op.getSinks());
          work.Set(std::move(t));
        })
        .Case([&](plan::ConcatOp op) {
          ConcatT t;
          t.rows = op.getRows();
          t.widths.assign(op.getWidths().begin(), op.getWidths().end());
          work.Set(std::move(t));
        })
        .Case([&](plan::RecordOp op) {
          RecordT t;
          t.event = op.getEvent();
          work.Set(std::move(t));
        })
        .Case([&](plan::WaitOp op) {
          WaitT t;
          t.event = op.getEvent();
          work.Set(std::move(t));
        })
        .Case([&](plan::LastTokenOp op) {
          LastTokenT t;
          t.batch = op.getBatch(), t.tokens = op.getTokens(), t.hidden = op.getHidden();
          work.Set(std::move(t));
        })
        .Case<plan::DenseAttentionOp, plan::RotateOp, plan::ScatterOp, plan::TransposeOp>(
            [&](auto op) { setStatelessWork(work, op); })
        .Case([&](plan::LaunchOp op) {
          GeneratedT t;
          t.kernel = kernels[op.getKernelAttr().getAttr()];
          work.Set(std::move(t));
        })
        .Case([&](plan::AllToAllOp op) {
          AllToAllT t;
          t.axis = axisOf(op.getAxis()), t.chunk = op.chunkBytes();
          work.Set(std::move(t));
        })
        .Case([&](plan::AllReduceOp op) {
          AllReduceT t;
          t.axis = axisOf(op.getAxis()), t.elements = op.getResult().getType().getNumElements();
          work.Set(std::move(t));
        });
  }

  FailureOr<std::unique_ptr<CommandT>> command(plan::CommandOpInterface op) {
    auto command = std::make_unique<CommandT>();
    setWork(command->work, op);
    for (Value value : op->getOperands()) {
      FailureOr<std::unique_ptr<OperandT>> in = operand(op, value);
      if (failed(in))
        return failure();
      command->inputs.push_back(std::move(*in));
    }
    for (Value value : op->getResults()) {
      if (!isa<RankedTensorType>(value.getType()))
        continue;
      FailureOr<std::unique_ptr<OperandT>> out = operand(op, value);
      if (failed(out))
        return failure();
      command->outputs.push_back(std::move(*out));
    }
    if (!op.getStreamAttr())
      return op->emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "the command is on no stream; run helix-schedule";
    command->stream = op.getStreamAttr().getInt();
    if (PhaseAttr phase = op.getPhaseAttr())
      command->phase = phase.getValue() == helix::Phase::Kvp ? artifact::Phase::Kvp : artifact::Phase::Tp;
    command->source = nameIn(op->getLoc());
    plan::Cost cost = cast<plan::CostOpInterface>(op.getOperation()).getCost();
    command->cost = std::make_unique<CostT>();
    command->cost->bytes = cost.bytes;
    command->cost->bytes_per_query = cost.bytesPerQuery;
    command->cost->bytes_per_cached = cost.bytesPerCached;
    command->cost->bytes_per_query_cached = cost.bytesPerQueryCached;
    command->cost->flops = cost.flops;
    command->cost->flops_per_query = cost.flopsPerQuery;
    command->cost->flops_per_cached = cost.flopsPerCached;
    command->cost->flops_per_query_cached = cost.flopsPerQueryCached;
    return command;
  }

  LogicalResult addCaches(plan::EntryOp op) {
    auto layout = std::make_unique<KvLayoutT>();
    for (BlockArgument argument : op.getBody().front().getArguments().drop_front(kInputs)) {
      auto cache = cast<KVType>(argument.getType());
      layout->block = cache.getBlock();
      layout->capacity = cache.getCapacity();
      layout->slots = cache.getSlots();
      auto layer = std::make_unique<KvLayerT>();
      layer->heads = cache.getHeads();
      layer->key_dim = cache.getKeyDim();
      layer->value_dim = cache.getValueDim();
      layer->dtype = dtypeOf(cache.getElement());
      if (KvScaleAttr scale = cache.getScale()) {
        layer->scaling = scale.perToken() ? KvScaling::TokenHead : KvScaling::Tensor;
        layer->key_scale = scale.perToken() ? 0 : scale.getKey().getValueAsDouble();
        layer->value_scale = scale.perToken() ? 0 : scale.getValue().getValueAsDouble();
      }
      layout->layers.push_back(std::move(layer));
    }
    for (BlockArgument argument : op.getBody().front().getArguments().drop_front(kInputs)) {
      auto cache = cast<KVType>(argument.getType());
      if (cache.getBlock() != layout->block || static_cast<uint64_t>(cache.getCapacity()) != layout->capacity ||
          cache.getSlots() != layout->slots || cache.getKvp() != mesh.getKvp())
        return invalid(op) << "its caches must share slots, capacity, block and the mesh's kvp, but one is " << cache;
    }
    SmallVector<Type> types(llvm::drop_begin(op.getBody().getArgumentTypes(), kInputs));
    if (artifact.kv && types != caches)
      return invalid(op) << "its caches are not those of the entries before it";
    caches = std::move(types);
    artifact.kv = std::move(layout);
    return success();
  }

  /// What a stateless entry takes and gives.
  LogicalResult addPorts(plan::EntryOp op, EntryT &entry) {
    for (auto [io, type] : llvm::zip(*op.getInputs(), op.getBody().getArgumentTypes()))
      entry.inputs.push_back(portOf(cast<IOAttr>(io), cast<RankedTensorType>(type)));
    Operation *end = op.getBody().front().getTerminator();
    for (auto [io, value] : llvm::zip(*op.getOutputs(), end->getOperands())) {
      entry.outputs.push_back(portOf(cast<IOAttr>(io), cast<RankedTensorType>(value.getType())));
      FailureOr<std::unique_ptr<OperandT>> place = operand(end, value);
      if (failed(place))
        return failure();
      entry.outputs.back()->place = std::move(*place);
    }
    return success();
  }

  LogicalResult addLogits(plan::EntryOp op, EntryT &entry) {
    FailureOr<std::unique_ptr<OperandT>> logits =
        operand(op.getBody().front().getTerminator(), op.getReturned().front());
    if (failed(logits))
      return failure();
    entry.logits_operand = std::move(*logits);
    return success();
  }

  LogicalResult add(plan::EntryOp op) {
    if (!op.getDeviceBytes() || !op.getCommBytes())
      return op.emitError(errorPrefix(ErrorCode::PlanIncomplete)) << "the entry has no arenas; run helix-place";
    bool isStateless = op.getSignature().isStateless();
    if (!isStateless && failed(addCaches(op)))
      return failure();
    auto entry = std::make_unique<EntryT>();
    EntryAttr signature = op.getSignature();
    entry->kind = static_cast<artifact::EntryKind>(signature.getKind());
    entry->batch = signature.getBatch();
    entry->tokens = signature.getTokens();
    entry->logits = static_cast<artifact::LogitRows>(signature.getLogits());
    entry->device_bytes = *op.getDeviceBytes();
    entry->comm_bytes = *op.getCommBytes();
    if (failed(isStateless ? addPorts(op, *entry) : addLogits(op, *entry)))
      return failure();
    for (auto inner : op.getBody().front().getOps<plan::CommandOpInterface>()) {
      FailureOr<std::unique_ptr<CommandT>> next = command(inner);
      if (failed(next))
        return failure();
      entry->streams = std::max(entry->streams, (*next)->stream + 1);
      entry->events += isa<plan::RecordOp>(*inner);
      entry->commands.push_back(std::move(*next));
    }
    artifact.entries.push_back(std::move(entry));
    return success();
  }

  template <typename Op> LogicalResult addAll() {
    for (Op op : module.getOps<Op>())
      if (failed(add(op)))
        return failure();
    return success();
  }

  LogicalResult run() {
    mesh = module->getAttrOfType<MeshAttr>(kMeshAttr);
    auto vocabulary = module->getAttrOfType<IntegerAttr>("helix.vocabulary");
    SmallVector<plan::EntryOp> entries(module.getOps<plan::EntryOp>());
    bool isStateless = entries.size() == 1 && entries.front().getSignature().isStateless();
    if (!mesh || (!isStateless && (!vocabulary || vocabulary.getInt() < 1)))
      return invalid(module) << "the module needs " << kMeshAttr << " and helix.vocabulary";
    if (!isStateless && llvm::any_of(entries, [](plan::EntryOp entry) { return entry.getSignature().isStateless(); }))
      return invalid(module) << "a stateless entry must be the only one of its module";
    artifact.compiler = "helix " HELIX_VERSION;
    artifact.mesh = std::make_unique<MeshT>();
    artifact.mesh->tpa = mesh.getTpa();
    artifact.mesh->kvp = mesh.getKvp();
    artifact.mesh->ep = mesh.getEp();
    artifact.mesh->tpf = mesh.getTpf();
    artifact.vocabulary = isStateless ? 0 : vocabulary.getInt();
    artifact.local_vocabulary = llvm::divideCeil(artifact.vocabulary, static_cast<uint64_t>(mesh.ranks()));
    for (Operation &op : *module.getBody())
      if (!isa<plan::WeightOp, plan::ImageOp, plan::KernelOp, plan::EntryOp>(op))
        return invalid(&op) << op.getName() << " is no part of a plan; run helix-plan-phase first";
    // What others refer to first, wherever it stands.
    if (failed(addAll<plan::WeightOp>()) || failed(addAll<plan::ImageOp>()) || failed(addAll<plan::KernelOp>()) ||
        failed(addAll<plan::EntryOp>()))
      return failure();
    sealKernels(artifact);
    return success();
  }

  static constexpr unsigned kInputs = 3; ///< arguments before the caches
};

} // namespace

std::optional<ArtifactT> planToArtifact(ModuleOp module, const HlxPaths &paths) {
  Writer writer(module, paths);
  if (failed(writer.run()))
    return std::nullopt;
  return std::move(writer.artifact);
}

} // namespace helix
