// Every kernel, every instruction set, 1, 2 and 7 threads: the bits of ref/.
#include "ponder/kernels/backend.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

#include "ponder/base/rng.h"

namespace ponder::kernels {
namespace {

using Floats = std::vector<float>;

// Normal numbers of the given size; every now and then one that is awkward.
Floats random_floats(int64_t n, uint64_t seed, float scale = 1.f, bool awkward = false) {
  CounterRng rng(7, Stream::test, seed);
  Floats x(static_cast<size_t>(n));
  const float odd[] = {0.f, -0.f, 1e-42f, -1e-38f, 40.f, -60.f, 1e-20f};
  for (float& v : x) {
    v = scale * static_cast<float>(rng.normal());
    if (awkward && rng.below(16) == 0) v = odd[rng.below(7)];
  }
  return x;
}

std::vector<int32_t> random_ints(int64_t n, uint64_t below, uint64_t seed) {
  CounterRng rng(8, Stream::test, seed);
  std::vector<int32_t> x(static_cast<size_t>(n));
  for (int32_t& v : x) v = static_cast<int32_t>(rng.below(below));
  return x;
}

std::vector<int32_t> permutation(int64_t n, uint64_t seed) {
  std::vector<int32_t> x(static_cast<size_t>(n));
  std::iota(x.begin(), x.end(), 0);
  CounterRng(9, Stream::test, seed).shuffle(x);
  return x;
}

// What a kernel wrote, whole buffers with their padding, so that a stray write shows.
struct Output {
  Floats floats;
  void add(const Floats& x) { floats.insert(floats.end(), x.begin(), x.end()); }
  void add(const std::vector<int32_t>& x) {
    for (int32_t v : x) floats.push_back(std::bit_cast<float>(v));
  }
  void add(double x) {
    const uint64_t bits = std::bit_cast<uint64_t>(x);
    floats.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    floats.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits >> 32)));
  }
};

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

struct Case {
  std::string name;
  std::function<Output(const Backend&)> run;
};

void expect_same(const Output& want, const Output& got, const std::string& what) {
  ASSERT_EQ(want.floats.size(), got.floats.size()) << what;
  int64_t wrong = 0;
  size_t first = 0;
  for (size_t i = 0; i < want.floats.size(); ++i)
    if (!same_bits(want.floats[i], got.floats[i]) && wrong++ == 0) first = i;
  EXPECT_EQ(wrong, 0) << what << ": first at " << first << ", want " << want.floats[first] << ", got "
                      << got.floats[first];
}

void check(const std::vector<Case>& cases) {
  ThreadPool one(1), two(2), seven(7);
  const std::unique_ptr<Backend> ref = make_ref_backend(one);
  std::vector<std::unique_ptr<Backend>> backends;
  for (const std::string& isa : cpu_isas())
    for (ThreadPool* pool : {&one, &two, &seven}) backends.push_back(make_cpu_backend(*pool, isa));
  for (const Case& c : cases) {
    const Output want = c.run(*ref);
    for (const auto& b : backends)
      expect_same(want, c.run(*b), c.name + " on " + b->name() + " with " + std::to_string(b->pool().size()));
  }
}

std::string shape(const char* name, std::initializer_list<int64_t> dims) {
  std::string s = name;
  for (int64_t d : dims) s += ' ' + std::to_string(d);
  return s;
}

constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 63, 64, 65, 130};
constexpr int64_t kRowCounts[] = {1, 7, 200};

TEST(Kernels, Names) {
  ThreadPool pool(1);
  EXPECT_EQ(make_ref_backend(pool)->name(), "ref");
  for (const std::string& isa : cpu_isas()) EXPECT_EQ(make_cpu_backend(pool, isa)->name(), "cpu/" + isa);
  EXPECT_EQ(make_cpu_backend(pool, "sse2"), nullptr);
  EXPECT_NE(make_best_backend(pool), nullptr);
}

