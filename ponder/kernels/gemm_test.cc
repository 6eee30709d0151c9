// gemm against rule R1, bit for bit: all layouts, sizes around every border, batches, groups, threads and ISAs.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/gemm.h"

namespace ponder::kernels {
namespace {

using cpu::Isa;
constexpr int64_t kSizes[] = {1, 2, 3, 5, 14, 15, 16, 17, 31, 33, 64, 100, 127, 128, 129, 130, 257, 300};
constexpr Layout kLayouts[] = {Layout::nt, Layout::nn, Layout::tn};

// The definition: C[i, j] of one product with k terms.
float dot(const float* a, int64_t a_k, const float* b, int64_t b_k, int64_t k, float start) {
  for (int64_t block = 0; block < k; block += kDotBlock) {
    float sum = 0;
    for (int64_t i = block; i < k && i < block + kDotBlock; ++i) sum = std::fma(a[i * a_k], b[i * b_k], sum);
    start = start + sum;
  }
  return start;
}

// The same loops for a whole Gemm, into c.
void define(const Gemm& g, float* c) {
  const bool tn = g.layout == Layout::tn;
  for (int64_t p = 0; p < g.batch; ++p) {
    const int64_t row = g.offsets ? g.offsets[p] : 0, rows = g.offsets ? g.offsets[p + 1] - row : 0;
    const int64_t m = g.offsets && !tn ? rows : g.m, k = g.offsets && tn ? rows : g.k;
    const float* a = g.a + (g.offsets ? row * g.lda : p * g.a_stride);
    const float* b = g.b + (g.offsets && tn ? row * g.ldb : p * g.b_stride);
    float* out = c + p * g.c_stride + (g.offsets && !tn ? row * g.ldc : 0);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < g.n; ++j) {
        float& y = out[i * g.ldc + j];
        y = dot(tn ? a + i : a + i * g.lda, tn ? g.lda : 1, g.layout == Layout::nt ? b + j * g.ldb : b + j,
                g.layout == Layout::nt ? 1 : g.ldb, k, g.accumulate ? y : 0.f);
        if (g.bias) y = y + g.bias[j];
      }
  }
}

// Values with many exponents, so that every order of summation gives other bits; some zeros of both signs.
std::vector<float> values(int64_t n, uint32_t seed) {
  std::vector<float> v(static_cast<size_t>(n));
  uint32_t x = seed * 2654435761u + 12345u;
  for (float& f : v) {
    x = x * 1664525u + 1013904223u;
    const int exponent = static_cast<int>(x >> 28) - 8;
    f = std::ldexp(static_cast<float>(static_cast<int32_t>(x << 8) >> 8), exponent - 23);
    if ((x >> 20) % 61 == 0) f = (x & 1) ? 0.f : -0.f;
  }
  return v;
}

std::string bits_differ(const std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < want.size(); ++i)
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(want[i]))
      return fmt::format("element {}: {} instead of {}", i, got[i], want[i]);
  return "";
}

class GemmTest : public testing::Test {
 protected:
  void SetUp() override {
    if (isas_.empty()) GTEST_SKIP() << "this CPU has no fused multiply-add";
  }

  // Runs g, whose c is null, on every ISA and thread count over a C of `c_size` floats that starts with noise (which
  // must survive between rows and be ignored inside them).
  void check(Gemm g, int64_t c_size, const std::string& what) {
    const std::vector<float> start = values(c_size, 7);
    std::vector<float> want = start;
    define(g, want.data());
    std::vector<float> packed;
    if (g.layout == Layout::nt) {
      packed.assign(static_cast<size_t>(g.batch * cpu::packed_size(g.n, g.k)), NAN);
      for (int64_t i = 0; i < g.batch; ++i)
        cpu::pack_nt(g.b + i * g.b_stride, g.ldb, g.n, g.k, packed.data() + i * cpu::packed_size(g.n, g.k));
    }
    for (Isa isa : isas_)
      for (ThreadPool* pool : {&one_, &two_, &seven_})
        for (bool use_packed : {false, true}) {
          if (use_packed && packed.empty()) continue;
          std::vector<float> got = start;
          Gemm run = g;
          run.c = got.data();
          if (use_packed) run.packed_b = packed.data(), run.b = nullptr;
          cpu::gemm(run, *pool, isa);
          ASSERT_EQ(bits_differ(got, want), "")
              << what << ", " << cpu::isa_name(isa) << ", " << pool->size() << " threads, packed " << use_packed;
        }
  }

  const std::vector<Isa> isas_ = cpu::supported_isas();
  ThreadPool one_{1}, two_{2}, seven_{7};
};

