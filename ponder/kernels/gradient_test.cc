// The gradient kernels against differences of the forward ones, along random directions and along single coordinates.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "ponder/base/rng.h"
#include "ponder/kernels/backend.h"

namespace ponder::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint64_t seed) {
  CounterRng rng(11, Stream::test, seed);
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

double dot(const Floats& a, const Floats& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += double{a[i]} * b[i];
  return s;
}

// f = a scalar, in double, of float results: its differences carry rounding noise of 1e-7 |f| / h and a curvature error
// of h^2; the tolerance covers both.
void expect_gradient(const std::string& what, const Floats& x, const Floats& gradient,
                     const std::function<double(const Floats&)>& f, double tolerance = 3e-3) {
  const double h = 1e-2, size = std::sqrt(dot(gradient, gradient) / static_cast<double>(x.size()));
  CounterRng rng(12, Stream::test, x.size());
  for (int direction = 0; direction < 8; ++direction) {
    Floats d(x.size());
    if (direction < 4)
      for (float& v : d) v = static_cast<float>(rng.normal() / std::sqrt(static_cast<double>(x.size())));
    else
      d[rng.below(x.size())] = 1.f;
    Floats plus = x, minus = x;
    for (size_t i = 0; i < x.size(); ++i) {
      plus[i] += static_cast<float>(h) * d[i];
      minus[i] -= static_cast<float>(h) * d[i];
    }
    const double want = (f(plus) - f(minus)) / (2 * h);
    EXPECT_NEAR(dot(gradient, d), want, tolerance * (1 + size + std::fabs(want))) << what << " direction " << direction;
  }
}

struct Gradient : testing::Test {
  ThreadPool pool{2};
  std::unique_ptr<Backend> backend = make_best_backend(pool);
};

TEST_F(Gradient, RmsNorm) {
  const int64_t rows = 5, d = 33;
  const Floats x = random_floats(rows * d, 1), w = random_floats(d, 2), dy = random_floats(rows * d, 3);
  Floats y(x.size()), inv(rows), dx(x.size()), dw(w.size()), scratch(w.size());
  const auto f = [&](const Floats& x, const Floats& w) {
    backend->rms_norm({rows, d, x.data(), d, w.data(), 1e-5f, y.data(), d, inv.data()});
    return dot(y, dy);
  };
  f(x, w);
  backend->rms_norm_grad(
      {rows, d, x.data(), d, w.data(), inv.data(), dy.data(), d, dx.data(), d, false, dw.data(), scratch.data()});
  expect_gradient("x", x, dx, [&](const Floats& x) { return f(x, w); });
  expect_gradient("w", w, dw, [&](const Floats& w) { return f(x, w); });
}

TEST_F(Gradient, SwiGlu) {
  const int64_t rows = 3, d = 21;
  const Floats x = random_floats(rows * 2 * d, 1), dh = random_floats(rows * d, 2);
  Floats h(dh.size()), dx(x.size());
  backend->swiglu_grad({rows, d, x.data(), 2 * d, dh.data(), d, dx.data(), 2 * d});
  expect_gradient("x", x, dx, [&](const Floats& x) {
    backend->swiglu({rows, d, x.data(), 2 * d, h.data(), d});
    return dot(h, dh);
  });
}

TEST_F(Gradient, RopeIsARotation) {
  const int64_t rows = 4, heads = 2, rotary = 6, ld = heads * rotary;
  Floats table;
  for (int position = 0; position < 9; ++position)
    for (int part = 0; part < 2; ++part)
      for (int i = 0; i < 3; ++i)
        table.push_back(static_cast<float>(part ? std::sin(position / (1. + i)) : std::cos(position / (1. + i))));
  const std::vector<int32_t> positions = {0, 3, 8, 5};
  for (bool interleaved : {false, true}) {
    const Floats x = random_floats(rows * ld, 1), dy = random_floats(rows * ld, 2);
    Floats y(x.size()), dx(x.size());
    const auto rope = [&](const Floats& from, Floats& to, bool inverse) {
      backend->rope({rows, heads, rotary, from.data(), ld, rotary, to.data(), ld, rotary, positions.data(),
                     table.data(), interleaved, inverse, false});
    };
    rope(x, y, false);
    rope(dy, dx, true);
    EXPECT_NEAR(dot(y, dy), dot(x, dx), 1e-4);
    EXPECT_NEAR(dot(y, y), dot(x, x), 1e-4);
    EXPECT_EQ(y[1], x[1]);  // position 0
  }
}

TEST_F(Gradient, Attention) {
  for (bool values_in_keys : {false, true}) {
    const int32_t count = 70;
    const PageLayout layout{2, 10, 6};
    const int64_t heads = 4, ldq = heads * layout.dk, ldk = layout.kv_heads * layout.dk,
                  ldv = layout.kv_heads * layout.dv;
    const std::vector<int32_t> pages = {1, 0};
    const std::vector<Span> spans = {{0, count, 0, pages.data()}};
    Floats q = random_floats(count * ldq, 1), k = random_floats(count * ldk, 2), v = random_floats(count * ldv, 3);
    const Floats dout = random_floats(count * heads * layout.dv, 4);
    // Values in keys: v is a part of k, laid out as k is.
    const int64_t ld_values = values_in_keys ? ldk : ldv;
    Floats cache(static_cast<size_t>(2 * layout.page_floats())), out(dout.size()), lse(count * heads);
    const auto values_of = [&](const Floats& k, const Floats& v) {
      Floats values(static_cast<size_t>(count * ldv));
      for (int64_t r = 0; r < count; ++r)
        for (int64_t h = 0; h < layout.kv_heads; ++h)
          for (int64_t i = 0; i < layout.dv; ++i)
            values[static_cast<size_t>(r * ldv + h * layout.dv + i)] =
                values_in_keys ? k[static_cast<size_t>(r * ldk + h * layout.dk + i)]
                               : v[static_cast<size_t>(r * ldv + h * layout.dv + i)];
      return values;
    };
    const auto f = [&](const Floats& q, const Floats& k, const Floats& v) {
      const Floats values = values_of(k, v);
      backend->store_kv({layout, spans, k.data(), ldk, values.data(), ldv, cache.data()});
      backend->attention({layout, static_cast<int>(heads), 0.4f, spans, q.data(), ldq, cache.data(), out.data(),
                          heads * layout.dv, lse.data()});
      return dot(out, dout);
    };
    f(q, k, v);
    const Floats values = values_of(k, v);
    Floats dq(q.size()), dk(k.size()), dv(v.size());
    // Two kv heads side by side in a row cannot share dk's memory unless their strides agree, so that the shared case
    // adds the two gradients here.
    backend->attention_grad({.layout = layout,
                             .heads = static_cast<int>(heads),
                             .scale = 0.4f,
                             .spans = spans,
                             .q = q.data(),
                             .k = k.data(),
                             .v = values.data(),
                             .out = out.data(),
                             .dout = dout.data(),
                             .lse = lse.data(),
                             .ldq = ldq,
                             .ldk = ldk,
                             .ldv = ldv,
                             .ldo = heads * layout.dv,
                             .lddo = heads * layout.dv,
                             .dq = dq.data(),
                             .dk = dk.data(),
                             .dv = dv.data(),
                             .lddq = ldq,
                             .lddk = ldk,
                             .lddv = ldv});
    if (values_in_keys)
      for (int64_t r = 0; r < count; ++r)
        for (int64_t h = 0; h < layout.kv_heads; ++h)
          for (int64_t i = 0; i < layout.dv; ++i)
            dk[static_cast<size_t>(r * ld_values + h * layout.dk + i)] +=
                dv[static_cast<size_t>(r * ldv + h * layout.dv + i)];
    expect_gradient("q", q, dq, [&](const Floats& q) { return f(q, k, v); });
    expect_gradient("k", k, dk, [&](const Floats& k) { return f(q, k, v); });
    if (!values_in_keys) expect_gradient("v", v, dv, [&](const Floats& v) { return f(q, k, v); });
  }
}

TEST_F(Gradient, Route) {
  const int64_t rows = 4;
  const int experts = 9, top_k = 3;
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax})
    for (bool normalize : {false, true}) {
      const Floats logits = random_floats(rows * experts, 1), dgates = random_floats(rows * top_k, 2);
      Floats scores(logits.size()), gates(dgates.size()), dlogits(logits.size());
      std::vector<int32_t> index(dgates.size()), chosen;
      const auto f = [&](const Floats& x) {
        backend->route({rows, experts, top_k, 1, 1, scoring, GroupScore::max, normalize, 2.5f, x.data(), nullptr,
                        scores.data(), index.data(), gates.data()});
        if (chosen.empty()) chosen = index;
        EXPECT_EQ(index, chosen) << "the differences crossed a border: take another seed";
        return dot(gates, dgates);
      };
      f(logits);
      backend->route_grad({rows, experts, top_k, scoring, normalize, 2.5f, scores.data(), index.data(), gates.data(),
                           dgates.data(), dlogits.data()});
      expect_gradient("logits", logits, dlogits, f);
    }
}

