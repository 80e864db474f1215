//===- Diagnostics.cpp - Numbered errors that name the node ----------------===//
#include "lib/Import/Onnx/Diagnostics.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;

namespace helix::onnximport {

std::string quoted(StringRef name) {
  constexpr size_t kLongest = 200;
  std::string text;
  llvm::raw_string_ostream os(text);
  os << '\'';
  llvm::printEscapedString(name.take_front(kLongest), os);
  os << (name.size() > kLongest ? "...'" : "'");
  return text;
}

StringRef nodeName(const onnx::NodeProto &node) {
  if (!node.name().empty())
    return node.name();
  for (const std::string &output : node.output())
    if (!output.empty())
      return output;
  return node.op_type();
}

InFlightDiagnostic modelError(MLIRContext *context, ErrorCode code) {
  return emitError(UnknownLoc::get(context)) << errorPrefix(code);
}

InFlightDiagnostic nodeError(MLIRContext *context, const onnx::NodeProto &node, ErrorCode code) {
  Location loc = NameLoc::get(StringAttr::get(context, nodeName(node)));
  std::string op = quoted(node.op_type());
  return emitError(loc) << errorPrefix(code) << "node " << quoted(nodeName(node)) << " ("
                        << StringRef(op).drop_front().drop_back() << "): ";
}

std::string shapeText(ArrayRef<int64_t> shape) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << '[';
  llvm::interleaveComma(shape.take_front(16), os);
  os << (shape.size() > 16 ? ", ...]" : "]");
  return text;
}

std::string typeText(int64_t type) {
  if (type >= 0 && type <= INT_MAX && onnx::TensorProto::DataType_IsValid(static_cast<int>(type)))
    return onnx::TensorProto::DataType_Name(static_cast<onnx::TensorProto::DataType>(type));
  return "element type " + std::to_string(type);
}

} // namespace helix::onnximport
