//===- Rows.cpp - From linalg on tensors to threads of blocks --------------===//
#include "lib/Codegen/Cuda/Cuda.h"

#include "helix-c/kernel.h"
#include "helix/Errors.h"

#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/IndexingUtils.h"

using namespace mlir;

namespace helix::codegen {
namespace {

constexpr int64_t kThreads = HELIX_CUDA_THREADS;
constexpr int64_t kWarp = 32, kWarps = kThreads / kWarp;
/// Elements that a thread loads before it stores or adds the first: a store may be to what the next load reads, for all
/// that the compiler knows, so loads do not overlap by themselves.
constexpr int64_t kAtOnce = 4;
constexpr int64_t kMaxShared = 48 << 10; ///< bytes that a block has without asking
constexpr int64_t kInner = 2;            ///< the first dimension within a row

/// Bytes of a tensor: where they start, and the distance in elements between neighbours along each dimension.
struct Buffer {
  Value pointer;
  Type element;
  SmallVector<int64_t> strides;
};

int64_t elementsOfRow(ArrayRef<int64_t> shape) { return llvm::product_of(shape.drop_front(kInner)); }

struct Emitter {
  func::FuncOp kernel;
  ModuleOp target;
  OpBuilder builder;
  Location loc;
  DenseMap<Value, Buffer> buffers;
  Value thread, warp, lane; ///< this thread, index
  Value part;               ///< of the row, index
  int64_t splits = 1;       ///< blocks of a row
  Value partials;           ///< [warps] f32, shared
  SmallVector<Value> row;   ///< batch, token

  // The generic op at hand.
  linalg::GenericOp op;
  DenseMap<Value, Value> uniform; ///< values of its body that are the same for the whole row

  Emitter(func::FuncOp kernel, ModuleOp target)
      : kernel(kernel), target(target), builder(OpBuilder::atBlockEnd(target.getBody())), loc(kernel.getLoc()) {}

  auto generics() { return kernel.getBody().front().getOps<linalg::GenericOp>(); }
  Value index(int64_t value) { return arith::ConstantIndexOp::create(builder, loc, value); }
  Value add(Value a, Value b) { return arith::AddIOp::create(builder, loc, a, b); }
  Value times(Value a, int64_t b) { return arith::MulIOp::create(builder, loc, a, index(b)); }
  Value quotient(Value a, int64_t b) { return arith::DivUIOp::create(builder, loc, a, index(b)); }
  Value rest(Value a, int64_t b) { return arith::RemUIOp::create(builder, loc, a, index(b)); }
  Value zero() { return arith::ConstantOp::create(builder, loc, builder.getF32FloatAttr(0)); }
  Value sum(Value a, Value b) { return arith::AddFOp::create(builder, loc, a, b); }
  void barrier() { NVVM::Barrier0Op::create(builder, loc); }

  InFlightDiagnostic unsupported(Operation *culprit) {
    return kernel.emitError(errorPrefix(ErrorCode::KernelUnsupported))
           << "cannot generate code for " << culprit->getName() << " in @" << kernel.getName() << ": ";
  }

  //===--------------------------------------------------------------------===//
  // Memory
  //===--------------------------------------------------------------------===//

  Value element(const Buffer &buffer, Value position) {
    Value number = arith::IndexCastOp::create(builder, loc, builder.getI64Type(), position);
    auto pointer = LLVM::LLVMPointerType::get(builder.getContext());
    return LLVM::GEPOp::create(builder, loc, pointer, buffer.element, buffer.pointer, ArrayRef<LLVM::GEPArg>{number});
  }
  Value load(const Buffer &buffer, Value position) {
    return LLVM::LoadOp::create(builder, loc, buffer.element, element(buffer, position));
  }
  void store(Value value, const Buffer &buffer, Value position) {
    LLVM::StoreOp::create(builder, loc, value, element(buffer, position));
  }

  /// Position in the buffer, as an expression of the op's dimensions.
  AffineExpr linear(const Buffer &buffer, AffineMap map) {
    AffineExpr sum = builder.getAffineConstantExpr(0);
    for (auto [expr, stride] : llvm::zip(map.getResults(), buffer.strides))
      sum = sum + expr * stride;
    return simplifyAffineExpr(sum, op.getNumLoops(), /*numSymbols=*/0);
  }
  Value address(AffineExpr position, ArrayRef<Value> indices) {
    return affine::expandAffineExpr(builder, loc, position, indices, {});
  }

