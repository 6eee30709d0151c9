#include "ponder/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace ponder {
namespace {

// The known answers published with Random123 (kat_vectors, philox4x32 10).
TEST(Rng, PublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, CursorIsAFunctionOfKeyAndIndex) {
  CounterRng a(7, Stream::sampling, 3), b(7, Stream::sampling, 3), c(7, Stream::sampling, 4), d(7, Stream::init, 3);
  std::vector<uint64_t> from_a, from_c, from_d;
  for (int i = 0; i < 100; ++i) {
    from_a.push_back(a.next_u64());
    EXPECT_EQ(from_a.back(), b.next_u64());
    from_c.push_back(c.next_u64());
    from_d.push_back(d.next_u64());
  }
  EXPECT_NE(from_a, from_c);
  EXPECT_NE(from_a, from_d);
}

TEST(Rng, StreamsAndSeedsHaveKeysOfTheirOwn) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 100; ++seed)
    for (uint32_t stream = 1; stream <= 11; ++stream) keys.insert(stream_key(seed, static_cast<Stream>(stream)));
  EXPECT_EQ(keys.size(), 1100u);
}

// Chi-squared with n - 1 degrees of freedom: mean n - 1, standard deviation sqrt(2 (n - 1)); five of them is far out.
TEST(Rng, BelowIsUniform) {
  for (const uint64_t n : {2u, 3u, 7u, 10u, 64u}) {
    CounterRng rng(1, Stream::test, n);
    std::vector<double> count(n);
    const int draws = 20000;
    for (int i = 0; i < draws; ++i) {
      const uint64_t x = rng.below(n);
      ASSERT_LT(x, n);
      ++count[x];
    }
    double chi2 = 0;
    const double expected = draws / static_cast<double>(n);
    for (const double c : count) chi2 += (c - expected) * (c - expected) / expected;
    EXPECT_LT(chi2, (n - 1) + 5 * std::sqrt(2.0 * (n - 1))) << n;
  }
}

// With n = 3 * 2^62 a plain remainder would hit the lowest third twice as often.
TEST(Rng, BelowIsUnbiasedForHugeRanges) {
  const uint64_t n = 3ull << 62;
  CounterRng rng(2, Stream::test, 0);
  int low = 0;
  const int draws = 9000;
  for (int i = 0; i < draws; ++i) {
    const uint64_t x = rng.below(n);
    ASSERT_LT(x, n);
    low += x < n / 3;
  }
  EXPECT_NEAR(low, draws / 3, 5 * std::sqrt(draws * 2.0 / 9));
  EXPECT_EQ(CounterRng(2, Stream::test, 1).below(1), 0u);
}

TEST(Rng, UniformAndNormalMoments) {
  CounterRng rng(3, Stream::test, 0);
  double sum = 0, sum2 = 0, normal = 0, normal2 = 0;
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    sum2 += u * u;
    const double x = rng.normal();
    ASSERT_TRUE(std::isfinite(x));
    normal += x;
    normal2 += x * x;
  }
  EXPECT_NEAR(sum / draws, 0.5, 5 * std::sqrt(1.0 / 12 / draws));
  EXPECT_NEAR(sum2 / draws, 1.0 / 3, 0.01);
  EXPECT_NEAR(normal / draws, 0, 5 / std::sqrt(draws));
  EXPECT_NEAR(normal2 / draws, 1, 0.05);
}

TEST(Rng, ShuffleIsAPermutationFixedByItsKey) {
  std::vector<int> a(50), b(50);
  std::iota(a.begin(), a.end(), 0);
  std::iota(b.begin(), b.end(), 0);
  const std::vector<int> sorted = a;
  CounterRng(5, Stream::problems, 9).shuffle(a);
  CounterRng(5, Stream::problems, 9).shuffle(b);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, sorted);
  std::sort(b.begin(), b.end());
  EXPECT_EQ(b, sorted);
  // The contract with everything recorded so far: these numbers never change.
  std::vector<int> c = {0, 1, 2, 3, 4, 5, 6, 7};
  CounterRng(42, Stream::corpus, 0).shuffle(c);
  EXPECT_EQ(c, (std::vector<int>{4, 5, 6, 7, 3, 1, 2, 0}));
}

}  // namespace
}  // namespace ponder
