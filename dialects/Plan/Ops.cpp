//===- Ops.cpp - Parsing, printing, accessors of plan ops ------------------===//
#include "dialects/Plan/Plan.h"

#include "mlir/IR/OpImplementation.h"

using namespace mlir;

namespace helix::plan {

int64_t bytesOf(Type type) {
  auto tensor = cast<RankedTensorType>(type);
  return tensor.getNumElements() * (tensor.getElementTypeBitWidth() / 8);
}

/// `(%ids: tensor<1x1xi64>, ...) { ... }`: the block's arguments before the region, as a function prints them.
static ParseResult parseEntryBody(OpAsmParser &parser, Region &body) {
  SmallVector<OpAsmParser::Argument> arguments;
  if (parser.parseArgumentList(arguments, OpAsmParser::Delimiter::Paren, /*allowType=*/true))
    return failure();
  return parser.parseRegion(body, arguments);
}

static void printEntryBody(OpAsmPrinter &printer, Operation *, Region &body) {
  printer << '(';
  llvm::interleaveComma(body.getArguments(), printer,
                        [&](BlockArgument argument) { printer.printRegionArgument(argument); });
  printer << ") ";
  printer.printRegion(body, /*printEntryBlockArgs=*/false);
}

} // namespace helix::plan

#include "dialects/Plan/PlanInterfaces.cpp.inc"

#define GET_OP_CLASSES
#include "dialects/Plan/PlanOps.cpp.inc"

namespace helix::plan {

int64_t AllToAllOp::chunkBytes() { return bytesOf(getSend().getType()) / getPeers(); }
std::optional<Axis> AllToAllOp::getExchangeAxis() { return getAxis(); }
std::optional<Axis> AllReduceOp::getExchangeAxis() { return getAxis(); }

} // namespace helix::plan