TEST(Kernels, Norms) {
  std::vector<Case> cases;
  for (int64_t d : kSizes)
    for (int64_t rows : kRowCounts)
      for (bool accumulate : {false, true})
        cases.push_back({shape("rms_norm", {rows, d, accumulate}), [=](const Backend& b) {
                           const Floats x = random_floats(rows * (d + 2), 1), w = random_floats(d, 2),
                                        dy = random_floats(rows * (d + 1), 3);
                           Floats y = random_floats(rows * (d + 3), 4), inv(static_cast<size_t>(rows)),
                                  dx = random_floats(rows * (d + 1), 5), dw = random_floats(d, 6),
                                  scratch(static_cast<size_t>((rows + kDotBlock - 1) / kDotBlock * d));
                           b.rms_norm({rows, d, x.data(), d + 2, w.data(), 1e-6f, y.data(), d + 3, inv.data()});
                           b.rms_norm_grad({rows, d, x.data(), d + 2, w.data(), inv.data(), dy.data(), d + 1, dx.data(),
                                            d + 1, accumulate, accumulate ? dw.data() : nullptr, scratch.data()});
                           Output out;
                           for (const Floats& f : {y, inv, dx, dw}) out.add(f);
                           return out;
                         }});
  check(cases);
}

TEST(Kernels, Pointwise) {
  std::vector<Case> cases;
  for (int64_t d : kSizes)
    for (int64_t rows : kRowCounts)
      cases.push_back({shape("pointwise", {rows, d}), [=](const Backend& b) {
                         Output out;
                         const Floats x = random_floats(rows * (2 * d + 1), 1, 3.f, true),
                                      z = random_floats(rows * (d + 2), 2, 1.f, true);
                         Floats y = random_floats(rows * (d + 3), 3), g = random_floats(rows * (2 * d + 4), 4);
                         b.swiglu({rows, d, x.data(), 2 * d + 1, y.data(), d + 3});
                         out.add(y);
                         b.swiglu_grad({rows, d, x.data(), 2 * d + 1, z.data(), d + 2, g.data(), 2 * d + 4});
                         out.add(g);
                         b.add({rows, d, x.data(), 2 * d + 1, z.data(), d + 2, y.data(), d + 3});
                         out.add(y);
                         b.add({rows, d, y.data(), d + 3, y.data(), d + 3, y.data(), d + 3});
                         out.add(y);
                         const std::vector<int32_t> to = permutation(rows, 5), ids = random_ints(rows, 20, 6);
                         b.gather_rows({rows, d, z.data(), d + 2, to.data(), y.data(), d + 3});
                         out.add(y);
                         b.scatter_rows({rows, d, z.data(), d + 2, to.data(), y.data(), d + 3});
                         out.add(y);
                         Floats table = random_floats(20 * d, 7), sums = random_floats(d, 8),
                                scratch(static_cast<size_t>((rows + kDotBlock - 1) / kDotBlock * d));
                         b.embed({rows, d, table.data(), ids.data(), y.data(), d + 3});
                         out.add(y);
                         b.embed_grad({rows, d, 20, ids.data(), z.data(), d + 2, table.data()});
                         out.add(table);
                         b.column_sum({rows, d, z.data(), d + 2, sums.data(), scratch.data()});
                         out.add(sums);
                         return out;
                       }});
  check(cases);
}

TEST(Kernels, Rope) {
  std::vector<Case> cases;
  for (int64_t rotary : {2, 6, 16, 34})
    for (int64_t rows : kRowCounts)
      for (int mode = 0; mode < 16; ++mode)
        cases.push_back({shape("rope", {rotary, rows, mode}), [=](const Backend& b) {
                           const int64_t heads = 3, stride = rotary + 5, ld = heads * stride + 1;
                           const Floats x = random_floats(rows * ld, 1), table = random_floats(50 * rotary, 2);
                           const std::vector<int32_t> positions = random_ints(rows, 50, 3);
                           const bool in_place = mode & 8;
                           Floats y = in_place ? x : random_floats(rows * ld, 4);
                           b.rope({rows, heads, rotary, in_place ? y.data() : x.data(), ld, stride, y.data(), ld,
                                   stride, positions.data(), table.data(), (mode & 1) != 0, (mode & 2) != 0,
                                   (mode & 4) != 0});
                           Output out;
                           out.add(y);
                           return out;
                         }});
  check(cases);
}

