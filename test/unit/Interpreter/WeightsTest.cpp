//===- WeightsTest.cpp - Windows, slices, padding and rounding ----------------===//
#include "test/unit/Interpreter/RandomProgram.h"
#include "test/unit/Interpreter/Testing.h"

#include "llvm/Support/FormatVariadic.h"

#include <fstream>

using namespace helix;
using namespace helix::test;

namespace {

/// Element [i, j] of the stored tensor is 1000 i + j + 1: never zero, and it says where it comes from.
float stored(int64_t i, int64_t j) { return 1000 * i + j + 1; }

/// What each rank of the mesh holds of a weight stored as [rows, columns] from byte 12 on.
RankValues load(int64_t rows, int64_t columns, const char *mesh, const std::string &attributes,
                const std::string &local) {
  TemporaryDirectory directory;
  std::ofstream file(directory.path() + "/w", std::ios::binary);
  file << "padding-----";
  file.seekp(12);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float value = stored(i, j);
      file.write(reinterpret_cast<const char *>(&value), 4);
    }
  file.close();
  Program program(llvm::formatv(R"(module attributes {{helix.mesh = #helix.mesh<{0}>} {{ func.func @f() -> {1} {{
      %w = helix.weight "w" {{file = "w", offset = 12 : i64, length = {2} : i64, stored = tensor<{3}x{4}xf32>{5}} : {1}
      return %w : {1} } })",
                                mesh, local, rows * columns * 4, rows, columns, attributes)
                      .str(),
                  directory.path());
  auto result = program.run(llvm::ArrayRef<RankValues>());
  return result.empty() ? RankValues() : result[0];
}

/// Checks every element of `share` against `at(i, j)`.
void expectElements(const RankValue &share, llvm::function_ref<double(int64_t, int64_t)> at) {
  for (int64_t i = 0; i < share.tensor->shape[0]; ++i)
    for (int64_t j = 0; j < share.tensor->shape[1]; ++j)
      ASSERT_EQ(*share.tensor->at({i, j}), at(i, j)) << "at [" << i << ", " << j << "]";
}

/// Three KV heads of width 2 over tpa = 2: two heads each, the second rank's second head is padding. The window starts
/// at column 4 of 12.
TEST(Weights, WindowAndPaddedHeads) {
  RankValues shares = load(3, 12, "tpa = 2, kvp = 2, ep = 1, tpf = 4",
                           ", window_offset = array<i64: 0, 4>, window_size = array<i64: 3, 6>, "
                           "slice = [[], [#helix.split<tpa, 4>]]",
                           "tensor<3x4xf32>");
  ASSERT_EQ(shares.size(), 4u);
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) {
      if (rank / 2 == 0)
        return stored(i, 4 + j);
      return j < 2 ? stored(i, 8 + j) : 0;
    });
}