TEST_F(Gradient, Combine) {
  const int64_t rows = 6, d = 19;
  const int top_k = 2;
  const Floats x = random_floats(rows * top_k * d, 1), gates = random_floats(rows * top_k, 2),
               base = random_floats(rows * d, 3), dy = random_floats(rows * d, 4);
  std::vector<int32_t> place(static_cast<size_t>(rows * top_k));
  for (size_t i = 0; i < place.size(); ++i) place[i] = static_cast<int32_t>(i * 5 % place.size());
  Floats y(base.size()), dx(x.size()), dgates(gates.size());
  const auto f = [&](const Floats& x, const Floats& gates) {
    backend->combine({rows, d, top_k, x.data(), gates.data(), place.data(), base.data(), d, y.data(), d});
    return dot(y, dy);
  };
  backend->combine_grad({rows, d, top_k, x.data(), gates.data(), dy.data(), d, place.data(), dx.data(), dgates.data()});
  expect_gradient("x", x, dx, [&](const Floats& x) { return f(x, gates); });
  expect_gradient("gates", gates, dgates, [&](const Floats& gates) { return f(x, gates); });
}

TEST_F(Gradient, LogProbAndEntropy) {
  const int64_t rows = 5, vocab = 23;
  const Floats logits = random_floats(rows * vocab, 1), dlogp = random_floats(rows, 2),
               dentropy = random_floats(rows, 3);
  const std::vector<int32_t> targets = {0, 22, 7, 7, 1};
  Floats logp(rows), max(rows), log_sum(rows), entropy(rows), dlogits(logits.size());
  const auto f = [&](const Floats& x) {
    backend->log_prob(
        {rows, vocab, x.data(), vocab, 1.25f, targets.data(), logp.data(), max.data(), log_sum.data(), entropy.data()});
    return dot(logp, dlogp) + dot(entropy, dentropy);
  };
  f(logits);
  backend->log_prob_grad({rows, vocab, logits.data(), vocab, 1.25f, targets.data(), max.data(), log_sum.data(),
                          entropy.data(), dlogp.data(), dentropy.data(), dlogits.data(), vocab});
  expect_gradient("logits", logits, dlogits, f);
}

}  // namespace
}  // namespace ponder::kernels
