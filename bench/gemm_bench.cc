// gemm against the machine's own limit and against OpenBLAS and oneDNN.
//
//   gemm_bench [--threads=N] [--rounds=N] [--isa=avx512] [--only=SUBSTRING] [--ours] [--best]
//
// The limit is measured, not computed: a loop of nothing but fused multiply-adds on all threads. In each round every
// candidate and the limit run in turn, so that clock changes and busy neighbours hit all alike; the table shows medians
// as a share of the limit. (Google Benchmark cannot express a share of another benchmark in the same round.)
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#ifdef PONDER_OPENBLAS
#include <cblas.h>
#endif
#ifdef PONDER_DNNL
#include <dnnl.h>
#endif

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/gemm.h"

namespace ponder {
namespace {

using kernels::Gemm;
using kernels::Layout;
using kernels::cpu::Isa;
namespace cpu = kernels::cpu;

// One thread is timed by its own clock, which stops while others have the core; several by the wall's.
double seconds_of(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
clockid_t g_clock = CLOCK_MONOTONIC;
double now() { return seconds_of(g_clock); }

constexpr int kChains = 12;  // more than latency (4) x pipes (2)
constexpr int64_t kPeakSteps = 20000;

#if defined(__x86_64__)
[[gnu::target("avx512f")]] float fma_loop_avx512() {
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_set1_ps(1.f);
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_fmadd_ps(sum[j], a, b);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  return _mm512_cvtss_f32(sum[0]);
}
[[gnu::target("avx2,fma")]] float fma_loop_avx2() {
  __m256 sum[kChains];
  for (auto& s : sum) s = _mm256_set1_ps(1.f);
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sum[j] = _mm256_fmadd_ps(sum[j], a, b);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm256_add_ps(sum[0], sum[j]);
  return _mm256_cvtss_f32(sum[0]);
}
#else
float fma_loop_scalar() {
  float sum[kChains * 4];
  std::fill(std::begin(sum), std::end(sum), 1.f);
  for (int64_t i = 0; i < kPeakSteps; ++i)
    for (float& s : sum) s = __builtin_fmaf(s, 0.999f, 1e-3f);
  return std::accumulate(std::begin(sum), std::end(sum), 0.f);
}
#endif

// GFLOP/s of a run of `flops`.
double speed(double flops, double seconds) { return flops / seconds * 1e-9; }

double peak(ThreadPool& pool, Isa isa) {
  volatile float sink = 0;
  const int width = isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
  const int64_t tasks = 8 * pool.size();
  const double start = now();
  pool.run(tasks, [&](int64_t, int) {
#if defined(__x86_64__)
    sink = isa == Isa::avx512 ? fma_loop_avx512() : fma_loop_avx2();
#else
    sink = fma_loop_scalar();
#endif
  });
  return speed(2.0 * kChains * width * static_cast<double>(kPeakSteps * tasks), now() - start);
}

struct Case {
  Layout layout;
  int64_t m, n, k;
  bool packed = false;
  int experts = 0;  // groups of equal size, laid out over m (nt, nn) or k (tn)
  int heads = 1;    // products whose operands lie beside each other in the rows of A, C (nt, nn) or A, B (tn)

  std::string name() const {
    constexpr const char* kNames[] = {"nt", "nn", "tn"};
    return fmt::format("{} {}{}x{}x{}{}", kNames[static_cast<int>(layout)],
                       experts     ? fmt::format("{} experts ", experts)
                       : heads > 1 ? fmt::format("{} heads ", heads)
                                   : "",
                       m, n, k, packed ? " packed" : "");
  }
};

// The typical round, or the best one, which is what to compare when neighbours keep the cores busy.
double pick(std::vector<double> v, bool best) {
  if (best) return *std::max_element(v.begin(), v.end());
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size()) / 2, v.end());
  return v[v.size() / 2];
}

// Aligned as tensors are.
struct Aligned {
  explicit Aligned(int64_t n)
      : data(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>((n + 16) / 16 * 64)))) {
    uint32_t x = 1;
    for (int64_t i = 0; i < n; ++i)
      data[i] = static_cast<float>(static_cast<int32_t>(x = x * 1664525u + 1013904223u)) * 0x1p-31f;
  }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { std::free(data); }
  float* data;
};

// One product by an opponent's sgemm(trans_a, trans_b, ...).
template <class F>
void with_opponent(const Gemm& g, F&& sgemm) {
  const bool tn = g.layout == Layout::tn;
  for (int64_t i = 0; i < g.batch; ++i) {
    int64_t m = g.m, k = g.k;
    const float *a = g.a + i * g.a_stride, *b = g.b + i * g.b_stride;
    float* c = g.c + i * g.c_stride;
    if (g.offsets) {
      const int64_t rows = g.offsets[i + 1] - g.offsets[i], row = g.offsets[i];
      (tn ? k : m) = rows;
      a = g.a + row * g.lda;
      if (tn) b = g.b + row * g.ldb;
      if (!tn) c = g.c + row * g.ldc;
    }
    sgemm(tn, g.layout == Layout::nt, m, k, a, b, c);
  }
}

