//===- Npz.h - Matrices as NumPy reads them ----------------------------------===//
#ifndef HELIX_TEST_TOOLS_INTERPRET_NPZ_H
#define HELIX_TEST_TOOLS_INTERPRET_NPZ_H

#include "llvm/Support/Error.h"

#include <string>
#include <vector>

/// A named row-major matrix of float64.
struct Matrix {
  std::string name;
  int64_t rows, columns;
  std::vector<double> values;
};

/// Writes `matrices` to `path` as an uncompressed .npz; replaces what was there.
llvm::Error writeNpz(llvm::StringRef path, llvm::ArrayRef<Matrix> matrices);

#endif // HELIX_TEST_TOOLS_INTERPRET_NPZ_H
