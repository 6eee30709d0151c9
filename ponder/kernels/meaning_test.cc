// That the definitions compute what they are named after: against plain formulas in double, published vectors, and
// frequencies. (That the fast kernels agree with the definitions is backend_test.cc.)
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "ponder/base/rng.h"
#include "ponder/kernels/backend.h"

namespace ponder::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint64_t seed) {
  CounterRng rng(13, Stream::test, seed);
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

struct Meaning : testing::Test {
  ThreadPool pool{1};
  std::unique_ptr<Backend> backend = make_ref_backend(pool);
};

TEST_F(Meaning, RmsNorm) {
  const int64_t d = 100;
  const Floats x = random_floats(d, 1), w = random_floats(d, 2);
  Floats y(x.size());
  backend->rms_norm({1, d, x.data(), d, w.data(), 1e-3f, y.data(), d, nullptr});
  double squares = 0;
  for (float v : x) squares += double{v} * v;
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], x[i] * w[i] / std::sqrt(squares / d + 1e-3), 1e-5);
}

TEST_F(Meaning, AttentionIsCausalSoftmax) {
  const int32_t count = 150;
  const PageLayout layout{1, 12, 8};
  const std::vector<int32_t> pages = {2, 0, 1};
  const std::vector<Span> spans = {{0, count, 0, pages.data()}};
  const Floats q = random_floats(count * 12, 1), k = random_floats(count * 12, 2), v = random_floats(count * 8, 3);
  Floats cache(static_cast<size_t>(3 * layout.page_floats())), out(count * 8), lse(count);
  backend->store_kv({layout, spans, k.data(), 12, v.data(), 8, cache.data()});
  backend->attention({layout, 1, 0.5f, spans, q.data(), 12, cache.data(), out.data(), 8, lse.data()});
  for (int i = 0; i < count; ++i) {
    double sum = 0, o[8] = {};
    for (int j = 0; j <= i; ++j) {
      double s = 0;
      for (int d = 0; d < 12; ++d) s += double{q[i * 12 + d]} * k[j * 12 + d];
      const double p = std::exp(s * 0.5);
      sum += p;
      for (int d = 0; d < 8; ++d) o[d] += p * v[j * 8 + d];
    }
    EXPECT_NEAR(lse[i], std::log(sum), 1e-5);
    for (int d = 0; d < 8; ++d) EXPECT_NEAR(out[i * 8 + d], o[d] / sum, 1e-5);
  }
}

// The router of DeepSeek-V3 by hand: 8 experts in 4 groups, the best 2 groups by the sum of their two best, top 2.
TEST_F(Meaning, RouteByGroupsWithBias) {
  const Floats want_scores = {.9f, .1f, .6f, .5f, .55f, .56f, .2f, .3f};
  Floats logits, bias(8), scores(8), gates(2);
  for (float s : want_scores) logits.push_back(std::log(s / (1 - s)));
  bias[0] = -0.5f;
  std::vector<int32_t> index(2);
  Route r{1,
          8,
          2,
          4,
          2,
          Scoring::sigmoid,
          GroupScore::top2_sum,
          true,
          2.5f,
          logits.data(),
          bias.data(),
          scores.data(),
          index.data(),
          gates.data()};
  backend->route(r);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(scores[i], want_scores[i], 1e-6);
  EXPECT_EQ(index, (std::vector<int32_t>{2, 5}));
  EXPECT_NEAR(gates[0], 1.293103, 1e-5);
  EXPECT_NEAR(gates[1], 1.206897, 1e-5);
  // V2: groups by their maximum of the raw scores keeps groups 0 and 1.
  r.group_score = GroupScore::max;
  r.bias = nullptr;
  backend->route(r);
  EXPECT_EQ(index, (std::vector<int32_t>{0, 2}));
  // Ties go to the lower index, of groups and of experts.
  logits.assign(8, 0.f);
  backend->route(r);
  EXPECT_EQ(index, (std::vector<int32_t>{0, 1}));
  // NaN anywhere still names experts.
  logits.assign(8, NAN);
  backend->route(r);
  EXPECT_EQ(index, (std::vector<int32_t>{0, 1}));
}

TEST_F(Meaning, DispatchSortsStably) {
  const std::vector<int32_t> index = {2, 0, 0, 2, 3, 0};
  std::vector<int32_t> slot_of(6), place_of(6), offsets(5);
  backend->dispatch({3, 4, 2, index.data(), slot_of.data(), place_of.data(), offsets.data()});
  EXPECT_EQ(slot_of, (std::vector<int32_t>{1, 2, 5, 0, 3, 4}));
  EXPECT_EQ(place_of, (std::vector<int32_t>{3, 0, 1, 4, 5, 2}));
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 3, 3, 5, 6}));
}

TEST_F(Meaning, LogProbAndEntropy) {
  const Floats logits = {1.f, -INFINITY, 3.f, 0.5f};
  const std::vector<int32_t> target = {2};
  float logp, max, log_sum, entropy;
  backend->log_prob({1, 4, logits.data(), 4, 0.5f, target.data(), &logp, &max, &log_sum, &entropy});
  double sum = 0, h = 0;
  for (float x : {0.5f, 1.5f, 0.25f}) sum += std::exp(double{x});
  for (float x : {0.5f, 1.5f, 0.25f}) h -= std::exp(double{x}) / sum * (x - std::log(sum));
  EXPECT_NEAR(logp, 1.5 - std::log(sum), 1e-6);
  EXPECT_NEAR(entropy, h, 1e-6);
  EXPECT_EQ(max, 1.5f);
}

