//===- Attributes.h - The attributes of a node, all accounted for ----------===//
#ifndef HELIX_LIB_IMPORT_ONNX_ATTRIBUTES_H
#define HELIX_LIB_IMPORT_ONNX_ATTRIBUTES_H

#include "lib/Import/Onnx/Proto.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/StringMap.h"

#include <optional>

namespace helix::onnximport {

/// Reads a node's attributes. An attribute that nobody asks for may change what the node means, so `finish` refuses it,
/// as it does one of the wrong type, one given twice and one that lies outside what was asked for.
class Attributes {
public:
  Attributes(mlir::MLIRContext *context, const onnx::NodeProto &node);

  int64_t integer(llvm::StringRef name, int64_t fallback);
  /// An integer that must be there.
  int64_t required(llvm::StringRef name);
  double real(llvm::StringRef name, double fallback);
  std::string text(llvm::StringRef name, llvm::StringRef fallback);
  std::optional<llvm::SmallVector<int64_t>> integers(llvm::StringRef name);
  std::optional<llvm::SmallVector<double>> reals(llvm::StringRef name);
  const onnx::TensorProto *tensor(llvm::StringRef name);
  const onnx::GraphProto *graph(llvm::StringRef name);
  /// Whether the node has the attribute and it has not been taken.
  bool has(llvm::StringRef name) const { return left.contains(name); }

  /// Takes the attribute only with one of the values that change nothing.
  void onlyInteger(llvm::StringRef name, int64_t fallback, llvm::ArrayRef<int64_t> values);
  void onlyReal(llvm::StringRef name, double value);
  void onlyString(llvm::StringRef name, llvm::StringRef value);
  /// Takes the attribute whatever its value.
  void ignore(llvm::StringRef name);

  /// Fails, after one diagnostic, if any of the above went wrong or an attribute is left.
  llvm::LogicalResult finish();

private:
  const onnx::AttributeProto *take(llvm::StringRef name, onnx::AttributeProto::AttributeType type);
  void refuse(llvm::StringRef name, const llvm::Twine &reason);

  mlir::MLIRContext *context;
  const onnx::NodeProto &node;
  llvm::StringMap<const onnx::AttributeProto *> left;
  bool bad = false;
};

} // namespace helix::onnximport

#endif // HELIX_LIB_IMPORT_ONNX_ATTRIBUTES_H
