//===- ErrorsTest.cpp - What cannot run is an error that says so --------------===//
#include "test/unit/Interpreter/RandomProgram.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace helix;
using namespace helix::test;

namespace {

constexpr const char *kCache =
    "!helix.kv<slots = 1, heads = 1, key_dim = 2, value_dim = 2, element = f32, block = 2, kvp = 1, capacity = 4>";

/// The first error of making an interpreter for `text` and running its @decode with one token at position 0.
std::string errorOf(std::string text) {
  for (size_t at; (at = text.find("!kv")) != std::string::npos;)
    text.replace(at, 3, kCache);
  auto context = makeContext();
  std::string message;
  ScopedDiagnosticHandler handler(context.get(), [&](Diagnostic &diagnostic) {
    if (message.empty())
      message = diagnostic.str();
    return success();
  });
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, ParserConfig(context.get()));
  if (!module)
    return "does not parse: " + message;
  auto interpreter = Interpreter::create(*module, "");
  if (succeeded(interpreter) && succeeded((*interpreter)->runEntry("decode", {1}, {0}, {1})))
    return "no error";
  return message;
}

/// An entry with `body`, which ends in the return.
std::string entry(const std::string &body, const std::string &moduleAttributes = "helix.vocabulary = 4 : i64") {
  return "module attributes {" + moduleAttributes + "} { func.func @decode(%ids: tensor<1x1xi64>, " +
         "%past: tensor<1xi32>, %n: tensor<1xi32>, %c: !kv) -> (tensor<1x1x4xf32>, !kv) attributes {helix.entry = " +
         "#helix.entry<decode, batch = 1, tokens = 1, logits = last>} {\n" +
         "%l = arith.constant dense<0.0> : tensor<1x1x4xf32>\n" +
         "%k = arith.constant dense<0.0> : tensor<1x1x1x2xf32>\n" + body + "} }";
}

const std::string kReturn = "return %l, %c : tensor<1x1x4xf32>, !kv\n";
const std::string kAppend = " = helix.kv_append %k, %k, %past, %n into %c : tensor<1x1x1x2xf32>, tensor<1x1x1x2xf32>, "
                            "tensor<1xi32>, !kv\n";

TEST(Errors, NoError) {
  EXPECT_EQ(errorOf(entry(kReturn)), "no error");
  EXPECT_EQ(errorOf(entry("%d" + kAppend + "return %l, %d : tensor<1x1x4xf32>, !kv\n")), "no error");
}

TEST(Errors, UnknownOp) {
  EXPECT_EQ(errorOf(entry("%s = math.sin %l : tensor<1x1x4xf32>\n" + kReturn)),
            "the interpreter does not know math.sin");
}

TEST(Errors, StaleCache) {
  EXPECT_EQ(errorOf(entry("%d" + kAppend +
                          "%a = helix.attention %k, %c, %past, %n {scale = 1.0 : f64} : tensor<1x1x1x2xf32>, !kv, "
                          "tensor<1xi32> -> tensor<1x1x1x2xf32>\n" +
                          kReturn)),
            "'helix.attention' op reads a cache that was appended to since");
  EXPECT_EQ(errorOf(entry("%d" + kAppend + "%e" + kAppend + kReturn)),
            "'helix.kv_append' op reads a cache that was appended to since");
  EXPECT_EQ(errorOf(entry("%d" + kAppend + kReturn)), "result 1 is not the newest version of cache 0");
}

TEST(Errors, PositionPastTheCapacity) {
  EXPECT_EQ(errorOf(entry("%p = arith.constant dense<4> : tensor<1xi32>\n"
                          "%d = helix.kv_append %k, %k, %p, %n into %c : tensor<1x1x1x2xf32>, tensor<1x1x1x2xf32>, "
                          "tensor<1xi32>, !kv\n" +
                          kReturn)),
            "'helix.kv_append' op appends at position 4 of slot 0, but the capacity is 4");
}

TEST(Errors, MoreTokensThanThereAre) {
  EXPECT_EQ(errorOf(entry("%m = arith.constant dense<3> : tensor<1xi32>\n"
                          "%x = helix.last_token %l, %m : tensor<1x1x4xf32>, tensor<1xi32> -> tensor<1x1x4xf32>\n" +
                          kReturn)),
            "'helix.last_token' op sequence 0 has 3 of 1 tokens");
}