  AffineMap mapOf(BlockArgument argument) { return op.getMatchingIndexingMap(op.getMatchingOpOperand(argument)); }
  const Buffer &bufferOf(BlockArgument argument) { return buffers[op.getMatchingOpOperand(argument)->get()]; }
  AffineExpr positionOf(BlockArgument argument) { return linear(bufferOf(argument), mapOf(argument)); }

  //===--------------------------------------------------------------------===//
  // Bodies
  //===--------------------------------------------------------------------===//

  /// The addition into the accumulator of a reduction; null for an elementwise op.
  static Operation *accumulation(linalg::GenericOp op) {
    return op.getNumReductionLoops() ? op.getBody()->getTerminator()->getOperand(0).getDefiningOp() : nullptr;
  }

  /// An op of the body on scalars.
  Value emit(Operation &inner, ArrayRef<Value> indices, function_ref<Value(Value)> scalar) {
    if (auto indexOp = dyn_cast<linalg::IndexOp>(inner))
      return indices[indexOp.getDim()];
    if (auto extract = dyn_cast<tensor::ExtractOp>(inner)) {
      const Buffer &buffer = buffers[extract.getTensor()];
      Value position = index(0);
      for (auto [at, stride] : llvm::zip(extract.getIndices(), buffer.strides))
        position = add(position, times(scalar(at), stride));
      return load(buffer, position);
    }
    OperationState state(loc, inner.getName());
    for (Value operand : inner.getOperands())
      state.addOperands(scalar(operand));
    state.addTypes(inner.getResultTypes());
    state.addAttributes(inner.getAttrs());
    return builder.create(state)->getResult(0);
  }

  /// Computes, once, what is the same for the whole row.
  void hoist() {
    uniform.clear();
    SmallVector<Value> indices(row);
    for (BlockArgument argument : op.getRegionInputArgs()) {
      if (argument.use_empty())
        continue;
      AffineExpr position = positionOf(argument);
      bool varies = false;
      for (unsigned d = kInner; d < op.getNumLoops(); ++d)
        varies |= position.isFunctionOfDim(d);
      if (varies)
        continue;
      SmallVector<Value> anywhere(row);
      anywhere.resize(op.getNumLoops(), index(0));
      uniform[argument] = load(bufferOf(argument), address(position, anywhere));
    }
    auto known = [&](Value value) { return uniform.lookup(value); };
    for (Operation &inner : op.getBody()->without_terminator()) {
      if (&inner == accumulation(op))
        continue;
      auto indexOp = dyn_cast<linalg::IndexOp>(inner);
      auto extract = dyn_cast<tensor::ExtractOp>(inner);
      OperandRange operands = extract ? extract.getIndices() : OperandRange(inner.getOperands());
      if (indexOp ? indexOp.getDim() < kInner : llvm::all_of(operands, known))
        uniform[inner.getResult(0)] = emit(inner, indices, known);
    }
  }

  /// The values that the op yields at these indices, or what it adds to its accumulator.
  SmallVector<Value> evaluate(ArrayRef<Value> indices) {
    DenseMap<Value, Value> scalars;
    auto scalar = [&](Value value) -> Value {
      if (Value known = uniform.lookup(value))
        return known;
      Value &own = scalars[value];
      if (!own) // only an argument has not been computed yet
        own = load(bufferOf(cast<BlockArgument>(value)), address(positionOf(cast<BlockArgument>(value)), indices));
      return own;
    };
    Operation *adding = accumulation(op);
    // All loads first, so that they overlap with those of the thread's other elements.
    for (BlockArgument argument : op.getRegionInputArgs())
      if (!argument.use_empty())
        scalar(argument);
    for (Operation &inner : op.getBody()->without_terminator())
      if (&inner != adding && !uniform.count(inner.getResult(0)))
        scalars[inner.getResult(0)] = emit(inner, indices, scalar);
    if (!adding)
      return llvm::map_to_vector(op.getBody()->getTerminator()->getOperands(), [&](Value v) { return scalar(v); });
    Value accumulator = op.getRegionOutputArgs().front();
    return {scalar(adding->getOperand(adding->getOperand(0) == accumulator ? 1 : 0))};
  }

