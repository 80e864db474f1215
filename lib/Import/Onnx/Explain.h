//===- Explain.h - What an import made of which nodes ----------------------===//
#ifndef HELIX_LIB_IMPORT_ONNX_EXPLAIN_H
#define HELIX_LIB_IMPORT_ONNX_EXPLAIN_H

#include "lib/Import/Onnx/Proto.h"

#include "llvm/ADT/SetVector.h"
#include "llvm/Support/raw_ostream.h"

#include <map>
#include <string>
#include <vector>

namespace helix::onnximport {

/// The nodes that a value which is not one of the module came from so far.
using Origin = llvm::SmallSetVector<const onnx::NodeProto *, 8>;

/// What became of the nodes of one entry.
struct Explanation {
  struct Raised {
    std::string what;
    const onnx::NodeProto *last = nullptr;
    Origin from = {};
  };
  /// Ops out of several nodes, in the order in which they were made.
  std::vector<Raised> raised = {};
  /// Nodes that were computed at import: positions, masks, lengths, constants.
  int64_t computed = 0;
  /// Nodes that each became an op or plain arithmetic, by op.
  std::map<std::string, int64_t> plain = {};

  void print(llvm::raw_ostream &os) const;
};

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_EXPLAIN_H