void run_case(const Case& cs, ThreadPool& pool, Isa isa, int rounds, bool alone, bool best) {
  const bool tn = cs.layout == Layout::tn, nt = cs.layout == Layout::nt;
  const int64_t a_width = tn ? cs.m : cs.k, b_width = nt ? cs.k : cs.n, products = cs.heads;
  std::vector<int32_t> offsets;
  for (int e = 0; e <= cs.experts; ++e)
    offsets.push_back(static_cast<int32_t>((tn ? cs.k : cs.m) * e / std::max(1, cs.experts)));
  const int64_t b_copies = tn ? 1 : std::max(cs.experts, cs.heads);
  const int64_t c_copies = tn ? std::max({1, cs.experts, cs.heads}) : 1;
  const Aligned a((tn ? cs.k : cs.m) * a_width * products);
  const Aligned b(cs.n * cs.k * (tn ? products : b_copies));
  const Aligned c(cs.m * cs.n * (tn ? c_copies : products));
  const Gemm g{.layout = cs.layout,
               .m = cs.m,
               .n = cs.n,
               .k = cs.k,
               .a = a.data,
               .lda = a_width * products,
               .b = b.data,
               .ldb = tn ? b_width * products : b_width,
               .c = c.data,
               .ldc = tn ? cs.n : cs.n * products,
               .batch = std::max(cs.experts, cs.heads),
               .a_stride = cs.experts ? 0 : a_width,
               .b_stride = tn ? cs.n : cs.n * cs.k,
               .c_stride = tn           ? cs.m * cs.n
                           : cs.experts ? 0
                                        : cs.n,
               .offsets = cs.experts ? offsets.data() : nullptr};
  const Aligned packed(cs.packed ? g.batch * cpu::packed_size(g.n, g.k) : 0);
  double pack_seconds = 0;
  Gemm ours = g;
  if (cs.packed) {
    const int64_t size = cpu::packed_size(g.n, g.k);
    for (int repeat = 0; repeat < 3; ++repeat) {
      const double start = now();
      for (int64_t i = 0; i < b_copies; ++i)
        cpu::pack_nt(g.b + i * g.b_stride, g.ldb, g.n, g.k, packed.data + i * size);
      pack_seconds = now() - start;
    }
    ours.packed_b = packed.data;
  }
  const double flops = 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) *
                       static_cast<double>(products);

  std::vector<std::pair<std::string, std::function<void()>>> candidates;
  candidates.emplace_back("ponder", [&] { cpu::gemm(ours, pool, isa); });
#ifdef PONDER_OPENBLAS
  candidates.emplace_back("OpenBLAS", [&] {
    with_opponent(g, [&](bool ta, bool tb, int64_t m, int64_t k, const float* pa, const float* pb, float* pc) {
      cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<int>(m),
                  static_cast<int>(g.n), static_cast<int>(k), 1.f, pa, static_cast<int>(g.lda), pb,
                  static_cast<int>(g.ldb), 0.f, pc, static_cast<int>(g.ldc));
    });
  });
#endif
#ifdef PONDER_DNNL
  candidates.emplace_back("oneDNN", [&] {
    with_opponent(g, [&](bool ta, bool tb, int64_t m, int64_t k, const float* pa, const float* pb, float* pc) {
      dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, g.n, k, 1.f, pa, g.lda, pb, g.ldb, 0.f, pc, g.ldc);
    });
  });
#endif
  if (alone) candidates.resize(1);
  // Repeat small products until a measurement takes about 2 ms.
  const int64_t repeats = std::max<int64_t>(1, static_cast<int64_t>(2e-3 * 1.5e11 / flops));
  std::vector<double> limit;
  std::vector<std::vector<double>> speeds(candidates.size());
  for (int round = 0; round < rounds; ++round) {
    peak(pool, isa);
    limit.push_back(peak(pool, isa));
    for (size_t i = 0; i < candidates.size(); ++i) {
      candidates[i].second();  // wakes its threads
      const double start = now();
      for (int64_t r = 0; r < repeats; ++r) candidates[i].second();
      speeds[i].push_back(speed(flops * static_cast<double>(repeats), now() - start));
      if (pool.size() > 1)
        std::this_thread::sleep_for(std::chrono::milliseconds(35));  // idle threads of BLAS and OpenMP spin that long
    }
  }
  const double top = pick(limit, best);
  std::string line = fmt::format("{:<34}{:>8.0f}", cs.name(), top);
  for (size_t i = 0; i < candidates.size(); ++i) {
    const double s = pick(speeds[i], best);
    line += fmt::format("{:>8.1f} {:>3.0f} %", s, 100 * s / top);
  }
  line += fmt::format("{:>10.1f} us", flops / pick(speeds[0], best) * 1e-3);
  if (cs.packed) line += fmt::format("  (packing {:.1f} us)", pack_seconds * 1e6);
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