TEST(Kernels, Optimizer) {
  std::vector<Case> cases;
  for (int64_t n : {1, 15, 17, 4096, 4097, 70001})
    cases.push_back(
        {shape("optimizer", {n}), [=](const Backend& b) {
           Floats p = random_floats(n, 1), m = random_floats(n, 2, 0.1f), v = random_floats(n, 3, 0.1f);
           for (float& x : v) x *= x;
           const Floats g = random_floats(n, 4, 0.1f, true);
           b.adamw({n, p.data(), m.data(), v.data(), g.data(), 0.7f, 3e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.271, 0.143});
           std::vector<double> scratch(static_cast<size_t>((n + 4095) / 4096));
           double sum = 0;
           b.sum_squares({n, g.data(), &sum, scratch.data()});
           Output out;
           for (const Floats& f : {p, m, v}) out.add(f);
           out.add(sum);
           return out;
         }});
  check(cases);
}

TEST(Kernels, Experts) {
  struct Shape {
    int experts, top_k, n_group, topk_group;
  };
  std::vector<Case> cases;
  for (Shape s : {Shape{8, 2, 1, 1}, Shape{1, 1, 1, 1}, Shape{16, 3, 4, 2}, Shape{33, 4, 1, 1}, Shape{64, 6, 8, 3}})
    for (int64_t rows : kRowCounts)
      for (int mode = 0; mode < 8; ++mode)
        cases.push_back(
            {shape("experts", {s.experts, s.top_k, rows, mode}), [=](const Backend& b) {
               const Scoring scoring = mode & 1 ? Scoring::sigmoid : Scoring::softmax;
               const bool normalize = mode & 2;
               Floats logits = random_floats(rows * s.experts, 1, 2.f, true);
               const Floats bias = random_floats(s.experts, 2, 0.1f);
               const size_t slots = static_cast<size_t>(rows * s.top_k);
               Floats scores(logits.size()), gates(slots), dlogits(logits.size());
               std::vector<int32_t> index(slots), slot_of(slots), place_of(slots),
                   offsets(static_cast<size_t>(s.experts + 1));
               b.route({rows, s.experts, s.top_k, s.n_group, s.topk_group, scoring,
                        mode & 4 ? GroupScore::max : GroupScore::top2_sum, normalize, 2.5f, logits.data(),
                        mode & 4 ? nullptr : bias.data(), scores.data(), index.data(), gates.data()});
               const Floats dgates = random_floats(rows * s.top_k, 3);
               b.route_grad({rows, s.experts, s.top_k, scoring, normalize, 2.5f, scores.data(), index.data(),
                             gates.data(), dgates.data(), dlogits.data()});
               b.dispatch({rows, s.experts, s.top_k, index.data(), slot_of.data(), place_of.data(), offsets.data()});
               const int64_t d = 16 + mode * 3;
               const Floats x = random_floats(rows * s.top_k * d, 4), base = random_floats(rows * (d + 1), 5);
               Floats y = random_floats(rows * (d + 2), 6), dx(x.size()), dg(slots);
               b.combine({rows, d, s.top_k, x.data(), gates.data(), place_of.data(), mode & 1 ? base.data() : nullptr,
                          d + 1, y.data(), d + 2});
               b.combine_grad(
                   {rows, d, s.top_k, x.data(), gates.data(), y.data(), d + 2, place_of.data(), dx.data(), dg.data()});
               Output out;
               for (const Floats& f : {scores, gates, dlogits, y, dx, dg}) out.add(f);
               for (const auto& i : {index, slot_of, place_of, offsets}) out.add(i);
               return out;
             }});
  check(cases);
}

