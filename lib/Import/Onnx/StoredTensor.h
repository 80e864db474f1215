//===- StoredTensor.h - A constant of the model and where its bytes are ----===//
#ifndef HELIX_LIB_IMPORT_ONNX_STOREDTENSOR_H
#define HELIX_LIB_IMPORT_ONNX_STOREDTENSOR_H

#include "lib/Import/Onnx/Proto.h"

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/MLIRContext.h"

#include <string>

namespace helix::onnximport {

/// Where external data may lie; all real paths.
struct Directories {
  std::string given;       ///< the directory of the path that was given
  std::string resolved;    ///< the directory of the file that this path resolves to
  std::string weightsRoot; ///< empty if none was given
};

/// The type of ONNX's FLOAT, FLOAT16 or BFLOAT16; null for others.
mlir::Type floatType(mlir::MLIRContext *context, int32_t type);

/// A tensor of known shape and type, with its bytes in the protobuf or in a file.
struct StoredTensor {
  const onnx::TensorProto *proto = nullptr;
  /// Of the initializer, or of the value that a Constant node makes.
  std::string name;
  llvm::SmallVector<int64_t> shape;
  int64_t elements = 0;
  int64_t bytes = 0;
  /// Real path of the file with its bytes; empty if they are in the protobuf.
  std::string path;
  /// The same relative to the model's directory.
  std::string file;
  /// First byte in the file.
  int64_t offset = 0;

  bool isExternal() const { return !path.empty(); }
  bool isInteger() const {
    return proto->data_type() == onnx::TensorProto::INT32 || proto->data_type() == onnx::TensorProto::INT64;
  }
  /// Whole numbers of at most 8 bits: codes of a quantised weight. Those of fewer are packed.
  bool isCodes() const {
    using Proto = onnx::TensorProto;
    int32_t type = proto->data_type();
    return type == Proto::UINT8 || type == Proto::INT8 || type == Proto::UINT4 || type == Proto::INT4;
  }
  bool isBool() const { return proto->data_type() == onnx::TensorProto::BOOL; }
  /// f32, f16 or bf16; null for other types.
  mlir::Type floatType(mlir::MLIRContext *context) const { return onnximport::floatType(context, proto->data_type()); }
};

/// Checks a tensor's type, shape and data, and that external data lies where it may and is as long as it must be.
llvm::FailureOr<StoredTensor> describe(mlir::MLIRContext *context, llvm::StringRef name,
                                       const onnx::TensorProto &tensor, const Directories &directories);

/// The tensor's elements, row-major and little-endian. Reads external data.
llvm::FailureOr<std::string> bytesOf(mlir::MLIRContext *context, const StoredTensor &tensor);

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_STOREDTENSOR_H
