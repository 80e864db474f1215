//===- ValidateTest.cpp - Artifacts that contradict themselves -------------===//
#include "lib/Artifact/Validate.h"
#include "lib/Artifact/Format.h"
#include "lib/Artifact/Reader.h"
#include "lib/Artifact/Writer.h"
#include "test/unit/Core/TinyModel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

using namespace helix;
using namespace helix::artifact;
using helix::test::TinyModel;
using helix::test::TinyOptions;

namespace {

ArtifactT tiny() {
  TinyOptions options;
  options.tpa = options.kvp = 2;
  return tinyArtifact(TinyModel(), options);
}

/// In chunks, with two streams.
ArtifactT overlapped() {
  TinyOptions options;
  options.kvp = 2;
  options.chunks = 2;
  return tinyArtifact(TinyModel(), options);
}

/// The message with which a changed artifact is refused; "" if it is taken.
std::string refusal(const std::function<void(ArtifactT &)> &change, ArtifactT artifact = tiny()) {
  change(artifact);
  std::vector<uint8_t> bytes;
  Error error;
  if (!encodeArtifact(artifact, bytes, error))
    return error.message;
  if (verifyArtifact(bytes, error))
    return "";
  EXPECT_EQ(error.code, ErrorCode::ArtifactInconsistent);
  EXPECT_EQ(error.message.rfind("HLX3007: ", 0), 0u) << error.message;
  return error.message;
}

/// The tiny model with its final product as codes of four bits in blocks of eight, made up after the other weights.
ArtifactT quantised() {
  ArtifactT artifact = tiny();
  CommandT *head = nullptr;
  for (auto &entry : artifact.entries)
    for (auto &command : entry->commands)
      if (command->work.type == Work::Linear)
        head = command.get();
  WeightT &weight = *artifact.weights[head->inputs[1]->index];
  uint64_t rows = weight.dims[1]->stored, columns = weight.dims[0]->stored, bytes = artifact.files[0]->bytes;
  std::swap(weight.dims[0], weight.dims[1]);
  weight.transposed = true;
  weight.stored_dtype = DType::I8;
  weight.dtype = DType::F32;
  weight.offset = bytes;
  weight.length = rows * columns / 2;
  uint64_t blocks = (columns + 7) / 8;
  weight.quantization = std::make_unique<QuantizationT>();
  weight.quantization->bits = 4;
  weight.quantization->block = 8;
  weight.quantization->scales = std::make_unique<FileRangeT>();
  weight.quantization->scales->offset = bytes + weight.length;
  weight.quantization->scales->length = rows * blocks * 4;
  weight.quantization->zero = ZeroPoint::Packed;
  weight.quantization->zero_points = std::make_unique<FileRangeT>();
  weight.quantization->zero_points->offset = bytes + weight.length + rows * blocks * 4;
  weight.quantization->zero_points->length = rows * ((blocks + 1) / 2);
  artifact.files[0]->bytes += weight.length + rows * blocks * 4 + rows * ((blocks + 1) / 2);
  uint64_t k = weight.dims[1]->local, n = weight.dims[0]->local, held = n * ((k + 1) / 2 + (k + 7) / 8 * 5);
  for (auto &entry : artifact.entries)
    for (auto &command : entry->commands)
      for (auto &input : command->inputs)
        if (input->space == Space::Weight && input->index == head->inputs[1]->index)
          input->bytes = held;
  return artifact;
}

WeightT &codesOf(ArtifactT &artifact) {
  for (auto &weight : artifact.weights)
    if (weight->quantization)
      return *weight;
  throw std::runtime_error("no such weight");
}

CommandT &commandOf(ArtifactT &artifact, Work work) {
  for (auto &command : artifact.entries[0]->commands)
    if (command->work.type == work)
      return *command;
  throw std::runtime_error("no such command");
}

#define EXPECT_REFUSED(part, ...)                                                                                      \
  EXPECT_NE(refusal([](ArtifactT &a) { __VA_ARGS__; }).find(part), std::string::npos)                                  \
      << refusal([](ArtifactT &a) { __VA_ARGS__; })

#define EXPECT_OVERLAPPED_REFUSED(part, ...)                                                                           \
  EXPECT_NE(refusal([](ArtifactT &a) { __VA_ARGS__; }, overlapped()).find(part), std::string::npos)                    \
      << refusal([](ArtifactT &a) { __VA_ARGS__; }, overlapped())

TEST(Validate, WhatTheCompilerWritesIsTaken) {
  EXPECT_EQ(refusal([](ArtifactT &) {}), "");
  EXPECT_EQ(refusal([](ArtifactT &) {}, overlapped()), "");
}

TEST(Validate, Mesh) {
  EXPECT_REFUSED("mesh", a.mesh.reset());
  EXPECT_REFUSED("mesh", a.mesh->tpf = 2);
  EXPECT_REFUSED("mesh", a.mesh->kvp = 0);
  EXPECT_REFUSED("mesh", a.mesh->tpa = a.mesh->tpf = 1u << 31);
  EXPECT_REFUSED("vocabulary", a.vocabulary = 0);
  EXPECT_REFUSED("vocabulary", a.vocabulary = uint64_t(1) << 40);
  EXPECT_REFUSED("vocabulary", a.local_vocabulary = 9);
  EXPECT_REFUSED("entry", a.entries.clear());
}

TEST(Validate, WeightsLieInTheirFiles) {
  EXPECT_REFUSED("weight 0", a.weights[0]->file = 1);
  EXPECT_REFUSED("leaves its file", a.weights[0]->offset = a.files[0]->bytes);
  EXPECT_REFUSED("leaves its file", a.weights[0]->offset = ~uint64_t(0));
  EXPECT_REFUSED("leaves its file", a.files[0]->bytes = 4);
  EXPECT_REFUSED("length", a.weights[0]->length -= 4);
  EXPECT_REFUSED("path", a.files[0]->path = "/etc/passwd");
  EXPECT_REFUSED("path", a.files[0]->path.clear());
  EXPECT_REFUSED("path", (a.files[0]->path = std::string("a\0b", 3)));
}

TEST(Validate, WeightShapes) {
  EXPECT_REFUSED("element type", a.weights[0]->stored_dtype = DType::I64);
  EXPECT_REFUSED("element type", a.weights[0]->use = WeightUse(7));
  EXPECT_REFUSED("dimensions", a.weights[0]->dims.pop_back());
  EXPECT_REFUSED("transposed", a.weights[0]->transposed = true);
  EXPECT_REFUSED("window", a.weights[0]->dims[0]->window_offset = 1);
  EXPECT_REFUSED("window", a.weights[0]->dims[0]->window_size = ~uint64_t(0));
  EXPECT_REFUSED("pieces", a.weights[0]->dims[0]->stride = 1);
  EXPECT_REFUSED("pieces", a.weights[0]->dims[0]->run = 2);
  EXPECT_REFUSED("window", a.weights[0]->dims[0]->run = 1, a.weights[0]->dims[0]->stride = 2);
  EXPECT_REFUSED("window", a.weights[0]->dims[0]->run = 1, a.weights[0]->dims[0]->stride = ~uint64_t(0));
  EXPECT_REFUSED("exceeds the local size", a.weights[0]->dims[0]->local = 9);
  EXPECT_REFUSED("cover", a.weights[0]->dims[0]->splits[0]->chunk = 9);
  EXPECT_REFUSED("cover", a.weights[0]->dims[0]->splits[0]->chunk = 0);
  EXPECT_REFUSED("cover", a.weights[0]->dims[0]->splits[0]->axis = Axis(9));
  EXPECT_REFUSED("copies", a.weights[0]->dims[0]->splits[0]->replicas = 0);
  EXPECT_REFUSED("copies", a.weights[0]->dims[0]->splits[0]->replicas = 3);
  EXPECT_REFUSED("cover", a.weights[0]->dims[0]->splits[0]->replicas = 2);
  EXPECT_REFUSED("range", a.weights[0]->dims[0]->local = uint64_t(1) << 62);
  EXPECT_REFUSED("range", a.weights[0]->dims[0]->stored = uint64_t(1) << 62);
}

TEST(Validate, KvLayout) {
  EXPECT_REFUSED("KV", a.kv.reset());
  EXPECT_REFUSED("KV", a.kv->block = 0);
  EXPECT_REFUSED("KV", a.kv->capacity = 52);
  EXPECT_REFUSED("KV", a.kv->capacity = uint64_t(1) << 31);
  EXPECT_REFUSED("pages", (a.kv->slots = ~0u, a.kv->capacity = uint64_t(1) << 30));
  EXPECT_REFUSED("KV layer 1", a.kv->layers[1]->heads = 0);
  EXPECT_REFUSED("KV layer 1", a.kv->layers[1]->dtype = DType::I32);
}

TEST(Validate, CodeIsWhatItWas) {
  EXPECT_REFUSED("checksum", a.images[0]->code[100] ^= 1);
  EXPECT_REFUSED("checksum", a.kernels[0]->groups += 1);
  EXPECT_REFUSED("checksum", a.kernels[0]->symbol = "add_16");
  EXPECT_REFUSED("checksum", a.kernels[0]->buffers[0] *= 2);
  EXPECT_REFUSED("kernel 0", a.kernels[0]->image = 1);
  EXPECT_REFUSED("processor", a.images[0]->triple.clear());
}

TEST(Validate, Entries) {
  EXPECT_REFUSED("kind", a.entries[0]->kind = EntryKind(3));
  EXPECT_REFUSED("is alone", a.entries[0]->kind = EntryKind::Stateless);
  EXPECT_REFUSED("batch", a.entries[0]->batch = 4);
  EXPECT_REFUSED("one token", a.entries[0]->tokens = 2);
  EXPECT_REFUSED("logits", a.entries[0]->logits_operand.reset());
  EXPECT_REFUSED("logits", a.entries[0]->logits_operand->bytes -= 4);
  EXPECT_REFUSED("logits", a.entries[0]->logits_operand->offset += a.entries[0]->device_bytes);
  EXPECT_REFUSED("logits", a.entries[0]->logits_operand->space = Space::Weight);
  EXPECT_REFUSED("arena", a.entries[0]->device_bytes = uint64_t(1) << 50);
  EXPECT_REFUSED("inside", a.entries[0]->device_bytes = 64);
  EXPECT_REFUSED("inside", a.entries[0]->device_bytes = 0);
  EXPECT_REFUSED("inside", a.entries[0]->comm_bytes = 0);
}

TEST(Validate, OperandsLieInTheirSpaces) {
  EXPECT_REFUSED("command 0", commandOf(a, Work::Embedding).outputs[0]->offset = 4);
  EXPECT_REFUSED("inside", commandOf(a, Work::Linear).outputs[0]->offset = uint64_t(1) << 40);
  EXPECT_REFUSED("inside", commandOf(a, Work::Linear).inputs[1]->index = 999);
  EXPECT_REFUSED("inside", commandOf(a, Work::Linear).inputs[1]->bytes -= 4);
  EXPECT_REFUSED("inside", commandOf(a, Work::KvAppend).inputs[4]->index = 2);
  EXPECT_REFUSED("inside", commandOf(a, Work::KvAppend).inputs[2]->index = 3);
  EXPECT_REFUSED("inside", commandOf(a, Work::Linear).inputs[0]->space = Space(9));
}

TEST(Validate, OperandsFitTheWork) {
  EXPECT_REFUSED("takes", commandOf(a, Work::Linear).inputs.pop_back());
  EXPECT_REFUSED("takes", commandOf(a, Work::KvAppend).outputs.push_back(std::make_unique<OperandT>()));
  EXPECT_REFUSED("bytes", commandOf(a, Work::Linear).work.AsLinear()->rows += 1);
  EXPECT_REFUSED("bytes", commandOf(a, Work::Linear).work.AsLinear()->n = uint64_t(1) << 62);
  EXPECT_REFUSED("zero", commandOf(a, Work::Linear).work.AsLinear()->k = 0);
  EXPECT_REFUSED("lies over",
                 commandOf(a, Work::Linear).outputs[0]->offset = commandOf(a, Work::Linear).inputs[0]->offset);
  EXPECT_REFUSED("rows", commandOf(a, Work::Embedding).work.AsEmbedding()->rows = 1);
  EXPECT_REFUSED("shape", commandOf(a, Work::Embedding).work.AsEmbedding()->vocabulary = 9);
  EXPECT_REFUSED("not its entry's", commandOf(a, Work::KvAppend).work.AsKvAppend()->batch = 1);
  EXPECT_REFUSED("bytes", commandOf(a, Work::KvAppend).work.AsKvAppend()->heads = 2);
  EXPECT_REFUSED("padded", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->padded_heads = 3);
  EXPECT_REFUSED("padded", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->heads = 0);
  EXPECT_REFUSED("scale", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->scale = NAN);
  EXPECT_REFUSED("scale", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->scale = 1e300);
  EXPECT_REFUSED("softcap", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->softcap = -1);
  EXPECT_REFUSED("softcap", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->softcap = NAN);
  EXPECT_REFUSED("4 inputs, its work takes 5",
                 commandOf(a, Work::PartialAttention).work.AsPartialAttention()->slopes = true);
  EXPECT_REFUSED("1 inputs, its work takes 2",
                 commandOf(a, Work::MergeAttention).work.AsMergeAttention()->sinks = true);
  EXPECT_REFUSED("bytes", commandOf(a, Work::MergeAttention).work.AsMergeAttention()->peers = 3);
  EXPECT_REFUSED("kernel", commandOf(a, Work::Generated).work.AsGenerated()->kernel = 1000);
  EXPECT_REFUSED("takes", commandOf(a, Work::Generated).inputs.pop_back());
  EXPECT_REFUSED("bytes", commandOf(a, Work::Generated).inputs[0]->bytes -= 4);
  EXPECT_REFUSED("bytes", commandOf(a, Work::AllToAll).work.AsAllToAll()->chunk += 4);
  EXPECT_REFUSED("bytes", commandOf(a, Work::AllToAll).work.AsAllToAll()->axis = Axis::N);
  EXPECT_REFUSED("bytes", commandOf(a, Work::AllReduce).work.AsAllReduce()->elements += 1);
  EXPECT_REFUSED("input 0 is not in communication memory",
                 commandOf(a, Work::AllReduce).inputs[0]->space = Space::Device);
  EXPECT_REFUSED("work", commandOf(a, Work::AllReduce).work.Reset());
}

TEST(Validate, Chunks) {
  EXPECT_OVERLAPPED_REFUSED("chunk", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->batch_begin = 3);
  EXPECT_OVERLAPPED_REFUSED("chunk", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->batch_count = 4);
  EXPECT_OVERLAPPED_REFUSED("chunk", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->batch_count = ~0u);
  EXPECT_OVERLAPPED_REFUSED("chunk", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->token_begin = 1);
  EXPECT_OVERLAPPED_REFUSED("chunk", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->token_count = 2);
  EXPECT_OVERLAPPED_REFUSED("bytes", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->batch_count = 1);
  EXPECT_OVERLAPPED_REFUSED("bytes", commandOf(a, Work::PartialAttention).work.AsPartialAttention()->batch_count = 0);
  EXPECT_OVERLAPPED_REFUSED("sum to 2, not to 3",
                            commandOf(a, Work::MergeAttention).work.AsMergeAttention()->chunks[0] = 1);
  EXPECT_OVERLAPPED_REFUSED("bytes", (commandOf(a, Work::MergeAttention).work.AsMergeAttention()->chunks = {1, 2}));
  EXPECT_OVERLAPPED_REFUSED("takes 1", commandOf(a, Work::MergeAttention).work.AsMergeAttention()->chunks.clear());
  EXPECT_OVERLAPPED_REFUSED("empty", (commandOf(a, Work::MergeAttention).work.AsMergeAttention()->chunks = {3, 0}));
  EXPECT_OVERLAPPED_REFUSED("along", commandOf(a, Work::MergeAttention).work.AsMergeAttention()->along = ChunkDim(2));
  EXPECT_OVERLAPPED_REFUSED("sum to",
                            commandOf(a, Work::MergeAttention).work.AsMergeAttention()->along = ChunkDim::Tokens);
  EXPECT_OVERLAPPED_REFUSED("more than 256",
                            commandOf(a, Work::MergeAttention).work.AsMergeAttention()->chunks.resize(257));
  EXPECT_OVERLAPPED_REFUSED("lies over", commandOf(a, Work::MergeAttention).outputs[0]->space = Space::Comm,
                            commandOf(a, Work::MergeAttention).outputs[0]->offset =
                                commandOf(a, Work::MergeAttention).inputs[1]->offset);
  EXPECT_OVERLAPPED_REFUSED("bytes", commandOf(a, Work::Concat).work.AsConcat()->widths[0] = 9);
  EXPECT_OVERLAPPED_REFUSED("takes 1", commandOf(a, Work::Concat).work.AsConcat()->widths.pop_back());
  EXPECT_OVERLAPPED_REFUSED("width", commandOf(a, Work::Concat).work.AsConcat()->widths[0] = 0);
  EXPECT_OVERLAPPED_REFUSED("width", commandOf(a, Work::Concat).work.AsConcat()->widths[0] = ~uint64_t(0));
  EXPECT_OVERLAPPED_REFUSED("widths", commandOf(a, Work::Concat).work.AsConcat()->widths.clear());
  EXPECT_OVERLAPPED_REFUSED("rows", commandOf(a, Work::Concat).work.AsConcat()->rows = 0);
}

TEST(Validate, StreamsAndEvents) {
  EXPECT_OVERLAPPED_REFUSED("streams", a.entries[0]->streams = 0);
  EXPECT_OVERLAPPED_REFUSED("streams", a.entries[0]->streams = kMaxStreams + 1);
  EXPECT_OVERLAPPED_REFUSED("on stream 1 of 1", a.entries[0]->streams = 1);
  EXPECT_OVERLAPPED_REFUSED("not one of its entry's", --a.entries[0]->events);
  EXPECT_OVERLAPPED_REFUSED("are recorded", ++a.entries[0]->events);
  EXPECT_OVERLAPPED_REFUSED("more events than commands", a.entries[0]->events = ~0u);
  EXPECT_OVERLAPPED_REFUSED("without an order with the one before it", a.entries[0]->streams = 3;
                            commandOf(a, Work::AllToAll).stream = 2);
  EXPECT_OVERLAPPED_REFUSED(
      "event 0 is recorded twice",
      for (auto &it : a.entries[0]->commands) if (it->work.AsRecord()) it->work.AsRecord()->event = 0);
  EXPECT_OVERLAPPED_REFUSED("on the same stream", commandOf(a, Work::Wait).stream = 0);
  EXPECT_OVERLAPPED_REFUSED("not recorded before it", commandOf(a, Work::Wait).work.AsWait()->event = 5);
  EXPECT_OVERLAPPED_REFUSED(
      "takes 0",
      commandOf(a, Work::Wait).inputs.push_back(std::make_unique<OperandT>(*commandOf(a, Work::AllReduce).inputs[0])));
}

TEST(Reader, TakesVersion1_0) {
  // Without the fields of 1.1: chunks, streams and events.
  std::vector<uint8_t> bytes;
  Error error;
  ASSERT_TRUE(encodeArtifact(tiny(), bytes, error));
  bytes[offsetof(Header, minor)] = 0;
  const Artifact *artifact = verifyArtifact(bytes, error);
  ASSERT_TRUE(artifact) << error.message;
  EXPECT_EQ(artifact->entries()->Get(0)->streams(), 1u);
  for (const Command *command : *artifact->entries()->Get(1)->commands())
    if (const PartialAttention *work = command->work_as_PartialAttention()) {
      EXPECT_EQ(batchChunk(*work).count, 3u);
      EXPECT_EQ(tokenChunk(*work).count, 8u);
    }
}

TEST(Reader, HeadersAreChecked) {
  std::vector<uint8_t> good;
  Error error;
  ASSERT_TRUE(encodeArtifact(tiny(), good, error));
  auto codeWith = [&](size_t offset, uint8_t flip) {
    std::vector<uint8_t> bytes = good;
    bytes[offset] ^= flip;
    EXPECT_EQ(verifyArtifact(bytes, error), nullptr);
    return error.code;
  };
  EXPECT_EQ(codeWith(0, 1), ErrorCode::ArtifactForeign);
  EXPECT_EQ(codeWith(offsetof(Header, major), 2), ErrorCode::ArtifactVersion);
  EXPECT_EQ(codeWith(offsetof(Header, minor), 0x80), ErrorCode::ArtifactVersion);
  EXPECT_EQ(codeWith(offsetof(Header, payloadBytes), 1), ErrorCode::ArtifactTruncated);
  EXPECT_EQ(codeWith(offsetof(Header, checksum), 1), ErrorCode::ArtifactAltered);
  EXPECT_EQ(codeWith(200, 1), ErrorCode::ArtifactAltered);
  good.push_back(0);
  EXPECT_EQ(codeWith(24, 0), ErrorCode::ArtifactTruncated);
}

TEST(Reader, FilesThatAreNoArtifacts) {
  test::TemporaryDirectory directory;
  Error error;
  EXPECT_FALSE(readArtifact(directory.file("missing"), error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactUnreadable);
  EXPECT_FALSE(readArtifact(directory.path.string(), error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactUnreadable);
  EXPECT_FALSE(readArtifact("/dev/null", error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactUnreadable);
  for (size_t size : {0, 5, 32, 5000}) {
    std::vector<uint8_t> bytes(size, 'x');
    test::writeFile(directory.file("other"), bytes.data(), bytes.size());
    EXPECT_FALSE(readArtifact(directory.file("other"), error));
    EXPECT_EQ(error.code, ErrorCode::ArtifactForeign);
  }
}

TEST(Writer, SameArtifactSameBytesAndNoTemporaryLeft) {
  test::TemporaryDirectory directory;
  Error error;
  std::vector<uint8_t> first, second;
  ASSERT_TRUE(encodeArtifact(tiny(), first, error));
  ASSERT_TRUE(encodeArtifact(tiny(), second, error));
  EXPECT_EQ(first, second);
  ASSERT_TRUE(writeArtifact(tiny(), directory.file("a.hlx"), error)) << error.message;
  ASSERT_TRUE(writeArtifact(tiny(), directory.file("a.hlx"), error)) << "over an old one";
  LoadedArtifact loaded = readArtifact(directory.file("a.hlx"), error);
  ASSERT_TRUE(loaded) << error.message;
  EXPECT_EQ(loaded->entries()->size(), 2u);
  size_t files = 0;
  for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator(directory.path))
    ++files;
  EXPECT_EQ(files, 1u);
}

TEST(Writer, RefusesWhatNoReaderTakesAndWhatIsNoFile) {
  test::TemporaryDirectory directory;
  Error error;
  ArtifactT bad = tiny();
  bad.mesh->kvp = 3;
  EXPECT_FALSE(writeArtifact(bad, directory.file("a.hlx"), error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactInconsistent);
  EXPECT_FALSE(std::filesystem::exists(directory.file("a.hlx")));
  EXPECT_FALSE(writeArtifact(tiny(), directory.file("none/a.hlx"), error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactUnwritable);
  EXPECT_FALSE(writeArtifact(tiny(), directory.path.string(), error));
  EXPECT_EQ(error.code, ErrorCode::ArtifactUnwritable);
}

#define EXPECT_CODES_REFUSED(part, ...)                                                                                \
  EXPECT_NE(refusal([](ArtifactT &a) { __VA_ARGS__; }, quantised()).find(part), std::string::npos)                     \
      << refusal([](ArtifactT &a) { __VA_ARGS__; }, quantised())

TEST(Validate, Codes) {
  EXPECT_EQ(refusal([](ArtifactT &) {}, quantised()), "");
  EXPECT_CODES_REFUSED("its bits, block, scales or zero points are out of range", codesOf(a).quantization->bits = 3);
  EXPECT_CODES_REFUSED("its bits, block, scales or zero points are out of range", codesOf(a).quantization->block = 0);
  EXPECT_CODES_REFUSED("its bits, block, scales or zero points are out of range",
                       codesOf(a).quantization->scale_dtype = DType::I8);
  EXPECT_CODES_REFUSED("its bits, block, scales or zero points are out of range",
                       codesOf(a).quantization->zero = static_cast<ZeroPoint>(9));
  EXPECT_EQ(refusal([](ArtifactT &a) { codesOf(a).quantization->activations = DType::I8; }, quantised()), "");
  EXPECT_CODES_REFUSED("activations are rounded to what they cannot be",
                       codesOf(a).quantization->activations = DType::I32);
  EXPECT_CODES_REFUSED("its blocks are too long for that", codesOf(a).quantization->activations = DType::I8,
                       codesOf(a).quantization->block = (1 << 16) + 1);
  EXPECT_CODES_REFUSED("its length is not that of its stored codes", codesOf(a).length -= 1);
  EXPECT_CODES_REFUSED("its length is not that of its stored codes", codesOf(a).quantization->bits = 8);
  EXPECT_CODES_REFUSED("not a table or a transposed matrix", codesOf(a).transposed = false);
  EXPECT_CODES_REFUSED("scales: it is missing", codesOf(a).quantization->scales.reset());
  EXPECT_CODES_REFUSED("scales: it is missing, or its file is not in the list",
                       codesOf(a).quantization->scales->file = 7);
  EXPECT_CODES_REFUSED("scales: it leaves its file", codesOf(a).quantization->scales->offset = ~uint64_t(0));
  EXPECT_CODES_REFUSED("scales: its length is not that of its blocks", codesOf(a).quantization->scales->length -= 4);
  EXPECT_CODES_REFUSED("zero points: it is missing", codesOf(a).quantization->zero_points.reset());
  EXPECT_CODES_REFUSED("it has zero points that it does not use", codesOf(a).quantization->zero = ZeroPoint::Middle);
  EXPECT_CODES_REFUSED("is not inside it, not aligned, or not all of it", codesOf(a).quantization->block = 16,
                       codesOf(a).quantization->scales->length /= 2);
  // Caches.
  const char *scales = "its scales are not those of its element type";
  EXPECT_EQ(refusal([](ArtifactT &a) {
              a.kv->layers[0]->dtype = DType::I8;
              a.kv->layers[0]->scaling = KvScaling::TokenHead;
              a.kv->layers[1]->dtype = DType::F8E4M3;
              a.kv->layers[1]->scaling = KvScaling::Tensor;
              a.kv->layers[1]->key_scale = a.kv->layers[1]->value_scale = 1;
            }),
            "");
  EXPECT_REFUSED(scales, a.kv->layers[0]->scaling = KvScaling::TokenHead);
  EXPECT_REFUSED(scales, a.kv->layers[0]->dtype = DType::I8);
  EXPECT_REFUSED(scales, a.kv->layers[0]->dtype = DType::I8, a.kv->layers[0]->scaling = static_cast<KvScaling>(7));
  EXPECT_REFUSED(scales, a.kv->layers[0]->dtype = DType::I8, a.kv->layers[0]->scaling = KvScaling::Tensor,
                 a.kv->layers[0]->key_scale = 1);
  EXPECT_REFUSED(scales, a.kv->layers[0]->dtype = DType::I8, a.kv->layers[0]->scaling = KvScaling::Tensor,
                 a.kv->layers[0]->key_scale = 1, a.kv->layers[0]->value_scale = NAN);
  // Numbers do not become codes by their type alone.
  EXPECT_REFUSED("its element type or use is unknown", a.weights[0]->stored_dtype = DType::I8);
  EXPECT_REFUSED("its element type or use is unknown", a.weights[0]->dtype = DType::F8E4M3);
}

} // namespace