TEST(Kernels, LossAndSampling) {
  std::vector<Case> cases;
  for (int64_t vocab : {1, 3, 15, 17, 65, 153})
    for (int64_t rows : kRowCounts)
      for (int mode = 0; mode < 4; ++mode)
        cases.push_back({shape("loss", {vocab, rows, mode}), [=](const Backend& b) {
                           const int64_t ld = vocab + mode;
                           const size_t n = static_cast<size_t>(rows);
                           Floats logits = random_floats(rows * ld, 1, 3.f, mode & 1);
                           if (mode & 1) logits[logits.size() / 2] = -INFINITY;
                           if (mode == 3) logits[logits.size() / 3] = NAN;
                           const std::vector<int32_t> targets = random_ints(rows, static_cast<uint64_t>(vocab), 2);
                           const bool entropy = mode & 2;
                           Floats logp(n), max(n), log_sum(n), h(n), dlogits = random_floats(rows * (vocab + 1), 3);
                           b.log_prob({rows, vocab, logits.data(), ld, 1 / 0.7f, targets.data(), logp.data(),
                                       max.data(), log_sum.data(), entropy ? h.data() : nullptr});
                           const Floats dlogp = random_floats(rows, 4), dh = random_floats(rows, 5);
                           b.log_prob_grad({rows, vocab, logits.data(), ld, 1 / 0.7f, targets.data(), max.data(),
                                            log_sum.data(), h.data(), dlogp.data(), entropy ? dh.data() : nullptr,
                                            dlogits.data(), vocab + 1});
                           std::vector<SampleRow> params(n);
                           for (size_t r = 0; r < n; ++r) {
                             SampleRow& p = params[r];
                             p.temperature = r % 5 == 0 ? 0.f : 0.5f + 0.25f * static_cast<float>(r % 4);
                             if (r % 3 == 1) p.top_p = 0.9f;
                             if (r % 4 == 2) p.top_k = 5;
                             if (r % 7 == 3) p.min_p = 0.05f;
                             p.seed = 0x123456789abcdefull * (r + 1);
                             p.position = static_cast<int64_t>(r) << (r % 40);
                           }
                           std::vector<int32_t> tokens(n);
                           Floats token_logp(n), token_h(n),
                               scratch(static_cast<size_t>(b.pool().size()) * 2 * static_cast<size_t>(vocab));
                           b.sample({rows, vocab, logits.data(), ld, params.data(), tokens.data(), token_logp.data(),
                                     entropy ? token_h.data() : nullptr, scratch.data()});
                           Output out;
                           for (const Floats& f : {logp, max, log_sum, h, dlogits, token_logp, token_h}) out.add(f);
                           out.add(tokens);
                           b.log_prob_grad({rows, vocab, logits.data(), ld, 1.f, targets.data(), max.data(),
                                            log_sum.data(), h.data(), dlogp.data(), nullptr, logits.data(), ld});
                           out.add(logits);
                           return out;
                         }});
  check(cases);
}

// ---- attention ------------------------------------------------------------------------------------------------------
struct Model {
  PageLayout layout;
  int heads;
};
const Model kModels[] = {{{1, 48, 32}, 4}, {{2, 20, 17}, 4}, {{1, 130, 66}, 1}, {{1, 16, 80}, 11}, {{3, 5, 7}, 3}};
const std::vector<std::vector<int32_t>> kLengths = {{1}, {40}, {64}, {65, 1, 17}, {130, 3, 64, 200}};

// Sequences of these lengths, one after the other; pages in some order.
struct Sequences {
  std::vector<int32_t> length, row, pages;
  std::vector<size_t> first_page;
  int32_t rows = 0;

