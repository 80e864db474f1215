//===- SameProgram.h - One program for every number of tokens --------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_SAMEPROGRAM_H
#define HELIX_LIB_IMPORT_ONNX_SAMEPROGRAM_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// One import of the graph: its function, and the weights whose bytes are in the protobuf or were computed, in order.
struct Imported {
  mlir::func::FuncOp function;
  llvm::ArrayRef<InlineWeight> inlineWeights;
};

/// Checks that two imports for other numbers of sequences or tokens differ in their shapes alone (HLX1068): a graph may
/// compute with sizes that it reads from its inputs, but a token's logits must not follow from how many others a step
/// happens to have.
mlir::LogicalResult checkSameProgram(const Imported &one, const Imported &other);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_SAMEPROGRAM_H