  //===--------------------------------------------------------------------===//
  // Loops
  //===--------------------------------------------------------------------===//

  /// The op's indices at the element `at` of the row, in row-major order of its inner dimensions, less `dropped` last.
  SmallVector<Value> indicesAt(Value at, ArrayRef<int64_t> extents, unsigned dropped = 0) {
    ArrayRef<int64_t> inner = extents.drop_front(kInner).drop_back(dropped);
    SmallVector<Value> reversed;
    for (int64_t extent : llvm::reverse(inner.drop_front())) {
      reversed.push_back(rest(at, extent));
      at = quotient(at, extent);
    }
    SmallVector<Value> indices(row);
    indices.push_back(at);
    indices.append(reversed.rbegin(), reversed.rend());
    return indices;
  }

  /// Calls body(elements, carried) for the elements start, start + step, … below `end`, kAtOnce at a time, then one by
  /// one. Returns what is carried.
  Value forEach(Value start, Value end, int64_t step, Value carried, function_ref<Value(ArrayRef<Value>, Value)> body) {
    auto loop = [&](Value from, Value to, int64_t atOnce, Value init) -> Value {
      auto next =
          scf::ForOp::create(builder, loc, from, to, index(step * atOnce), init ? ValueRange(init) : ValueRange());
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(next.getBody());
      SmallVector<Value> elements;
      for (int64_t u = 0; u < atOnce; ++u)
        elements.push_back(add(next.getInductionVar(), index(u * step)));
      Value result = body(elements, init ? next.getRegionIterArg(0) : Value());
      if (init)
        scf::YieldOp::create(builder, loc, result);
      return init ? next.getResult(0) : Value();
    };
    // From `start` on there is room for so many whole steps of all elements at once.
    Value span = arith::SubIOp::create(builder, loc, arith::MaxSIOp::create(builder, loc, end, start), start);
    Value stepsLeft = quotient(add(span, index(step - 1)), step);
    Value whole = times(quotient(stepsLeft, kAtOnce), kAtOnce * step);
    Value middle = add(start, whole);
    carried = loop(start, middle, kAtOnce, carried);
    return loop(middle, end, 1, carried);
  }

  /// The elements [begin, end) of a row's `total` that this block has.
  std::pair<Value, Value> share(int64_t total, bool divided) {
    if (!divided || splits == 1)
      return {index(0), index(total)};
    int64_t chunk = kThreads * kAtOnce;
    Value first = times(part, chunk);
    return {first, arith::MinSIOp::create(builder, loc, add(first, index(chunk)), index(total))};
  }

  void elementwise(ArrayRef<int64_t> extents) {
    auto [begin, end] = share(elementsOfRow(extents), isReturned(op));
    forEach(add(begin, thread), end, kThreads, Value(), [&](ArrayRef<Value> elements, Value) {
      SmallVector<std::pair<SmallVector<Value>, SmallVector<Value>>> done; // indices, values
      for (Value at : elements) {
        SmallVector<Value> indices = indicesAt(at, extents);
        SmallVector<Value> values = evaluate(indices);
        done.push_back({indices, values});
      }
      for (auto &[indices, values] : done)
        for (auto [i, value] : llvm::enumerate(values)) {
          const Buffer &buffer = buffers[op.getResult(i)];
          store(value, buffer, address(linear(buffer, op.getMatchingIndexingMap(op.getDpsInitOperand(i))), indices));
        }
      return Value();
    });
  }

  /// Sums of a thread, `step` elements apart from `start` on, in order.
  Value threadSum(Value start, int64_t step, int64_t extent, ArrayRef<Value> outer) {
    return forEach(start, index(extent), step, zero(), [&](ArrayRef<Value> elements, Value carried) {
      SmallVector<Value> addends;
      for (Value at : elements) {
        SmallVector<Value> indices(outer);
        indices.push_back(at);
        addends.push_back(evaluate(indices).front());
      }
      for (Value addend : addends)
        carried = sum(carried, addend);
      return carried;
    });
  }

