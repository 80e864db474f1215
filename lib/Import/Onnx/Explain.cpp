//===- Explain.cpp - What an import made of which nodes --------------------===//
#include "lib/Import/Onnx/Explain.h"

#include "lib/Import/Onnx/Diagnostics.h"

using namespace mlir;

namespace helix::onnximport {

void Explanation::print(raw_ostream &os) const {
  os << "computed at import (positions, masks, lengths, constants): " << computed << " nodes\n";
  for (const Raised &op : raised) {
    os << "raised: " << op.what << " at " << quoted(nodeName(*op.last)) << " from " << op.from.size() << " nodes: ";
    llvm::interleaveComma(
        op.from, os, [&](const onnx::NodeProto *node) { os << node->op_type() << ' ' << quoted(nodeName(*node)); });
    os << '\n';
  }
  os << "taken one by one: ";
  llvm::interleaveComma(plain, os, [&](const auto &entry) { os << entry.second << ' ' << entry.first; });
  os << '\n';
}

} // namespace helix::onnximport
