//===- Rope.h - Rotary tables out of a configuration -----------------------===//
#ifndef HELIX_LIB_IMPORT_HUGGINGFACE_ROPE_H
#define HELIX_LIB_IMPORT_HUGGINGFACE_ROPE_H

#include "lib/Import/HuggingFace/Error.h"

#include <cstdint>
#include <vector>

namespace helix::checkpoint {

/// A rotary embedding and how it is stretched for long contexts.
struct Rope {
  enum class Kind {
    Default,
    Linear,   ///< all frequencies divided by factor
    Llama3,   ///< low frequencies divided by factor, those between interpolated (Llama 3.1)
    Yarn,     ///< arXiv 2309.00071
    LongRope, ///< each frequency divided by a factor of its own (arXiv 2402.13753)
  };
  std::string name; ///< of its tables: "rope"
  Kind kind = Kind::Default;
  int64_t width = 0; ///< elements of a head that are rotated: two per frequency
  double theta = 0;
  double factor = 1;
  double lowFrequency = 0, highFrequency = 0; ///< Llama3: wavelengths of the trained context / these are its bounds
  double fast = 32, slow = 1;                 ///< Yarn: rotations within the trained context that are its bounds
  bool truncate = true;                       ///< Yarn: bounds are rounded outwards to whole frequencies
  double magnitude = 1;                       ///< cos and sin are multiplied by it
  int64_t trained = 0;                        ///< the context before stretching: original_max_position_embeddings
  std::vector<double> shortFactors = {}, longFactors = {}; ///< LongRope, for contexts up to `trained`, and longer ones
};

/// cos and sin of positions 0 to `positions` - 1, each [positions, width / 2], as transformers computes them: in f32,
/// where the angle of a far position is rounded noticeably. LongRope's are those of its short factors.
struct RopeTables {
  std::vector<float> cos, sin;
};
RopeTables ropeTables(const Rope &rope, int64_t positions);

} // namespace helix::checkpoint

#endif // HELIX_LIB_IMPORT_HUGGINGFACE_ROPE_H
