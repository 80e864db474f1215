//===- Npz.h - NumPy's .npz files ------------------------------------------===//
#ifndef HELIX_TOOLS_HELIX_RUN_NPZ_H
#define HELIX_TOOLS_HELIX_RUN_NPZ_H

#include <cstdint>
#include <string>
#include <vector>

namespace helix {

/// An array to be written, row-major.
struct NpzArray {
  std::string name;
  std::vector<uint64_t> shape;
  std::vector<float> floats;         ///< f32, or
  std::vector<int64_t> integers;     ///< i64, or
  std::string type = {}, bytes = {}; ///< elements of another type, which NumPy calls so
};

/// Writes an uncompressed .npz; the same arrays give the same bytes. Throws NpzInvalid.
void writeNpz(const std::string &path, const std::vector<NpzArray> &arrays);

/// All arrays of a file, whatever their type, as `type` and `bytes`; these need not be as many as the shape says.
/// Throws NpzInvalid.
std::vector<NpzArray> readNpz(const std::string &path);

/// The arrays <prefix>0, <prefix>1, … of a file, i64 or i32 and of one dimension. Throws NpzInvalid, also
/// for a gap in the numbers.
std::vector<std::vector<int64_t>> readNpzIntegers(const std::string &path, const std::string &prefix);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_RUN_NPZ_H