std::vector<Case> cases() {
  std::vector<Case> list;
  constexpr std::array<std::array<int64_t, 3>, 4> large = {
      {{512, 2048, 512}, {4096, 1024, 256}, {2048, 2048, 2048}, {64, 1024, 256}}};
  for (const auto& [m, n, k] : large) {
    list.push_back({Layout::nt, m, n, k, true});
    for (Layout l : {Layout::nt, Layout::nn, Layout::tn}) list.push_back({l, m, n, k});
  }
  // What a miniature model runs: decoding (384 rows) and training.
  constexpr std::array<std::array<int64_t, 2>, 6> small = {
      {{128, 128}, {48, 128}, {153, 128}, {512, 128}, {128, 256}, {256, 64}}};
  for (int64_t m : {384, 2048, 8192})
    for (const auto& [n, k] : small) {
      list.push_back({Layout::nt, m, n, k, true});
      if (m == 384) continue;
      list.push_back({Layout::nn, m, k, n});  // input gradient
      list.push_back({Layout::tn, n, k, m});  // weight gradient
    }
  for (int64_t n : {128, 64}) {
    list.push_back({Layout::nt, 4096, n, 128, true, 8});
    list.push_back({Layout::nn, 4096, n, 128, false, 8});
    list.push_back({Layout::tn, 128, n, 4096, false, 8});
  }
  for (int64_t n : {32, 16}) {
    list.push_back({Layout::nt, 2048, n, 48 - n, true, 0, 4});
    list.push_back({Layout::nn, 2048, n, 48 - n, false, 0, 4});
    list.push_back({Layout::tn, n, 48 - n, 2048, false, 0, 4});
  }
  for (int64_t m : {1, 4, 8}) {  // decoding of one sequence, or a few
    list.push_back({Layout::nt, m, 512, 128, true});
    list.push_back({Layout::nt, m, 2048, 2048, true});
  }
  return list;
}

}  // namespace
}  // namespace ponder

int main(int argc, char** argv) {
  using namespace ponder;
  int threads = 0, rounds = 15;
  bool ours = false;  // no opponents
  bool best = false;
  std::string only, isa_wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i], value = arg.substr(std::min(arg.size(), arg.find('=') + 1));
    if (arg.starts_with("--threads="))
      threads = std::stoi(value);
    else if (arg.starts_with("--rounds="))
      rounds = std::stoi(value);
    else if (arg.starts_with("--only="))
      only = value;
    else if (arg.starts_with("--isa="))
      isa_wanted = value;
    else if (arg == "--ours")
      ours = true;
    else if (arg == "--best")
      best = true;
    else {
      fmt::print("usage: gemm_bench [--threads=N] [--rounds=N] [--isa=avx512] [--only=SUBSTRING] [--ours] [--best]\n");
      return 2;
    }
  }
  ThreadPool pool(threads);
  if (pool.size() == 1) g_clock = CLOCK_THREAD_CPUTIME_ID;
  const std::vector<Isa> isas = cpu::supported_isas();
  const auto isa = std::find_if(isas.begin(), isas.end(),
                                [&](Isa i) { return isa_wanted.empty() || isa_wanted == cpu::isa_name(i); });
  if (isa == isas.end()) {
    fmt::print("this CPU has no such instruction set\n");
    return 1;
  }
#ifdef PONDER_OPENBLAS
  openblas_set_num_threads(pool.size());
#endif
#ifdef PONDER_DNNL
  setenv("OMP_NUM_THREADS", std::to_string(pool.size()).c_str(), 1);
#endif
  fmt::print("{}, {} threads, {} of {} rounds; GFLOP/s and share of the measured peak\n", cpu::isa_name(*isa),
             pool.size(), best ? "best" : "median", rounds);
  std::string head = fmt::format("{:<34}{:>8}{:>14}", "m x n x k", "peak", "ponder");
#ifdef PONDER_OPENBLAS
  head += fmt::format("{:>14}", "OpenBLAS");
#endif
#ifdef PONDER_DNNL
  head += fmt::format("{:>14}", "oneDNN");
#endif
  fmt::print("{}\n", head);
  for (const Case& c : cases())
    if (c.name().find(only) != std::string::npos) run_case(c, pool, *isa, rounds, ours, best);
}
