//===- AttentionTest.cpp - Caches, attention, exchange and merge --------------===//
#include "test/unit/Interpreter/Testing.h"

#include "llvm/Support/FormatVariadic.h"

#include <cmath>

using namespace helix;
using namespace helix::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What changes scores, beside the scale.
struct Scores {
  double softcap = 0;
  size_t window = 0;
  bool slopes = false, sinks = false;

  double slope(int64_t head) const { return slopes ? 0.75 / (1 + head) : 0; }
  double sink(int64_t head) const { return 1.5 - head; }
};

/// Softmax written out, in long double and without the shift: keys and values are of tokens 0 … n − 1, which `head`
/// sees from n − 1.
std::vector<double> softAttention(const double *q, const std::vector<std::vector<double>> &keys,
                                  const std::vector<std::vector<double>> &values, size_t n, double scale,
                                  const Scores &scores = {}, int64_t head = 0) {
  std::vector<long double> sum(values[0].size());
  long double total = scores.sinks ? std::exp(static_cast<long double>(scores.sink(head))) : 0;
  for (size_t i = scores.window != 0 && n > scores.window ? n - scores.window : 0; i < n; ++i) {
    long double score = 0;
    for (size_t d = 0; d < keys[i].size(); ++d)
      score += static_cast<long double>(q[d]) * keys[i][d];
    score *= scale;
    if (scores.softcap != 0)
      score = scores.softcap * std::tanh(score / scores.softcap);
    long double w = std::exp(score - scores.slope(head) * (n - 1 - i));
    total += w;
    for (size_t d = 0; d < sum.size(); ++d)
      sum[d] += w * values[i][d];
  }
  std::vector<double> result;
  for (long double x : sum)
    result.push_back(x / total);
  return result;
}

