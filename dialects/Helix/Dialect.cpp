//===- Dialect.cpp - Registration of the helix dialect ---------------------===//
#include "dialects/Helix/Helix.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace helix;

#include "dialects/Helix/HelixDialect.cpp.inc"

#include "dialects/Helix/HelixEnums.cpp.inc"

void HelixDialect::initialize() {
  registerAttributes();
  registerTypes();
  addOperations<
#define GET_OP_LIST
#include "dialects/Helix/HelixOps.cpp.inc"
      >();
}
