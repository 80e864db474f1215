//===- Ops.cpp - Parsing, printing, accessors of plan ops ------------------===//
#include "dialects/Plan/Plan.h"

#include "mlir/IR/OpImplementation.h"

using namespace mlir;

namespace helix::plan {

int64_t bytesOf(Type type) { return heldBytes(cast<RankedTensorType>(type)); }

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

/// (first, count) as it is given, else all of `whole`.
static std::pair<int64_t, int64_t> rangeOf(std::optional<ArrayRef<int64_t>> given, uint64_t whole) {
  return given ? std::pair((*given)[0], (*given)[1]) : std::pair(int64_t{0}, static_cast<int64_t>(whole));
}

std::pair<int64_t, int64_t> PartialAttentionOp::sequenceRange() { return rangeOf(getSequences(), getBatch()); }
std::pair<int64_t, int64_t> PartialAttentionOp::tokenRange() { return rangeOf(getQueryTokens(), getTokens()); }

int64_t AllToAllOp::chunkBytes() { return bytesOf(getSend().getType()) / getPeers(); }
std::optional<Axis> AllToAllOp::getExchangeAxis() { return getAxis(); }
std::optional<Axis> AllReduceOp::getExchangeAxis() { return getAxis(); }

} // namespace helix::plan
