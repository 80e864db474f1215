//===- Rows.cpp - From linalg on tensors to loops over rows and vectors ----===//
#include "lib/Codegen/Cpu/Cpu.h"

#include "helix/Errors.h"

#include "mlir/Conversion/LLVMCommon/MemRefBuilder.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/IndexingUtils.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;

namespace helix::codegen {
namespace {

constexpr int64_t kLanes = 16;           ///< elements of a vector of an elementwise op
constexpr int64_t kSumLanes = 32;        ///< partial sums of a reduction: enough to hide the latency of an addition
constexpr int64_t kMaxGroups = 64;       ///< groups of rows that may run in parallel
constexpr int64_t kMaxScratch = 1 << 19; ///< bytes of stack that a kernel may take for values between its ops

/// Bytes of a tensor: a flat buffer, and the distance in elements between neighbours along each dimension.
struct Buffer {
  Value memory;
  SmallVector<int64_t> strides;
};

struct Emitter {
  func::FuncOp kernel;
  OpBuilder builder;
  Location loc;
  DenseMap<Value, Buffer> buffers;
  int64_t scratch = 0;

  // The generic op at hand.
  linalg::GenericOp op;
  SmallVector<Value> indices;            ///< of its dimensions; the last one's is the start of the vector
  llvm::DenseSet<Value> varying;         ///< values of its body that differ along the last dimension
  DenseMap<Value, Value> uniform, lanes; ///< scalar and vector forms of values of its body
  int64_t width = 0;                     ///< elements of the vector

  Emitter(func::FuncOp kernel, OpBuilder builder) : kernel(kernel), builder(builder), loc(kernel.getLoc()) {}

  Value index(int64_t value) { return arith::ConstantIndexOp::create(builder, loc, value); }
  unsigned lastDim() { return op.getNumLoops() - 1; }

  InFlightDiagnostic unsupported(Operation *culprit) {
    return kernel.emitError(errorPrefix(ErrorCode::KernelUnsupported))
           << "cannot generate code for " << culprit->getName() << " in @" << kernel.getName() << ": ";
  }

  //===--------------------------------------------------------------------===//
  // Addresses
  //===--------------------------------------------------------------------===//

  /// Position in the buffer, as an expression of the op's dimensions.
  AffineExpr linear(const Buffer &buffer, AffineMap map) {
    AffineExpr sum = builder.getAffineConstantExpr(0);
    for (auto [expr, stride] : llvm::zip(map.getResults(), buffer.strides))
      sum = sum + expr * stride;
    return sum;
  }

  /// By how much the position grows along the last dimension.
  int64_t step(AffineExpr position) {
    AffineExpr last = builder.getAffineDimExpr(lastDim());
    AffineExpr difference =
        simplifyAffineExpr(position.replace(last, last + 1) - position, op.getNumLoops(), /*numSymbols=*/0);
    return cast<AffineConstantExpr>(difference).getValue();
  }

  Value address(AffineExpr position) {
    return affine::expandAffineExpr(builder, loc, simplifyAffineExpr(position, op.getNumLoops(), 0), indices, {});
  }

  Value loadVector(Value memory, AffineExpr position) {
    Type element = cast<MemRefType>(memory.getType()).getElementType();
    int64_t stride = step(position);
    // Every stride-th element of a run that ends at the last one wanted, so that nothing past it is read.
    Value run = vector::LoadOp::create(builder, loc, VectorType::get({(width - 1) * stride + 1}, element), memory,
                                       address(position));
    if (stride == 1)
      return run;
    SmallVector<int64_t> picked;
    for (int64_t i = 0; i < width; ++i)
      picked.push_back(i * stride);
    return vector::ShuffleOp::create(builder, loc, run, run, picked);
  }

