#include "ponder/kernels/cpu/gemm.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "ponder/kernels/cpu/gemm_micro.h"

namespace ponder::kernels::cpu {
namespace {

constexpr int64_t kTaskColumns = 256;  // with kDepth: a chunk of B of 256 KB, a part of the L2 cache
// A task of at most so many rows reads B where it is: packing waits for memory, while tiles hide that behind arithmetic
// (measured for 2048 x 128 tn: 83 % of peak instead of 75). More rows win from packed panels, above all where ldb is a
// large power of two.
constexpr int64_t kInPlaceRows = 256;
// Fused multiply-adds: a product below kInline is not worth waking anyone, a task below kSmallest not worth claiming.
constexpr int64_t kInline = 384 << 10, kSmallest = 128 << 10;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where a thread packs its chunk of B.
class Scratch {
 public:
  float* panels() {
    if (!memory_)
      memory_.reset(static_cast<float*>(::operator new (kTaskColumns* kDepth * sizeof(float), std::align_val_t{64})));
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
};

// One product of a batch or group.
struct Product {
  int64_t m, k;
  const float *a, *b, *packed_b;
  float* c;
};

Product product(const Gemm& g, int64_t i) {
  Product p{g.m, g.k, g.a, g.b, nullptr, g.c + i * g.c_stride};
  if (g.packed_b) p.packed_b = g.packed_b + i * packed_size(g.n, g.k);
  if (!g.offsets) {
    p.a += i * g.a_stride;
  } else if (g.layout == Layout::tn) {
    p.k = g.offsets[i + 1] - g.offsets[i];
    p.a += g.offsets[i] * g.lda;
    p.b += g.offsets[i] * g.ldb;
    return p;
  } else {
    p.m = g.offsets[i + 1] - g.offsets[i];
    p.a += g.offsets[i] * g.lda;
    p.c += g.offsets[i] * g.ldc;
  }
  if (p.b) p.b += i * g.b_stride;
  return p;
}

// A rectangle of one C.
struct Task {
  Product p;
  int64_t m0, m1, n0, n1;
};

void no_products(const Gemm& g, const Task& t) {  // k == 0: C = start + bias
  for (int64_t i = t.m0; i < t.m1; ++i)
    for (int64_t j = t.n0; j < t.n1; ++j) {
      float& c = t.p.c[i * g.ldc + j];
      if (!g.accumulate) c = 0.f;
      if (g.bias) c = c + g.bias[j];
    }
}

void run_task(const Gemm& g, const Task& t, const MicroKernels& kernels) {
  const Product& p = t.p;
  if (p.k == 0) return no_products(g, t);
  thread_local Scratch scratch;
  const bool tn = g.layout == Layout::tn, nt = g.layout == Layout::nt;
  Strip s;
  s.a_row = tn ? 1 : g.lda;
  s.a_k = tn ? g.lda : 1;
  s.n = t.n1 - t.n0;
  s.ldc = g.ldc;
  const int64_t rows = t.m1 - t.m0, strips = ceil_div(rows, kernels.rows);
  const bool in_place = !p.packed_b && !nt && rows <= kInPlaceRows && s.n % 16 == 0;
  for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
    s.k = std::min(kDepth, p.k - k0);
    s.b_k = kPanel;
    if (p.packed_b) {
      s.b_panel = p.k * kPanel;
      s.b = p.packed_b + t.n0 / kPanel * s.b_panel + k0 * kPanel;
    } else if (in_place) {
      s.b_k = g.ldb;
      s.b_panel = kPanel;
      s.b = p.b + k0 * g.ldb + t.n0;
    } else {
      s.b_panel = s.k * kPanel;
      s.b = scratch.panels();
      if (nt)
        kernels.pack_columns(p.b + t.n0 * g.ldb + k0, g.ldb, s.n, s.k, scratch.panels(), s.b_panel);
      else
        kernels.pack_rows(p.b + k0 * g.ldb + t.n0, g.ldb, s.n, s.k, scratch.panels(), s.b_panel);
    }
    s.add = g.accumulate || k0 > 0;
    s.bias = g.bias && k0 + s.k == p.k ? g.bias + t.n0 : nullptr;
    for (int64_t i = 0; i < strips; ++i) {  // strips of equal height, to within one row
      const int64_t m0 = t.m0 + rows * i / strips, m1 = t.m0 + rows * (i + 1) / strips;
      s.rows = static_cast<int>(m1 - m0);
      s.a = p.a + m0 * s.a_row + k0 * s.a_k;
      s.c = p.c + m0 * g.ldc + t.n0;
      s.a_next = !tn && i + 1 < strips ? s.a + s.rows * g.lda : nullptr;
      kernels.strip(s);
    }
  }
}

// Cuts a product into tasks of about `target` multiply-adds. Columns first: a task packs its own part of B, so rows are
// only divided as long as many of them share the packing.
void add_tasks(const Gemm& g, const Product& p, int64_t target, std::vector<Task>& tasks) {
  if (p.m == 0 || g.n == 0) return;
  const int64_t min_rows = p.packed_b ? 48 : g.layout == Layout::nt ? 128 : 64;
  const int64_t panels = ceil_div(g.n, kPanel), want = ceil_div(p.m * g.n * p.k, target);
  int64_t n_parts = ceil_div(g.n, kTaskColumns);
  const int64_t m_parts = std::clamp<int64_t>(ceil_div(want, n_parts), 1, std::max<int64_t>(1, p.m / min_rows));
  n_parts =
      std::max(n_parts, std::min(ceil_div(want, m_parts), p.packed_b ? panels : std::max<int64_t>(1, panels / 2)));
  for (int64_t j = 0; j < n_parts; ++j)
    for (int64_t i = 0; i < m_parts; ++i)
      tasks.push_back({p, p.m * i / m_parts, p.m * (i + 1) / m_parts, panels * j / n_parts * kPanel,
                       std::min(g.n, panels * (j + 1) / n_parts * kPanel)});
}

}  // namespace

int64_t packed_size(int64_t n, int64_t k) { return ceil_div(n, kPanel) * kPanel * k; }

void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) noexcept {
  static const MicroKernels& kernels = micro_kernels(supported_isas().front());
  kernels.pack_columns(b, ldb, n, k, packed, k * kPanel);
}

void gemm(const Gemm& g, ThreadPool& pool, Isa isa) noexcept {
  const MicroKernels& kernels = micro_kernels(isa);
  int64_t total = 0;
  for (int64_t i = 0; i < g.batch; ++i) {
    const Product p = product(g, i);
    total += p.m * g.n * p.k;
  }
  const bool alone = pool.size() == 1 || total < kInline;
  const int64_t target = alone ? total + 1 : std::max(kSmallest, total / (4 * pool.size()));
  thread_local std::vector<Task> tasks;
  tasks.clear();
  for (int64_t i = 0; i < g.batch; ++i) add_tasks(g, product(g, i), target, tasks);
  if (alone) {
    for (const Task& t : tasks) run_task(g, t, kernels);
  } else {
    pool.run(static_cast<int64_t>(tasks.size()),
             [&g, &kernels, list = tasks.data()](int64_t i, int) { run_task(g, list[i], kernels); });
  }
}

}  // namespace ponder::kernels::cpu