struct Shape {
  int64_t m, n, k;
};

// Row counts of A and B as stored, for a layout.
int64_t a_width(Layout l, Shape s) { return l == Layout::tn ? s.m : s.k; }
int64_t a_rows(Layout l, Shape s) { return l == Layout::tn ? s.k : s.m; }
int64_t b_width(Layout l, Shape s) { return l == Layout::nt ? s.k : s.n; }
int64_t b_rows(Layout l, Shape s) { return l == Layout::nt ? s.n : s.k; }

TEST_F(GemmTest, EveryShapeLayoutAndThreadCount) {
  uint32_t seed = 1;
  for (int64_t m : kSizes)
    for (int64_t n : kSizes)
      for (int64_t k : kSizes) {
        // All triples would take minutes: keep the small ones and a fixed sample of the others.
        ++seed;
        if (m * n * k > 40000 && seed % 23 != 0) continue;
        const Shape s{m, n, k};
        const Layout layout = kLayouts[seed % 3];
        const bool wide = seed % 2, accumulate = seed / 2 % 2, with_bias = layout == Layout::nt && seed / 4 % 2;
        const int64_t pad = wide ? 3 : 0;
        const int64_t lda = a_width(layout, s) + pad, ldb = b_width(layout, s) + pad, ldc = n + pad;
        const std::vector<float> a = values(a_rows(layout, s) * lda, seed),
                                 b = values(b_rows(layout, s) * ldb, seed + 1);
        const std::vector<float> bias = values(n, seed + 2);
        check({.layout = layout,
               .m = m,
               .n = n,
               .k = k,
               .a = a.data(),
               .lda = lda,
               .b = b.data(),
               .ldb = ldb,
               .c = nullptr,
               .ldc = ldc,
               .bias = with_bias ? bias.data() : nullptr,
               .accumulate = accumulate},
              m * ldc,
              fmt::format("layout {}, {} x {} x {}, pad {}, add {}, bias {}", static_cast<int>(layout), m, n, k, pad,
                          accumulate, with_bias));
        if (HasFatalFailure()) return;
      }
}

// Many tasks and chunks of k; B read in place and packed, by rows and columns; A read in place and copied, in groups
// whole and not, with rows at multiples of a page and with rows that begin anywhere.
TEST_F(GemmTest, EveryPathOfLargeProducts) {
  for (const Shape s : {Shape{130, 545, 700}, Shape{300, 96, 260}, Shape{40, 100, 512}, Shape{270, 290, 390},
                        Shape{90, 150, 1024}, Shape{1024, 133, 70}, Shape{1100, 520, 17}})
    for (Layout layout : kLayouts)
      for (const int64_t pad : {0, 5})
        for (bool accumulate : {false, true}) {
          const int64_t lda = a_width(layout, s) + pad, ldb = b_width(layout, s) + pad;
          const std::vector<float> a = values(a_rows(layout, s) * lda - pad, 3),
                                   b = values(b_rows(layout, s) * ldb - pad, 4);
          check({.layout = layout,
                 .m = s.m,
                 .n = s.n,
                 .k = s.k,
                 .a = a.data(),
                 .lda = lda,
                 .b = b.data(),
                 .ldb = ldb,
                 .c = nullptr,
                 .ldc = s.n,
                 .accumulate = accumulate},
                s.m * s.n,
                fmt::format("layout {}, {} x {} x {}, pad {}", static_cast<int>(layout), s.m, s.n, s.k, pad));
          if (HasFatalFailure()) return;
        }
}

// So large that two threads claim their tasks ahead of the work (kClaimAhead) and pack the next chunk of B beside it.
TEST_F(GemmTest, TasksClaimedAhead) {
  const Shape s{610, 810, 650};
  for (Layout layout : kLayouts) {
    const std::vector<float> a = values(a_rows(layout, s) * a_width(layout, s), 5),
                             b = values(b_rows(layout, s) * b_width(layout, s), 6);
    check({.layout = layout,
           .m = s.m,
           .n = s.n,
           .k = s.k,
           .a = a.data(),
           .lda = a_width(layout, s),
           .b = b.data(),
           .ldb = b_width(layout, s),
           .c = nullptr,
           .ldc = s.n},
          s.m * s.n, fmt::format("layout {}", static_cast<int>(layout)));
    if (HasFatalFailure()) return;
  }
}