  void storeVector(Value value, Value memory, AffineExpr position) {
    int64_t stride = step(position);
    Value start = address(position);
    if (stride == 1) {
      vector::StoreOp::create(builder, loc, value, memory, start);
      return;
    }
    for (int64_t i = 0; i < width; ++i)
      memref::StoreOp::create(builder, loc, vector::ExtractOp::create(builder, loc, value, i).getResult(), memory,
                              arith::AddIOp::create(builder, loc, start, index(i * stride)).getResult());
  }

  //===--------------------------------------------------------------------===//
  // Bodies
  //===--------------------------------------------------------------------===//

  AffineMap mapOf(BlockArgument argument) { return op.getMatchingIndexingMap(op.getMatchingOpOperand(argument)); }
  const Buffer &bufferOf(BlockArgument argument) { return buffers[op.getMatchingOpOperand(argument)->get()]; }

  void findVarying() {
    varying.clear();
    for (BlockArgument argument : op.getRegionInputArgs())
      if (!argument.use_empty() && step(linear(bufferOf(argument), mapOf(argument))) != 0)
        varying.insert(argument);
    for (Operation &inner : op.getBody()->without_terminator()) {
      auto indexOp = dyn_cast<linalg::IndexOp>(inner);
      bool differs = indexOp ? indexOp.getDim() == lastDim()
                             : llvm::any_of(inner.getOperands(), [&](Value v) { return varying.contains(v); });
      if (differs)
        varying.insert(inner.getResult(0));
    }
  }

  Value scalar(Value value) {
    if (Value known = uniform.lookup(value))
      return known;
    auto argument = cast<BlockArgument>(value);
    const Buffer &buffer = bufferOf(argument);
    return uniform[value] =
               memref::LoadOp::create(builder, loc, buffer.memory, address(linear(buffer, mapOf(argument))));
  }

  Value vectorOf(Value value) {
    if (Value known = lanes.lookup(value))
      return known;
    Value result;
    if (!varying.contains(value)) {
      Value one = scalar(value);
      result = vector::BroadcastOp::create(builder, loc, VectorType::get({width}, one.getType()), one);
    } else {
      auto argument = cast<BlockArgument>(value);
      const Buffer &buffer = bufferOf(argument);
      result = loadVector(buffer.memory, linear(buffer, mapOf(argument)));
    }
    return lanes[value] = result;
  }

  /// tensor.extract of an operand of the kernel: its last index may be the last dimension's.
  LogicalResult extract(tensor::ExtractOp inner) {
    const Buffer &buffer = buffers[inner.getTensor()];
    Value position = index(0);
    bool isVector = varying.contains(inner.getResult());
    for (auto [i, at] : llvm::enumerate(inner.getIndices())) {
      Value here;
      if (!varying.contains(at))
        here = scalar(at);
      else if (at.getDefiningOp<linalg::IndexOp>() && buffer.strides[i] == 1)
        here = indices.back();
      else
        return unsupported(inner) << "it gathers elements that are not next to each other";
      position = arith::AddIOp::create(builder, loc, position,
                                       arith::MulIOp::create(builder, loc, here, index(buffer.strides[i])));
    }
    Type element = inner.getType();
    if (isVector)
      lanes[inner.getResult()] =
          vector::LoadOp::create(builder, loc, VectorType::get({width}, element), buffer.memory, position);
    else
      uniform[inner.getResult()] = memref::LoadOp::create(builder, loc, buffer.memory, position);
    return success();
  }