  /// The sum over a warp, the same in all of its lanes.
  Value warpSum(Value value) {
    auto number = [&](int64_t n) -> Value {
      return arith::ConstantOp::create(builder, loc, builder.getI32IntegerAttr(static_cast<int32_t>(n)));
    };
    for (int64_t distance = kWarp / 2; distance > 0; distance /= 2) {
      Value other = NVVM::ShflOp::create(builder, loc, builder.getF32Type(), number(-1), value, number(distance),
                                         number(kWarp - 1), NVVM::ShflKind::bfly, UnitAttr());
      value = sum(value, other);
    }
    return value;
  }

  void onlyIf(Value isIt, function_ref<void()> body) {
    auto then = scf::IfOp::create(builder, loc, isIt, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(builder);
    builder.setInsertionPointToStart(then.thenBlock());
    body();
  }
  Value isZero(Value value) { return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::eq, value, index(0)); }

  void reduce(ArrayRef<int64_t> extents) {
    const Buffer &buffer = buffers[op.getResult(0)];
    AffineExpr position = linear(buffer, op.getMatchingIndexingMap(op.getDpsInitOperand(0)));
    auto keep = [&](Value value, SmallVector<Value> outer) {
      outer.push_back(index(0));
      store(value, buffer, address(position, outer));
    };
    int64_t sums = elementsOfRow(extents.drop_back());
    if (sums > 1) {
      auto loop = scf::ForOp::create(builder, loc, warp, index(sums), index(kWarps));
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(loop.getBody());
      SmallVector<Value> outer = indicesAt(loop.getInductionVar(), extents, /*dropped=*/1);
      Value total = warpSum(threadSum(lane, kWarp, extents.back(), outer));
      onlyIf(isZero(lane), [&] { keep(total, outer); });
      return;
    }
    SmallVector<Value> outer(row);
    outer.resize(op.getNumLoops() - 1, index(0));
    Value mine = warpSum(threadSum(thread, kThreads, extents.back(), outer));
    Buffer shared{partials, builder.getF32Type(), {1}};
    onlyIf(isZero(lane), [&] { store(mine, shared, warp); });
    barrier();
    onlyIf(isZero(thread), [&] {
      Value total = load(shared, index(0));
      for (int64_t w = 1; w < kWarps; ++w)
        total = sum(total, load(shared, index(w)));
      keep(total, outer);
    });
  }

  /// Copies the row of an initial value that the op changes only in part.
  void copyRow(const Buffer &from, const Buffer &to, ArrayRef<int64_t> shape) {
    auto start = [&](const Buffer &buffer) {
      return add(times(row[0], buffer.strides[0]), times(row[1], buffer.strides[1]));
    };
    Value source = start(from), target = start(to);
    forEach(thread, index(elementsOfRow(shape)), kThreads, Value(), [&](ArrayRef<Value> elements, Value) {
      SmallVector<Value> values;
      for (Value at : elements)
        values.push_back(load(from, add(source, at)));
      for (auto [at, value] : llvm::zip(elements, values))
        store(value, to, add(target, at));
      return Value();
    });
    barrier();
  }

  void generic(linalg::GenericOp next) {
    op = next;
    for (auto [i, init] : llvm::enumerate(op.getDpsInits()))
      if (!init.getDefiningOp<tensor::EmptyOp>() && !accumulation(op))
        copyRow(buffers[init], buffers[op.getResult(i)], cast<RankedTensorType>(init.getType()).getShape());
    hoist();
    SmallVector<int64_t> extents = op.getStaticLoopRanges();
    if (accumulation(op))
      reduce(extents);
    else
      elementwise(extents);
  }

  //===--------------------------------------------------------------------===//
  // The kernel
  //===--------------------------------------------------------------------===//

  bool isReturned(linalg::GenericOp it) {
    return llvm::any_of(it->getUsers(), [](Operation *user) { return isa<func::ReturnOp>(user); });
  }

  /// How many blocks a row is divided among. More than one only if every element that is returned depends on nothing
  /// that another block writes.
  int64_t blocksOfRow() {
    int64_t most = 1;
    for (linalg::GenericOp it : generics()) {
      bool keepsPart = llvm::any_of(it.getDpsInits(), [](Value v) { return !v.getDefiningOp<tensor::EmptyOp>(); });
      bool isRead = llvm::any_of(it->getUsers(), [](Operation *user) { return isa<linalg::GenericOp>(user); });
      if (accumulation(it) || keepsPart || (isReturned(it) && isRead))
        return 1;
      if (isReturned(it))
        most = std::max<int64_t>(most, llvm::divideCeil(elementsOfRow(it.getStaticLoopRanges()), kThreads * kAtOnce));
    }
    return most;
  }