/// A batch of 3 of which one is idle at first, steps that straddle blocks of 4, two full rounds over 5 ranks, 6 query
/// heads over 3 KV heads of width 4 and 2; tokens over kvp ranks, heads over tpa ranks. Every rank's result is its
/// slice of the attention written out.
void checkAttention(int64_t kvp, int64_t tpa, const Scores &scores = {}) {
  const int64_t batch = 3, tokens = 5, kvHeads = 3, group = 2, keyDim = 4, valueDim = 2;
  const int64_t localKv = (kvHeads + tpa - 1) / tpa, localQ = localKv * group, perPeer = (localQ + kvp - 1) / kvp;
  bool whole = kvp * tpa == 1;
  std::string cache = llvm::formatv("!helix.kv<slots = 3, heads = {0}, key_dim = 4, value_dim = 2, element = f32, "
                                    "block = 4, kvp = {1}, capacity = {2}>",
                                    localKv, kvp, 64 * kvp);
  std::string q = llvm::formatv("tensor<3x5x{0}x4xf32>", localQ);
  std::string signature = llvm::formatv("(%q: {0}, %k: tensor<3x5x{1}x4xf32>, %v: tensor<3x5x{1}x2xf32>, "
                                        "%past: tensor<3xi32>, %n: tensor<3xi32>, %sl: tensor<{2}xf32>, "
                                        "%si: tensor<{3}xf32>, %c: {4})",
                                        q, localKv, localQ, perPeer, cache);
  std::string attributes = "{scale = 0.5 : f64";
  if (scores.softcap != 0)
    attributes += llvm::formatv(", softcap = {0:F3} : f64", scores.softcap);
  if (scores.window != 0)
    attributes += llvm::formatv(", window = {0} : i64", scores.window);
  attributes += "}";
  std::string slopes = scores.slopes ? llvm::formatv("slopes %sl : tensor<{0}xf32> ", localQ).str() : "";
  std::string sinks = scores.sinks ? llvm::formatv("sinks %si : tensor<{0}xf32> ", perPeer).str() : "";
  std::string append = llvm::formatv("%d = helix.kv_append %k, %v, %past, %n into %c : tensor<3x5x{0}x4xf32>, "
                                     "tensor<3x5x{0}x2xf32>, tensor<3xi32>, {1}",
                                     localKv, cache);
  std::string text;
  if (whole)
    text = llvm::formatv(R"(module {{ func.func @f{0} -> tensor<3x5x6x2xf32> {{
      {1}
      %y = helix.attention %q, %d, %past, %n {4} : {2}, {3}, tensor<3xi32> -> tensor<3x5x6x2xf32>
      return %y : tensor<3x5x6x2xf32> } })",
                         signature, append, q, cache, slopes + sinks + attributes);
  else
    text = llvm::formatv(
        R"(module attributes {{helix.mesh = #helix.mesh<tpa = {4}, kvp = {5}, ep = 1, tpf = {6}>} {{
      func.func @f{0} -> tensor<3x5x{7}x2xf32> {{
      {1}
      %p = helix.partial_attention %q, %d, %past, %n {9} : {2}, {3}, tensor<3xi32>
          -> !helix.partial<tensor<3x5x{8}x2xf32>, lse, [kvp]>
      %s = helix.all_to_all %p : <tensor<3x5x{8}x2xf32>, lse, [kvp]> -> <kvp, tensor<{5}x3x5x{7}x3xf32>>
      %y = helix.merge_attention %s {10}: !helix.stacked<kvp, tensor<{5}x3x5x{7}x3xf32>> -> tensor<3x5x{7}x2xf32>
      return %y : tensor<3x5x{7}x2xf32> } })",
        signature, append, q, cache, tpa, kvp, tpa * kvp, perPeer, perPeer * kvp, slopes + attributes, sinks);
  Program program(text);

  auto type =
      mlir::cast<KVType>(mlir::cast<mlir::func::FuncOp>(program.module().lookupSymbol("f")).getArgumentTypes().back());
  std::vector<Cache> caches;
  for (int64_t rank = 0; rank < kvp * tpa; ++rank)
    caches.emplace_back(type, rank % kvp);

  std::mt19937_64 random(kvp * 10 + tpa);
  // [slot][KV head][token]: what was appended so far.
  std::vector<std::vector<std::vector<double>>> keys[batch], values[batch];
  for (int64_t b = 0; b < batch; ++b) {
    keys[b].resize(kvHeads);
    values[b].resize(kvHeads);
  }
  const std::vector<std::vector<double>> steps = {{5, 0, 1}, {4, 0, 3}, {1, 2, 0}, {5, 5, 5}, {0, 0, 1},
                                                  {5, 1, 4}, {5, 1, 0}, {5, 0, 5}, {5, 1, 5}, {5, 1, 5}};
  for (const std::vector<double> &qLen : steps) {
    Tensor query = randomTensor({batch, tokens, kvHeads * group, keyDim}, random);
    Tensor key = randomTensor({batch, tokens, kvHeads, keyDim}, random);
    Tensor value = randomTensor({batch, tokens, kvHeads, valueDim}, random);
    std::vector<double> past;
    for (int64_t b = 0; b < batch; ++b) {
      past.push_back(keys[b][0].size());
      for (int64_t h = 0; h < kvHeads; ++h)
        for (int64_t t = 0; t < qLen[b]; ++t) {
          keys[b][h].emplace_back(key.at({b, t, h}), key.at({b, t, h}) + keyDim);
          values[b][h].emplace_back(value.at({b, t, h}), value.at({b, t, h}) + valueDim);
        }
    }

    // Heads of a tpa shard, zero where there are none.
    auto shard = [&](const Tensor &all, int64_t heads) {
      RankValues shares;
      for (int64_t rank = 0; rank < kvp * tpa; ++rank) {
        Tensor share({batch, tokens, heads, all.width()});
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t h = 0; h < heads; ++h)
              if (int64_t from = rank / kvp * heads + h; from < all.shape[2])
                std::copy_n(all.at({b, t, from}), all.width(), share.at({b, t, h}));
        shares.push_back(std::move(share));
      }
      return shares;
    };
    RankValues cacheValues;
    for (Cache &cache : caches)
      cacheValues.push_back(RankValue(cache));
    RankValues slopeValues, sinkValues;
    for (int64_t rank = 0; rank < kvp * tpa; ++rank) {
      Tensor slope({localQ}), sink({perPeer});
      for (int64_t h = 0; h < localQ; ++h)
        slope.values[h] = scores.slope(rank / kvp * localQ + h);
      for (int64_t h = 0; h < perPeer; ++h)
        sink.values[h] = scores.sink(rank / kvp * localQ + rank % kvp * perPeer + h);
      slopeValues.push_back(std::move(slope));
      sinkValues.push_back(std::move(sink));
    }
    auto result = program.run({shard(query, localQ), shard(key, localKv), shard(value, localKv),
                               everywhere(Tensor({batch}, past), kvp * tpa),
                               everywhere(Tensor({batch}, qLen), kvp * tpa), slopeValues, sinkValues, cacheValues});
    ASSERT_FALSE(result.empty());

    for (int64_t rank = 0; rank < kvp * tpa; ++rank)
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t h = 0; h < perPeer; ++h) {
            // Padded heads at the end of the tpa shard come out as zero, and so do unused tokens.
            int64_t inShard = rank % kvp * perPeer + h, head = rank / kvp * localQ + inShard;
            std::vector<double> expected(valueDim);
            if (t < qLen[b] && inShard < localQ && head < kvHeads * group)
              expected = softAttention(query.at({b, t, head}), keys[b][head / group], values[b][head / group],
                                       past[b] + t + 1, 0.5, scores, head);
            // A KV head of padding has zero values, whatever its weights are.
            for (int64_t d = 0; d < valueDim; ++d)
              ASSERT_NEAR(result[0][rank].tensor->at({b, t, h})[d], expected[d], 1e-13)
                  << "rank " << rank << " b " << b << " t " << t << " h " << h;
          }
  }

  // Each rank holds the tokens that a walk in blocks of 4 over the ranks gives it, in order, and nothing else.
  for (int64_t rank = 0; rank < kvp * tpa; ++rank)
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < localKv; ++h) {
        int64_t place = 0, head = rank / kvp * localKv + h;
        if (head >= kvHeads)
          continue;
        for (size_t token = 0, turn = 0, inBlock = 0; token < keys[b][head].size(); ++token) {
          if (turn == static_cast<size_t>(rank % kvp)) {
            EXPECT_EQ(caches[rank].key(b, place, h)[0], keys[b][head][token][0]);
            EXPECT_EQ(caches[rank].value(b, place, h)[1], values[b][head][token][1]);
            ++place;
          }
          if (++inBlock == 4) {
            inBlock = 0;
            turn = (turn + 1) % kvp;
          }
        }
        EXPECT_TRUE(std::isnan(caches[rank].key(b, place, h)[0]));
        EXPECT_TRUE(std::isnan(caches[rank].value(b, place, h)[0]));
      }
}