  /// The body's ops that are uniform along the last dimension, or those that are not.
  LogicalResult body(bool vectors) {
    for (Operation &inner : op.getBody()->without_terminator()) {
      Value result = inner.getResult(0);
      if (varying.contains(result) != vectors || &inner == accumulation())
        continue;
      if (auto indexOp = dyn_cast<linalg::IndexOp>(inner)) {
        if (!vectors)
          uniform[result] = indices[indexOp.getDim()];
        continue;
      }
      if (auto extractOp = dyn_cast<tensor::ExtractOp>(inner)) {
        if (failed(extract(extractOp)))
          return failure();
        continue;
      }
      if (auto constant = dyn_cast<arith::ConstantOp>(inner)) {
        uniform[result] = builder.clone(inner)->getResult(0);
        continue;
      }
      OperationState state(loc, inner.getName());
      for (Value operand : inner.getOperands()) {
        if (vectors && operand.getDefiningOp<linalg::IndexOp>() && varying.contains(operand))
          return unsupported(&inner) << "it computes with the position in a row";
        state.addOperands(vectors ? vectorOf(operand) : scalar(operand));
      }
      state.addTypes(vectors ? VectorType::get({width}, result.getType()) : result.getType());
      state.addAttributes(inner.getAttrs());
      (vectors ? lanes : uniform)[result] = builder.create(state)->getResult(0);
    }
    return success();
  }

  /// The addition into the accumulator of a reduction; null for an elementwise op.
  Operation *accumulation() {
    return op.getNumReductionLoops() ? op.getBody()->getTerminator()->getOperand(0).getDefiningOp() : nullptr;
  }

  //===--------------------------------------------------------------------===//
  // Loops
  //===--------------------------------------------------------------------===//

  LogicalResult elementwiseChunk(Value start, int64_t size) {
    width = size;
    indices.back() = start;
    lanes.clear();
    if (failed(body(/*vectors=*/true)))
      return failure();
    for (auto [i, yielded] : llvm::enumerate(op.getBody()->getTerminator()->getOperands())) {
      const Buffer &buffer = buffers[op.getResult(i)];
      storeVector(vectorOf(yielded), buffer.memory, linear(buffer, op.getMatchingIndexingMap(op.getDpsInitOperand(i))));
    }
    return success();
  }

  /// What the chunk adds to the accumulators.
  FailureOr<Value> addends(Value start, int64_t size) {
    width = size;
    indices.back() = start;
    lanes.clear();
    if (failed(body(/*vectors=*/true)))
      return failure();
    Value accumulator = op.getRegionOutputArgs().front();
    Operation *sum = accumulation();
    return vectorOf(sum->getOperand(sum->getOperand(0) == accumulator ? 1 : 0));
  }

  LogicalResult elementwiseRow(int64_t extent) {
    int64_t whole = extent - extent % kLanes;
    if (whole > 0) {
      auto loop = scf::ForOp::create(builder, loc, index(0), index(whole), index(kLanes));
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(loop.getBody());
      if (failed(elementwiseChunk(loop.getInductionVar(), kLanes)))
        return failure();
    }
    return whole < extent ? elementwiseChunk(index(whole), extent - whole) : success();
  }

  LogicalResult sumRow(int64_t extent) {
    int64_t whole = extent - extent % kSumLanes;
    auto type = VectorType::get({kSumLanes}, builder.getF32Type());
    Value zeros = arith::ConstantOp::create(builder, loc, DenseElementsAttr::get(type, 0.0f));
    Value sums = zeros;
    if (whole > 0) {
      auto loop = scf::ForOp::create(builder, loc, index(0), index(whole), index(kSumLanes), sums);
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(loop.getBody());
      FailureOr<Value> added = addends(loop.getInductionVar(), kSumLanes);
      if (failed(added))
        return failure();
      Value next = arith::AddFOp::create(builder, loc, loop.getRegionIterArg(0), *added);
      scf::YieldOp::create(builder, loc, next);
      sums = loop.getResult(0);
    }
    if (whole < extent) {
      FailureOr<Value> added = addends(index(whole), extent - whole);
      if (failed(added))
        return failure();
      Value padded =
          vector::InsertStridedSliceOp::create(builder, loc, *added, zeros, ArrayRef<int64_t>{0}, ArrayRef<int64_t>{1});
      sums = arith::AddFOp::create(builder, loc, sums, padded);
    }
    for (int64_t half = kSumLanes / 2; half > 0; half /= 2) {
      auto part = [&](int64_t from) -> Value {
        return vector::ExtractStridedSliceOp::create(builder, loc, sums, ArrayRef<int64_t>{from},
                                                     ArrayRef<int64_t>{half}, ArrayRef<int64_t>{1});
      };
      sums = arith::AddFOp::create(builder, loc, part(0), part(half));
    }
    const Buffer &buffer = buffers[op.getResult(0)];
    memref::StoreOp::create(builder, loc, vector::ExtractOp::create(builder, loc, sums, 0).getResult(), buffer.memory,
                            address(linear(buffer, op.getMatchingIndexingMap(op.getDpsInitOperand(0)))));
    return success();
  }

