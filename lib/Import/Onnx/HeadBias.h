//===- HeadBias.h - A bias per head that grows with the key's position -----===//
#ifndef HELIX_LIB_IMPORT_ONNX_HEADBIAS_H
#define HELIX_LIB_IMPORT_ONNX_HEADBIAS_H

#include "lib/Import/Onnx/Entry.h"

namespace helix::onnximport {

/// ALiBi on its way to the scores: slopes[h] times the key's position, plus what is the same for all keys of a query,
/// which no softmax sees. Masks may have been added to it.
struct HeadBias {
  std::vector<double> slopes = {};
  /// The last dimension counts the keys, dimension `head` the heads, or with `flat` sequences times heads.
  llvm::SmallVector<LinearInt, 4> shape = {};
  int64_t head = 0;
  bool flat = false;
  std::vector<Grid> masks = {};
};

/// A constant per head times a formula that grows with the key's position; nothing if the product is no such.
std::optional<HeadBias> headBiasOf(Entry &entry, const onnx::NodeProto &node);

/// Nodes on such a bias that only give it another shape, a factor, or a mask.
bool isOfHeadBias(Entry &entry, const onnx::NodeProto &node);
llvm::LogicalResult importOnHeadBias(Entry &entry, const onnx::NodeProto &node);

/// Whether the bias goes along the heads of scores [batch, heads, queries, keys], or [batch * heads, queries, keys] if
/// `flat`.
bool fitsScores(Entry &entry, const HeadBias &bias, int64_t heads, bool flat);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_HEADBIAS_H
