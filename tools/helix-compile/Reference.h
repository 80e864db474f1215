//===- Reference.h - Values to compare with --------------------------------===//
#ifndef HELIX_TOOLS_HELIX_COMPILE_REFERENCE_H
#define HELIX_TOOLS_HELIX_COMPILE_REFERENCE_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace helix {

/// An array of a reference, row-major.
struct ReferenceArray {
  std::vector<int64_t> shape;
  std::vector<double> values;
};

/// Reads the arrays of numbers (f16, f32, f64, i32, i64) of an .npz file by name; others are left out. False, with a
/// numbered message (HLX5022), if the file or an array cannot be read.
bool readReference(const std::string &path, std::map<std::string, ReferenceArray> &arrays, std::string &message);

} // namespace helix

#endif // HELIX_TOOLS_HELIX_COMPILE_REFERENCE_H