  explicit Sequences(const std::vector<int32_t>& lengths, uint64_t order) : length(lengths) {
    for (int32_t n : lengths) {
      row.push_back(rows);
      rows += n;
      first_page.push_back(pages.size());
      pages.resize(pages.size() + static_cast<size_t>((n + kPageSize - 1) / kPageSize));
    }
    pages = permutation(static_cast<int64_t>(pages.size()), order);
  }
  // The part [begin, end) of each sequence, as far as it has one.
  std::vector<Span> spans(int32_t begin, int32_t end) const {
    std::vector<Span> s;
    for (size_t i = 0; i < length.size(); ++i)
      if (std::min(end, length[i]) > begin)
        s.push_back({row[i] + begin, std::min(end, length[i]) - begin, begin, pages.data() + first_page[i]});
    return s;
  }
};

struct Attended {
  Floats out, lse;
};

// Keys and values are stored and attended in steps of `chunk` positions, on pages that hold rubbish elsewhere.
Attended attend(const Backend& b, const Model& m, const Sequences& seq, int32_t chunk) {
  const int64_t h = m.heads, dk = m.layout.dk, dv = m.layout.dv, kv = m.layout.kv_heads;
  const Floats q = random_floats(seq.rows * (h * dk + 1), 1), k = random_floats(seq.rows * (kv * dk + 2), 2),
               v = random_floats(seq.rows * (kv * dv + 3), 3);
  Floats pages(seq.pages.size() * static_cast<size_t>(m.layout.page_floats()), NAN);
  Attended r{Floats(static_cast<size_t>(seq.rows * h * dv), 5.f), Floats(static_cast<size_t>(seq.rows * h), 5.f)};
  for (int32_t begin = 0; begin < *std::max_element(seq.length.begin(), seq.length.end()); begin += chunk) {
    const std::vector<Span> spans = seq.spans(begin, begin + chunk);
    b.store_kv({m.layout, spans, k.data(), kv * dk + 2, v.data(), kv * dv + 3, pages.data()});
    b.attention(
        {m.layout, m.heads, 0.3f, spans, q.data(), h * dk + 1, pages.data(), r.out.data(), h * dv, r.lse.data()});
  }
  return r;
}

TEST(Kernels, AttentionWholeChunkedDecodedAnyPageOrder) {
  ThreadPool one(1), seven(7);
  const std::unique_ptr<Backend> ref = make_ref_backend(one);
  for (const Model& m : kModels)
    for (const auto& lengths : kLengths) {
      const Attended want = attend(*ref, m, Sequences(lengths, 1), 1000);
      for (const std::string& isa : cpu_isas())
        for (ThreadPool* pool : {&one, &seven})
          for (int32_t chunk : {1000, 1, 7, 64}) {
            const auto b = make_cpu_backend(*pool, isa);
            const Attended got = attend(*b, m, Sequences(lengths, static_cast<uint64_t>(chunk)), chunk);
            const std::string what = shape("attention", {m.heads, m.layout.dk, lengths[0], chunk}) + b->name();
            expect_same({want.out}, {got.out}, what);
            expect_same({want.lse}, {got.lse}, what + " lse");
          }
    }
}