/// Rows of 12 codes of two bits in blocks of 5, with zero points; 12 columns over tpa = 2 are two shares of 4 of the
/// window's 7, the last padded, and start within blocks.
TEST(Weights, CodesInBlocks) {
  TemporaryDirectory directory;
  // Code (i + 2 j) mod 4, zero point (i + b) mod 4, scale 2^(b - i) of row i and block b.
  std::ofstream file(directory.path() + "/w", std::ios::binary);
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 12; j += 4) {
      int byte = 0;
      for (int64_t k = 3; k >= 0; --k)
        byte = byte << 2 | (i + 2 * (j + k)) % 4;
      file.put(char(byte));
    }
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t b = 0; b < 3; ++b) {
      float scale = std::ldexp(1.0f, int(b - i));
      file.write(reinterpret_cast<const char *>(&scale), 4);
    }
  for (int64_t i = 0; i < 3; ++i)
    file.put(char(i % 4 | (i + 1) % 4 << 2 | (i + 2) % 4 << 4));
  file.close();
  Program program(R"(module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 1, ep = 1, tpf = 2>} {
    func.func @f() -> tensor<4x3xf32, #helix.quant<bits = 2, block = 5, axis = 0, scale = f32, zero = packed>> {
      %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 9 : i64, stored = tensor<3x12xui2>, transposed,
                             window_offset = array<i64: 0, 3>, window_size = array<i64: 3, 7>,
                             slice = [[], [#helix.split<tpa, 4>]],
                             scales = #helix.bytes<file = "w", offset = 9, length = 36, element = f32>,
                             zero_points = #helix.bytes<file = "w", offset = 45, length = 3, element = ui2>}
          : tensor<4x3xf32, #helix.quant<bits = 2, block = 5, axis = 0, scale = f32, zero = packed>>
      return %w : tensor<4x3xf32, #helix.quant<bits = 2, block = 5, axis = 0, scale = f32, zero = packed>> } })",
                  directory.path());
  auto result = program.run(llvm::ArrayRef<RankValues>());
  ASSERT_EQ(result.size(), 1u);
  for (int64_t rank = 0; rank < 2; ++rank)
    expectElements(result[0][rank], [&](int64_t k, int64_t n) -> double {
      int64_t column = 3 + 4 * rank + k, block = column / 5;
      if (column >= 10)
        return 0;
      return ((n + 2 * column) % 4 - (n + block) % 4) * std::ldexp(1.0, int(block - n));
    });
}

/// A product that rounds its activations to 8 bits: 7 of 12 columns from 3 on, over tpa = 2 shares of 4 and 3, in blocks
/// of 5, so that a rank's blocks are columns 3 4 | 5 6, and 7 8 9.
TEST(Weights, ActivationsOfEightBits) {
  TemporaryDirectory directory;
  std::ofstream file(directory.path() + "/w", std::ios::binary);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 12; ++j)
      file.put(char(37 * i + 11 * j)); // the code of row i, column j
  for (int i = 0; i < 3; ++i)
    for (int b = 0; b < 3; ++b) {
      float scale = std::ldexp(1.0f, b - i);
      file.write(reinterpret_cast<const char *>(&scale), 4);
    }
  file.close();
  Program program(R"(module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 1, ep = 1, tpf = 2>} {
    func.func @f(%x: tensor<1x2x4xf32>) -> tensor<1x2x3xf32> {
      %w = helix.weight "w" {file = "w", offset = 0 : i64, length = 36 : i64, stored = tensor<3x12xui8>, transposed,
                             window_offset = array<i64: 0, 3>, window_size = array<i64: 3, 7>,
                             slice = [[], [#helix.split<tpa, 4>]],
                             scales = #helix.bytes<file = "w", offset = 36, length = 36, element = f32>}
          : tensor<4x3xf32, #helix.quant<bits = 8, block = 5, axis = 0, scale = f32, zero = middle, activations = i8>>
      %y = helix.linear %x, %w : (tensor<1x2x4xf32>, tensor<4x3xf32, #helix.quant<bits = 8, block = 5, axis = 0,
           scale = f32, zero = middle, activations = i8>>) -> tensor<1x2x3xf32>
      return %y : tensor<1x2x3xf32> } })",
                  directory.path());
  // Scales are 1 and 2 in a rank's two blocks, and 1; 2.5 is as near to 2 as to 3, and goes to the even one. A rank's
  // last element without a column counts for nothing, whatever it is.
  const double x[2][4] = {{127, 2.5, -254, 5}, {127, -2.5, 3.5, 1e9}};
  const int codes[2][4] = {{127, 2, -127, 2}, {127, -2, 4, 0}};
  RankValues rows;
  for (const double *row : x) {
    Tensor both({1, 2, 4});
    std::copy_n(row, 4, both.at({0, 0}));
    rows.push_back(RankValue(both)); // the second row is zeros
  }
  auto result = program.run(llvm::ArrayRef<RankValues>(rows));
  ASSERT_EQ(result.size(), 1u);
  for (int rank = 0; rank < 2; ++rank)
    for (int n = 0; n < 3; ++n) {
      double expected = 0;
      for (int k = 0; k < 4 - rank; ++k) {
        int column = 3 + 4 * rank + k;
        double scaleOfX = rank == 0 && k >= 2 ? 2 : 1;
        expected += scaleOfX * std::ldexp(1.0, column / 5 - n) * codes[rank][k] * ((37 * n + 11 * column) % 256 - 128);
      }
      EXPECT_EQ(*result[0][rank].tensor->at({0, 0, n}), expected) << rank << " " << n;
      EXPECT_EQ(*result[0][rank].tensor->at({0, 1, n}), 0);
    }
}

/// A stored table [3 ids, 12] of which columns 4 … 9 count, turned: ids are the columns, two per rank, the last padded.
TEST(Weights, Transposed) {
  RankValues shares = load(3, 12, "tpa = 2, kvp = 1, ep = 1, tpf = 2",
                           ", transposed, window_offset = array<i64: 0, 4>, window_size = array<i64: 3, 6>, "
                           "slice = [[#helix.split<n, 2>], []]",
                           "tensor<6x2xf32>");
  ASSERT_EQ(shares.size(), 2u);
  for (int64_t rank = 0; rank < 2; ++rank)
    expectElements(shares[rank],
                   [&](int64_t i, int64_t j) { return rank * 2 + j < 3 ? stored(rank * 2 + j, 4 + i) : 0; });
}

/// Keys of a product that packs queries, keys and values of 3 heads of width 2, head by head: columns 2, 3, 8, 9, 14 and
/// 15 of 18. Over tpa = 2, two heads each, the last of them padding.
TEST(Weights, PiecesOfAPackedProduct) {
  RankValues shares = load(3, 18, "tpa = 2, kvp = 1, ep = 1, tpf = 2",
                           ", window_offset = array<i64: 0, 2>, window_size = array<i64: 3, 6>, "
                           "pieces = array<i64: 0, 0, 2, 6>, slice = [[], [#helix.split<tpa, 4>]]",
                           "tensor<3x4xf32>");
  for (int64_t rank = 0; rank < 2; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) {
      int64_t head = 2 * rank + j / 2;
      return head < 3 ? stored(i, 6 * head + 2 + j % 2) : 0;
    });
}

