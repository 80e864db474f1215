//===- Npz.cpp - Matrices as NumPy reads them --------------------------------===//
#include "test/tools/helix-interpret/Npz.h"

#include <zip.h>

/// The .npy file of `matrix`: magic, version 1.0, length of the header, the header, the elements.
static std::string npy(const Matrix &matrix) {
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + std::to_string(matrix.rows) + ", " +
                       std::to_string(matrix.columns) + "), }";
  // The elements start at a multiple of 64 bytes; the header ends in a newline.
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() % 256);
  file += static_cast<char>(header.size() / 256);
  file += header;
  file.append(reinterpret_cast<const char *>(matrix.values.data()), matrix.values.size() * sizeof(double));
  return file;
}

llvm::Error writeNpz(llvm::StringRef path, llvm::ArrayRef<Matrix> matrices) {
  auto error = [&](const char *reason) {
    return llvm::createStringError("cannot write " + path.str() + ": " + reason);
  };
  int code = 0;
  zip_t *archive = zip_open(path.str().c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  if (!archive) {
    zip_error_t reason;
    zip_error_init_with_code(&reason, code);
    llvm::Error result = error(zip_error_strerror(&reason));
    zip_error_fini(&reason);
    return result;
  }
  // libzip reads the buffers when it closes the archive.
  std::vector<std::string> files;
  for (const Matrix &matrix : matrices)
    files.push_back(npy(matrix));
  for (size_t i = 0; i < files.size(); ++i) {
    zip_source_t *source = zip_source_buffer(archive, files[i].data(), files[i].size(), 0);
    zip_int64_t index = zip_file_add(archive, (matrices[i].name + ".npy").c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0 || zip_set_file_compression(archive, index, ZIP_CM_STORE, 0) < 0) {
      llvm::Error result = error(zip_strerror(archive));
      zip_discard(archive);
      return result;
    }
  }
  if (zip_close(archive) < 0) {
    llvm::Error result = error(zip_strerror(archive));
    zip_discard(archive);
    return result;
  }
  return llvm::Error::success();
}
