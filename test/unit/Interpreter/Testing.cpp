//===- Testing.cpp - Running one function on given tensors -------------------===//
#include "test/unit/Interpreter/Testing.h"

#include "test/unit/Interpreter/RandomProgram.h"

#include "mlir/Parser/Parser.h"

using namespace mlir;

namespace helix::test {

Program::Program(StringRef text, StringRef modelDir)
    : context(makeContext()), parsed(parseSourceString<ModuleOp>(text, ParserConfig(context.get()))) {
  if (!parsed)
    return;
  auto made = Interpreter::create(*parsed, modelDir);
  if (succeeded(made))
    interpreter = std::move(*made);
}

SmallVector<RankValues> Program::run(ArrayRef<RankValues> arguments) {
  if (!interpreter) {
    ADD_FAILURE() << "the module has no interpreter";
    return {};
  }
  FailureOr<SmallVector<RankValues>> results = interpreter->call("f", arguments);
  if (succeeded(results))
    return *results;
  ADD_FAILURE() << "@f does not run";
  return {};
}

Tensor Program::run(ArrayRef<Tensor> arguments) {
  SmallVector<RankValues> results =
      run(llvm::map_to_vector(arguments, [](const Tensor &tensor) { return everywhere(tensor, 1); }));
  return results.empty() ? Tensor() : *results[0][0].tensor;
}

Tensor randomTensor(ArrayRef<int64_t> shape, std::mt19937_64 &random) {
  Tensor tensor(shape);
  for (double &x : tensor.values)
    x = std::normal_distribution<double>()(random);
  return tensor;
}

RankValues everywhere(const Tensor &tensor, int64_t ranks) { return RankValues(ranks, RankValue(tensor)); }

void expectNear(const Tensor &actual, const Tensor &expected, double tolerance) {
  ASSERT_EQ(ArrayRef<int64_t>(actual.shape), ArrayRef<int64_t>(expected.shape));
  for (int64_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual.values[i], expected.values[i], tolerance) << "at element " << i;
}

} // namespace helix::test