/// Output projection of 3 heads of width 2 over kvp = 4: one head each, nothing for the last rank.
TEST(Weights, MorePeersThanHeads) {
  RankValues shares =
      load(6, 3, "tpa = 1, kvp = 4, ep = 1, tpf = 4", ", slice = [[#helix.split<kvp, 2>], []]", "tensor<2x3xf32>");
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) { return rank < 3 ? stored(2 * rank + i, j) : 0; });
}

/// 6 heads of width 1 over tpa = 2 and then kvp = 2: shards of 3, padded to 2 + 2, so that the padding lies at the end
/// of each shard and not of the whole.
TEST(Weights, SplitsApplyInOrder) {
  RankValues shares = load(6, 2, "tpa = 2, kvp = 2, ep = 1, tpf = 4",
                           ", slice = [[#helix.split<tpa, 3>, #helix.split<kvp, 2>], []]", "tensor<2x2xf32>");
  const int64_t rows[4][2] = {{0, 1}, {2, -1}, {3, 4}, {5, -1}};
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank],
                   [&](int64_t i, int64_t j) { return rows[rank][i] < 0 ? 0 : stored(rows[rank][i], j); });
}

/// A vocabulary of 251 over 4 ranks: 63 columns each, one of padding at the end.
TEST(Weights, VocabularyOf251Over4) {
  RankValues shares =
      load(2, 251, "tpa = 4, kvp = 1, ep = 1, tpf = 4", ", slice = [[], [#helix.split<n, 63>]]", "tensor<2x63xf32>");
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) {
      int64_t column = rank * 63 + j;
      return column < 251 ? stored(i, column) : 0;
    });
}