// The last queries of texts that are so long that threads share their tasks.
TEST(Kernels, AttentionOfFewQueries) {
  ThreadPool one(1), two(2), seven(7);
  const std::unique_ptr<Backend> ref = make_ref_backend(one);
  for (const Model& m : kModels) {
    const int64_t h = m.heads, dk = m.layout.dk, dv = m.layout.dv, kv = m.layout.kv_heads;
    const auto n = static_cast<int32_t>(1600000 / (kv * (dk + dv)) / kPageSize * kPageSize + 1);
    for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{n, 90}, {n / 2, n, 1}}) {
      const Sequences seq(lengths, 1);
      const Floats q = random_floats(seq.rows * h * dk, 1), k = random_floats(seq.rows * kv * dk, 2),
                   v = random_floats(seq.rows * kv * dv, 3);
      Floats pages(seq.pages.size() * static_cast<size_t>(m.layout.page_floats()), NAN);
      ref->store_kv({m.layout, seq.spans(0, n), k.data(), kv * dk, v.data(), kv * dv, pages.data()});
      std::vector<Span> last = seq.spans(0, n);
      for (Span& s : last) {  // three of them; of n tokens two on the last page but one
        const int32_t skipped = std::max(0, s.count - 3);
        s = {s.row + skipped, s.count - skipped, skipped, s.pages};
      }
      const auto attended = [&](const Backend& b) {
        Attended r{Floats(static_cast<size_t>(seq.rows * h * dv), 5.f), Floats(static_cast<size_t>(seq.rows * h), 5.f)};
        b.attention(
            {m.layout, m.heads, 0.3f, last, q.data(), h * dk, pages.data(), r.out.data(), h * dv, r.lse.data()});
        return r;
      };
      const Attended want = attended(*ref);
      for (const std::string& isa : cpu_isas())
        for (ThreadPool* pool : {&one, &two, &seven}) {
          const auto b = make_cpu_backend(*pool, isa);
          const Attended got = attended(*b);
          const std::string what = shape("attention", {m.heads, m.layout.dk, lengths[0], pool->size()}) + b->name();
          expect_same({want.out}, {got.out}, what);
          expect_same({want.lse}, {got.lse}, what + " lse");
        }
    }
  }
}

TEST(Kernels, AttentionGrad) {
  std::vector<Case> cases;
  for (const Model& m : kModels)
    for (const auto& lengths : kLengths)
      for (bool values_in_keys : {false, true})
        cases.push_back(
            {shape("attention_grad", {m.heads, m.layout.dk, lengths[0], values_in_keys}), [=](const Backend& b) {
               const Sequences seq(lengths, 1);
               Model model = m;
               if (values_in_keys) model.layout.dv = std::min(m.layout.dv, m.layout.dk);
               const int64_t h = m.heads, dk = m.layout.dk, dv = model.layout.dv, kv = m.layout.kv_heads;
               const Floats q = random_floats(seq.rows * (h * dk + 1), 1),
                            k = random_floats(seq.rows * (kv * dk + 2), 2),
                            v = random_floats(seq.rows * (kv * dv + 3), 3),
                            dout = random_floats(seq.rows * (h * dv + 4), 4);
               const Attended a = attend(b, model, seq, 1000);
               Floats dq = random_floats(seq.rows * (h * dk + 2), 5),
                      dkeys = random_floats(seq.rows * (kv * dk + 3), 6),
                      dvalues = random_floats(seq.rows * (kv * dv + 1), 7);
               const std::vector<Span> spans = seq.spans(0, 1000);
               const bool shared = values_in_keys && kv == 1;
               b.attention_grad({.layout = model.layout,
                                 .heads = m.heads,
                                 .scale = 0.3f,
                                 .spans = spans,
                                 .q = q.data(),
                                 .k = k.data(),
                                 .v = shared ? k.data() : v.data(),
                                 .out = a.out.data(),
                                 .dout = dout.data(),
                                 .lse = a.lse.data(),
                                 .ldq = h * dk + 1,
                                 .ldk = kv * dk + 2,
                                 .ldv = shared ? kv * dk + 2 : kv * dv + 3,
                                 .ldo = h * dv,
                                 .lddo = h * dv + 4,
                                 .dq = dq.data(),
                                 .dk = dkeys.data(),
                                 .dv = shared ? dkeys.data() : dvalues.data(),
                                 .lddq = h * dk + 2,
                                 .lddk = kv * dk + 3,
                                 .lddv = shared ? kv * dk + 3 : kv * dv + 1});
               Output out;
               for (const Floats& f : {dq, dkeys, dvalues}) out.add(f);
               return out;
             }});
  check(cases);
}

}  // namespace
}  // namespace ponder::kernels
