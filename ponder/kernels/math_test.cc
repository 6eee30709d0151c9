// exp, log and sigmoid against long double, and the random numbers against the published vectors.
#include "ponder/kernels/math.h"

#include <gtest/gtest.h>

#include <limits>

#include "ponder/base/rng.h"

namespace ponder::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// |got - want| in units of the last place of want.
double ulps(float got, long double want) {
  const float nearest = static_cast<float>(want);
  if (std::isinf(nearest) || nearest == 0.f) return got == nearest ? 0 : 1e9;
  const int exponent = std::max(std::ilogb(nearest), -126);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) / std::ldexp(1.0L, exponent - 23));
}

// Every `step`-th float of [from, to] (bits ascending; both of one sign).
template <class F>
double worst(float from, float to, uint32_t step, F&& error) {
  double most = 0;
  for (uint64_t bits = std::bit_cast<uint32_t>(from); bits <= std::bit_cast<uint32_t>(to); bits += step)
    most = std::max(most, error(std::bit_cast<float>(static_cast<uint32_t>(bits))));
  return most;
}

TEST(Math, Exp) {
  const auto error = [](float x) { return ulps(exp(x), std::exp(static_cast<long double>(x))); };
  EXPECT_LT(worst(0.f, 88.7f, 1009, error), 1.0);
  EXPECT_LT(worst(-0.f, -103.9f, 1009, error), 1.0);
  EXPECT_EQ(exp(0.f), 1.f);
  EXPECT_EQ(exp(-0.f), 1.f);
  EXPECT_EQ(exp(kInf), kInf);
  EXPECT_EQ(exp(-kInf), 0.f);
  EXPECT_EQ(exp(1000.f), kInf);
  EXPECT_EQ(exp(88.73f), kInf);
  EXPECT_EQ(exp(-1000.f), 0.f);
  EXPECT_GT(exp(-103.f), 0.f);
  EXPECT_TRUE(std::isnan(exp(std::nanf(""))));
}

TEST(Math, Log) {
  const auto error = [](float x) { return ulps(log(x), std::log(static_cast<long double>(x))); };
  EXPECT_LT(worst(0x1p-149f, std::numeric_limits<float>::max(), 1009, error), 1.0);
  EXPECT_LT(worst(0.7f, 1.5f, 17, error), 1.0);
  EXPECT_EQ(std::bit_cast<uint32_t>(log(1.f)), 0u);
  EXPECT_EQ(log(0.f), -kInf);
  EXPECT_EQ(log(-0.f), -kInf);
  EXPECT_EQ(log(kInf), kInf);
  EXPECT_TRUE(std::isnan(log(-1.f)));
  EXPECT_TRUE(std::isnan(log(-kInf)));
  EXPECT_TRUE(std::isnan(log(std::nanf(""))));
}

TEST(Math, Sigmoid) {
  const auto error = [](float x) { return ulps(sigmoid(x), 1.0L / (1.0L + std::exp(-static_cast<long double>(x)))); };
  EXPECT_LT(worst(0.f, 100.f, 10007, error), 2.5);
  EXPECT_LT(worst(-0.f, -87.f, 10007, error), 2.5);
  EXPECT_EQ(sigmoid(kInf), 1.f);
  EXPECT_EQ(sigmoid(-kInf), 0.f);
  EXPECT_TRUE(std::isnan(sigmoid(std::nanf(""))));
}

// Random123, kat_vectors, philox4x32 10.
TEST(Philox, PublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace ponder::kernels
