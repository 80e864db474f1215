//===- Attributes.cpp - The attributes of a node, all accounted for --------===//
#include "lib/Import/Onnx/Attributes.h"

#include "lib/Import/Onnx/Diagnostics.h"

using namespace mlir;

namespace helix::onnximport {

Attributes::Attributes(MLIRContext *context, const onnx::NodeProto &node) : context(context), node(node) {
  for (const onnx::AttributeProto &attribute : node.attribute()) {
    if (!left.try_emplace(attribute.name(), &attribute).second)
      refuse(attribute.name(), "is given twice");
    if (!attribute.ref_attr_name().empty())
      refuse(attribute.name(), "refers to an attribute of a function, but is not in one");
  }
}

void Attributes::refuse(StringRef name, const Twine &reason) {
  if (!bad)
    nodeError(context, node, ErrorCode::AttributeUnsupported) << "attribute " << quoted(name) << ' ' << reason;
  bad = true;
}

const onnx::AttributeProto *Attributes::take(StringRef name, onnx::AttributeProto::AttributeType type) {
  auto found = left.find(name);
  if (found == left.end())
    return nullptr;
  const onnx::AttributeProto *attribute = found->second;
  left.erase(found);
  if (attribute->type() == type)
    return attribute;
  refuse(name, "is of ONNX attribute type " + Twine(static_cast<int>(attribute->type())) + " instead of " +
                   Twine(static_cast<int>(type)));
  return nullptr;
}

int64_t Attributes::integer(StringRef name, int64_t fallback) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::INT);
  return attribute ? attribute->i() : fallback;
}

int64_t Attributes::required(StringRef name) {
  if (!left.contains(name)) {
    refuse(name, "is missing");
    return 0;
  }
  return integer(name, 0);
}

double Attributes::real(StringRef name, double fallback) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::FLOAT);
  return attribute ? attribute->f() : fallback;
}

std::string Attributes::text(StringRef name, StringRef fallback) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::STRING);
  return attribute ? attribute->s() : fallback.str();
}

std::optional<SmallVector<int64_t>> Attributes::integers(StringRef name) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::INTS);
  if (!attribute)
    return std::nullopt;
  return SmallVector<int64_t>(attribute->ints().begin(), attribute->ints().end());
}

const onnx::TensorProto *Attributes::tensor(StringRef name) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::TENSOR);
  return attribute ? &attribute->t() : nullptr;
}

std::optional<SmallVector<double>> Attributes::reals(StringRef name) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::FLOATS);
  if (!attribute)
    return std::nullopt;
  return SmallVector<double>(attribute->floats().begin(), attribute->floats().end());
}

const onnx::GraphProto *Attributes::graph(StringRef name) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::GRAPH);
  return attribute ? &attribute->g() : nullptr;
}

void Attributes::onlyInteger(StringRef name, int64_t fallback, ArrayRef<int64_t> values) {
  int64_t value = integer(name, fallback);
  if (!llvm::is_contained(values, value))
    refuse(name, "is " + Twine(value) + ", which is not supported; supported is " + Twine(values.front()));
}

void Attributes::onlyReal(StringRef name, double value) {
  double actual = real(name, value);
  // Written so that a NaN is refused.
  if (!(actual == value))
    refuse(name, "is " + std::to_string(actual) + ", which is not supported; supported is " + std::to_string(value));
}

void Attributes::onlyString(StringRef name, StringRef value) {
  const onnx::AttributeProto *attribute = take(name, onnx::AttributeProto::STRING);
  if (attribute && attribute->s() != value)
    refuse(name, "is " + quoted(attribute->s()) + ", which is not supported; supported is " + quoted(value));
}

void Attributes::ignore(StringRef name) { left.erase(name); }

LogicalResult Attributes::finish() {
  // In the order of the node, so that the same model gives the same message.
  for (const onnx::AttributeProto &attribute : node.attribute())
    if (left.contains(attribute.name()))
      refuse(attribute.name(), "is not one that the importer knows for this op");
  return success(!bad);
}

} // namespace helix::onnximport