  /// Where each result of the kernel's ops goes: an operand of the ABI, or shared memory of one row.
  LogicalResult assignBuffers(ArrayRef<Value> results) {
    int64_t floats = kWarps;
    SmallVector<std::pair<Value, int64_t>> shared; // and where, in floats
    Operation *terminator = kernel.getBody().front().getTerminator();
    for (linalg::GenericOp next : generics())
      for (Value result : next.getResults()) {
        auto type = cast<RankedTensorType>(result.getType());
        SmallVector<int64_t> strides = computeSuffixProduct(type.getShape());
        auto returned = llvm::find(terminator->getOperands(), result);
        if (returned != terminator->getOperands().end()) {
          Value pointer = results[std::distance(terminator->getOperands().begin(), returned)];
          buffers[result] = {pointer, type.getElementType(), strides};
          continue;
        }
        if (!type.getElementType().isF32())
          return unsupported(next) << "a value of " << type.getElementType() << " is kept between two of its steps";
        strides[0] = strides[1] = 0;
        buffers[result] = {Value(), type.getElementType(), strides};
        shared.push_back({result, floats});
        floats += elementsOfRow(type.getShape());
        if (4 * floats > kMaxShared)
          return unsupported(next) << "the kernel keeps more than " << kMaxShared
                                   << " bytes per row between its steps; take more ranks, or --target cpu";
      }
    auto space = static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
    LLVM::GlobalOp memory;
    {
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(target.getBody());
      memory = LLVM::GlobalOp::create(builder, loc, LLVM::LLVMArrayType::get(builder.getF32Type(), floats),
                                      /*isConstant=*/false, LLVM::Linkage::Internal,
                                      (kernel.getName() + "_shared").str(), Attribute(), /*alignment=*/16, space);
    }
    Value base = LLVM::AddressOfOp::create(builder, loc, memory);
    partials = LLVM::AddrSpaceCastOp::create(builder, loc, LLVM::LLVMPointerType::get(builder.getContext()), base);
    for (auto [value, offset] : shared)
      buffers[value].pointer = element({partials, builder.getF32Type(), {1}}, index(offset));
    return success();
  }

  FailureOr<int64_t> run() {
    auto pointer = LLVM::LLVMPointerType::get(builder.getContext());
    SmallVector<Type> types(kernel.getNumArguments() + kernel.getNumResults(), pointer);
    auto function = func::FuncOp::create(builder, loc, kernel.getName(), builder.getFunctionType(types, {}));
    Block *entry = function.addEntryBlock();
    builder.setInsertionPointToStart(entry);
    int64_t position = 0;
    for (BlockArgument argument : kernel.getArguments()) {
      auto type = cast<RankedTensorType>(argument.getType());
      buffers[argument] = {entry->getArgument(position++), type.getElementType(),
                           computeSuffixProduct(type.getShape())};
    }
    if (failed(assignBuffers(llvm::to_vector_of<Value>(entry->getArguments().drop_front(position)))))
      return failure();

    ArrayRef<int64_t> shape = cast<RankedTensorType>(kernel.getResultTypes().front()).getShape();
    splits = blocksOfRow();
    auto number = [&](Value i32) -> Value {
      return arith::IndexCastUIOp::create(builder, loc, builder.getIndexType(), i32);
    };
    thread = number(NVVM::ThreadIdXOp::create(builder, loc, builder.getI32Type()));
    Value block = number(NVVM::BlockIdXOp::create(builder, loc, builder.getI32Type()));
    warp = quotient(thread, kWarp);
    lane = rest(thread, kWarp);
    part = rest(block, splits);
    Value rowNumber = quotient(block, splits);
    row = {quotient(rowNumber, shape[1]), rest(rowNumber, shape[1])};
    bool first = true;
    for (linalg::GenericOp next : generics()) {
      if (!first)
        barrier(); // what other threads wrote
      first = false;
      generic(next);
    }
    func::ReturnOp::create(builder, loc);
    return shape[0] * shape[1] * splits;
  }
};

} // namespace

FailureOr<int64_t> emitBlocks(func::FuncOp kernel, ModuleOp target) { return Emitter(kernel, target).run(); }

} // namespace helix::codegen