TEST_F(Meaning, AdamWAsPublished) {
  const Floats grad = random_floats(50, 1);
  Floats p = random_floats(50, 2), m(50), v(50);
  std::vector<double> want(p.begin(), p.end()), wm(50), wv(50);
  for (int t = 1; t <= 5; ++t) {
    const double c1 = 1 - std::pow(0.9, t), c2 = 1 - std::pow(0.95, t);
    backend->adamw({50, p.data(), m.data(), v.data(), grad.data(), 0.5f, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, c1, c2});
    for (size_t i = 0; i < 50; ++i) {
      const double g = 0.5 * grad[i];
      wm[i] = 0.9 * wm[i] + 0.1 * g;
      wv[i] = 0.95 * wv[i] + 0.05 * g * g;
      want[i] -= 1e-2 * 0.1 * want[i];
      want[i] -= 1e-2 * (wm[i] / c1) / (std::sqrt(wv[i] / c2) + 1e-8);
    }
  }
  for (size_t i = 0; i < 50; ++i) EXPECT_NEAR(p[i], want[i], 1e-5);
}

TEST_F(Meaning, SumSquaresCarriesNonFinite) {
  Floats x = random_floats(9000, 1);
  std::vector<double> scratch(3);
  double sum, want = 0;
  for (float v : x) want += double{v} * v;
  backend->sum_squares({9000, x.data(), &sum, scratch.data()});
  EXPECT_NEAR(sum, want, 1e-9 * want);
  x[5000] = INFINITY;
  backend->sum_squares({9000, x.data(), &sum, scratch.data()});
  EXPECT_FALSE(std::isfinite(sum));
}

// ---- sampling -------------------------------------------------------------------------------------------------------
struct Sampling : Meaning {
  // How often each token was drawn, over positions 0 .. n - 1.
  std::map<int32_t, int> draw(const Floats& logits, SampleRow params, int n) {
    const int64_t vocab = static_cast<int64_t>(logits.size());
    std::vector<SampleRow> rows(static_cast<size_t>(n), params);
    Floats x, logp(static_cast<size_t>(n)), scratch(2 * logits.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].position = static_cast<int64_t>(i);
      x.insert(x.end(), logits.begin(), logits.end());
    }
    std::vector<int32_t> tokens(rows.size());
    backend->sample({n, vocab, x.data(), vocab, rows.data(), tokens.data(), logp.data(), nullptr, scratch.data()});
    std::map<int32_t, int> counts;
    for (int32_t t : tokens) ++counts[t];
    return counts;
  }
  std::set<int32_t> drawn(const Floats& logits, SampleRow params) {
    std::set<int32_t> s;
    for (const auto& [token, count] : draw(logits, params, 2000)) s.insert(token);
    return s;
  }
};

TEST_F(Sampling, FollowsTheDistribution) {
  const Floats logits = {0.f, 1.f, 2.f, -1.f, 0.5f};
  const int n = 40000;
  for (float temperature : {1.f, 0.5f}) {
    auto counts = draw(logits, {.temperature = temperature, .seed = 42}, n);
    double sum = 0;
    for (float x : logits) sum += std::exp(x / temperature);
    for (int32_t i = 0; i < 5; ++i) {
      const double p = std::exp(logits[static_cast<size_t>(i)] / temperature) / sum;
      EXPECT_NEAR(counts[i], n * p, 5 * std::sqrt(n * p * (1 - p))) << i;  // five standard deviations
    }
  }
}

TEST_F(Sampling, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(drawn({1.f, 3.f, 3.f, -2.f}, {.temperature = 0.f}), (std::set<int32_t>{1}));
}

TEST_F(Sampling, Cuts) {
  // Probabilities 0.5, 0.25, 0.15, 0.1.
  const Floats logits = {std::log(.15f), std::log(.5f), std::log(.1f), std::log(.25f)};
  EXPECT_EQ(drawn(logits, {}), (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(drawn(logits, {.top_k = 2}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn(logits, {.top_p = 0.8f}), (std::set<int32_t>{0, 1, 3}));
  EXPECT_EQ(drawn(logits, {.top_p = 0.7f}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn(logits, {.top_p = 1e-6f}), (std::set<int32_t>{1}));
  EXPECT_EQ(drawn(logits, {.min_p = 0.29f}), (std::set<int32_t>{0, 1, 3}));
  EXPECT_EQ(drawn(logits, {.min_p = 1.f}), (std::set<int32_t>{1}));
  // After top_k = 2 the first has 2 / 3 of what is left.
  EXPECT_EQ(drawn(logits, {.top_p = 0.6f, .top_k = 2}), (std::set<int32_t>{1}));
  EXPECT_EQ(drawn(logits, {.top_p = 0.7f, .top_k = 2}), (std::set<int32_t>{1, 3}));
  // Ties at the border stay.
  EXPECT_EQ(drawn({0.f, 1.f, 0.f, -1.f}, {.top_k = 2}), (std::set<int32_t>{0, 1, 2}));
}

TEST_F(Sampling, LogProbIsTheTrainers) {
  const Floats logits = random_floats(153, 4);
  SampleRow params{.temperature = 0.6f, .top_p = 0.9f, .seed = 5, .position = 77};
  int32_t token;
  float logp, entropy, want, max, log_sum, want_entropy;
  Floats scratch(2 * 153);
  backend->sample({1, 153, logits.data(), 153, &params, &token, &logp, &entropy, scratch.data()});
  backend->log_prob(
      {1, 153, logits.data(), 153, 1.f / params.temperature, &token, &want, &max, &log_sum, &want_entropy});
  EXPECT_EQ(logp, want);
  EXPECT_EQ(entropy, want_entropy);
}

}  // namespace
}  // namespace ponder::kernels
