#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"

namespace ponder::kernels {
namespace {

struct Operands {
  const float* a;
  const float* b;
  float* c;
};

void product(const Gemm& g, int64_t m, int64_t k, const Operands& p) {
  // a(i, x) and b(x, j) of the three layouts, as strides.
  const int64_t a_i = g.layout == Layout::tn ? 1 : g.lda, a_k = g.layout == Layout::tn ? g.lda : 1;
  const int64_t b_j = g.layout == Layout::nt ? g.ldb : 1, b_k = g.layout == Layout::nt ? 1 : g.ldb;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      float& c = p.c[i * g.ldc + j];
      c = dot(
          k, g.accumulate ? c : 0.f, [&](int64_t x) { return p.a[i * a_i + x * a_k]; },
          [&](int64_t x) { return p.b[x * b_k + j * b_j]; });
      if (g.bias) c += g.bias[j];
    }
  }
}

}  // namespace

int64_t RefBackend::packed_size(int64_t, int64_t) const { return 0; }

void RefBackend::pack_nt(const float*, int64_t, int64_t, int64_t, float*) const noexcept {}

void RefBackend::gemm(const Gemm& g) const noexcept {
  for (int64_t i = 0; i < g.batch; ++i) {
    const Operands p{g.a + i * g.a_stride, g.b + i * g.b_stride, g.c + i * g.c_stride};
    if (!g.offsets) {
      product(g, g.m, g.k, p);
      continue;
    }
    const int64_t begin = g.offsets[i], count = g.offsets[i + 1] - begin;
    if (g.layout == Layout::tn)
      product(g, g.m, count, {g.a + begin * g.lda, g.b + begin * g.ldb, p.c});
    else
      product(g, count, g.k, {g.a + begin * g.lda, p.b, g.c + begin * g.ldc});
  }
}

}  // namespace ponder::kernels
