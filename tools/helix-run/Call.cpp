//===- Call.cpp - Calling a stateless artifact -----------------------------===//
#include "Npz.h"
#include "Run.h"
#include "lib/Artifact/Validate.h"
#include "runtime/Core/Function.h"
#include "runtime/Error.h"

#include <algorithm>

namespace helix {
namespace {

/// What NumPy calls the type. It has none for bfloat16: two bytes, as ml_dtypes writes them.
const char *typeOf(artifact::DType dtype) {
  switch (dtype) {
  case artifact::DType::F16:
    return "<f2";
  case artifact::DType::BF16:
    return "<V2";
  case artifact::DType::I32:
    return "<i4";
  case artifact::DType::I64:
    return "<i8";
  case artifact::DType::Bool:
    return "|b1";
  case artifact::DType::I8: // codes of caches, which are no inputs
  case artifact::DType::F8E4M3:
  case artifact::DType::F32:
    break;
  }
  return "<f4";
}

std::string shapeOf(const artifact::Port &port) {
  std::string text;
  for (uint64_t size : *port.dims())
    text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::string nameOf(const artifact::Port &port) { return port.name()->str(); }

/// The array of an input, or an error unless it is one of its type and shape.
const NpzArray &arrayOf(const artifact::Port &port, const std::vector<NpzArray> &arrays, const std::string &path) {
  auto fail = [&](const std::string &what) {
    return Error(ErrorCode::InputMismatch, "'" + path + "' " + what + "; input '" + nameOf(port) + "' is " +
                                               typeOf(port.dtype()) + " of shape " + shapeOf(port));
  };
  auto found = std::find_if(arrays.begin(), arrays.end(), [&](const NpzArray &it) { return it.name == nameOf(port); });
  if (found == arrays.end())
    throw fail("has no array of that name");
  // The first character tells the order of bytes, which two of these types have none of.
  bool sameType = found->type.substr(1) == std::string(typeOf(port.dtype())).substr(1);
  if (!sameType || !std::equal(found->shape.begin(), found->shape.end(), port.dims()->begin(), port.dims()->end()) ||
      found->bytes.size() != artifact::elementsOf(port) * artifact::elementBytes(port.dtype()))
    throw fail("has that array with another type or shape");
  return *found;
}

} // namespace

void call(const RunOptions &options) {
  std::vector<NpzArray> arrays = readNpz(options.inputsFile);
  Function function(options.artifact, {options.session.weightsRoot, options.session.threads});
  checkOutputsAgainstWeights(options, function.artifact());
  const artifact::Entry &signature = function.signature();
  uint32_t count = signature.inputs() ? signature.inputs()->size() : 0;
  for (uint32_t i = 0; i < count; ++i) {
    const NpzArray &array = arrayOf(*signature.inputs()->Get(i), arrays, options.inputsFile);
    function.setInput(i, std::as_bytes(std::span(array.bytes)));
  }
  // What was not read must not be taken for read.
  for (const NpzArray &array : arrays) {
    bool known = false;
    for (uint32_t i = 0; i < count; ++i)
      known |= nameOf(*signature.inputs()->Get(i)) == array.name;
    if (!known)
      throw Error(ErrorCode::InputMismatch,
                  "'" + options.inputsFile + "' has an array '" + array.name + "', which is no input of the function");
  }
  function.run();
  std::vector<NpzArray> outputs;
  for (uint32_t i = 0; i < signature.outputs()->size(); ++i) {
    const artifact::Port &port = *signature.outputs()->Get(i);
    NpzArray &array = outputs.emplace_back();
    array.name = nameOf(port);
    array.type = typeOf(port.dtype());
    array.shape.assign(port.dims()->begin(), port.dims()->end());
    array.bytes.resize(artifact::elementsOf(port) * artifact::elementBytes(port.dtype()));
    function.getOutput(i, std::as_writable_bytes(std::span(array.bytes)));
  }
  writeNpz(options.outputsFile, outputs);
}

} // namespace helix