  /// Copies the row of an initial value that the op changes only in part.
  void copyRow(const Buffer &from, const Buffer &to, ArrayRef<int64_t> shape, ArrayRef<Value> row) {
    int64_t size = 1;
    for (int64_t extent : shape.drop_front(2))
      size *= extent;
    auto start = [&](const Buffer &buffer) -> Value {
      Value b = arith::MulIOp::create(builder, loc, row[0], index(buffer.strides[0]));
      return arith::AddIOp::create(builder, loc, b,
                                   arith::MulIOp::create(builder, loc, row[1], index(buffer.strides[1])));
    };
    Value source = start(from), target = start(to);
    auto chunk = [&](Value at, int64_t elements) {
      auto type = VectorType::get({elements}, builder.getF32Type());
      Value part = vector::LoadOp::create(builder, loc, type, from.memory,
                                          arith::AddIOp::create(builder, loc, source, at).getResult());
      vector::StoreOp::create(builder, loc, part, to.memory,
                              arith::AddIOp::create(builder, loc, target, at).getResult());
    };
    int64_t whole = size - size % kLanes;
    if (whole > 0) {
      auto loop = scf::ForOp::create(builder, loc, index(0), index(whole), index(kLanes));
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(loop.getBody());
      chunk(loop.getInductionVar(), kLanes);
    }
    if (whole < size)
      chunk(index(whole), size - whole);
  }

  LogicalResult generic(linalg::GenericOp next, ArrayRef<Value> row) {
    op = next;
    SmallVector<int64_t> extents = op.getStaticLoopRanges();
    for (auto [i, init] : llvm::enumerate(op.getDpsInits()))
      if (!init.getDefiningOp<tensor::EmptyOp>() && !accumulation())
        copyRow(buffers[init], buffers[op.getResult(i)], cast<RankedTensorType>(init.getType()).getShape(), row);

    OpBuilder::InsertionGuard guard(builder);
    indices.assign(row.begin(), row.end());
    for (unsigned d = 2; d < lastDim(); ++d) {
      auto loop = scf::ForOp::create(builder, loc, index(0), index(extents[d]), index(1));
      builder.setInsertionPointToStart(loop.getBody());
      indices.push_back(loop.getInductionVar());
    }
    indices.push_back(Value());
    uniform.clear();
    findVarying();
    // What does not change along the row, once per row. No position of it depends on the last dimension.
    indices.back() = index(0);
    for (BlockArgument argument : op.getRegionInputArgs())
      if (!argument.use_empty() && !varying.contains(argument))
        scalar(argument);
    if (failed(body(/*vectors=*/false)))
      return failure();
    return accumulation() ? sumRow(extents.back()) : elementwiseRow(extents.back());
  }