TEST(Attention, Whole) { checkAttention(1, 1); }
TEST(Attention, OverTokens) { checkAttention(2, 1); }
TEST(Attention, OverHeadsWithPadding) { checkAttention(1, 2); }
TEST(Attention, OverTokensAndHeads) { checkAttention(2, 2); }
TEST(Attention, PeersWithPaddedHeads) { checkAttention(4, 2); }
TEST(Attention, KvpOf3) { checkAttention(3, 1); }
TEST(Attention, KvpOf5AndTpaOf3) { checkAttention(5, 3); }

TEST(Attention, CapsSlopesWindowsAndSinks) {
  for (auto [kvp, tpa] : {std::pair(1, 1), {2, 1}, {4, 2}, {5, 3}}) {
    checkAttention(kvp, tpa, {.softcap = 0.5});
    checkAttention(kvp, tpa, {.slopes = true});
    checkAttention(kvp, tpa, {.sinks = true});
    for (size_t window : {1, 3, 4, 9})
      checkAttention(kvp, tpa, {.window = window});
    checkAttention(kvp, tpa, {.softcap = 0.5, .window = 6, .slopes = true, .sinks = true});
  }
}

TEST(Attention, TruncatedTokensReadAsNaN) {
  auto context = std::make_unique<mlir::MLIRContext>();
  context->loadDialect<HelixDialect>();
  auto type = KVType::get(context.get(), 2, 1, 1, 1, mlir::Float32Type::get(context.get()), 2, 2, 16);
  Cache cache(type, 1);
  double one = 1;
  // Rank 1 of 2 holds positions 2, 3, 6 and 7 at places 0 to 3.
  for (int64_t slot = 0; slot < 2; ++slot)
    for (int64_t place = 0; place < 4; ++place)
      cache.write(slot, place, 0, &one, &one);
  cache.truncate(0, 7);
  EXPECT_EQ(*cache.key(0, 2, 0), 1);
  EXPECT_TRUE(std::isnan(*cache.key(0, 3, 0)));
  EXPECT_TRUE(std::isnan(*cache.value(0, 3, 0)));
  cache.truncate(0, 0);
  EXPECT_TRUE(std::isnan(*cache.key(0, 0, 0)));
  EXPECT_EQ(*cache.key(1, 3, 0), 1);
}

