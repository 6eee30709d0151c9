// gemm against the machine's own limit and against OpenBLAS and oneDNN.
//
//   gemm_bench [--threads=N] [--rounds=N] [--isa=avx512] [--only=SUBSTRING] [--ours]
//
// The limit is measured, not computed: a loop of nothing but fused multiply-adds on all threads. Every sample is a
// process of its own, because the idle threads of OpenBLAS and OpenMP spin and would take a core from whoever runs
// next; a sample of the limit runs before and after each. A pair of limits below 95 % of the best one means that
// something else had the cores, and the sample between them does not count. The table shows medians of what remains,
// as shares of the limit. (Google Benchmark cannot express a share of another benchmark in the same round.)
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#ifdef PONDER_OPENBLAS
#include <cblas.h>
#endif
#ifdef PONDER_DNNL
#include <dnnl.h>
#endif

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/gemm.h"
#include "ponder/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/fma_peak-inl.h"
#include "hwy/foreach_target.h"
// The target of this file itself.
#include "bench/fma_peak-inl.h"

namespace ponder {
namespace {

using kernels::Gemm;
using kernels::Layout;
using kernels::cpu::Isa;
namespace cpu = kernels::cpu;

struct Options {
  int threads = 0, rounds = 15;
  Isa isa = cpu::supported_isas().empty() ? Isa::avx2 : cpu::supported_isas().front();
  std::string only;
  bool ours = false;  // no opponents
};

// One thread is timed by its own clock, which stops while others have the core; several by the wall's.
double now(const ThreadPool& pool) {
  timespec t;
  clock_gettime(pool.size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Gives each thread a core of its own: on a busy machine the kernel may leave two on one for milliseconds.
void pin(ThreadPool& pool) {
  std::atomic<int> here{0};
  pool.run(pool.size(), [&](int64_t core, int) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(core), &set);
    sched_setaffinity(0, sizeof set, &set);
    for (++here; here < pool.size();) std::this_thread::yield();  // nobody takes two of these tasks
  });
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size()) / 2, v.end());
  return v[v.size() / 2];
}

// GFLOP/s of `work`, which returns its number of operations: the median of a few runs. Before them it runs until
// threads are awake, caches warm, and malloc keeps scratch memory from call to call (oneDNN pays 25 % for page faults in
// its first seven calls).
template <class F>
double speed(const ThreadPool& pool, F&& work) {
  constexpr int kWarm = 8, kRuns = 5;
  constexpr double kWarmSeconds = 0.2;
  const double begin = now(pool);
  for (int run = 0; run < kWarm && (run == 0 || now(pool) - begin < kWarmSeconds); ++run) work();
  std::vector<double> speeds;
  for (int run = 0; run < kRuns; ++run) {
    const double start = now(pool), flops = work();
    speeds.push_back(flops / (now(pool) - start) * 1e-9);
  }
  return median(speeds);
}

double peak_speed(ThreadPool& pool, Isa isa) {
  constexpr int64_t kSteps = 400000;  // half a millisecond: several times what waking a thread takes
  return speed(pool, [&] {
    double flops = 0;
    const int64_t tasks = 4 * pool.size();
    pool.run(tasks, [&](int64_t task, int) {
      const double done = PONDER_FOR_ISA(isa, fma_peak)(kSteps);
      if (task == 0) flops = done;
    });
    return flops * static_cast<double>(tasks);
  });
}

struct Case {
  Layout layout;
  int64_t m, n, k;
  bool packed = false;
  int experts = 0;  // groups of equal size, laid out over m (nt, nn) or k (tn)
  int heads = 1;    // products whose operands lie beside each other in the rows of A, C (nt, nn) or A, B (tn)

