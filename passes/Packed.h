//===- Packed.h - Products whose result is cut into several ----------------===//
#ifndef HELIX_PASSES_PACKED_H
#define HELIX_PASSES_PACKED_H

#include "dialects/Helix/Helix.h"

namespace helix {

/// Makes one product per cut of a packed product's result: queries, keys and values, gates and ups, side by side or
/// head by head. Each has its columns as a window of the weight and of the bias, in pieces if need be. False, and
/// nothing has changed, unless every use is such a cut, straight or behind a split of the last dimension.
bool unpack(LinearOp linear);

} // namespace helix

#endif // HELIX_PASSES_PACKED_H