TEST(Attention, CacheRoundsToItsElement) {
  auto context = std::make_unique<mlir::MLIRContext>();
  context->loadDialect<HelixDialect>();
  auto type = KVType::get(context.get(), 1, 1, 2, 2, mlir::BFloat16Type::get(context.get()), 2, 1, 16);
  Cache cache(type, 0);
  // bf16 has steps of 2^-7 above 1; halfway cases go to the even neighbour.
  double key[] = {1 + 1 / 256., 1 + 3 / 256.}, value[] = {-1 - 1 / 256. - 1e-9, 3};
  cache.write(0, 0, 0, key, value);
  EXPECT_EQ(cache.key(0, 0, 0)[0], 1);
  EXPECT_EQ(cache.key(0, 0, 0)[1], 1 + 4 / 256.);
  EXPECT_EQ(cache.value(0, 0, 0)[0], -1 - 2 / 256.);
  EXPECT_EQ(cache.value(0, 0, 0)[1], 3);
}

TEST(Attention, CacheKeepsCodes) {
  auto context = std::make_unique<mlir::MLIRContext>();
  context->loadDialect<HelixDialect>();
  mlir::Type i8 = mlir::IntegerType::get(context.get(), 8), f8 = mlir::Float8E4M3FNType::get(context.get());
  auto number = [&](double x) { return mlir::FloatAttr::get(mlir::Float64Type::get(context.get()), x); };
  auto own = KvScaleAttr::get(context.get(), KvGranularity::TokenHead, {}, {});
  auto shared = KvScaleAttr::get(context.get(), KvGranularity::Tensor, number(0.5), number(0.25));
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  auto kept = [&](mlir::Type element, KvScaleAttr scale, std::vector<double> key) {
    auto type = KVType::get(context.get(), 1, 1, key.size(), 1, element, 2, 1, 16, scale);
    Cache cache(type, 0);
    double value = 1;
    cache.write(0, 0, 0, key.data(), &value);
    EXPECT_NEAR(*cache.value(0, 0, 0), 1, 1e-7);
    const double *from = cache.key(0, 0, 0);
    return std::vector<double>(from, from + key.size());
  };
  using Numbers = std::vector<double>;
  // The largest chooses the scale 2; what is halfway between codes goes to the even one.
  EXPECT_EQ(kept(i8, own, {254, 1, 3, -5, 0.9}), (Numbers{254, 0, 4, -4, 0}));
  EXPECT_EQ(kept(i8, own, {0, -0.0}), (Numbers{0, 0}));
  // Codes of half a unit: 63.5 is the largest.
  EXPECT_EQ(kept(i8, shared, {0.25, 0.75, -63.5, -64, infinity}), (Numbers{0, 1, -63.5, -63.5, 63.5}));
  // The scale 2 again; codes have steps of 2^-9 below 2^-6 and of 16 or 32 near the largest.
  EXPECT_EQ(kept(f8, own, {896, 1, 3 * 0x1p-9, 2 * 424}), (Numbers{896, 1, 0x1p-7, 832}));
  EXPECT_EQ(kept(f8, shared, {0.5, -224, -225, infinity, 0x1p-11}), (Numbers{0.5, -224, -224, 224, 0}));
  for (mlir::Type element : {i8, f8}) {
    EXPECT_TRUE(std::isnan(kept(element, shared, {nan, 1})[0]));
    EXPECT_EQ(kept(element, shared, {nan, 1})[1], 1);
    for (double bad : {nan, infinity, -infinity})
      for (double x : kept(element, own, {1, bad}))
        EXPECT_TRUE(std::isnan(x));
  }
}

/// Peers' (o, lse), one row each of two values.
struct Part {
  double o0, o1, lse;
};

std::vector<double> merged(const std::vector<Part> &parts) {
  Program program(
      llvm::formatv(R"(func.func @f(%s: !helix.stacked<kvp, tensor<{0}x1x1x1x3xf32>>) -> tensor<1x1x1x2xf32> {{
    %y = helix.merge_attention %s : !helix.stacked<kvp, tensor<{0}x1x1x1x3xf32>> -> tensor<1x1x1x2xf32>
    return %y : tensor<1x1x1x2xf32> })",
                    parts.size())
          .str());
  Tensor stacked({static_cast<int64_t>(parts.size()), 1, 1, 1, 3});
  for (size_t j = 0; j < parts.size(); ++j)
    std::copy_n(&parts[j].o0, 3, &stacked.values[3 * j]);
  return program.run({stacked}).values;
}