  /// Where each result of the kernel's ops goes: an operand of the ABI, or scratch of one row.
  LogicalResult assignBuffers(ArrayRef<Value> results) {
    Operation *terminator = kernel.getBody().front().getTerminator();
    for (auto next : kernel.getBody().front().getOps<linalg::GenericOp>()) {
      for (Value result : next.getResults()) {
        auto type = cast<RankedTensorType>(result.getType());
        SmallVector<int64_t> strides = computeSuffixProduct(type.getShape());
        auto returned = llvm::find(terminator->getOperands(), result);
        if (returned != terminator->getOperands().end()) {
          buffers[result] = {results[std::distance(terminator->getOperands().begin(), returned)], strides};
          continue;
        }
        if (!type.getElementType().isF32())
          return unsupported(next) << "a value of " << type.getElementType() << " is kept between two of its steps";
        int64_t size = 1;
        for (int64_t extent : type.getShape().drop_front(2))
          size *= extent;
        scratch += 4 * size;
        if (scratch > kMaxScratch)
          return unsupported(next) << "the kernel needs more than " << kMaxScratch << " bytes of scratch per row";
        strides[0] = strides[1] = 0;
        Value memory = memref::AllocaOp::create(builder, loc, MemRefType::get({size}, builder.getF32Type()),
                                                builder.getI64IntegerAttr(64));
        buffers[result] = {memory, strides};
      }
    }
    return success();
  }

  /// Emits the function of the ABI; `builder` stands where it goes.
  FailureOr<int64_t> run() {
    MLIRContext *context = builder.getContext();
    auto pointer = LLVM::LLVMPointerType::get(context);
    auto function = func::FuncOp::create(builder, loc, kernel.getName(),
                                         builder.getFunctionType({pointer, pointer, builder.getI64Type()}, {}));
    Block *entry = function.addEntryBlock();
    builder.setInsertionPointToStart(entry);

    LLVMTypeConverter converter(context);
    auto buffer = [&](int64_t position, Type type) -> Value {
      auto tensor = cast<RankedTensorType>(type);
      auto flat = MemRefType::get({tensor.getNumElements()}, tensor.getElementType());
      Value slot = LLVM::GEPOp::create(builder, loc, pointer, pointer, entry->getArgument(0),
                                       ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(position)});
      Value memory = LLVM::LoadOp::create(builder, loc, pointer, slot);
      Value descriptor = MemRefDescriptor::fromStaticShape(builder, loc, converter, flat, memory);
      return UnrealizedConversionCastOp::create(builder, loc, TypeRange(flat), descriptor).getResult(0);
    };
    int64_t position = 0;
    for (BlockArgument argument : kernel.getArguments())
      buffers[argument] = {buffer(position++, argument.getType()),
                           computeSuffixProduct(cast<RankedTensorType>(argument.getType()).getShape())};
    SmallVector<Value> results;
    for (Type type : kernel.getResultTypes())
      results.push_back(buffer(position++, type));
    if (failed(assignBuffers(results)))
      return failure();

    ArrayRef<int64_t> shape = cast<RankedTensorType>(kernel.getResultTypes().front()).getShape();
    int64_t rows = shape[0] * shape[1], groups = std::min(rows, kMaxGroups);
    Value group = arith::IndexCastOp::create(builder, loc, builder.getIndexType(), entry->getArgument(2));
    auto bound = [&](Value g) -> Value {
      return arith::DivUIOp::create(builder, loc, arith::MulIOp::create(builder, loc, g, index(rows)), index(groups));
    };
    Value begin = bound(group), end = bound(arith::AddIOp::create(builder, loc, group, index(1)));
    auto loop = scf::ForOp::create(builder, loc, begin, end, index(1));
    func::ReturnOp::create(builder, loc);
    builder.setInsertionPointToStart(loop.getBody());
    Value row = loop.getInductionVar();
    SmallVector<Value> at = {arith::DivUIOp::create(builder, loc, row, index(shape[1])),
                             arith::RemUIOp::create(builder, loc, row, index(shape[1]))};
    for (auto next : kernel.getBody().front().getOps<linalg::GenericOp>())
      if (failed(generic(next, at)))
        return failure();
    return groups;
  }
};

} // namespace

FailureOr<int64_t> emitRows(func::FuncOp kernel, ModuleOp target) {
  return Emitter(kernel, OpBuilder::atBlockEnd(target.getBody())).run();
}

} // namespace helix::codegen
