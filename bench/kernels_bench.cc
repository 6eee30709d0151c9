// The kernels beside the matrix products, at the shapes of the small model: width 128, MLA with 4 heads over one latent
// (dk 48, dv 32), 8 experts top 2 of width 64, vocabulary 153. One thread; arguments in the names.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "ponder/base/rng.h"
#include "ponder/kernels/backend.h"

namespace ponder::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint64_t seed) {
  CounterRng rng(7, Stream::test, seed);
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

const Backend& backend(const std::string& isa = "") {
  static ThreadPool pool(1);
  static const std::unique_ptr<Backend> best = make_best_backend(pool), avx2 = make_cpu_backend(pool, "avx2");
  return isa == "avx2" && avx2 ? *avx2 : *best;
}

constexpr PageLayout kLayout{1, 48, 32};
constexpr int kHeads = 4;

// `sequences` of `length`, with pages one after the other.
struct Sequences {
  int64_t rows;
  std::vector<int32_t> pages;
  std::vector<Span> whole, last;

  Sequences(int32_t sequences, int32_t length) : rows(int64_t{sequences} * length) {
    const int32_t per = (length + kPageSize - 1) / kPageSize;
    pages.resize(static_cast<size_t>(sequences * per));
    std::iota(pages.begin(), pages.end(), 0);
    for (int32_t i = 0; i < sequences; ++i) {
      whole.push_back({i * length, length, 0, pages.data() + i * per});
      last.push_back({i, 1, length - 1, pages.data() + i * per});
    }
  }
};

void attention(benchmark::State& state, const std::string& isa) {
  const int64_t sequences = state.range(0), length = state.range(1);
  const bool decode = state.range(2) != 0;
  const Sequences s(static_cast<int32_t>(sequences), static_cast<int32_t>(length));
  const Floats q = random_floats(s.rows * kHeads * kLayout.dk, 1), k = random_floats(s.rows * kLayout.dk, 2);
  Floats pages(s.pages.size() * static_cast<size_t>(kLayout.page_floats())),
      out(static_cast<size_t>(s.rows * kHeads * kLayout.dv)), lse(static_cast<size_t>(s.rows * kHeads));
  const Backend& b = backend(isa);
  b.store_kv({kLayout, s.whole, k.data(), kLayout.dk, k.data(), kLayout.dk, pages.data()});
  for (auto _ : state)
    b.attention({kLayout, kHeads, 0.14f, decode ? s.last : s.whole, q.data(), kHeads * kLayout.dk, pages.data(),
                 out.data(), kHeads * kLayout.dv, lse.data()});
  const double pairs = decode ? static_cast<double>(sequences * length)
                              : static_cast<double>(sequences) * static_cast<double>(length * (length + 1)) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(pairs * kHeads * (kLayout.dk + kLayout.dv) * 2 * 1e-9,
                                                 benchmark::Counter::kIsIterationInvariantRate);
  state.SetItemsProcessed(state.iterations() * (decode ? sequences : s.rows));
}

void attention_grad(benchmark::State& state, const std::string& isa) {
  const int64_t sequences = state.range(0), length = state.range(1);
  const Sequences s(static_cast<int32_t>(sequences), static_cast<int32_t>(length));
  const int64_t ldq = kHeads * kLayout.dk, ldo = kHeads * kLayout.dv;
  const Floats q = random_floats(s.rows * ldq, 1), k = random_floats(s.rows * kLayout.dk, 2),
               dout = random_floats(s.rows * ldo, 3);
  Floats pages(s.pages.size() * static_cast<size_t>(kLayout.page_floats())), out(static_cast<size_t>(s.rows * ldo)),
      lse(static_cast<size_t>(s.rows * kHeads)), dq(q.size()), dk(k.size());
  const Backend& b = backend(isa);
  b.store_kv({kLayout, s.whole, k.data(), kLayout.dk, k.data(), kLayout.dk, pages.data()});
  b.attention({kLayout, kHeads, 0.14f, s.whole, q.data(), ldq, pages.data(), out.data(), ldo, lse.data()});
  for (auto _ : state)
    b.attention_grad({.layout = kLayout,
                      .heads = kHeads,
                      .scale = 0.14f,
                      .spans = s.whole,
                      .q = q.data(),
                      .k = k.data(),
                      .v = k.data(),
                      .out = out.data(),
                      .dout = dout.data(),
                      .lse = lse.data(),
                      .ldq = ldq,
                      .ldk = kLayout.dk,
                      .ldv = kLayout.dk,
                      .ldo = ldo,
                      .lddo = ldo,
                      .dq = dq.data(),
                      .dk = dk.data(),
                      .dv = dk.data(),
                      .lddq = ldq,
                      .lddk = kLayout.dk,
                      .lddv = kLayout.dk});
  const double pairs = static_cast<double>(sequences) * static_cast<double>(length * (length + 1)) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(pairs * kHeads * (3 * kLayout.dk + 2 * kLayout.dv) * 2 * 1e-9,
                                                 benchmark::Counter::kIsIterationInvariantRate);
  state.SetItemsProcessed(state.iterations() * s.rows);
}

void training_shapes(benchmark::internal::Benchmark* b) {
  for (int64_t length : {10, 40, 64, 100, 245}) b->Args({4000 / length, length, 0});
}
void decode_shapes(benchmark::internal::Benchmark* b) {
  for (int64_t length : {30, 64, 100, 245}) b->Args({384, length, 1});
}
BENCHMARK_CAPTURE(attention, best, "")->Apply(training_shapes)->Apply(decode_shapes);
BENCHMARK_CAPTURE(attention, avx2, "avx2")->Apply(training_shapes)->Apply(decode_shapes);
BENCHMARK_CAPTURE(attention_grad, best, "")->Apply(training_shapes);
BENCHMARK_CAPTURE(attention_grad, avx2, "avx2")->Apply(training_shapes);

void store_kv(benchmark::State& state) {
  const Sequences s(static_cast<int32_t>(4000 / state.range(0)), static_cast<int32_t>(state.range(0)));
  const Floats k = random_floats(s.rows * kLayout.dk, 2);
  Floats pages(s.pages.size() * static_cast<size_t>(kLayout.page_floats()));
  for (auto _ : state) backend().store_kv({kLayout, s.whole, k.data(), kLayout.dk, k.data(), kLayout.dk, pages.data()});
  state.SetItemsProcessed(state.iterations() * s.rows);
}
BENCHMARK(store_kv)->Arg(1)->Arg(40)->Arg(245);

// The pointwise kernels on 4096 rows; items are rows.
constexpr int64_t kRows = 4096, kWidth = 128;

void rms_norm(benchmark::State& state) {
  const Floats x = random_floats(kRows * kWidth, 1), w = random_floats(kWidth, 2);
  Floats y(x.size()), inv(kRows);
  for (auto _ : state)
    backend().rms_norm({kRows, kWidth, x.data(), kWidth, w.data(), 1e-6f, y.data(), kWidth, inv.data()});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(rms_norm);

void rms_norm_grad(benchmark::State& state) {
  const Floats x = random_floats(kRows * kWidth, 1), w = random_floats(kWidth, 2), inv = random_floats(kRows, 3),
               dy = random_floats(kRows * kWidth, 4);
  Floats dx(x.size()), dw(w.size()), scratch(kRows / kDotBlock * kWidth);
  for (auto _ : state)
    backend().rms_norm_grad({kRows, kWidth, x.data(), kWidth, w.data(), inv.data(), dy.data(), kWidth, dx.data(),
                             kWidth, true, dw.data(), scratch.data()});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(rms_norm_grad);

void swiglu(benchmark::State& state) {
  const Floats x = random_floats(kRows * kWidth, 1);
  Floats h(x.size());
  for (auto _ : state) backend().swiglu({kRows, kWidth / 2, x.data(), kWidth, h.data(), kWidth / 2});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(swiglu);

void swiglu_grad(benchmark::State& state) {
  const Floats x = random_floats(kRows * kWidth, 1), dh = random_floats(kRows * kWidth, 2);
  Floats dx(x.size());
  for (auto _ : state)
    backend().swiglu_grad({kRows, kWidth / 2, x.data(), kWidth, dh.data(), kWidth / 2, dx.data(), kWidth});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(swiglu_grad);

void rope(benchmark::State& state) {
  Floats x = random_floats(kRows * 4 * 48, 1);
  const Floats table = random_floats(256 * 16, 2);
  std::vector<int32_t> positions(kRows);
  for (int64_t i = 0; i < kRows; ++i) positions[static_cast<size_t>(i)] = static_cast<int32_t>(i % 256);
  for (auto _ : state)
    backend().rope({kRows, 4, 16, x.data() + 32, 4 * 48, 48, x.data() + 32, 4 * 48, 48, positions.data(), table.data(),
                    state.range(0) != 0, false, false});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(rope)->Arg(0)->Arg(1);

void experts(benchmark::State& state) {
  const Floats logits = random_floats(kRows * 8, 1), bias = random_floats(8, 2), dgates = random_floats(kRows * 2, 3);
  Floats scores(logits.size()), gates(kRows * 2), dlogits(logits.size());
  std::vector<int32_t> index(kRows * 2), slot_of(kRows * 2), place_of(kRows * 2), offsets(9);
  const std::string which = state.range(0) == 0 ? "route" : state.range(0) == 1 ? "route_grad" : "dispatch";
  state.SetLabel(which);
  const Route route{kRows,
                    8,
                    2,
                    1,
                    1,
                    Scoring::sigmoid,
                    GroupScore::top2_sum,
                    true,
                    2.5f,
                    logits.data(),
                    bias.data(),
                    scores.data(),
                    index.data(),
                    gates.data()};
  backend().route(route);
  for (auto _ : state) {
    if (which == "route") backend().route(route);
    if (which == "route_grad")
      backend().route_grad({kRows, 8, 2, Scoring::sigmoid, true, 2.5f, scores.data(), index.data(), gates.data(),
                            dgates.data(), dlogits.data()});
    if (which == "dispatch")
      backend().dispatch({kRows, 8, 2, index.data(), slot_of.data(), place_of.data(), offsets.data()});
  }
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(experts)->Arg(0)->Arg(1)->Arg(2);

void combine(benchmark::State& state) {
  const Floats x = random_floats(kRows * 2 * kWidth, 1), gates = random_floats(kRows * 2, 2),
               base = random_floats(kRows * kWidth, 3);
  Floats y(base.size()), dx(x.size()), dgates(gates.size());
  std::vector<int32_t> place(kRows * 2);
  for (size_t i = 0; i < place.size(); ++i) place[i] = static_cast<int32_t>(i * 3001 % place.size());
  for (auto _ : state)
    if (state.range(0))
      backend().combine_grad(
          {kRows, kWidth, 2, x.data(), gates.data(), base.data(), kWidth, place.data(), dx.data(), dgates.data()});
    else
      backend().combine(
          {kRows, kWidth, 2, x.data(), gates.data(), place.data(), base.data(), kWidth, y.data(), kWidth});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(combine)->Arg(0)->Arg(1);

void loss(benchmark::State& state) {
  const int64_t vocab = 153;
  const Floats logits = random_floats(kRows * vocab, 1), dlogp = random_floats(kRows, 2);
  const std::vector<int32_t> targets(kRows, 5);
  Floats logp(kRows), max(kRows), log_sum(kRows), entropy(kRows), dlogits(logits.size());
  for (auto _ : state)
    if (state.range(0))
      backend().log_prob_grad({kRows, vocab, logits.data(), vocab, 1.f, targets.data(), max.data(), log_sum.data(),
                               entropy.data(), dlogp.data(), nullptr, dlogits.data(), vocab});
    else
      backend().log_prob({kRows, vocab, logits.data(), vocab, 1.f, targets.data(), logp.data(), max.data(),
                          log_sum.data(), entropy.data()});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(loss)->Arg(0)->Arg(1);

void sample(benchmark::State& state) {
  const int64_t vocab = 153, rows = 384;
  const Floats logits = random_floats(rows * vocab, 1);
  std::vector<SampleRow> params(rows);
  for (size_t i = 0; i < params.size(); ++i)
    params[i] = {.top_p = state.range(0) ? 0.95f : 1.f, .seed = i, .position = static_cast<int64_t>(i)};
  std::vector<int32_t> tokens(rows);
  Floats logp(rows), scratch(2 * vocab);
  for (auto _ : state)
    backend().sample(
        {rows, vocab, logits.data(), vocab, params.data(), tokens.data(), logp.data(), nullptr, scratch.data()});
  state.SetItemsProcessed(state.iterations() * rows);
}
BENCHMARK(sample)->Arg(0)->Arg(1);

void optimizer(benchmark::State& state) {
  const int64_t n = 1 << 20;
  Floats p = random_floats(n, 1), m = random_floats(n, 2), v(n, 0.1f);
  const Floats g = random_floats(n, 3);
  std::vector<double> scratch(n / 4096);
  double sum;
  for (auto _ : state)
    if (state.range(0))
      backend().sum_squares({n, g.data(), &sum, scratch.data()});
    else
      backend().adamw({n, p.data(), m.data(), v.data(), g.data(), 1.f, 1e-9f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5, 0.5});
  state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(optimizer)->Arg(0)->Arg(1);

void embed_grad(benchmark::State& state) {
  const Floats dy = random_floats(kRows * kWidth, 1);
  Floats table(153 * kWidth);
  std::vector<int32_t> ids(kRows);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 31 % 153);
  for (auto _ : state) backend().embed_grad({kRows, kWidth, 153, ids.data(), dy.data(), kWidth, table.data()});
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(embed_grad);

}  // namespace
}  // namespace ponder::kernels

BENCHMARK_MAIN();
