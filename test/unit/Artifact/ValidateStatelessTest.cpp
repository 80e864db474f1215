//===- ValidateStatelessTest.cpp - Stateless artifacts that are refused ----===//
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/Validate.h"
#include "lib/Artifact/Writer.h"

#include <gtest/gtest.h>

#include <functional>

using namespace helix;
using namespace helix::artifact;

namespace {

std::unique_ptr<PortT> port(const char *name, DType dtype, std::vector<uint64_t> dims) {
  auto port = std::make_unique<PortT>();
  port->name = name;
  port->dtype = dtype;
  port->dims = std::move(dims);
  return port;
}

std::unique_ptr<OperandT> operand(Space space, uint32_t index, uint64_t offset, uint64_t bytes) {
  auto operand = std::make_unique<OperandT>();
  operand->space = space;
  operand->index = index;
  operand->offset = offset;
  operand->bytes = bytes;
  return operand;
}

/// q, k, v [1, 2, 3, 4] of f16 inputs 0 to 2, mask [3, 3] of truths, lengths [1] → y in the arena; then y is
/// transposed, rotated by tables of input 5 [3, 2] at positions, input 6, and scattered over itself.
ArtifactT function() {
  ArtifactT artifact;
  artifact.mesh = std::make_unique<MeshT>();
  artifact.mesh->tpa = artifact.mesh->kvp = artifact.mesh->ep = artifact.mesh->tpf = 1;
  auto entry = std::make_unique<EntryT>();
  entry->kind = EntryKind::Stateless;
  entry->batch = entry->tokens = 1;
  for (const char *name : {"q", "k", "v"})
    entry->inputs.push_back(port(name, DType::F16, {1, 2, 3, 4}));
  entry->inputs.push_back(port("mask", DType::Bool, {3, 3}));
  entry->inputs.push_back(port("lengths", DType::I64, {1}));
  entry->inputs.push_back(port("table", DType::F32, {3, 2}));
  entry->inputs.push_back(port("positions", DType::I64, {1, 3}));
  entry->device_bytes = 512;

  auto add = [&](auto work, std::vector<std::unique_ptr<OperandT>> inputs, uint64_t offset) {
    auto command = std::make_unique<CommandT>();
    command->work.Set(std::move(work));
    command->inputs = std::move(inputs);
    command->outputs.push_back(operand(Space::Device, 0, offset, 96));
    entry->commands.push_back(std::move(command));
  };
  auto list = [](auto... each) {
    std::vector<std::unique_ptr<OperandT>> operands;
    (operands.push_back(std::move(each)), ...);
    return operands;
  };
  auto input = [](uint32_t index, uint64_t bytes) { return operand(Space::Input, index, 0, bytes); };
  auto at = [](uint64_t offset) { return operand(Space::Device, 0, offset, 96); };
  DenseAttentionT attention;
  attention.batch = 1, attention.heads = attention.kv_heads = 2, attention.tokens = attention.keys = 3;
  attention.key_dim = attention.value_dim = 4, attention.scale = 0.5, attention.right = 0;
  attention.mask_shape = {1, 1, 3, 3}, attention.truths = attention.lengths = true;
  add(attention, list(input(0, 96), input(1, 96), input(2, 96), input(3, 9), input(4, 8)), 0);
  TransposeT transpose;
  transpose.shape = {2, 3, 4}, transpose.permutation = {1, 0, 2};
  add(transpose, list(at(0)), 128);
  RotateT rotate;
  rotate.batch = 1, rotate.heads = 2, rotate.tokens = 3, rotate.dim = 4, rotate.half = 2, rotate.rows = 3;
  rotate.positions = true;
  add(rotate, list(at(128), input(5, 24), input(5, 24), input(6, 24)), 256);
  ScatterT scatter;
  scatter.batch = 1, scatter.outer = 2, scatter.tokens = scatter.capacity = 3, scatter.inner = 4;
  scatter.indices = true;
  add(scatter, list(at(256), at(128), input(4, 8)), 384);

  entry->outputs.push_back(port("y", DType::BF16, {2, 3, 4}));
  entry->outputs.back()->place = at(384);
  artifact.entries.push_back(std::move(entry));
  return artifact;
}

EntryT &entryOf(ArtifactT &artifact) { return *artifact.entries[0]; }
CommandT &command(ArtifactT &artifact, size_t index) { return *artifact.entries[0]->commands[index]; }
DenseAttentionT &attention(ArtifactT &artifact) { return *command(artifact, 0).work.AsDenseAttention(); }

/// The message with which a changed artifact is refused; "" if it is taken.
std::string refusal(const std::function<void(ArtifactT &)> &change) {
  ArtifactT artifact = function();
  change(artifact);
  std::vector<uint8_t> bytes;
  Error error;
  if (!encodeArtifact(artifact, bytes, error))
    return error.message;
  if (verifyArtifact(bytes, error))
    return "";
  EXPECT_EQ(error.code, ErrorCode::ArtifactInconsistent);
  return error.message;
}

#define EXPECT_REFUSED(part, ...)                                                                                      \
  EXPECT_NE(refusal([](ArtifactT &a) { __VA_ARGS__; }).find(part), std::string::npos)                                  \
      << refusal([](ArtifactT &a) { __VA_ARGS__; })

TEST(ValidateStateless, WhatTheCompilerWritesIsTaken) {
  EXPECT_EQ(refusal([](ArtifactT &) {}), "");
}

TEST(ValidateStateless, NothingOfADecoder) {
  EXPECT_REFUSED("on one rank", (a.mesh->kvp = a.mesh->tpf = 2));
  EXPECT_REFUSED("vocabulary", a.vocabulary = 5);
  EXPECT_REFUSED("KV layout", a.kv = std::make_unique<KvLayoutT>());
  EXPECT_REFUSED("slots", entryOf(a).batch = 2);
  EXPECT_REFUSED("logits", entryOf(a).logits_operand = operand(Space::Device, 0, 0, 4));
  EXPECT_REFUSED("does not belong", entryOf(a).commands[1]->work.Set(KvAppendT()));
  EXPECT_REFUSED("does not belong", entryOf(a).commands[1]->work.Set(EmbeddingT()));
  EXPECT_REFUSED("vocabulary", a.entries.push_back(std::make_unique<EntryT>()));
}

TEST(ValidateStateless, Ports) {
  EXPECT_REFUSED("input 1: its name", entryOf(a).inputs[1]->name = "q");
  EXPECT_REFUSED("input 1: its name", entryOf(a).inputs[1]->name.clear());
  EXPECT_REFUSED("input 0: its shape", entryOf(a).inputs[0]->dims[3] = 0);
  EXPECT_REFUSED("input 0: its shape", (entryOf(a).inputs[0]->dims = {1u << 31, 1u << 31, 1u << 31}));
  EXPECT_REFUSED("input 0: its shape", entryOf(a).inputs[0]->dims.assign(9, 1));
  EXPECT_REFUSED("input 0: its element type", entryOf(a).inputs[0]->dtype = DType::I32);
  EXPECT_REFUSED("input 0: its element type", entryOf(a).inputs[0]->dtype = DType(9));
  EXPECT_REFUSED("input 0: its element type", entryOf(a).inputs[0]->dtype = DType::I8);
  EXPECT_REFUSED("output 0: its element type", entryOf(a).outputs[0]->dtype = DType::I64);
  EXPECT_REFUSED("output 0: it is not in an arena", entryOf(a).outputs[0]->place.reset());
  EXPECT_REFUSED("output 0: it is not in an arena", entryOf(a).outputs[0]->place = operand(Space::Input, 0, 0, 96));
  EXPECT_REFUSED("output 0: it is not in an arena", entryOf(a).outputs[0]->place->bytes = 4);
  EXPECT_REFUSED("not inside it", entryOf(a).outputs[0]->place->offset = 448);
  EXPECT_REFUSED("it gives nothing", entryOf(a).outputs.clear());
}

TEST(ValidateStateless, Operands) {
  EXPECT_REFUSED("input 0 is not in an arena", command(a, 0).inputs[0] = operand(Space::Input, 3, 0, 9));
  EXPECT_REFUSED("input 3 is not an input of truths", command(a, 0).inputs[3] = operand(Space::Input, 0, 0, 96));
  EXPECT_REFUSED("input 4 is not an input of integers", command(a, 0).inputs[4] = operand(Space::Device, 0, 0, 8));
  EXPECT_REFUSED("not inside it", command(a, 0).inputs[4] = operand(Space::Input, 7, 0, 8));
  EXPECT_REFUSED("not inside it", command(a, 0).inputs[0]->bytes = 48);
  EXPECT_REFUSED("output 0 is not in an arena", command(a, 1).outputs[0] = operand(Space::Input, 0, 0, 96));
  EXPECT_REFUSED("not inside it", command(a, 1).inputs[0] = operand(Space::Kv, 0, 0, 0));
  EXPECT_REFUSED("lies over input", command(a, 1).outputs[0]->offset = 64);
}

TEST(ValidateStateless, Attention) {
  EXPECT_REFUSED("a size is zero", attention(a).keys = 0);
  EXPECT_REFUSED("whole groups", attention(a).kv_heads = 3);
  EXPECT_REFUSED("stage", attention(a).stage = ScoreStage(9));
  EXPECT_REFUSED("a size is zero", attention(a).stage = ScoreStage::Masked);
  EXPECT_REFUSED("bounds", attention(a).left = -2);
  EXPECT_REFUSED("bounds", attention(a).offset = ~uint64_t(0));
  EXPECT_REFUSED("scale", attention(a).scale = std::numeric_limits<double>::infinity());
  EXPECT_REFUSED("softcap", attention(a).softcap = -1);
  EXPECT_REFUSED("four dimensions", (attention(a).mask_shape = {3, 3}));
  EXPECT_REFUSED("repeat", (attention(a).mask_shape = {1, 3, 1, 3}));
  EXPECT_REFUSED("for its keys", (attention(a).mask_shape = {1, 1, 1, 9}));
  EXPECT_REFUSED("its work takes", attention(a).lengths = false);
  EXPECT_REFUSED("its shape has", attention(a).key_dim = 5);
  EXPECT_REFUSED("its shape has", attention(a).tokens = attention(a).keys = 1u << 30; attention(a).mask_shape.clear();
                 command(a, 0).inputs.erase(command(a, 0).inputs.begin() + 3));
}

TEST(ValidateStateless, Others) {
  EXPECT_REFUSED("permutation is none", (command(a, 1).work.AsTranspose()->permutation = {1, 1, 2}));
  EXPECT_REFUSED("permutation is none", (command(a, 1).work.AsTranspose()->permutation = {1, 0, 40}));
  EXPECT_REFUSED("not of its dimensions", (command(a, 1).work.AsTranspose()->permutation = {1, 0}));
  EXPECT_REFUSED("no dimensions", command(a, 1).work.AsTranspose()->shape.clear());
  EXPECT_REFUSED("its shape has", (command(a, 1).work.AsTranspose()->shape = {2, 3, 5}));
  EXPECT_REFUSED("heads' width", command(a, 2).work.AsRotate()->half = 3);
  EXPECT_REFUSED("its shape has", command(a, 2).work.AsRotate()->rows = 4);
  EXPECT_REFUSED("a row for each token",
                 (command(a, 2).work.AsRotate()->positions = false, command(a, 2).work.AsRotate()->rows = 2));
  EXPECT_REFUSED("more than its cache", command(a, 3).work.AsScatter()->tokens = 4);
  EXPECT_REFUSED("a size is zero", command(a, 3).work.AsScatter()->outer = 0);
  EXPECT_REFUSED("its work takes", command(a, 3).work.AsScatter()->indices = false);
}

} // namespace
