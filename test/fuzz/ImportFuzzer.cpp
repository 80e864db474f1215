//===- ImportFuzzer.cpp - The importer on arbitrary bytes ------------------===//
//
// A libFuzzer target. Inputs are models; most mutations change the parsed protobuf and not its bytes, so that they get
// past the parser. External data is found: the file that fixtures name is there, full of zeros.
//
//===-----------------------------------------------------------------------===//
#include "lib/Import/Onnx/Onnx.h"
#include "lib/Import/Onnx/Proto.h"

#include "mlir/IR/Diagnostics.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <random>

using namespace mlir;

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t maxSize);

namespace {

/// A directory with the external data of the fixtures, and the path of the model to write there.
std::string prepare() {
  llvm::SmallString<128> directory;
  if (llvm::sys::fs::createUniqueDirectory("helix-fuzz", directory))
    abort();
  llvm::SmallString<128> data(directory), model(directory);
  llvm::sys::path::append(data, "model.onnx.data");
  llvm::sys::path::append(model, "model.onnx");
  int file = 0;
  constexpr uint64_t kDataBytes = uint64_t(1) << 24; // No fixture has more; the file is sparse.
  if (llvm::sys::fs::openFileForReadWrite(data, file, llvm::sys::fs::CD_CreateAlways, llvm::sys::fs::OF_None) ||
      llvm::sys::fs::resize_file(file, kDataBytes))
    abort();
  return std::string(model);
}

using Random = std::minstd_rand;

/// One of the graph's names, or now and then none.
std::string someName(const onnx::GraphProto &graph, Random &random) {
  const onnx::NodeProto &node = graph.node(random() % graph.node_size());
  int count = node.input_size() + node.output_size();
  if (count == 0 || random() % 16 == 0)
    return {};
  int which = random() % count;
  return which < node.input_size() ? node.input(which) : node.output(which - node.input_size());
}

int64_t someInteger(Random &random) {
  constexpr int64_t kOdd[] = {0, 1, -1, 2, 3, 4, 8, 16, 64, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1 << 20};
  return kOdd[random() % std::size(kOdd)];
}

void mutateNode(onnx::GraphProto &graph, Random &random) {
  onnx::NodeProto &node = *graph.mutable_node(random() % graph.node_size());
  const onnx::NodeProto &other = graph.node(random() % graph.node_size());
  switch (random() % 8) {
  case 0:
    if (node.input_size() != 0)
      node.set_input(random() % node.input_size(), someName(graph, random));
    break;
  case 1:
    node.add_input(someName(graph, random));
    break;
  case 2:
    if (node.input_size() != 0)
      node.mutable_input()->RemoveLast();
    break;
  case 3:
    node.set_op_type(other.op_type());
    node.set_domain(other.domain());
    break;
  case 4:
    *node.mutable_attribute() = other.attribute();
    break;
  case 5:
    if (node.attribute_size() != 0) {
      onnx::AttributeProto &attribute = *node.mutable_attribute(random() % node.attribute_size());
      if (attribute.ints_size() != 0)
        attribute.set_ints(random() % attribute.ints_size(), someInteger(random));
      else
        attribute.set_i(someInteger(random));
    }
    break;
  case 6: {
    onnx::NodeProto copy = other;
    for (std::string &output : *copy.mutable_output())
      output += "'";
    *graph.add_node() = copy;
    break;
  }
  default:
    node.Swap(graph.mutable_node(random() % graph.node_size()));
  }
}

void mutateTensor(onnx::GraphProto &graph, Random &random) {
  onnx::TensorProto *tensor = nullptr;
  if (graph.initializer_size() != 0 && random() % 2 == 0) {
    tensor = graph.mutable_initializer(random() % graph.initializer_size());
  } else {
    for (onnx::AttributeProto &attribute : *graph.mutable_node(random() % graph.node_size())->mutable_attribute())
      if (attribute.has_t())
        tensor = attribute.mutable_t();
  }
  if (!tensor)
    return;
  switch (random() % 4) {
  case 0:
    if (tensor->dims_size() != 0)
      tensor->set_dims(random() % tensor->dims_size(), someInteger(random));
    break;
  case 1:
    tensor->set_data_type(random() % 24);
    break;
  case 2:
    tensor->add_dims(1);
    break;
  default: // Integers that are axes, shapes and bounds.
    if (tensor->raw_data().size() >= sizeof(int64_t)) {
      int64_t value = someInteger(random);
      tensor->mutable_raw_data()->replace(0, sizeof(value), reinterpret_cast<const char *>(&value), sizeof(value));
    }
  }
}

void mutateSignature(onnx::GraphProto &graph, Random &random) {
  if (graph.input_size() == 0)
    return;
  onnx::ValueInfoProto &input = *graph.mutable_input(random() % graph.input_size());
  auto &shape = *input.mutable_type()->mutable_tensor_type()->mutable_shape();
  if (random() % 4 == 0)
    shape.add_dim()->set_dim_value(someInteger(random));
  else if (shape.dim_size() != 0)
    shape.mutable_dim(random() % shape.dim_size())->set_dim_value(someInteger(random));
}

} // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t maxSize, unsigned seed) {
  Random random(seed);
  onnx::ModelProto model;
  if (random() % 8 == 0 || !model.ParseFromArray(data, static_cast<int>(size)) || model.graph().node_size() == 0)
    return LLVMFuzzerMutate(data, size, maxSize);
  onnx::GraphProto &graph = *model.mutable_graph();
  for (unsigned i = 0, count = 1 + random() % 3; i < count; ++i)
    switch (random() % 4) {
    case 0:
      mutateTensor(graph, random);
      break;
    case 1:
      mutateSignature(graph, random);
      break;
    default:
      mutateNode(graph, random);
    }
  std::string bytes = model.SerializeAsString();
  if (bytes.size() > maxSize)
    return size;
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const std::string path = prepare();
  {
    std::error_code error;
    llvm::raw_fd_ostream file(path, error);
    file.write(reinterpret_cast<const char *>(data), size);
  }
  MLIRContext context(MLIRContext::Threading::DISABLED);
  ScopedDiagnosticHandler quiet(&context, [](Diagnostic &) { return success(); });
  helix::ImportOptions options;
  options.batch = 2;
  options.maxContext = 64;
  options.prefillChunk = 3;
  (void)helix::importOnnx(context, path, options);
  return 0;
}