// Heads beside each other in a row: the stride between products is smaller than a row.
TEST_F(GemmTest, InterleavedBatch) {
  for (Layout layout : kLayouts)
    for (bool accumulate : {false, true}) {
      constexpr int64_t kHeads = 4;
      const Shape s{50, 37, 150};
      const int64_t aw = a_width(layout, s), bw = b_width(layout, s);
      const std::vector<float> a = values(a_rows(layout, s) * aw * kHeads, 5),
                               b = values(b_rows(layout, s) * bw * kHeads, 6);
      check({.layout = layout,
             .m = s.m,
             .n = s.n,
             .k = s.k,
             .a = a.data(),
             .lda = aw * kHeads,
             .b = b.data(),
             .ldb = bw * kHeads,
             .c = nullptr,
             .ldc = s.n * kHeads,
             .accumulate = accumulate,
             .batch = kHeads,
             .a_stride = aw,
             .b_stride = bw,
             .c_stride = s.n},
            s.m * s.n * kHeads, fmt::format("layout {}", static_cast<int>(layout)));
    }
}

TEST_F(GemmTest, GroupsSomeOfThemEmpty) {
  const std::vector<int32_t> offsets = {0, 0, 40, 41, 41, 190, 260, 260};
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back();
  for (Layout layout : kLayouts)
    for (bool accumulate : {false, true}) {
      const int64_t n = 45, other = 70;  // other: k of nt and nn, m of tn
      const int64_t b_size = layout == Layout::tn ? 0 : n * other;
      const std::vector<float> a = values(rows * other, 8);
      const std::vector<float> b = values(layout == Layout::tn ? rows * n : groups * b_size, 9);
      Gemm g{.layout = layout,
             .m = 0,
             .n = n,
             .k = other,
             .a = a.data(),
             .lda = other,
             .b = b.data(),
             .ldb = layout == Layout::nt ? other : n,
             .c = nullptr,
             .ldc = n,
             .accumulate = accumulate,
             .batch = groups,
             .b_stride = b_size,
             .offsets = offsets.data()};
      if (layout == Layout::tn) g.m = other, g.k = 0, g.c_stride = other * n;
      check(g, layout == Layout::tn ? groups * other * n : rows * n,
            fmt::format("layout {}", static_cast<int>(layout)));
    }
}

TEST_F(GemmTest, RowAloneEqualsRowInBatch) {
  const Shape s{61, 200, 300};
  const std::vector<float> a = values(s.m * s.k, 10), b = values(s.n * s.k, 11);
  Gemm g{.layout = Layout::nt,
         .m = s.m,
         .n = s.n,
         .k = s.k,
         .a = a.data(),
         .lda = s.k,
         .b = b.data(),
         .ldb = s.k,
         .c = nullptr,
         .ldc = s.n};
  for (Isa isa : isas_) {
    std::vector<float> batch(static_cast<size_t>(s.m * s.n)), alone(batch.size());
    g.m = s.m, g.a = a.data(), g.c = batch.data();
    cpu::gemm(g, two_, isa);
    for (int64_t i = 0; i < s.m; ++i) {
      g.m = 1, g.a = a.data() + i * s.k, g.c = alone.data() + i * s.n;
      cpu::gemm(g, two_, isa);
    }
    EXPECT_EQ(bits_differ(batch, alone), "");
  }
}

TEST_F(GemmTest, NoTermsAndNoOutputs) {
  const std::vector<float> a(8, 1.f), b(8, 1.f), bias = {1, 2, 3};
  for (bool accumulate : {false, true}) {
    check({.layout = Layout::nt,
           .m = 2,
           .n = 3,
           .k = 0,
           .a = a.data(),
           .lda = 0,
           .b = b.data(),
           .ldb = 0,
           .c = nullptr,
           .ldc = 3,
           .bias = bias.data(),
           .accumulate = accumulate},
          6, "k = 0");
    check({.layout = Layout::nn,
           .m = 0,
           .n = 3,
           .k = 2,
           .a = a.data(),
           .lda = 2,
           .b = b.data(),
           .ldb = 3,
           .c = nullptr,
           .ldc = 3,
           .accumulate = accumulate},
          6, "m = 0");
  }
}

// A product that underflows to -0 still gives +0, because the sum is added to a start of +0.
TEST_F(GemmTest, SumsStartFromPlusZero) {
  const std::vector<float> a(1, -1e-30f), b(1, 1e-30f);
  check({.layout = Layout::nt,
         .m = 1,
         .n = 1,
         .k = 1,
         .a = a.data(),
         .lda = 1,
         .b = b.data(),
         .ldb = 1,
         .c = nullptr,
         .ldc = 1},
        1, "-0");
}

}  // namespace
}  // namespace ponder::kernels
