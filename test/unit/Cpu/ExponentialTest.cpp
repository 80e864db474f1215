//===- ExponentialTest.cpp - Accuracy of the vector exponential and tanh ---===//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "test/unit/Cpu/ExponentialTest.cpp"
#include "hwy/foreach_target.h"

#include "runtime/Cpu/Vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace helix::cpu::HWY_NAMESPACE {

void exponentials(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i += kLanes)
    hn::StoreU(exponential(hn::LoadU(F32(), x + i)), F32(), y + i);
}

void tangents(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i += kLanes)
    hn::StoreU(tangent(hn::LoadU(F32(), x + i)), F32(), y + i);
}

} // namespace helix::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "Reference.h"

namespace helix::cpu {
HWY_EXPORT(exponentials);
HWY_EXPORT(tangents);
namespace test {
namespace {

std::vector<float> run(std::vector<float> x) {
  x.resize((x.size() + 15) / 16 * 16);
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(exponentials)(x.data(), y.data(), x.size());
  return y;
}

TEST(Exponential, IsWithinTwoUlp) {
  forEachTarget([] {
    std::vector<float> x;
    for (double value = -110; value < 89; value += 0.00037)
      x.push_back(float(value));
    for (float tiny : randomFloats(20000, 1, 0.01f))
      x.push_back(tiny);
    std::vector<float> y = run(x);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      double exact = std::exp(double(x[i]));
      if (roundTo(DType::F32, exact) == INFINITY) {
        ASSERT_EQ(y[i], kInfinity) << x[i];
        continue;
      }
      double ulp = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
      worst = std::max(worst, std::fabs(y[i] - exact) / ulp);
    }
    EXPECT_LE(worst, 2.0);
    RecordProperty("worst_ulp", std::to_string(worst));
  });
}

TEST(Tangent, IsWithinFourUlp) {
  forEachTarget([] {
    std::vector<float> x = {0.625f, 0.62499994f, -0.625f, 1e-30f, -1e-20f, 9.0f, 50.0f};
    for (double value = -10; value < 10; value += 0.00017)
      x.push_back(float(value));
    for (float tiny : randomFloats(20000, 1, 0.01f))
      x.push_back(tiny);
    x.resize((x.size() + 15) / 16 * 16);
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(tangents)(x.data(), y.data(), x.size());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i)
      if (x[i] != 0) {
        double exact = std::tanh(double(x[i]));
        worst = std::max(worst, std::fabs(y[i] - exact) / std::ldexp(1.0, std::ilogb(exact) - 23));
      }
    EXPECT_LE(worst, 4.0);
    std::vector<float> special = {0.0f, -0.0f, kInfinity, -kInfinity, kNaN, 1e30f}, z(16);
    special.resize(16);
    HWY_DYNAMIC_DISPATCH(tangents)(special.data(), z.data(), 16);
    EXPECT_EQ(z[0], 0.0f);
    EXPECT_TRUE(std::signbit(z[1]));
    EXPECT_EQ(z[2], 1.0f);
    EXPECT_EQ(z[3], -1.0f);
    EXPECT_TRUE(std::isnan(z[4]));
    EXPECT_EQ(z[5], 1.0f);
  });
}

TEST(Exponential, KnowsTheExtremes) {
  forEachTarget([] {
    std::vector<float> y = run({0.0f, -0.0f, -kInfinity, kInfinity, kNaN, -1e30f, -104.0f, -103.0f, 88.72283f, 89.0f});
    EXPECT_EQ(y[0], 1.0f);
    EXPECT_EQ(y[1], 1.0f);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_EQ(y[3], kInfinity);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_EQ(y[5], 0.0f);
    EXPECT_EQ(y[6], 0.0f);
    EXPECT_EQ(y[7], std::numeric_limits<float>::denorm_min());
    EXPECT_LT(y[8], kInfinity);
    EXPECT_EQ(y[9], kInfinity);
  });
}

} // namespace
} // namespace test
} // namespace helix::cpu
#endif