TEST(Errors, SliceWithoutMesh) {
  EXPECT_EQ(errorOf(entry("%w = helix.weight \"w\" {file = \"w\", offset = 0 : i64, length = 8 : i64, stored = "
                          "tensor<2xf32>, slice = [[#helix.split<n, 1>]]} : tensor<1xf32>\n" +
                          kReturn)),
            "'helix.weight' op is sliced over a mesh, but the module has no mesh");
}

TEST(Errors, MissingFile) {
  EXPECT_EQ(errorOf(entry("%w = helix.weight \"w\" {file = \"none\", offset = 0 : i64, length = 8 : i64, "
                          "stored = tensor<2xf32>} : tensor<2xf32>\n" +
                          kReturn)),
            "'helix.weight' op cannot read none: No such file or directory");
}

TEST(Errors, PeersThatTheMeshLacks) {
  EXPECT_EQ(errorOf(entry("%p = helix.partial_attention %k, %c, %past, %n {scale = 1.0 : f64} : tensor<1x1x1x2xf32>, "
                          "!kv, tensor<1xi32> -> !helix.partial<tensor<1x1x2x2xf32>, lse, [kvp]>\n"
                          "%s = helix.all_to_all %p : <tensor<1x1x2x2xf32>, lse, [kvp]> -> <kvp, "
                          "tensor<2x1x1x1x3xf32>>\n" +
                          kReturn)),
            "'helix.all_to_all' op stacks 2 peers, but kvp has 1 ranks");
}

TEST(Errors, TypesThatItDoesNotHold) {
  EXPECT_EQ(errorOf(entry("%o = arith.constant 1 : index\n" + kReturn)),
            "the interpreter has no values of type 'index'; shapes must be static and not empty");
}

TEST(Errors, ShapesThatAreNotStatic) {
  EXPECT_EQ(errorOf("func.func private @f(%x: tensor<?xf32>) { return }"),
            "the interpreter has no values of type 'tensor<?xf32>'; shapes must be static and not empty");
}

TEST(Errors, Recursion) {
  EXPECT_EQ(errorOf(entry("%s = func.call @g(%l) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>\n" + kReturn) + "\n"),
            "does not parse: 'func.call' op 'g' does not reference a valid function");
  std::string text = entry("%s = func.call @g(%l) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>\n" + kReturn);
  text.insert(text.rfind('}'), "func.func private @g(%x: tensor<1x1x4xf32>) -> tensor<1x1x4xf32> {\n"
                               "%y = func.call @g(%x) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>\n"
                               "return %y : tensor<1x1x4xf32> }\n");
  EXPECT_EQ(errorOf(text), "calls itself");
}

TEST(Errors, DeclarationsHaveNoBody) {
  std::string text = entry("%s = func.call @g(%l) : (tensor<1x1x4xf32>) -> tensor<1x1x4xf32>\n" + kReturn);
  text.insert(text.rfind('}'), "func.func private @g(tensor<1x1x4xf32>) -> tensor<1x1x4xf32>\n");
  EXPECT_EQ(errorOf(text), "has no body of one block");
}

TEST(Errors, EntryWithoutVocabulary) {
  EXPECT_EQ(errorOf(entry(kReturn, "")), "an entry needs a helix.entry, arguments (ids, past, q_len, caches…), logits, "
                                         "and the module's helix.vocabulary");
}

TEST(Errors, TooFewLogits) {
  EXPECT_EQ(errorOf(entry(kReturn, "helix.vocabulary = 5 : i64")),
            "returns 4 logits per rank, too few for the vocabulary of 5");
}

TEST(Errors, EntryOfAnotherShape) {
  std::string text = entry(kReturn);
  text.replace(text.find("batch = 1"), 9, "batch = 2");
  EXPECT_EQ(errorOf(text).substr(0, 72), "an entry of batch 2 takes 'tensor<2x1xi64>', 'tensor<2xi32>', 'tensor<2x");
}

TEST(Errors, CacheOverRanksThatTheMeshLacks) {
  std::string text = entry(kReturn);
  for (size_t at; (at = text.find("!kv")) != std::string::npos;)
    text.replace(at, 3,
                 "!helix.kv<slots = 1, heads = 1, key_dim = 2, value_dim = 2, element = f32, block = 2, kvp = 2, "
                 "capacity = 4>");
  EXPECT_EQ(errorOf(text), "argument 3 is spread over 2 ranks, which the module's mesh does not have");
}

} // namespace