TEST(Merge, OneRankIsTheIdentity) { EXPECT_EQ(merged({{3, -4, -7.5}}), (std::vector<double>{3, -4})); }
TEST(Merge, EqualLsesAverage) { EXPECT_EQ(merged({{1, 2, 5}, {3, 6, 5}}), (std::vector<double>{2, 4})); }

TEST(Merge, WeightsAreExponentials) {
  std::vector<double> result = merged({{1, 0, std::log(3.)}, {0, 1, 0}});
  EXPECT_NEAR(result[0], 0.75, 1e-15);
  EXPECT_NEAR(result[1], 0.25, 1e-15);
}

TEST(Merge, FarApartLsesDoNotOverflow) {
  EXPECT_NEAR(merged({{1, 1, -100}, {2, 3, 0}})[1], 3, 1e-15);
  EXPECT_NEAR(merged({{1, 1, 2000}, {2, 3, 0}})[0], 1, 1e-15);
}

TEST(Merge, EmptyShardsContributeNothing) {
  EXPECT_EQ(merged({{0, 0, -kInfinity}, {3, 4, 1}}), (std::vector<double>{3, 4}));
  EXPECT_EQ(merged({{0, 0, -kInfinity}, {3, 4, 1}, {0, 0, -kInfinity}}), (std::vector<double>{3, 4}));
  EXPECT_EQ(merged({{0, 0, -kInfinity}, {0, 0, -kInfinity}}), (std::vector<double>{0, 0}));
}

TEST(Merge, ANaNIsNotHidden) {
  EXPECT_TRUE(std::isnan(merged({{NAN, 0, 1}, {3, 4, 1}})[0]));
  EXPECT_TRUE(std::isnan(merged({{1, 0, NAN}, {3, 4, 1}})[1]));
  EXPECT_TRUE(std::isnan(merged({{3, 4, -kInfinity}, {1, 0, NAN}})[1]));
}

TEST(Merge, AnyOrderGivesTheSame) {
  std::vector<Part> parts = {{1, 2, 0.5}, {-3, 1, -2}, {0.25, 9, 3}, {0, 0, -kInfinity}};
  std::vector<double> first = merged(parts);
  std::sort(parts.begin(), parts.end(), [](const Part &a, const Part &b) { return a.lse < b.lse; });
  do {
    std::vector<double> result = merged(parts);
    EXPECT_NEAR(result[0], first[0], 1e-15);
    EXPECT_NEAR(result[1], first[1], 1e-14);
  } while (
      std::next_permutation(parts.begin(), parts.end(), [](const Part &a, const Part &b) { return a.lse < b.lse; }));
}

/// tpa = 2, kvp = 2: ranks 0 and 1 exchange, and ranks 2 and 3. Every number says where it comes from.
TEST(AllToAll, Layout) {
  Program program(R"(module attributes {helix.mesh = #helix.mesh<tpa = 2, kvp = 2, ep = 1, tpf = 4>} {
    func.func @f(%p: !helix.partial<tensor<2x1x4x1xf32>, lse, [kvp]>) -> !helix.stacked<kvp, tensor<2x2x1x2x2xf32>> {
      %s = helix.all_to_all %p : <tensor<2x1x4x1xf32>, lse, [kvp]> -> <kvp, tensor<2x2x1x2x2xf32>>
      return %s : !helix.stacked<kvp, tensor<2x2x1x2x2xf32>> } })");
  RankValues parts;
  for (int64_t rank = 0; rank < 4; ++rank) {
    Tensor o({2, 1, 4, 1}), lse({2, 1, 4});
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t h = 0; h < 4; ++h) {
        *o.at({b, 0, h}) = 100 * rank + 10 * b + h;
        *lse.at({b, 0, h}) = -(100 * rank + 10 * b + h);
      }
    parts.push_back(RankValue(std::move(o), std::move(lse)));
  }
  auto result = program.run({parts});
  for (int64_t rank = 0; rank < 4; ++rank)
    for (int64_t peer = 0; peer < 2; ++peer)
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t h = 0; h < 2; ++h) {
          int64_t from = rank / 2 * 2 + peer, head = rank % 2 * 2 + h;
          const double *row = result[0][rank].tensor->at({peer, b, 0, h});
          EXPECT_EQ(row[0], 100 * from + 10 * b + head);
          EXPECT_EQ(row[1], -(100 * from + 10 * b + head));
        }
}

} // namespace