  double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(heads);
  }
  std::string name() const {
    constexpr const char* kNames[] = {"nt", "nn", "tn"};
    return fmt::format("{} {}{}x{}x{}{}", kNames[static_cast<int>(layout)],
                       experts     ? fmt::format("{} experts ", experts)
                       : heads > 1 ? fmt::format("{} heads ", heads)
                                   : "",
                       m, n, k, packed ? " packed" : "");
  }
};

// Aligned, and in huge pages where large, as tensors are.
struct Aligned {
  explicit Aligned(int64_t n) {
    constexpr size_t kHugePage = 2 << 20;
    const size_t bytes = static_cast<size_t>(n) * sizeof(float), unit = bytes < kHugePage ? 64 : kHugePage;
    const size_t whole = (bytes / unit + 1) * unit;
    data = static_cast<float*>(std::aligned_alloc(unit, whole));
    if (unit == kHugePage) madvise(data, whole, MADV_HUGEPAGE);
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

// GFLOP/s of one candidate: "ponder", "OpenBLAS" or "oneDNN".
double product_speed(const Case& cs, const std::string& candidate, ThreadPool& pool, Isa isa) {
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
  Gemm ours = g;
  if (cs.packed) {
    for (int64_t i = 0; i < b_copies; ++i)
      cpu::pack_nt(g.b + i * g.b_stride, g.ldb, g.n, g.k, packed.data + i * cpu::packed_size(g.n, g.k));
    ours.packed_b = packed.data;
  }
  std::function<void()> run = [&] { cpu::gemm(ours, pool, isa); };
  if (candidate == "ponder") pin(pool);
#ifdef PONDER_OPENBLAS
  if (candidate == "OpenBLAS") {
    run = [&] {
      with_opponent(g, [&](bool ta, bool tb, int64_t m, int64_t k, const float* pa, const float* pb, float* pc) {
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<int>(m),
                    static_cast<int>(g.n), static_cast<int>(k), 1.f, pa, static_cast<int>(g.lda), pb,
                    static_cast<int>(g.ldb), 0.f, pc, static_cast<int>(g.ldc));
      });
    };
  }
#endif
#ifdef PONDER_DNNL
  if (candidate == "oneDNN") {
    run = [&] {
      with_opponent(g, [&](bool ta, bool tb, int64_t m, int64_t k, const float* pa, const float* pb, float* pc) {
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, g.n, k, 1.f, pa, g.lda, pb, g.ldb, 0.f, pc, g.ldc);
      });
    };
  }
#endif
  // Repeat small products until a measurement takes about 3 ms.
  const int64_t repeats = std::max<int64_t>(1, static_cast<int64_t>(3e-3 * 2e11 / cs.flops()));
  return speed(pool, [&] {
    for (int64_t r = 0; r < repeats; ++r) run();
    return cs.flops() * static_cast<double>(repeats);
  });
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

// Runs this program once more for one sample; returns GFLOP/s.
double sample(const std::string& candidate, size_t index, const Options& options) {
  const std::string command = fmt::format("/proc/{}/exe --sample={} --case={} --threads={} --isa={}", getpid(),
                                          candidate, index, options.threads, cpu::isa_name(options.isa));
  FILE* child = popen(command.c_str(), "r");
  double speed = 0;
  const bool read = child && fscanf(child, "%lf", &speed) == 1;
  if (child) pclose(child);
  if (!read) {
    fmt::print(stderr, "gemm_bench: no result from '{}'\n", command);
    std::exit(1);
  }
  return speed;
}

void run_case(const Case& cs, size_t index, const std::vector<std::string>& candidates, const Options& options) {
  struct Sample {
    double speed, peak;  // the lower of the limits before and after
  };
  std::vector<std::vector<Sample>> samples(candidates.size());
  double before = sample("peak", index, options), best = before;
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double speed = sample(candidates[i], index, options), after = sample("peak", index, options);
      samples[i].push_back({speed, std::min(before, after)});
      best = std::max(best, after);
      before = after;
    }
  }
  std::string line = fmt::format("{:<34}{:>8.0f}", cs.name(), best);
  double ours = 0;
  for (const std::vector<Sample>& all : samples) {
    std::vector<double> speeds, shares;
    for (const Sample& s : all) {
      if (s.peak < 0.95 * best) continue;
      speeds.push_back(s.speed);
      shares.push_back(s.speed / s.peak);
    }
    if (speeds.empty()) {
      line += fmt::format("{:>18}", "disturbed");
      continue;
    }
    if (ours == 0) ours = median(speeds);
    line += fmt::format("{:>9.1f} {:>3.0f} %{:>4}", median(speeds), 100 * median(shares), speeds.size());
  }
  if (ours > 0) line += fmt::format("{:>11.1f} us", cs.flops() / ours * 1e-3);
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace
}  // namespace ponder