/// FFN columns over tpf where ep = 2: ranks with the same coordinate along tpf hold the same.
TEST(Weights, AxisOfTheFfnView) {
  RankValues shares =
      load(1, 6, "tpa = 1, kvp = 4, ep = 2, tpf = 2", ", slice = [[], [#helix.split<tpf, 3>]]", "tensor<1x3xf32>");
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) { return stored(i, rank % 2 * 3 + j); });
}

/// 2 KV heads of width 2 over tpa = 4: each on two neighbours. With kvp = 2, that is four ranks.
TEST(Weights, ReplicasShareAChunk) {
  RankValues shares = load(1, 4, "tpa = 4, kvp = 2, ep = 1, tpf = 8",
                           ", slice = [[], [#helix.split<tpa, 2, replicas = 2>]]", "tensor<1x2xf32>");
  ASSERT_EQ(shares.size(), 8u);
  for (int64_t rank = 0; rank < 8; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) { return stored(i, rank / 4 * 2 + j); });
}

/// Columns over the first two of four ranks: the others hold nothing of them.
TEST(Weights, FirstRanksAlone) {
  RankValues shares =
      load(1, 5, "tpa = 2, kvp = 2, ep = 1, tpf = 4", ", slice = [[], [#helix.split<n, 3>]]", "tensor<1x3xf32>");
  for (int64_t rank = 0; rank < 4; ++rank)
    expectElements(shares[rank], [&](int64_t i, int64_t j) { return 3 * rank + j < 5 ? stored(i, 3 * rank + j) : 0; });
}

/// Runs `helix.weight` of `values`, stored as `storedType`, with the result's element type `type`.
std::vector<double> converted(llvm::StringRef bytes, const char *storedType, const char *type, int64_t count) {
  TemporaryDirectory directory;
  std::ofstream(directory.path() + "/w", std::ios::binary).write(bytes.data(), bytes.size());
  Program program(llvm::formatv(R"(func.func @f() -> tensor<{0}x{1}> {{
      %w = helix.weight "w" {{file = "w", offset = 0 : i64, length = {2} : i64, stored = tensor<{0}x{3}>} : tensor<{0}x{1}>
      return %w : tensor<{0}x{1}> })",
                                count, type, bytes.size(), storedType)
                      .str(),
                  directory.path());
  return program.run(llvm::ArrayRef<Tensor>()).values;
}

TEST(Weights, RoundToNearestEven) {
  // f16 has steps of 2^-10 above 1, bf16 of 2^-7. 65520 is halfway between f16's largest and what would follow.
  float values[] = {1 + 0x1p-11f, 1 + 0x3p-11f, 1 + 0x1p-8f, 1 + 0x3p-8f, 65520, 0x1p-25f, -0x1.8p-24f};
  llvm::StringRef bytes(reinterpret_cast<const char *>(values), sizeof(values));
  double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(converted(bytes, "f32", "f32", 7), std::vector<double>(values, values + 7));
  EXPECT_EQ(converted(bytes, "f32", "f16", 7),
            (std::vector<double>{1, 1 + 0x1p-9, 1 + 0x1p-8, 1 + 0x3p-8, infinity, 0, -0x1p-23}));
  EXPECT_EQ(converted(bytes, "f32", "bf16", 7), (std::vector<double>{1, 1, 1, 1 + 0x1p-6, 65536, 0x1p-25, -0x1.8p-24}));
}

TEST(Weights, HalvesAreReadAsStored) {
  uint16_t f16[] = {0x3c01, 0xc000, 0x0001}, bf16[] = {0x3f81, 0xc000, 0x7f80};
  EXPECT_EQ(converted({reinterpret_cast<const char *>(f16), 6}, "f16", "f32", 3),
            (std::vector<double>{1 + 0x1p-10, -2, 0x1p-24}));
  EXPECT_EQ(converted({reinterpret_cast<const char *>(bf16), 6}, "bf16", "f32", 3),
            (std::vector<double>{1 + 0x1p-7, -2, std::numeric_limits<double>::infinity()}));
}

} // namespace