int main(int argc, char** argv) {
  using namespace ponder;
  Options options;
  std::string wanted;  // a sample's process: this candidate, this case
  size_t index = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i], value = arg.substr(std::min(arg.size(), arg.find('=') + 1));
    const std::vector<Isa> isas = cpu::supported_isas();
    if (arg.starts_with("--threads=")) {
      options.threads = std::stoi(value);
    } else if (arg.starts_with("--rounds=")) {
      options.rounds = std::stoi(value);
    } else if (arg.starts_with("--only=")) {
      options.only = value;
    } else if (arg.starts_with("--sample=")) {
      wanted = value;
    } else if (arg.starts_with("--case=")) {
      index = std::stoul(value);
    } else if (arg == "--ours") {
      options.ours = true;
    } else if (arg.starts_with("--isa=")) {
      const auto isa = std::find_if(isas.begin(), isas.end(), [&](Isa x) { return value == cpu::isa_name(x); });
      if (isa == isas.end()) {
        fmt::print(stderr, "gemm_bench: this CPU has no instruction set '{}'\n", value);
        return 1;
      }
      options.isa = *isa;
    } else {
      fmt::print("usage: gemm_bench [--threads=N] [--rounds=N] [--isa=avx512] [--only=SUBSTRING] [--ours]\n");
      return 2;
    }
  }
  ThreadPool pool(options.threads);
  options.threads = pool.size();
  const std::vector<Case> list = cases();
  if (wanted == "peak") {
    pin(pool);
    fmt::print("{}\n", peak_speed(pool, options.isa));
    return 0;
  }
  if (!wanted.empty()) {
    fmt::print("{}\n", product_speed(list.at(index), wanted, pool, options.isa));
    return 0;
  }

  std::vector<std::string> candidates = {"ponder"};
#ifdef PONDER_OPENBLAS
  candidates.push_back("OpenBLAS");
#endif
#ifdef PONDER_DNNL
  candidates.push_back("oneDNN");
#endif
  if (options.ours) candidates.resize(1);
  // The libraries read these when they are loaded. Old OpenBLAS does not know new CPUs and would use AVX2 on all of
  // them; both are held to the instruction set in question.
  const std::string threads = std::to_string(pool.size());
  setenv("OMP_NUM_THREADS", threads.c_str(), 1);
  setenv("OPENBLAS_NUM_THREADS", threads.c_str(), 1);
  if (options.isa == Isa::avx512) setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
  if (options.isa == Isa::avx2) setenv("OPENBLAS_CORETYPE", "Haswell", 1), setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);

  fmt::print("{}, {} threads, {} rounds; GFLOP/s, share of the measured peak, samples that count\n",
             cpu::isa_name(options.isa), pool.size(), options.rounds);
  std::string head = fmt::format("{:<34}{:>8}", "m x n x k", "peak");
  for (const std::string& c : candidates) head += fmt::format("{:>19}", c);
  fmt::print("{}\n", head);
  for (size_t i = 0; i < list.size(); ++i)
    if (list[i].name().find(options.only) != std::string::npos) run_case(list[i], i, candidates, options);
}
